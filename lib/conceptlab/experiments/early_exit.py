"""How deep must a model think? Up to eleven tasks x rules that choose a depth, tokens that stop early, depths of facts.

Cells: task x method x budget. The depth of a policy is compared with a fixed exit, with its own depths dealt to other
items, with confidence and with patience, always at its own mean depth; gains are averaged over the prices `ALPHAS` and
over seeds before items (in tasks from templates: their words) are resampled. `tokens` cells are the language model
itself, `facts` cells the course's questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from ..core import Cell, ConceptLabError, Interval, Store, bootstrap, say, table_path
from ..data import held_out_passages, list_concepts
from ..early_exit import (
    SIZES,
    Exits,
    PolicyConfig,
    States,
    Stops,
    Task,
    dealt_settings,
    first_right,
    fit_exits,
    fit_heads,
    fit_lens,
    fixed,
    gain_intervals,
    inside,
    load_task,
    make_rewards,
    mixed,
    over_groups,
    passage_ids,
    policy_exits,
    rank_correlation,
    read_exits,
    rivals,
    run_with_exits,
    stops,
    task_states,
    train_policy,
)
from ..models import LanguageModel
from .fact_depths import FACT_CONCEPTS, centres_of_facts, losses_of_facts

ALPHAS = (0.005, 0.01, 0.02)  # nats per layer


SHARES = (0.2, 0.35, 0.5, 0.65, 0.8)  # of the layers: depths at which the confidence rule is compared


POLICIES = ("consistent", "plain", "released", "blind")  # hardness reward; without it; alpha 0; reading noise


Cells = dict[tuple[str, str | int | float], dict[str, Interval]]  # method and budget -> numbers
PARTS = ("tasks", "tokens", "centres", "losses")  # what `methods` chooses from, in the order in which they are run
KNOBS = {"layer": (0.6, 0.8, 0.9), "confidence": (0.3, 0.6, 0.9), "patience": (2, 5)}


def early_exit(
    lm: LanguageModel,
    path: Path | None = None,
    tasks: Sequence[str] = tuple(SIZES),
    alphas: Sequence[float] = ALPHAS,
    n_seeds: int = 2,
    n_passages: int = 8,
    fact_concepts: Sequence[str] = FACT_CONCEPTS,
    n_questions: int = 12,
    erased: Sequence[str] | None = None,
    n_erased: int = 24,
    sizes: Mapping[str, int] = SIZES,
    seed: int = 0,
    replace: bool = False,
    concepts: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
) -> Path:
    """Per task the exits, rules and policies; then the tokens; then the facts.

    The table is written to `path` (default: its place in data/results), see `Store` for interruptions and `replace`.
    More tasks or concepts go on with the same table. `fact_concepts`: edited in one layer at a time; `erased`: edited
    as the lab's table did (default: all concepts), `n_erased` known test questions of each; `concepts`: both of these.
    `methods`: of `PARTS` (default: all). Raises ConceptLabError for an unknown one.
    """
    if unknown := [part for part in methods or () if part not in PARTS]:
        raise ConceptLabError(f"early_exit has no {unknown[0]!r}; its parts are {', '.join(PARTS)}.")
    parts = PARTS if methods is None else methods
    if concepts is not None:
        fact_concepts, erased = concepts, concepts
    settings = {
        "alphas": list(alphas), "n_seeds": n_seeds, "n_passages": n_passages, "n_questions": n_questions,
        "n_erased": n_erased, "sizes": dict(sizes),
    }  # fmt: skip
    with Store(
        path or table_path("early_exit", lm.name), experiment="early_exit", model=lm.name,
        fingerprint=lm.fingerprint(), settings=settings, seed=seed, device=str(lm.device), replace=replace,
    ) as store:  # fmt: skip
        for name in tasks if "tasks" in parts else ():
            if store.missing(Cell(name, "consistent", budget="all")):
                _task(lm, store, name, alphas, n_seeds, sizes[name])
        if n_passages and "tokens" in parts:
            _tokens(lm, store, n_passages)
        centres_of_facts(lm, store, fact_concepts if "centres" in parts else (), n_questions)
        names = list_concepts() if erased is None else list(erased)
        losses_of_facts(lm, store, names if "losses" in parts else (), n_erased)
        return store.finish()


# ---- one task -------------------------------------------------------------------------------------------
def _task(lm: LanguageModel, store: Store, name: str, alphas: Sequence[float], n_seeds: int, size: int) -> None:
    task = load_task(name, size)
    states = task_states(lm, task, progress=False).reduced(min(128, lm.d_model))
    train, test = fit_exits(states)
    dealt_out = states.shuffled_labels(store.seed)
    chance = read_exits(fit_heads(dealt_out.train, dealt_out.y_train, states.n_classes), states.test, states.y_test)
    settings = rivals(test)
    cells = _exit_cells(test, chance, settings, task)
    for kind in POLICIES:
        tried = _policies(states, train, test, kind, alphas, n_seeds)
        cells |= _policy_cells(kind, tried, test, settings, task.groups)
    store.add_all({Cell(name, method, budget=budget): found for (method, budget), found in cells.items()})
    gained = {k: str(v) for k, v in cells["consistent", "all"].items()}
    say(f"{name}: {gained}")


def _exit_cells(test: Exits, chance: Exits, settings: dict[str, list[Stops]], task: Task) -> Cells:
    """Accuracy of every exit and its shuffled control, hardness, the oracle, and rules at five depths."""
    n_layers = test.correct.shape[1]
    cells: Cells = {
        ("exit", layer + 1): {
            "accuracy": _share(test.correct[:, layer], task.groups),
            "shuffled": _share(chance.correct[:, layer], task.groups),
            "memorised_here": bootstrap(test.memorised == layer + 1), "most_common": _point(task.most_common),
        }
        for layer in range(n_layers)
    }  # fmt: skip
    cells["oracle", ""] = _reached(stops(test, first_right(test)))
    tested = [s * n_layers for s in SHARES]
    for rule, tried in settings.items():
        mine, other = [mixed(tried, d) for d in tested], dealt_settings(test, settings, rule)
        gain = {
            "fixed": [m.correct - fixed(test, m.mean_depth).correct for m in mine],
            "dealt": [m.correct - mixed(other, m.mean_depth).correct for m in mine],
        }
        cells[rule, "all"] = {f"minus_{r}": over_groups(torch.stack(x).mean(0), task.groups) for r, x in gain.items()}
        cells |= {(rule, round(d, 1)): _reached(m) for d, m in zip(tested, mine, strict=True)}
    return cells


def _policies(
    states: States, train: Exits, test: Exits, kind: str, alphas: Sequence[float], n_seeds: int
) -> dict[float, list[Stops]]:
    """Per price, what the policies of all seeds get on the test items."""
    source = states.random_features() if kind == "blind" else states
    found: dict[float, list[Stops]] = {}
    for alpha in alphas if kind != "released" else (0.0,):
        rewards = make_rewards(train.losses, alpha, None if kind == "plain" else train.memorised)
        found[alpha] = []
        for seed in range(n_seeds if kind == "consistent" else 1):
            policy = train_policy(source.train, rewards, PolicyConfig(seed=seed))
            found[alpha].append(stops(test, policy_exits(policy, source.test)))
    return found


def _policy_cells(
    kind: str, tried: dict[float, list[Stops]], test: Exits, settings: dict[str, list[Stops]], groups: Sequence[int]
) -> Cells:
    """Per price depth, accuracy and correlation with hardness; over all prices the gains over every rival."""
    cells: Cells = {}
    for alpha, found in tried.items():
        mean = Stops(torch.stack([s.depth for s in found]).mean(0), torch.stack([s.correct for s in found]).mean(0))
        cells[kind, alpha] = _reached(mean) | {"rho_memorised": rank_correlation(mean.depth, test.memorised.double())}
    every = [s for found in tried.values() for s in found]
    usable = inside(every, test.correct.shape[1])
    if usable:
        gains = gain_intervals(test, usable, settings, groups=groups)
        cells[kind, "all"] = {f"minus_{rival}": found for rival, found in gains.items()}
    cells.setdefault((kind, "all"), {})["usable"] = _point(len(usable) / len(every))
    return cells


def _reached(s: Stops) -> dict[str, Interval]:
    return {"depth": bootstrap(s.depth), "accuracy": bootstrap(s.correct)}


def _share(right: Bool[Tensor, " n"], groups: Sequence[int]) -> Interval:
    return over_groups(right.double(), groups) if groups else bootstrap(right)


def _point(value: float) -> Interval:
    return Interval(value, value, value, 1)


# ---- tokens ---------------------------------------------------------------------------------------------
def _tokens(lm: LanguageModel, store: Store, n_passages: int) -> None:
    """Agreement with the whole model, perplexity over the whole model's, and depth; states copied upward or not."""
    grid = [
        Cell("tokens", rule, how, round(knob * lm.n_layers) if rule == "layer" else knob)
        for rule, knobs in KNOBS.items() for knob in knobs for how in ("copied", "kept")
    ]  # fmt: skip
    if not any(map(store.missing, grid)):
        return
    lens = fit_lens(lm, passage_ids(lm, held_out_passages("dev", 40)))
    ids = passage_ids(lm, held_out_passages("test", n_passages), 48)
    for cell in filter(store.missing, grid):
        found = run_with_exits(lm, ids, lens, cell.method, float(cell.budget), cell.attack == "copied")
        metrics = {
            "depth": bootstrap(found.depth), "agreement": bootstrap(found.agrees),
            "log_perplexity_ratio": bootstrap(found.full - found.logprob),
        }  # fmt: skip
        store.add(cell, metrics)
        say(f"tokens, {cell.method} {cell.budget}, states {cell.attack}: {metrics['agreement']}")
