"""Tables of notebooks 04 and 05, from edits, scores and the lab's table: a cell there shows one question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from ..autointerp import labelled_layers, read_labels
from ..core import Interval
from ..data import FEW_SHOT, Question, question_stem
from ..edits import Intervention, WeightEdit
from ..erasure import Feature
from ..evaluation import Comparison
from ..models import LanguageModel, greedy
from .papers import PISCES_GEMMA_2
from .plots.pisces import METHOD_STYLE
from .tables import Grid

TRACES = {  # column -> metric: kept, as a share of the original
    "asked directly": "left_target_known", "as a gap": "left_cloze", "by a clue": "left_clue",
    "promoting vectors (cosine)": "residue_cosine", "edited rows (cosine)": "residue_rows_cosine",
}  # fmt: skip
WRITING = {"repetition": "repetition", "follows instructions": "instructions"}
ASKED_AS = {  # column -> attack and budget of what is counted: kept, as a share of the original's above guessing
    "asked directly": ("direct", "correct"), "lens, 20 candidates": ("logit_lens", "20"), "probe": ("probe", None),
    "as a gap": ("forms", "cloze"), "by a clue": ("forms", "clue"),
}  # fmt: skip
TWINS = {  # metric of the never-taught control -> what it is
    "taught": "taught", "erased": "taught, erased", "attacked": "taught, erased, attacked",
    "never": "never taught", "never_attacked": "never taught, attacked",
}  # fmt: skip


@runtime_checkable
class Numbers(Protocol):
    """What these tables ask the lab's table (`experiments.LabTable`) for."""

    @property
    def model(self) -> str: ...
    @property
    def cells(self) -> Mapping[tuple[str, str, str, str], Mapping[str, Interval]]: ...
    def get(self, concept: str, method: str, metric: str) -> Interval | None: ...
    def column(self, method: str, metric: str) -> dict[str, Interval]: ...
    def mean(self, method: str, metric: str, among: Sequence[str] | None = ...) -> Interval: ...
    def change(self, method: str, after: str, before: str) -> Interval: ...
    def concepts(self) -> list[str]: ...
    def difference(self, method: str, other: str, metric: str) -> Interval: ...
    def covered(self, methods: Sequence[str], metric: str = ...) -> list[str]: ...
    def attacked(self) -> list[str]: ...
    def n_attacked(self) -> int: ...
    def tests(self, method: str) -> list[str]: ...
    def not_tests(self, method: str) -> dict[str, list[str]]: ...
    def strengths(self, method: str, attack: str, metric: str) -> dict[str, Interval]: ...
    def under(self, method: str, attack: str, metric: str, *, budget: str | None = ...) -> Interval | None: ...


def shown(x: Interval | None) -> str:
    """A number with its interval; a dash where there is none."""
    return str(x) if x is not None and x.measurable else "-"


def tokens_of(lm: LanguageModel, features: Sequence[Feature], n: int = 4) -> list[str]:
    """What each feature fires on, from the labels that ship with the course."""
    layers = {f.layer for f in features} & set(labelled_layers(lm.name))
    labels = {(r.layer, r.feature): r.top_tokens for x in layers for r in read_labels(lm.name, x)}
    return [" ".join(map(repr, labels.get((f.layer, f.index), ())[:n])) or "(no label)" for f in features]


def edited_neurons(edit: WeightEdit) -> dict[str, list[int]]:
    """Name of the weight -> the neurons whose rows an edit of down projections changes."""
    return {name: c.dense().abs().amax(0).nonzero()[:, 0].tolist() for name, c in edit.changes.items()}


def candidate_grid(
    lm: LanguageModel,
    candidates: Sequence[Feature],
    edits: Sequence[WeightEdit],
    effects: Tensor,
    kept: Sequence[Feature],
    sets: Sequence[str],
) -> Grid:
    """Single edits of candidates: what each feature fires on, which neurons it edits, what it costs each set."""
    rows = []
    for f, tokens, edit, costs in zip(candidates, tokens_of(lm, candidates), edits, effects.tolist(), strict=True):
        neurons = ", ".join(str(j) for found in edited_neurons(edit).values() for j in found)
        told = [f"{x:+.2f}" for x in costs]
        rows.append((f"{f.layer}.{f.index}", tokens, neurons, *told, "kept" if f in kept else ""))
    columns = ["feature", "fires on", "edits neuron", *sets, ""]
    return Grid(rows, columns, "Single edits: change of the gold log-probability on three sets (nats)")


def card_grid(
    known: Mapping[str, Comparison],
    accuracies: Mapping[str, tuple[float, float]],
    yours: Mapping[str, float],
    title: str,
) -> Grid:
    """The scorecard: accuracy on all questions, what that amounts to by the reader's function, and the axes."""
    rows = []
    for name, x in known.items():
        before, after = accuracies[name]
        axes = (x.efficacy, x.specificity, x.coherence)
        rows.append((name, f"{before:.2f} to {after:.2f}", f"{yours[name]:.2f}", *map(shown, axes)))
    columns = ["edit", "accuracy, all questions", "taken (yours)", "efficacy, known ones", "specificity", "coherence"]
    return Grid(rows, columns, title)


def own_words_grid(
    lm: LanguageModel,
    edit: Intervention,
    target: Sequence[Question],
    neighbour: Sequence[Question],
    starts: Sequence[str],
    n: tuple[int, int] = (4, 2),
    n_tokens: int = 8,
) -> Grid:
    """What the model writes before and after: the first questions that the original answers freely, unpicked."""

    def say(prompts: Sequence[str]) -> list[str]:
        rows = greedy(lm, list(prompts), n_tokens)
        return [lm.decode(row).strip().split("\n")[0] for row in rows]

    prompts: list[str] = []
    for questions, most in zip((target, neighbour), n, strict=True):
        asked = [FEW_SHOT + question_stem(q) for q in questions]
        pairs = zip(questions, asked, say(asked), strict=True)
        prompts += [p for q, p, said in pairs if q.gold.lower() in said.lower()][:most]
    prompts += starts
    before = say(prompts)
    with edit.applied(lm):
        after = say(prompts)
    names = [p.split("Question: ")[-1].replace("\nAnswer:", "") for p in prompts]
    return Grid(list(zip(names, before, after, strict=True)), ["asked", "before", "after"], "In its own words")


# ---- the lab's table --------------------------------------------------------------------------------------
def methods_grid(tables: Sequence[Numbers]) -> Grid:
    """Efficacy and specificity of every method that the first table has, one pair of columns per model."""
    axes = {"efficacy": "efficacy_known", "specificity": "specificity_known"}
    rows = []
    for method in tables[0].covered(list(METHOD_STYLE)):
        cells = [shown(t.mean(method, metric)) for t in tables for metric in axes.values()]
        ns = {f"{t.model}: {axis}": len(t.column(method, metric)) for t in tables for axis, metric in axes.items()}
        rows.append((METHOD_STYLE[method][0], *cells, counted(ns)))
    columns = ["method", *(f"{t.model}: {axis}" for t in tables for axis in axes), "concepts"]
    return Grid(rows, columns, "Means over concepts with intervals over concepts, test questions")


def counted(ns: Mapping[str, int]) -> str:
    """How many concepts stand behind the columns of a row: one number, or column by column those that differ from the
    first; columns that have none show a dash themselves."""
    first = next((n for n in ns.values() if n), 0)
    rest = ", ".join(f"{name} {n}" for name, n in ns.items() if n not in (0, first))
    return f"{first} ({rest})" if rest else str(first)


def differences_grid(means: Mapping[str, Mapping[str, Interval]], between: Interval | None = None) -> Grid:
    """model -> control -> mean difference, with what its interval says in words.

    `between`: the second model's difference to the first control minus the first model's, paired over concepts.
    """
    rows = []
    for model, found in means.items():
        rows += [(model, METHOD_STYLE[control][0], x.n, shown(x), _verdict(x)) for control, x in found.items()]
    if between is not None:
        first, second = list(means)[:2]
        control = METHOD_STYLE[next(iter(means[second]))][0]
        rows.append((f"{second} minus {first}", control, between.n, shown(between), _verdict(between)))
    columns = ["model", "control", "concepts", "PISCES minus control", "the interval"]
    return Grid(rows, columns, "Difference of efficacy, paired over concepts, test questions")


def _verdict(x: Interval) -> str:
    return "above 0" if x.low > 0 else "below 0" if x.high < 0 else "holds 0" if x.bounded else "too few"


def traces_grid(table: Numbers, methods: Sequence[str]) -> Grid:
    """What is left under other ways of asking, and in the weights."""

    def cell(method: str, metric: str) -> str:
        x = table.mean(method, metric)
        if metric.startswith("residue") and x.bounded:  # no cosine is above 1
            x = Interval(x.value, x.low, min(x.high, 1.0), x.n, x.over)
        return shown(x)

    rows = [(METHOD_STYLE[m][0], *(cell(m, metric) for metric in TRACES.values())) for m in table.covered(methods)]
    return Grid(rows, ["kept, as a share of the original", *TRACES], f"{table.model}: means over concepts, test")


def writing_grid(table: Numbers, methods: Sequence[str]) -> Grid:
    """How the model writes after an edit, and the change of MMLU (one set of items for all concepts)."""
    rows = []
    for m in table.covered(methods, "mmlu_after"):
        change = table.change(m, "mmlu_after", "mmlu_before")
        cells = [shown(table.mean(m, metric)) for metric in WRITING.values()]
        rows.append((METHOD_STYLE[m][0], *cells, shown(change), change.n))
    columns = ["method", *WRITING, "MMLU, after minus before", "concepts"]
    return Grid(rows, columns, "Writing (1: as the original), and 40 items of MMLU, the same for every concept")


def published_grid(tables: Sequence[Numbers]) -> Grid:
    """PISCES on the paper's model beside ours: efficacy and specificity of the concepts of both."""

    def pair(table: Numbers, concept: str) -> str:
        found = [table.get(concept, "pisces", f"{axis}_known") for axis in ("efficacy", "specificity")]
        return " / ".join(f"{x.value:.2f}" for x in found if x is not None) or "-"

    rows = [
        (x.concept.replace("_", " "), f"{x.efficacy:.3f} / {x.specificity:.3f}", *(pair(t, x.concept) for t in tables))
        for x in PISCES_GEMMA_2
    ]
    columns = ["concept", "Gemma-2-2B-it (derived)", *(t.model for t in tables)]
    return Grid(rows, columns, "PISCES: efficacy / specificity; a dash: not among our concepts")


# ---- attacks ----------------------------------------------------------------------------------------------
def not_tests_grid(table: Numbers, method: str = "pisces") -> Grid:
    """Attacks that say nothing about an erasure, and why."""
    rows = [
        (attack.replace("_", " "), why, shown(table.under(method, attack, "share")))
        for why, names in table.not_tests(method).items()
        for attack in names
    ]
    return Grid(rows, ["attack", "why it is no test", "share"], f"{table.model}, {table.n_attacked()} concepts")


def counted_grid(table: Numbers) -> Grid:
    """What is kept where right answers are counted, per attacked method."""
    rows = []
    for m in table.attacked():
        cells = [shown(table.under(m, attack, "kept", budget=budget)) for attack, budget in ASKED_AS.values()]
        rows.append((m.replace("_", " "), *cells))
    title = "Where answers are counted: what is kept, as a share of the original's above guessing"
    return Grid(rows, ["method", *ASKED_AS], title)


def relearning_curves(table: Numbers, most: int = 4) -> dict[str, dict[int, Interval]]:
    """model -> steps -> margin, of PISCES, one rival, the original and a random edit (in the order of the colours)."""
    named: tuple[str, ...] = ("npo", "gradient_difference", "words_both", "pisces+words_both")
    rivals = [m for m in named if m in table.attacked()]
    found: dict[str, dict[int, Interval]] = {}
    for m in ("pisces", *(rivals[:1] or ["words"]), "original", "random_norm"):
        begin, later = table.under(m, "direct", "value", budget="margin"), table.strengths(m, "relearning", "value")
        if begin is not None and later and len(found) < most:
            found[m.replace("_", " ")] = {0: begin} | {int(steps): x for steps, x in later.items()}
    return found


def attack_bars(table: Numbers, method: str = "pisces") -> dict[str, dict[str, Interval | None]]:
    """attack -> state -> margin: the original under the same attack, the erased model, the erased model attacked.

    The attacks that are tests, and those that are there to compare with.
    """
    erased = table.under(method, "direct", "value", budget="margin")
    controls = [a for why, names in table.not_tests(method).items() if why.startswith("a control") for a in names]
    return {
        attack: {
            "original, same attack": table.under("original", attack, "value"),
            "erased": erased,
            "erased, attacked": table.under(method, attack, "value"),
        }
        for attack in (*table.tests(method), *controls)
    }


def twin_bars(table: Numbers) -> tuple[dict[str, dict[str, Interval]], dict[str, Interval]]:
    """attack -> state -> margin of the invented facts, and attack -> gain above the twin that was never taught."""
    bars, gains = {}, {}
    for (_, method, attack, _), numbers in table.cells.items():
        if method == "never_taught" and "above_control" in numbers:
            bars[attack] = {label: numbers[key] for key, label in TWINS.items()}
            gains[attack] = numbers["above_control"]
    return bars, gains
