"""The form matrix: facts are forgotten in one form and asked in every form.

"LLM Unlearning Should Be Form-Independent" (arXiv 2506.07795) reports that methods forget mostly in the form that they
were trained in. For each method and each form of the shown facts: the method is fitted to these texts alone, its edit
is scaled until the shown facts *in that form* keep half of their margin, and then all forms are asked, of the shown
facts and of facts that the method never saw. A method that looks at no text in that form (PISCES) has one row.

`budget` of a cell is the form that is asked, `attack` the form that was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..core import Cell, Interval, NotPossible, Store, bootstrap, interval_of, recovered_share, say, table_path
from ..data import Concept, Question, has_form, load_concept
from ..edits import Intervention
from ..erasure import Shared, SharedConfig, get_method
from ..evaluation import QuestionScores, SearchConfig, ask, concept_questions, score_form, score_questions
from ..models import LanguageModel
from .matching import scale_to
from .scoring import number

METHODS = ("gradient_difference", "npo", "rmu", "rocr", "pisces")
FORMLESS = ("pisces",)  # look at no facts in a form: one row


@dataclass(frozen=True)
class FormsConfig:
    """Facts, forms, and where methods are compared."""

    trained: tuple[str, ...] = ("question", "cloze", "clue")
    asked: tuple[str, ...] = ("question", "cloze", "clue")  # small models are near guessing as choice and true_false
    n_shown: int = 24  # dev facts that a method is shown
    n_held_out: int = 24  # test facts at most; of both only those that the original knows in a form count there
    n_spared: int = 16  # known questions on the neighbour and general ones
    left: float = 0.5  # of the margin, where methods are compared
    most: float = 4.0  # times the method's own strength


def forms(
    lm: LanguageModel,
    path: Path | None = None,
    concepts: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seed: int = 0,
    cfg: FormsConfig | None = None,
    replace: bool = False,
) -> Path:
    """Method x trained form x asked form, into `path`; see `Store` for interruptions and `replace`. Default: Japan."""
    cfg = cfg or FormsConfig()
    names = [get_method(name).name for name in (METHODS if methods is None else methods)]
    rows = [(m, form) for m in names for form in (cfg.trained[:1] if m in FORMLESS else cfg.trained)]
    concepts = ["japan"] if concepts is None else list(concepts)
    with Store(
        path or table_path("forms", lm.name), experiment="forms", model=lm.name, fingerprint=lm.fingerprint(),
        settings=asdict(cfg), seed=seed, device=str(lm.device), replace=replace,
    ) as store:  # fmt: skip
        store.progress([Cell(c, m, form) for c in concepts for m, form in rows])
        for name in concepts:
            missing = [row for row in rows if store.missing(Cell(name, *row))]
            bench = Bench(lm, load_concept(name), cfg, seed) if missing else None
            for method, form in missing:
                assert bench is not None
                _row(store, bench, method, form)
        return store.finish()


def _row(store: Store, bench: Bench, method: str, form: str) -> None:
    """One method trained in one form."""
    own = Cell(bench.concept.name, method, form)
    try:
        edit, scale, left = bench.fitted(method, form)
    except NotPossible as reason:
        say(f"{own.concept} {method} {form}: {reason}")
        return store.add(own, {"possible": number(0.0)}, record={"not possible": str(reason)})
    with torch.no_grad(), edit.applied(bench.lm):
        after = {name: bench.margins(facts) for name, facts in bench.facts.items()}
        spared = {name: score_questions(bench.lm, a.questions).gold for name, a in bench.spared.items()}
    cells, records = {}, {}
    for asked in bench.cfg.asked:
        cell = Cell(own.concept, method, form, asked)
        pairs = {name: (bench.before[name].get(asked, {}), after[name].get(asked, {})) for name in bench.facts}
        kept = {f"kept_{name}": kept_margin(*pair) for name, pair in pairs.items() if pair[0]}
        cells[cell] = {"facts": number(len(pairs["shown"][0]))} | {k: x for k, x in kept.items() if x.bounded}
        records[cell] = {name: [[i, *(side[i] for side in pair)] for i in pair[0]] for name, pair in pairs.items()}
    lost = {
        f"lost_{name}": bootstrap(bench.spared[name].scores.gold - x, over="questions") for name, x in spared.items()
    }
    lost = {name: x for name, x in lost.items() if x.bounded}  # one question has no interval
    store.add_all(
        {**cells, own: {"possible": number(1.0), "scale": number(scale), "left": number(left)} | lost}, records
    )
    say(f"{own.concept} {method} {form}: {left:.2f} left at {scale:.2f}; " + ", ".join(
        f"{cell.budget} {x['kept_shown']}" for cell, x in cells.items() if "kept_shown" in x))  # fmt: skip


class Bench:
    """One concept: what is shown, what is asked, and the original's answers."""

    def __init__(self, lm: LanguageModel, concept: Concept, cfg: FormsConfig, seed: int = 0):
        self.lm, self.cfg, self.seed = lm, cfg, seed
        # the last facts of dev judge strengths in `Shared`; here none is chosen, so few are enough
        few = (*concept.dev[: cfg.n_shown], *concept.dev[-8:])
        self.concept = replace(concept, dev=few)
        self.search = SearchConfig(n_questions=6, n_asked=8, n_clues=0, n_texts=1)
        found = {"shown": concept.dev[: cfg.n_shown], "held_out": concept.test[: cfg.n_held_out]}
        self.facts: dict[str, dict[str, list[Question]]] = {}
        self.before: dict[str, dict[str, dict[str, float]]] = {}
        for name, facts in found.items():
            scores = {form: self._score(facts, form) for form in cfg.asked}
            self.before[name] = {form: x for form, x in scores.items() if x}
            self.facts[name] = {form: [q for q in facts if q.id in x] for form, x in self.before[name].items()}
        sets = concept_questions(concept, "test")
        self.spared = {
            name: ask(lm, sets[name], 2 * cfg.n_spared).known(cfg.n_spared) for name in ("neighbour", "general")
        }

    def _score(self, facts: Sequence[Question], form: str) -> dict[str, float]:
        """Margins of the facts that the original knows in a form, by the fact's id."""
        chosen = [q for q in facts if has_form(q, form)]
        scores = score_form(self.lm, chosen, form) if chosen else None
        return {} if scores is None else _by_id([q for q in chosen], scores, known=True)

    def margins(self, facts: Mapping[str, Sequence[Question]]) -> dict[str, dict[str, float]]:
        """Form -> fact -> margin, of the model as it is now."""
        return {form: _by_id(chosen, score_form(self.lm, chosen, form)) for form, chosen in facts.items()}

    def fitted(self, method: str, form: str) -> tuple[Intervention, float, float]:
        """The method's edit on facts in one form, at the strength at which they keep `cfg.left` of their margin."""
        cfg = SharedConfig(forms=(form,), leads=False, search=self.search)
        shared, known = Shared(self.lm, self.concept, cfg=cfg, seed=self.seed), get_method(method)
        edit = known.fit(self.lm, self.concept, known.config, shared)
        facts = self.facts["shown"].get(form)
        if not facts:
            raise NotPossible(f"{self.lm.name} knows none of the shown facts about {self.concept.title} as {form}.")
        start = sum(self.before["shown"][form].values())

        @torch.no_grad()
        def left(at: Intervention) -> float:
            with at.applied(self.lm):
                return float(score_form(self.lm, facts, form).margin.sum()) / start

        return scale_to(edit, left, self.cfg.left, self.cfg.most)


def _by_id(facts: Sequence[Question], scores: QuestionScores, known: bool = False) -> dict[str, float]:
    pairs = zip(facts, scores.margin.tolist(), strict=True)
    return {q.id: round(x, 4) for q, x in pairs if x > 0 or not known}


def kept_margin(before: Mapping[str, float], after: Mapping[str, float]) -> Interval:
    """Share of the margin that facts keep: mean margin after over before, with an interval over facts."""
    top = torch.tensor([before[i] for i in before])
    return recovered_share(top, torch.zeros_like(top), torch.tensor([after[i] for i in before]))


# ---- reading the table ------------------------------------------------------------------------------------
def form_gap(rows: Mapping[str, Sequence[Sequence]], trained: str, n_resamples: int = 2_000, seed: int = 0) -> Interval:
    """Margin share lost in the trained form minus the mean of what is lost in the other forms; facts drawn anew.

    `rows[form]`: (fact, margin before, margin after). Positive: the method forgets more in the form that it was shown.
    """
    ids = sorted({row[0] for x in rows.values() for row in x})
    names = [trained, *(form for form in rows if form != trained and rows[form])]
    table = torch.full((2, len(names), len(ids)), torch.nan)
    for k, form in enumerate(names):
        for fact, before, after in rows[form]:
            table[:, k, ids.index(fact)] = torch.tensor([before, before - after])

    def gap(chosen: Tensor) -> Tensor:
        known = table[..., chosen]  # [2, forms, draws, facts]
        lost = known[1].nansum(-1) / known[0].nansum(-1)
        return lost[0] - lost[1:].mean(0)

    picks = torch.randint(len(ids), (n_resamples, len(ids)), generator=torch.Generator().manual_seed(seed))
    draws = gap(picks).double()
    return interval_of(draws[draws.isfinite()], float(gap(torch.arange(len(ids))[None])[0]), len(ids), "facts")
