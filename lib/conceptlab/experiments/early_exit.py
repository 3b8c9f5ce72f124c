"""How deep must a model think? Six tasks x rules that choose a depth, tokens that stop early, and depths of facts.

Cells: task x method x budget. The depth of a policy is compared with a fixed exit, with its own depths dealt to other
items, with confidence and with patience, always at its own mean depth; gains are averaged over the prices `ALPHAS` and
over seeds before items are resampled. `lens` cells are the language model itself, `facts` cells the course's questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import Cell, Interval, Store, bootstrap, say, table_path
from ..data import Concept, held_out_passages, load_concept
from ..early_exit import (
    SIZES,
    Exits,
    PolicyConfig,
    States,
    Stops,
    centre_of_loss,
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
    memorised_layer,
    mixed,
    passage_ids,
    policy_exits,
    rank_correlation,
    read_exits,
    right_at_layers,
    rivals,
    run_with_exits,
    separable,
    stops,
    task_states,
    train_policy,
)
from ..erasure import ablation_edit
from ..evaluation import ask, gold_logprobs
from ..models import LanguageModel
from .layers import contrast_directions

ALPHAS = (0.005, 0.01, 0.02)  # nats per layer


SHARES = (0.2, 0.35, 0.5, 0.65, 0.8)  # of the layers: depths at which the confidence rule is compared


POLICIES = ("consistent", "plain", "released", "blind")  # hardness reward; without it; alpha 0; reading noise


Cells = dict[tuple[str, str | int | float], dict[str, Interval]]  # method and budget -> numbers
KNOBS = {"layer": (0.6, 0.8, 0.9), "confidence": (0.3, 0.6, 0.9), "patience": (2, 5)}


FACT_CONCEPTS = ("ancient_rome", "astronomy", "chemical_elements", "japan")


def early_exit(
    lm: LanguageModel,
    path: Path | None = None,
    tasks: Sequence[str] = tuple(SIZES),
    alphas: Sequence[float] = ALPHAS,
    n_seeds: int = 2,
    n_passages: int = 8,
    fact_concepts: Sequence[str] = FACT_CONCEPTS,
    n_questions: int = 12,
    sizes: Mapping[str, int] = SIZES,
    seed: int = 0,
    replace: bool = False,
) -> Path:
    """Per task the exits, rules and policies; then the tokens; then the facts.

    The table is written to `path` (default: its place in data/results), see `Store` for interruptions and `replace`.
    More tasks or concepts go on with the same table.
    """
    settings = {
        "alphas": list(alphas), "n_seeds": n_seeds, "n_passages": n_passages, "n_questions": n_questions,
        "sizes": dict(sizes),
    }  # fmt: skip
    with Store(
        path or table_path("early_exit", lm.name), experiment="early_exit", model=lm.name,
        fingerprint=lm.fingerprint(), settings=settings, seed=seed, device=str(lm.device), replace=replace,
    ) as store:  # fmt: skip
        for name in tasks:
            if store.missing(Cell(name, "consistent", budget="all")):
                _task(lm, store, name, alphas, n_seeds, sizes[name])
        if n_passages:
            _tokens(lm, store, n_passages)
        if fact_concepts:
            _facts(lm, store, fact_concepts, n_questions)
        return store.finish()


# ---- one task -------------------------------------------------------------------------------------------
def _task(lm: LanguageModel, store: Store, name: str, alphas: Sequence[float], n_seeds: int, size: int) -> None:
    task = load_task(name, size)
    states = task_states(lm, task, progress=False).reduced(min(128, lm.d_model))
    train, test = fit_exits(states)
    dealt_out = states.shuffled_labels(store.seed)
    chance = read_exits(fit_heads(dealt_out.train, dealt_out.y_train, states.n_classes), states.test, states.y_test)
    settings = rivals(test)
    cells = _exit_cells(test, chance, settings, task.most_common)
    for kind in POLICIES:
        tried = _policies(states, train, test, kind, alphas, n_seeds)
        cells |= _policy_cells(kind, tried, test, settings)
    store.add_all({Cell(name, method, budget=budget): found for (method, budget), found in cells.items()})
    gained = {k: str(v) for k, v in cells["consistent", "all"].items()}
    say(f"{name}: {gained}")


def _exit_cells(test: Exits, chance: Exits, settings: dict[str, list[Stops]], common: float) -> Cells:
    """Accuracy of every exit and its shuffled control, hardness, the oracle, and rules at five depths."""
    n_layers = test.correct.shape[1]
    cells: Cells = {
        ("exit", layer + 1): {
            "accuracy": bootstrap(test.correct[:, layer]), "shuffled": bootstrap(chance.correct[:, layer]),
            "memorised_here": bootstrap(test.memorised == layer + 1), "most_common": _point(common),
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
        cells[rule, "all"] = {f"minus_{r}": bootstrap(torch.stack(x).mean(0)) for r, x in gain.items()}
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


def _policy_cells(kind: str, tried: dict[float, list[Stops]], test: Exits, settings: dict[str, list[Stops]]) -> Cells:
    """Per price depth, accuracy and correlation with hardness; over all prices the gains over every rival."""
    cells: Cells = {}
    for alpha, found in tried.items():
        mean = Stops(torch.stack([s.depth for s in found]).mean(0), torch.stack([s.correct for s in found]).mean(0))
        cells[kind, alpha] = _reached(mean) | {"rho_memorised": rank_correlation(mean.depth, test.memorised.double())}
    every = [s for found in tried.values() for s in found]
    usable = inside(every, test.correct.shape[1])
    if usable:
        gains = gain_intervals(test, usable, settings)
        cells[kind, "all"] = {f"minus_{rival}": found for rival, found in gains.items()}
    cells.setdefault((kind, "all"), {})["usable"] = _point(len(usable) / len(every))
    return cells


def _reached(s: Stops) -> dict[str, Interval]:
    return {"depth": bootstrap(s.depth), "accuracy": bootstrap(s.correct)}


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


# ---- facts ----------------------------------------------------------------------------------------------
def _facts(lm: LanguageModel, store: Store, concepts: Sequence[str], n_questions: int) -> None:
    """Is the memorised layer of a fact where it can be erased? Spearman over facts, and within concepts."""
    for name in concepts:
        cell = Cell("facts", name)
        if store.missing(cell):
            memorised, centre = fact_depths(lm, load_concept(name), n_questions, store.seed)
            usable = centre.isfinite()  # no layer's edit costs it anything: there is no centre
            pairs = [memorised[usable].tolist(), centre[usable].tolist()]
            found = {"memorised": bootstrap(pairs[0]), "erasable": bootstrap(pairs[1])}
            store.add(cell, found, record=pairs)
            say(f"facts, {name}: known from layer {found['memorised']} on, erased around {found['erasable']}")
    store.add(Cell("facts", "all"), correlations([store.record(Cell("facts", name)) for name in concepts], store.seed))


def correlations(records: Sequence[Sequence[Sequence[float]]], seed: int = 0) -> dict[str, Interval]:
    """Spearman of memorised layer and centre of loss, over all facts, within concepts, and with facts shuffled.

    `records`: per concept both lists. Within: the concept's mean is taken off both, so that concepts cannot do it.
    """
    parts = [torch.tensor(record, dtype=torch.float64) for record in records]
    both, inner = torch.cat(parts, 1), torch.cat([p - p.mean(1, keepdim=True) for p in parts], 1)
    order = torch.randperm(both.shape[1], generator=torch.Generator().manual_seed(seed))
    return {
        "rho": rank_correlation(*both), "rho_within": rank_correlation(*inner),
        "rho_shuffled": rank_correlation(both[0, order], both[1]),
    }  # fmt: skip


def fact_depths(
    lm: LanguageModel, concept: Concept, n_questions: int, seed: int = 0
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Of known dev questions: the memorised layer (logit lens) and where an edit of one layer costs them most.

    The edit is that of `conceptlab reproduce layers`: the concept's directions turned round in one down projection.
    """
    asked = ask(lm, separable(lm, concept.dev), 4 * n_questions).known(n_questions).questions
    right = right_at_layers(lm, asked)
    memorised = memorised_layer(right).double()
    directions = contrast_directions(lm, concept, 5, seed, n_texts=24)["contrast"]
    before, losses = gold_logprobs(lm, asked), []
    for layer in range(lm.n_layers):
        with ablation_edit(lm, {("mlp_output", layer): directions[layer].T}, 2.0).applied(lm):
            losses.append(before - gold_logprobs(lm, asked))
    return memorised, centre_of_loss(torch.stack(losses, 1)).double()
