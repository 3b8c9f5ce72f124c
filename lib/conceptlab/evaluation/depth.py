"""How deep an erasure reaches: the unlearning depth score (Lee et al., arXiv 2605.24614), by activation patching.

The *original* model reads a question and its right answer. At the positions that predict the answer, the output of one
layer is replaced by what a *source* has there, and what the answer's log-probability loses is measured:

    lacking_l   the source does not have the fact: what layer l has to do with the fact at all (stage 1)
    edited_l    the source is the changed model: what of it the change took away at layer l (stage 2)
    score     = sum_l lacking_l clip(edited_l / lacking_l, 0, 1) / sum_l lacking_l,  over l with lacking_l > least

0: everything is still readable inside, whatever the model says; 1: no more is there than where the fact never was.

Differences from the paper: a real concept has no model that was trained without it, so the source without the fact is
the original model itself, reading the same answer behind *another question* of the set (`never` takes the states of a
real twin, where there is one: invented facts). Questions are asked behind the course's few-shot examples, answers are
the right options. Every third layer is patched. A model that is changed at its output alone (run-time methods) has
depth 0 by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError, Interval, NotPossible, bootstrap
from ..data import FEW_SHOT, Question, question_stem
from ..edits import Intervention, applied
from ..models import LanguageModel, Prefix, reading, repeated, rewritten, shared_prefix
from .questions import QuestionScores, check_questions, score_stems


@dataclass(frozen=True)
class DepthConfig:
    """Which layers are patched, and which count."""

    layers: tuple[int, ...] | None = None  # whose output is replaced; None: every third and the last
    least: float = 0.05  # nats per token; a layer counts for a question where lacking the fact costs more (as there)


@dataclass(frozen=True)
class DepthBase:
    """The original model on the questions, and what it loses without the fact (stage 1)."""

    questions: tuple[Question, ...]
    layers: tuple[int, ...]
    least: float  # nats per token
    states: dict[int, Float[Tensor, "n pos d_model"]]  # the original's, behind the examples
    known: Float[Tensor, " n"]  # log-probability per token of the right answers
    lacking: Float[Tensor, "n layers"]  # nats per token lost with a source that lacks the fact


@dataclass(frozen=True)
class Depth:
    """How much of each fact is gone inside."""

    score: Interval  # mean over the questions that have a layer to look at; 0: all readable, 1: gone
    scores: Float[Tensor, " n"]  # per question; nan where no layer counts
    layers: tuple[int, ...]
    lacking: Float[Tensor, "n layers"]
    edited: Float[Tensor, "n layers"]


def unasked(lm: LanguageModel, questions: Sequence[Question]) -> QuestionScores:
    """The options of each question behind the next *other* question of the list: what answers weigh unasked for.

    A stand-in for a model that was never taught, where there is none. Raises NotPossible for a single question.
    """
    return score_stems(lm, questions, FEW_SHOT, [question_stem(q) for q in _others(questions)])


def answer_states(
    lm: LanguageModel,
    questions: Sequence[Question],
    cfg: DepthConfig = DepthConfig(),
    stems: Sequence[Question] | None = None,
) -> dict[int, Float[Tensor, "tokens d_model"]]:
    """Layer -> its output at every position that predicts a token of a right answer, of the model as it is now.

    `stems`: questions that stand in front of the answers instead.
    """
    rows, layers = _Rows(lm, questions, stems), _layers(lm, cfg)
    return {layer: x[rows.at] for layer, x in _pass(lm, rows, layers)[0].items()}


@torch.no_grad()
def depth_base(
    lm: LanguageModel,
    questions: Sequence[Question],
    cfg: DepthConfig = DepthConfig(),
    never: dict[int, Float[Tensor, "tokens d_model"]] | None = None,
) -> DepthBase:
    """Stage 1, once for all edits of a model. `never`: `answer_states` of a model that was never taught."""
    check_questions(questions)
    layers, rows = _layers(lm, cfg), _Rows(lm, questions)
    states, known = _pass(lm, rows, layers)
    absent = answer_states(lm, questions, cfg, _others(questions)) if never is None else never
    lacking = known[:, None] - _patched(lm, rows, layers, states, absent)
    return DepthBase(tuple(questions), layers, cfg.least, states, known, lacking)


@torch.no_grad()
def depth(lm: LanguageModel, base: DepthBase, intervention: Intervention | None) -> Depth:
    """Stage 2: the score of one intervention. Call it on the model that `base` was made of, outside `applied`.

    Not measurable where no layer has to do with any of the facts.
    """
    cfg = DepthConfig(base.layers, base.least)
    with applied(intervention, lm):
        states = answer_states(lm, base.questions, cfg)
    rows = _Rows(lm, base.questions)
    edited = base.known[:, None] - _patched(lm, rows, base.layers, base.states, states)
    scores = depth_scores(base.lacking, edited, base.least)
    there = scores[scores.isfinite()]
    none = Interval.unmeasured("no layer has to do with any of the facts", 0, "questions")
    score = bootstrap(there, over="questions") if len(there) else none
    return Depth(score, scores, base.layers, base.lacking, edited)


def depth_scores(
    lacking: Float[Tensor, "n layers"], edited: Float[Tensor, "n layers"], least: float = DepthConfig.least
) -> Float[Tensor, " n"]:
    """`sum_l lacking_l clip(edited_l / lacking_l, 0, 1) / sum_l lacking_l`; nan where no layer counts."""
    counts = lacking > least
    weight = torch.where(counts, lacking, 0.0)
    gone = torch.where(counts, torch.minimum(edited.clamp_min(0), lacking), 0.0)
    return gone.sum(1) / weight.sum(1)


# ---- rows and passes --------------------------------------------------------------------------------------
class _Rows:
    """Each question with its right answer as a row behind the examples, and where the answer is predicted."""

    def __init__(self, lm: LanguageModel, questions: Sequence[Question], stems: Sequence[Question] | None = None):
        asked = questions if stems is None else stems
        self.stems = [rewritten(lm, lm.encode(question_stem(q))) for q in asked]
        golds = [lm.encode(f" {q.gold}") for q in questions]
        rows = [stem + gold for stem, gold in zip(self.stems, golds, strict=True)]
        self.ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)  # what stands behind is never seen
        for i, ids in enumerate(rows):
            self.ids[i, : len(ids)] = torch.tensor(ids)
        places = [(i, len(s) - 1 + t) for i, (s, g) in enumerate(zip(self.stems, golds, strict=True)) for t in
                  range(len(g))]  # fmt: skip
        row, position = (torch.tensor(x, device=lm.device) for x in zip(*places, strict=True))
        self.at, self.lengths = (row, position), [len(g) for g in golds]
        self.targets = torch.tensor([token for gold in golds for token in gold], device=lm.device)

    def means(self, logits: Float[Tensor, "tokens d_vocab"]) -> Float[Tensor, " n"]:
        """Log-probability per token of each answer."""
        found = logits.float().log_softmax(-1).gather(1, self.targets[:, None])[:, 0].cpu()
        return torch.stack([part.mean() for part in found.split(self.lengths)])


@torch.no_grad()
def _pass(lm: LanguageModel, rows: _Rows, layers: Sequence[int]) -> tuple[dict[int, Tensor], Float[Tensor, " n"]]:
    """Every layer's output at all positions, and the answers' log-probabilities."""
    states: dict[int, Tensor] = {}

    def keep(layer: int):
        return lambda x: states.__setitem__(layer, x.detach())

    prefix = shared_prefix(lm, FEW_SHOT)
    with lm.intervene({("resid_post", layer): keep(layer) for layer in layers}):
        hidden = _hidden(lm, rows, prefix)
    return states, rows.means(lm.head(hidden[rows.at]))


def _hidden(lm: LanguageModel, rows: _Rows, prefix: Prefix) -> Tensor:
    asked = torch.arange(rows.ids.shape[1]) < torch.tensor([[len(stem)] for stem in rows.stems])
    with reading(lm, rows.stems, asked):
        return lm.final_hidden(rows.ids, past=repeated(prefix.cache, len(rows.ids)))


def _patched(
    lm: LanguageModel,
    rows: _Rows,
    layers: Sequence[int],
    states: dict[int, Tensor],
    source: dict[int, Float[Tensor, "tokens d_model"]],
) -> Float[Tensor, "n layers"]:
    """Log-probabilities of the answers with each layer's output replaced at the answers' positions.

    The layers below are not run again: what they write is known.
    """
    prefix, found = shared_prefix(lm, FEW_SHOT), []
    for layer in layers:
        x = states[layer].clone()
        x[rows.at] = source[layer].to(x)
        if layer == lm.n_layers - 1:
            found.append(rows.means(lm.readout(x[rows.at])))
            continue
        feed = {("resid_pre", layer + 1): lambda _x, new=x: new}
        with lm.skip_before(layer + 1), lm.intervene(feed):
            hidden = _hidden(lm, rows, prefix)
        found.append(rows.means(lm.head(hidden[rows.at])))
    return torch.stack(found, 1)


def _layers(lm: LanguageModel, cfg: DepthConfig) -> tuple[int, ...]:
    if cfg.layers is not None:
        if not cfg.layers:
            raise ConceptLabError("Depth is read at one layer at least; give layers, or None for every third.")
        return tuple(sorted({lm.check_layer(layer) for layer in cfg.layers}))
    return tuple(sorted({*range(0, lm.n_layers, 3), lm.n_layers - 1}))


def _others(questions: Sequence[Question]) -> list[Question]:
    """For each question the next one in the list with another answer."""
    found = []
    for i, q in enumerate(questions):
        after = [*questions[i + 1 :], *questions[:i]]
        other = next((o for o in after if o.gold.lower() != q.gold.lower()), None)
        if other is None:
            raise NotPossible("What is not asked needs two questions with different answers; give more.")
        found.append(other)
    return found
