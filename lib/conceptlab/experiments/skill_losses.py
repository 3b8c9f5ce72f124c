"""What a forgotten skill lost, over the draws of its random labels: from the records of the items to intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

from ..core import Cell, Interval, Store, bootstrap, mean_interval, proportion, share_of_means
from ..dissection import Items, Skill, by_group

Metrics = dict[str, Interval]


def pool_draws(
    store: Store, skills: Mapping[str, Skill], task: str, arm: str, draws: Callable[[str], range], n_others: int
) -> None:
    """Means over the draws of the labels: what was lost on each part, the forget gap, and what other tasks lost.

    `draws(arm)`: their numbers; `n_others`: held-out items of the other tasks. Nothing is written where one is missing.
    """
    skill, before = skills[task], store.record(Cell(task, "original"))
    now, true = _mean(store, draws(arm), task, arm), _mean(store, draws("true"), task, "true")
    if before is None or not now:
        return
    was = {k: torch.tensor(x).double() for k, x in before.items()}
    metrics = _losses(skill, was, now)
    if true and arm != "true":
        for name, items in _parts(skill).items():
            metrics[f"minus_true_{name}"] = bootstrap(by_group(true[name] - now[name], items.groups))
    cells, n = {Cell(task, "original", "", "all"): _shares(skill, was)}, n_others
    for other in (t for t in skills if t != task):
        groups = skills[other].heldout.groups[:n]
        base, after = store.record(Cell(other, "original")), _mean(store, draws(arm), task, arm, other)
        cells[Cell(task, arm, other, "all")] = {
            f"lost_{k}": bootstrap(by_group(torch.tensor(base[f"{k}_heldout"][:n]) - after[k], groups))
            for k in ("right", "margin")
        }
    if others := [x["lost_right"] for x in cells.values() if "lost_right" in x]:
        metrics["lost_right_others"] = mean_interval(others, over="tasks")
    cells[Cell(task, arm, "", "all")] = {k: x for k, x in metrics.items() if x.measurable and x.bounded}
    store.add_all(cells)


def _losses(skill: Skill, before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> Metrics:
    """One task: shares of right answers, and what they and the margins lost against the original; the probe's, too."""
    lost = {name: by_group(before[name] - now[name], items.groups) for name, items in _parts(skill).items()}
    metrics = {f"lost_{name}": bootstrap(x) for name, x in lost.items()}
    for key in ("right", "margin"):
        metrics[f"forget_gap_{key}"] = share_of_means(lost[f"{key}_heldout"], lost[f"{key}_trained"])
    groups = skill.heldout.groups
    return (
        metrics
        | _shares(skill, now)
        | {
            "lost_probe": bootstrap(by_group(before["probe"] - now["probe"], groups)),
            "probe_over_answers": bootstrap(by_group(now["probe"] - now["right_heldout"], groups)),
        }
    )


def _shares(skill: Skill, now: Mapping[str, Tensor]) -> Metrics:
    """Shares of right answers and of right readings of the probe."""
    return {
        "accuracy_trained": share_right(now["right_trained"], skill.trained.groups),
        "accuracy_heldout": share_right(now["right_heldout"], skill.heldout.groups),
        "probe": share_right(now["probe"], skill.heldout.groups),
    }


def _parts(skill: Skill) -> dict[str, Items]:
    both = (("trained", skill.trained), ("heldout", skill.heldout))
    return {f"{key}_{part}": items for key in ("right", "margin") for part, items in both}


def _mean(store: Store, draws: Sequence[int], task: str, arm: str, other: str = "") -> dict[str, Tensor]:
    """Per item the mean over the draws; nothing where a draw is missing."""
    found = [store.record(Cell(task, arm, other, k)) for k in draws]
    if any(record is None for record in found):
        return {}
    return {key: torch.tensor([r[key] for r in found]).double().mean(0) for key in found[0]}


def share_right(right: Shaped[Tensor, " n"], groups: Sequence[int]) -> Interval:
    """Mean over items or their words, within 0 and 1; where all are right, or none, Wilson's interval: it has width."""
    units = by_group(right, groups)
    if bool(((units == 0) | (units == 1)).all()):
        return proportion(int(units.sum()), len(units), "words" if groups else "items")
    found = bootstrap(units)
    return Interval(found.value, max(found.low, 0.0), min(found.high, 1.0), found.n, "words" if groups else "items")
