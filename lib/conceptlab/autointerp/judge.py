"""Judges: from a label and contexts to one number each, "how sure are you that the unit fires here".

Every judge sees the label and the text up to the token, nothing else; so every scorer works for every judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..models import LanguageModel, Prefix, branch_logprobs, shared_prefix
from .embedding import Encoder
from .examples import Example
from .explain import Label
from .prompts import JUDGE_PROMPT, judge_head, marked


@runtime_checkable
class LabelJudge(Protocol):
    """Reads a label and contexts, and says how sure it is that the unit fires on each.

    A judge may also have `judge_all(labels, contexts) -> [labels, n]`, where several labels at once are cheaper.
    """

    name: str

    def judge(self, label: Label, contexts: Sequence[Example]) -> Float[Tensor, " n"]:
        """One number per context, larger for "fires". Only the label and the text up to the token may be used."""
        ...


def judge_all(judge: LabelJudge, labels: Sequence[Label], contexts: Sequence[Example]) -> Float[Tensor, "labels n"]:
    """Every label on every context: at once where the judge can, else label by label."""
    if not len(contexts):
        return torch.zeros(len(labels), 0)
    if hasattr(judge, "judge_all"):
        return judge.judge_all(labels, contexts)
    return torch.stack([judge.judge(label, contexts) for label in labels])


class EvidenceJudge:
    """Rule-based: adds up the weights of the label's items that occur in a context. It knows no synonym."""

    name = "evidence"

    def judge(self, label: Label, contexts: Sequence[Example]) -> Float[Tensor, " n"]:
        """Sum of weights: the token (its shape where it is not listed), the token in front, words of the context."""
        return self.judge_all([label], contexts)[0] if len(contexts) else torch.zeros(0)

    def judge_all(self, labels: Sequence[Label], contexts: Sequence[Example]) -> Float[Tensor, "labels n"]:
        """The same for several labels: tables of weights per item that occurs, read or multiplied out once."""
        token, tokens = _index([c.token for c in contexts])
        shape, shapes = _index([c.shape for c in contexts])
        front, fronts = _index([c.previous for c in contexts])
        listed = _weights([dict.fromkeys(x.tokens, 1.0) for x in labels], tokens)[:, token] > 0
        found = torch.where(
            listed,
            _weights([x.tokens for x in labels], tokens)[:, token],
            _weights([x.shapes for x in labels], shapes)[:, shape],
        )
        found = found + _weights([x.previous for x in labels], fronts)[:, front]
        wanted = {word for label in labels for word in label.words}
        _, words = _index(sorted(wanted.intersection(word for c in contexts for word in c.words)))
        present = torch.zeros(len(words), len(contexts), dtype=torch.float64)
        for column, context in enumerate(contexts):
            for word in context.words & words.keys():
                present[words[word], column] = 1.0
        found = found + _weights([x.words for x in labels], words) @ present
        return found.round(decimals=9).float()  # equal evidence stays equal in whatever order it was added up


def _index(items: Sequence[str]) -> tuple[list[int], dict[str, int]]:
    """Number of each item, and item -> number."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(item, len(numbers)) for item in items], numbers


def _weights(rows: Sequence[dict[str, float]], columns: dict[str, int]) -> Float[Tensor, "labels items"]:
    table = torch.zeros(len(rows), len(columns), dtype=torch.float64)
    for i, weights in enumerate(rows):
        for item in weights.keys() & columns.keys():
            table[i, columns[item]] = weights[item]
    return table


class ModelJudge:
    """A language model that runs here: log-probability of " yes" minus that of " no" after a few answered examples.

    Calibrated: the score of the same context under an empty label is subtracted, so that a model that likes to say yes
    (or dislikes a text) is not taken for one that sees a match (contextual calibration, arXiv 2102.09690). The prompt
    is computed once up to the label, and once per label up to the context; no pair of label and context is asked twice.
    """

    name = "local_llm"

    def __init__(self, lm: LanguageModel, batch_size: int = 32, calibrate: bool = True, before: int = 12):
        self.lm, self.batch_size, self.calibrate = lm, batch_size, calibrate
        self.before = before  # tokens of the context in front of the marked one
        self._known: dict[tuple[str, str], float] = {}
        self._shots: Prefix | None = None

    def judge(self, label: Label, contexts: Sequence[Example]) -> Float[Tensor, " n"]:
        """Nats in favour of "yes", relative to an empty label."""
        texts = [marked(context, self.before) for context in contexts]
        raw = self._scores(label.text, texts)
        return raw - self._scores("", texts) if self.calibrate else raw

    def _scores(self, description: str, texts: Sequence[str]) -> Float[Tensor, " n"]:
        new = [text for text in dict.fromkeys(texts) if (description, text) not in self._known]
        if new:
            self._known |= {(description, t): s for t, s in zip(new, self._ask(description, new), strict=True)}
        return torch.tensor([self._known[description, text] for text in texts])

    def _ask(self, description: str, texts: Sequence[str]) -> list[float]:
        self._shots = self._shots or shared_prefix(self.lm, JUDGE_PROMPT.rstrip())
        head = shared_prefix(self.lm, "\n\n" + judge_head(description), self._shots)
        trees = [(f" {text}\nAnswer:", [" yes", " no"]) for text in texts]
        found = branch_logprobs(self.lm, head, trees, self.batch_size)
        return [float(yes.sum() - no.sum()) for yes, no in found]


class EmbeddingJudge:
    """Cosine between the label's line and the context, by a sentence encoder. It sees no order and no mark.

    `encoder`: by default the packaged one (`embedding.load_encoder`). Scoring detection with this judge is the
    embedding scorer of Paulo et al. (arXiv 2410.13928): the label as a query, the contexts as documents.
    """

    name = "embedding"

    def __init__(self, encoder: Encoder):
        self.encoder = encoder
        self._known: dict[str, Tensor] = {}

    def judge(self, label: Label, contexts: Sequence[Example]) -> Float[Tensor, " n"]:
        """Cosines."""
        return self.judge_all([label], contexts)[0] if len(contexts) else torch.zeros(0)

    def judge_all(self, labels: Sequence[Label], contexts: Sequence[Example]) -> Float[Tensor, "labels n"]:
        """Cosines of every label with every context; each text is encoded once."""
        lines = self._vectors([label.text for label in labels])
        return lines @ self._vectors([(context.before + context.token).strip() or "." for context in contexts]).T

    def _vectors(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= dict(zip(new, self.encoder.encode(new), strict=True))
        return torch.stack([self._known[text] for text in texts])
