"""Tables of notebook 05 from live attacks, each number beside its controls; those of the lab's table: `erasing`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..attacks import PatchConfig, Setting, UndoConfig, patch, run_attack, share, undo
from ..core import bootstrap, paired_bootstrap
from ..edits import Intervention, WeightEdit
from ..evaluation import QuestionScores
from ..models import LanguageModel
from .erasing import shown
from .tables import Grid

PROMPT_COLUMNS = ["prompt, at its strongest", "original", "gain of the erased", "beyond another subject",
                  "beyond the random edit", "share", ""]  # fmt: skip


def prompts_grid(
    lm: LanguageModel,
    models: Mapping[str, Intervention | None],
    start: Mapping[str, QuestionScores],
    setting: Setting,
    kinds: Sequence[str],
) -> tuple[Grid, dict[str, QuestionScores]]:
    """A row per kind of prompt, and what the erased model answers under each.

    `models` and `start` (their scores without a prompt) hold "original", "erased" and "random edit". A prompt is no
    test where the original keeps less than half of its margin. `setting.control` is the other subject.
    """
    bare = replace(setting, budget=replace(setting.budget, controls=False))
    rows, answers = [], {}
    for kind in kinds:
        ceiling = run_attack(kind, lm, models["original"], bare).last.margin
        noise = run_attack(kind, lm, models["random edit"], bare).last
        found = run_attack(kind, lm, models["erased"], setting)
        answers[kind] = now = found.last
        before = {name: _first(scores, len(ceiling)) for name, scores in start.items()}
        label = found.labels[-1] if found.labels else str(found.steps[-1])
        told = ["-", "-", "-", "-", "no test"]
        if float(ceiling.mean()) > float(before["original"].margin.mean()) / 2:
            gained = now.margin - before["erased"].margin
            other = [paired_bootstrap(now.margin, x.margin) for x in found.controls[-1:]]
            repair = paired_bootstrap(gained, noise.margin - before["random edit"].margin)
            back = share(before["original"], before["erased"], now)
            told = [shown(bootstrap(gained)), *map(shown, other), *["-"] * (not other), shown(repair), shown(back), ""]
        rows.append((f"{kind.replace('_', ' ')} ({label})", shown(bootstrap(ceiling)), *told))
    return Grid(rows, PROMPT_COLUMNS, "Margins in nats, at the last strength and not at the best"), answers


def _first(scores: QuestionScores, n: int) -> QuestionScores:
    """The scores of the first questions: those with translations come first (`known_questions`)."""
    return QuestionScores(scores.logprobs[:n], scores.answers[:n])


def put_back_grid(
    lm: LanguageModel,
    edit: WeightEdit,
    setting: Setting,
    original: QuestionScores,
    erased: QuestionScores,
    layers: Sequence[int],
    others: Sequence[int],
) -> Grid:
    """Shares of the margin: the original's MLP layers put back one by one, the edit's directions taken out."""
    rows = []
    patched = patch(lm, edit, setting.score, PatchConfig(layers=(*layers, *others)))
    for x, value in zip(patched.steps, patched.values, strict=True):
        kind = "edited layer" if x in layers else "control: not edited"
        rows.append((f"MLP of layer {x} patched back", shown(share(original, erased, value)), kind))
    undone = undo(lm, edit, setting.score, UndoConfig(directions=(4,)))
    noise = f"as many random directions: {shown(share(original, erased, undone.controls[0]))}"
    rows.append(("undoing, holds the edit", shown(share(original, erased, undone.last)), noise))
    return Grid(rows, ["what is put back", "share of the margin", "control"], "Inside the network")


def gain_cells(found: Mapping[str, tuple[float, float, float]], names: Sequence[str]) -> list[str]:
    """Mean and interval of each name in nats with their signs; a dash where there is none."""
    told = [found.get(name) for name in names]
    return [f"{x[0]:+.2f} [{x[1]:+.2f}, {x[2]:+.2f}]" if x else "-" for x in told]
