"""Which value vectors carry a concept? How active neurons are on its questions, compared with other questions.

arXiv 2505.17260 (no code released) ranks by differential activation and leaves open: the token positions (here the
mean over all but the first; `positions="last"` is the other choice), the sign (here the absolute value, since a value
vector writes as much with a negative coefficient; `signed` keeps it), and whether layers are ranked together (here all
together, see `most_specific`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError
from ..data import Concept, Question, question_stem, text_passes
from ..models import LanguageModel

POSITIONS = ("all", "last")
FILLER = "it"  # stands for a word that was taken out of a question


def question_activity(
    lm: LanguageModel, texts: Sequence[str], positions: str = "all", signed: bool = False, batch_size: int = 16
) -> Float[Tensor, "n layers d_mlp"]:
    """Activation of every neuron on every text: mean of |m| (of m where `signed`) over its tokens but the first.

    `positions="last"`: of the last token alone. Raises ConceptLabError for other positions.
    """
    if positions not in POSITIONS:
        raise ConceptLabError(f"Unknown positions {positions!r}; choose one of {', '.join(POSITIONS)}.")
    sites = [("neurons", layer) for layer in range(lm.n_layers)]
    found = torch.zeros(len(texts), lm.n_layers, lm.d_mlp)
    for batch in text_passes(lm, texts, sites, batch_size=batch_size):
        keep = batch.keep
        if positions == "last":
            ends = keep.shape[1] - 1 - keep.flip(1).int().argmax(1)
            keep = torch.zeros_like(keep).scatter_(1, ends[:, None], True) & keep
        weight = (keep / keep.sum(1, keepdim=True).clamp_min(1)).float()
        for site in sites:
            acts = batch.found[site].float()
            acts = acts if signed else acts.abs()
            found[batch.which, site[1]] = torch.einsum("bp,bpd->bd", weight, acts).cpu()
    return found


def differential(
    own: Float[Tensor, "n layers d_mlp"], others: Float[Tensor, "m layers d_mlp"]
) -> Float[Tensor, "layers d_mlp"]:
    """Score of every value vector: mean activity on the concept's texts minus mean activity on the others'."""
    return own.mean(0) - others.mean(0)


def stems(questions: Sequence[Question]) -> list[str]:
    """Questions as they are read for a ranking: without examples before them, without options or answer."""
    return [question_stem(q, "") for q in questions]


# ---- the words of a concept ---------------------------------------------------------------------------------
def subject_words(concept: Concept, others: Sequence[Question], least: int = 3, times: float = 5.0) -> frozenset[str]:
    """Lower-case words by which the concept's questions give their subject away.

    Those of its title and of its word list, and those that stand in at least `least` of its dev questions and in
    `times` as large a share of them as of the `others`.
    """
    own = Counter(w for q in concept.dev for w in set(words_of(q.q)))
    far = Counter(w for q in others for w in set(words_of(q.q)))
    n, m = max(len(concept.dev), 1), max(len(others), 1)
    told = {w for w, k in own.items() if k >= least and k / n >= times * far[w] / m and len(w) > 2}
    return frozenset(told | {w for name in (concept.title, *concept.words) for w in words_of(name) if len(w) > 2})


def words_of(text: str) -> list[str]:
    """Its words, lower case."""
    return re.findall(r"[^\W_]+", text.lower())


def without_words(texts: Sequence[str], words: frozenset[str], filler: str = FILLER) -> list[str]:
    """The texts with every one of `words` (lower case, whole words) replaced by `filler`."""
    swap: Callable[[re.Match], str] = lambda m: filler if m[0].lower() in words else m[0]  # noqa: E731
    return [re.sub(r"[^\W_]+", swap, text) for text in texts]


def wordless(questions: Sequence[Question], words: frozenset[str]) -> list[Question]:
    """The facts of `questions` in their indirect form, where that holds none of `words`: no subject word to detect."""
    return [
        Question(f"{q.id}-clue", q.clue, q.options, q.answer)
        for q in questions
        if q.clue and not words & set(words_of(q.clue))
    ]


def corpus_frequency(concepts: Sequence[Concept], texts: Sequence[str]) -> list[float]:
    """Per concept, how often words of its list stand in `texts`, per million words."""
    counts = Counter(w for text in texts for w in words_of(text))
    per_word = 1e6 / max(counts.total(), 1)
    return [per_word * sum(counts[w] for w in {w.lower() for w in c.words}) for c in concepts]
