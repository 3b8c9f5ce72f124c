"""How much of the direction between reasoning and memory is format? From naive sets to matched stories, and steering.

Cells: set x method x split x layer. Sets are `naive`, `mmlu`, `trivia` and the pairs of kinds of the matched stories
(`step-memory`, `step-copy`, `copy-memory`). `steering` cells are rule x direction x dose, `verdict` cells the shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core import Cell, Interval, Store, bootstrap, draws_interval, interval_of, proportion, say, table_path
from ..data import (
    ITEM_KINDS,
    contrast_examples,
    matched_stories,
    mmlu_contrast,
    naive_contrast,
    story_templates,
    trivia_contrast,
)
from ..directions import (
    SURFACES,
    Contrast,
    ItemStates,
    Split,
    by_template,
    chosen_elsewhere,
    cosine_draws,
    direction_cosines,
    equally_hard,
    halves,
    held_out,
    inside_template,
    item_states,
    kept_states,
    mean_difference,
    ridge,
    shuffled_limit,
    split_auroc,
    split_draws,
    steering_plan,
)
from ..edits import applied
from ..models import LanguageModel

PAIRS = (("step", "memory"), ("step", "copy"), ("copy", "memory"))
STEERED = ("naive", "step-memory", "step-copy")  # sets whose directions steer, beside the surface's


@dataclass(frozen=True)
class DirectionsConfig:
    """Sizes of `conceptlab reproduce directions`."""

    n_stories: int = 36  # stories of every template, a multiple of three; each is asked for every kind
    n_naive: int = 100  # sums, and questions about concepts
    n_mmlu: int = 60  # items of MMLU of either kind
    n_shuffles: int = 100  # directions of shuffled labels
    n_resamples: int = 1_000  # of every interval
    n_steered: int = 3  # stories of every template that are answered while the model is steered
    n_random: int = 10  # random directions beside every steering


def directions(
    lm: LanguageModel,
    path: Path | None = None,
    config: DirectionsConfig | None = None,
    seed: int = 0,
    replace: bool = False,
) -> Path:
    """Readings of every set and layer, transfer, cosines, the verdict; then steering.

    The table is written to `path` (default: its place in data/results), see `Store` for interruptions and `replace`.
    """
    config = config or DirectionsConfig()
    with Store(
        path or table_path("directions", lm.name), experiment="directions", model=lm.name,
        fingerprint=lm.fingerprint(), settings=asdict(config), seed=seed, device=str(lm.device), replace=replace,
    ) as store:  # fmt: skip
        if store.missing(Cell("verdict", "step-copy", "naive")):
            sets = contrast_sets(lm, config, seed)
            say("states of all sets are there")
            layer = lm.n_layers // 2
            kept = {name: sets[name].direction for name in STEERED} | {"surface": surface_direction(sets)}
            record = {name: d[layer].tolist() for name, d in kept.items()}
            store.add(Cell("steering", "directions"), {"layer": _point(layer)}, record)
            for name, contrast in sets.items():
                if store.missing(Cell(name, "difference", "templates" if "-" in name else "", 0)):
                    _read(store, name, contrast, config)
            if store.missing(Cell("cosine", "step-copy", "copy-memory", 0)):
                _transfer(store, sets, config)
            _verdict(store, sets, config)
        if config.n_steered:
            _steer(lm, store, config)
        return store.finish()


def contrast_sets(lm: LanguageModel, config: DirectionsConfig, seed: int = 0) -> dict[str, Contrast]:
    """Name of a set -> its states, in order from naive to matched."""
    stories, examples = matched_stories(config.n_stories, seed), contrast_examples()
    trivia = trivia_contrast(stories, seed)
    asked = [item for item in trivia if item.kind == "memory"]
    sets = {}
    for name, items in (("naive", naive_contrast(config.n_naive, seed)), ("mmlu", mmlu_contrast(config.n_mmlu, seed))):
        states = kept_states(lm, items, examples)
        sets[name] = Contrast(states, states.of("step"), halves(items, seed))
    every = kept_states(lm, [*stories, *asked], examples)  # a story is read once for all of its questions
    with_trivia = [i for i in range(len(stories)) if stories[i].kind == "step"]
    chosen = torch.tensor([*with_trivia, *range(len(stories), len(every))])
    states = every.at(chosen)
    sets["trivia"] = Contrast(states, states.of("step"), halves(states.items, seed))
    told = every.at(torch.arange(len(stories)))
    for a, b in PAIRS:
        pair = told.at(told.of(a, b).nonzero()[:, 0])
        sets[f"{a}-{b}"] = Contrast(pair, pair.of(a), by_template(pair.items))
    return sets


def surface_direction(sets: Mapping[str, Contrast]) -> Float[Tensor, "layers d_model"]:
    """The control of steering: what sets long prompts apart from short ones, whatever their kind (trivia set)."""
    c = sets["trivia"]
    length = torch.tensor([float(len(item.text)) for item in c.items])
    return mean_difference(c.states.resid, length > length.median())


# ---- reading --------------------------------------------------------------------------------------------------
def _read(store: Store, name: str, c: Contrast, config: DirectionsConfig) -> None:
    """AUROC per layer with its control, the ridge reading, every surface baseline, and how well the model answers."""
    x, cells = c.states.resid, {}
    ways = {"": c.splits} if name in ("naive", "mmlu", "trivia") else {
        "templates": c.splits, "within": inside_template(c.items, store.seed)
    }  # fmt: skip
    for way, splits in ways.items():
        scores = held_out(x, c.positive, splits)
        found = split_auroc(scores, c.positive, splits, c.groups, config.n_resamples)
        limit = shuffled_limit(x, c.positive, splits, config.n_shuffles, store.seed)
        for layer, (area, chance) in enumerate(zip(found, limit.tolist(), strict=True)):
            cells[Cell(name, "difference", way, layer)] = {"auroc": area, "shuffled": _point(chance)}
        for surface, features in SURFACES.items():
            if surface == "said" and not all(item.said for item in c.items):
                continue  # an item without a story says nothing about anybody
            told = held_out(features(c.items), c.positive, splits, ridge)
            (area,) = split_auroc(told, c.positive, splits, c.groups, config.n_resamples)
            cells[Cell(name, surface, way)] = {"auroc": area}
    deep = range(0, len(x), max(1, len(x) // 6))
    fitted = split_auroc(
        held_out(x[deep], c.positive, c.splits, ridge), c.positive, c.splits, c.groups, config.n_resamples
    )
    for layer, area in zip(deep, fitted, strict=True):
        cells[Cell(name, "ridge", "templates" if "-" in name else "", layer)] = {"auroc": area}
    store.add_all(cells | _difficulty(name, c) | _templates(name, c, config))
    best = max(float(m["auroc"].value) for cell, m in cells.items() if cell.method == "difference")
    say(f"{name}: best layer {best:.2f}")


def _difficulty(name: str, c: Contrast) -> dict[Cell, dict[str, Interval]]:
    """Share right (of four options) per kind and template, and over all; where first tokens tell options apart."""
    cells, told = {}, c.states.margin.isfinite()
    for template in dict.fromkeys([item.template for item in c.items]) | {"": None}:
        for kind in ITEM_KINDS:
            here = torch.tensor([i.kind == kind and template in ("", i.template) for i in c.items]) & told
            if bool(here.any()):
                right = int(c.states.correct[here].sum())
                cells[Cell(name, "accuracy", kind, template)] = {"accuracy": proportion(right, int(here.sum()))}
    return cells


def _templates(name: str, c: Contrast, config: DirectionsConfig) -> dict[Cell, dict[str, Interval]]:
    """AUROC per layer of each held-out template alone, of pairs that are equally hard, of items answered rightly."""
    if "-" not in name:
        return {}
    scores = held_out(c.states.resid, c.positive, c.splits)
    keep = equally_hard(c.states.margin, c.positive, [item.template for item in c.items])
    cells = {}
    for layer, s in enumerate(scores):
        for template, split in zip(story_templates(), c.splits, strict=True):
            (area,) = split_auroc(s[None], c.positive, [split], c.groups, config.n_resamples)
            cells[Cell(name, "difference", template, layer)] = {"auroc": area}
        for some, kept in (("equally hard", keep), ("answered rightly", c.states.correct)):
            fair = [Split(p.train, p.test & kept) for p in c.splits if _both(c.positive[p.test & kept])]
            if fair:
                (area,) = split_auroc(s[None], c.positive, fair, c.groups, config.n_resamples)
                cells[Cell(name, "difference", some, layer)] = {"auroc": area, "kept": _point(float(kept.sum()))}
    return cells


def _both(positive: Bool[Tensor, " n"]) -> bool:
    return bool(positive.any()) and not bool(positive.all())


def _transfer(store: Store, sets: Mapping[str, Contrast], config: DirectionsConfig) -> None:
    """Directions of one set read on another, and the cosine of both, against shuffled labels."""
    cells: dict[Cell, dict[str, Interval]] = {}
    found = {name: c.direction for name, c in sets.items()}
    for source, target in ((a, b) for a in sets for b in sets if a != b):
        c = sets[target]
        if "-" in source and "-" in target:
            continue  # they share items
        x, splits = c.states.resid, by_template(c.items) if "-" in target else [Split(~c.positive, c.positive | True)]
        scores = (x.double() @ found[source].double()[..., None])[..., 0].float()
        for layer, area in enumerate(split_auroc(scores, c.positive, splits, c.groups, config.n_resamples)):
            cells[Cell(target, "transfer", source, layer)] = {"auroc": area}
    names = list(sets)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            here = (sets[a].states.resid, sets[a].positive, sets[b].states.resid, sets[b].positive)
            draws, chance = (cosine_draws(*here, seed=store.seed, shuffle=s) for s in (False, True))
            for layer, value in enumerate(direction_cosines(found[a], found[b]).tolist()):
                cells[Cell("cosine", a, b, layer)] = {
                    "cosine": interval_of(draws[:, layer], value, len(sets[a].items)),
                    "shuffled": _point(float(chance[:, layer].abs().quantile(0.95))),
                }
    store.add_all(cells)
    say("transfer and cosines are there")


# ---- the verdict ------------------------------------------------------------------------------------------------
def _verdict(store: Store, sets: Mapping[str, Contrast], config: DirectionsConfig) -> None:
    """What of the naive set's AUROC over .5 is left on matched pairs: a direction of their own, and the naive one."""
    naive = sets["naive"]
    own = held_out(naive.states.resid, naive.positive, naive.splits)
    areas = torch.tensor([a.value for a in split_auroc(own, naive.positive, naive.splits, naive.groups, 2)])
    best = int(areas.argmax())  # many are at 1.00: the first of them
    before = split_draws(own[best], naive.positive, naive.splits, naive.groups, config.n_resamples, 900)
    for name in ("trivia", "step-memory", "copy-memory", "step-copy"):
        c = sets[name]
        x, splits = c.states.resid, c.splits
        read = (x.double() @ naive.direction.double()[..., None])[..., 0].float()
        for way, layers in {"own": held_out(x, c.positive, splits), "naive": read}.items():
            scores = chosen_elsewhere(layers, c.positive, splits)
            after = split_draws(scores, c.positive, splits, c.groups, config.n_resamples)
            share = (after - 0.5) / (before - 0.5)
            n = len(set(c.groups))
            store.add(
                Cell("verdict", name, way),
                {"auroc": draws_interval(after, n), "naive": draws_interval(before, n),
                 "share": draws_interval(share, n)},
            )  # fmt: skip
            say(f"verdict, {name}, direction of {way}: share {draws_interval(share, n)}")


# ---- steering -----------------------------------------------------------------------------------------------------
def _steer(lm: LanguageModel, store: Store, config: DirectionsConfig) -> None:
    """Margins of the same stories while the model is steered, minus those before."""
    kept = {name: torch.tensor(d) for name, d in store.record(Cell("steering", "directions")).items()}
    items, examples = matched_stories(config.n_steered, store.seed + 1), contrast_examples()
    texts = [f"{examples}\n\n{item.text}" for item in items[:: len(ITEM_KINDS) + 1]]  # of every kind
    plan = steering_plan(lm, kept, lm.n_layers // 2, config.n_random, store.seed, texts)
    cells = {Cell("steering", *key): change for key, change in plan.items()}
    store.progress(list(cells))
    before: ItemStates | None = None
    for cell, change in cells.items():
        if not store.missing(cell):
            continue
        if before is None:
            before = item_states(lm, items, examples)
        with applied(change, lm):
            now = item_states(lm, items, examples)
        moved = now.margin - before.margin
        found = {kind: bootstrap(moved[now.of(kind)], config.n_resamples) for kind in ITEM_KINDS}
        found |= {f"right_{k}": proportion(int(now.correct[now.of(k)].sum()), int(now.of(k).sum())) for k in ITEM_KINDS}
        store.add(cell, found)


def _point(value: float | int) -> Interval:
    return Interval(value, value, value, 1)
