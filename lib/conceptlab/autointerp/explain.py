"""Explainers: from examples of a unit to a label. One interface, `explain(examples) -> Label`, no scoring here.

Input side: what the tokens and contexts on which the unit fires have in common. Output side: which tokens its
direction promotes. Both are rules; a label is a short list of items, each with its weight, and reads as one line. A
language model may write the line instead (`ModelExplainer`, `endpoint.EndpointExplainer`).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from ..data import Article
from ..models import LanguageModel, greedy, project
from .examples import Corpus, Example, UnitExamples
from .prompts import explain_prompt, first_line, marked


@dataclass(frozen=True)
class Label:
    """A description of one unit: a line to read, and the items a rule-based judge looks for."""

    unit: int
    method: str  # name of the explainer
    text: str  # the line a reader sees; judges that read language need no more
    tokens: dict[str, float] = field(default_factory=dict)  # token at the place -> log-odds weight
    shapes: dict[str, float] = field(default_factory=dict)  # kind of token (`Example.shape`) -> weight
    previous: dict[str, float] = field(default_factory=dict)  # token just in front -> weight
    words: dict[str, float] = field(default_factory=dict)  # lower-case word of the context -> weight
    topics: dict[str, float] = field(default_factory=dict)  # topic of the text -> weight; for readers
    promotes: dict[str, float] = field(default_factory=dict)  # token that the unit's direction promotes -> weight


@runtime_checkable
class Explainer(Protocol):
    """Writes labels."""

    name: str

    def explain(self, examples: UnitExamples) -> Label:
        """The label of one unit, from its examples alone."""
        ...


def log_odds(hits: int, n: int, background_hits: int, background_n: int, prior: float = 0.5) -> tuple[float, float]:
    """How much likelier an item is among `n` firing contexts than in the background, in nats, and its z-score.

    All four counts are smoothed by `prior`; the z-score divides by the standard error (Monroe et al. 2008, eq. 20 to
    22) in their short form, from the two counts of presence. The terms of absence, 1 / b and 1 / d, are left out, which
    is harmless for rare items and makes z far too large for those that stand nearly everywhere: in 20 of 20 firing
    contexts and 1,900 of 2,000 others it is 3.5, with all four terms 0.5. Here z is only the bar and the order of a
    label's items. With four terms both would be others, and the labels and scores that ship were made with two.
    """
    a, b = hits + prior, n - hits + prior
    c, d = background_hits + prior, background_n - background_hits + prior
    value = math.log(a / b) - math.log(c / d)
    return value, value / math.sqrt(1 / a + 1 / c)


class InputExplainer:
    """Rule-based, input side: items over-represented where the unit fires, against a background sample.

    `background`: examples of random tokens of the labelling half. Items: the token, its shape, the token in front,
    words of the context, and the article's topic. Kept are those with a z-score of `least_z` that occur in 3 firing
    contexts, strongest first, `n_items` per kind.
    """

    name = "rule_based"

    def __init__(
        self, background: Sequence[Example], articles: Sequence[Article] = (), n_items: int = 16, least_z: float = 2.0
    ):
        self.articles, self.n_items, self.least_z = articles, n_items, least_z
        self.background, self.size = background, len(background)
        self.counts = {kind: _count(background, reader) for kind, reader in self._readers().items()}

    def explain(self, examples: UnitExamples) -> Label:
        """The label of one unit."""
        found = {kind: self._items(examples.spread, kind, reader) for kind, reader in self._readers().items()}
        return Label(examples.unit, self.name, _sentence(found), **found)

    def _readers(self) -> dict:
        readers = {
            "tokens": lambda e: {e.token},
            "shapes": lambda e: {e.shape},
            "previous": lambda e: {e.previous} - {""},
            "words": lambda e: e.words,
        }
        return readers | ({"topics": lambda e: {self.articles[e.doc].topic} - {""}} if self.articles else {})

    def _items(self, firing: Sequence[Example], kind: str, reader) -> dict[str, float]:
        scored = []
        for item, hits in _count(firing, reader).items():
            value, z = log_odds(hits, len(firing), self.counts[kind][item], self.size)
            if hits >= 3 and z >= self.least_z:
                scored.append((z, item, value))
        return {item: value for _, item, value in sorted(scored, reverse=True)[: self.n_items]}


def _count(examples: Iterable[Example], reader) -> Counter:
    return Counter(item for example in examples for item in reader(example))


def _sentence(found: dict[str, dict[str, float]], n: int = 4) -> str:
    """One readable line from the strongest items of each kind."""
    lead = {"tokens": "on", "shapes": "mostly", "previous": "after", "words": "among", "topics": "in texts on"}
    parts = []
    for kind, word in lead.items():
        items = [repr(x) if kind in ("tokens", "previous") else x for x in list(found.get(kind, {}))[:n]]
        if items:
            parts.append(f"{word} {', '.join(items)}")
    return "; ".join(parts) or "(nothing in common)"


class OutputExplainer:
    """Rule-based, output side: the tokens that the unit's direction promotes most.

    `directions`: what each unit writes to the residual stream, for an SAE `sae.residual_directions(lm)`. The promoted
    tokens serve as tokens and, as lower-case words, as words of the context; each weighs the same. `steered`: unit ->
    ids of the tokens that rise most when it is pushed (`steer.risen_tokens`); half of the items are then these, and
    half the vocabulary projection's (Gur-Arieh et al. 2025, arXiv 2501.08319: token change and vocabulary projection).
    """

    name = "output_side"

    def __init__(
        self,
        lm: LanguageModel,
        directions: Float[Tensor, "n d_model"],
        n_items: int = 8,
        steered: Mapping[int, Sequence[int]] | None = None,
    ):
        self.lm, self.directions, self.n_items = lm, directions, n_items
        self.steered = steered or {}

    def explain(self, examples: UnitExamples) -> Label:
        """The label of one unit; its examples are not looked at."""
        unit = examples.unit
        tokens = self.lm.words(self.token_ids(unit))
        words = {w for t in tokens for w in re.findall(r"[^\W\d_]{3,}", t.lower())}
        text = f"promotes {', '.join(map(repr, tokens))}"
        promotes = dict.fromkeys(tokens, 1.0)
        return Label(unit, self.name, text, promotes, words=dict.fromkeys(sorted(words), 1.0), promotes=promotes)

    def token_ids(self, unit: int) -> list[int]:
        """Ids of the promoted tokens of a unit, `n_items` of them."""
        projected = project(self.lm, self.directions[unit : unit + 1], k=self.n_items, cache=False).top_ids[0].tolist()
        risen = list(self.steered.get(unit, ()))[: self.n_items // 2]
        return list(dict.fromkeys([*projected[: self.n_items - len(risen)], *risen, *projected]))[: self.n_items]


class EnsembleExplainer:
    """Both sides: the reader's items, and the writer's with the weight that they have earned where the unit fires.

    The promoted tokens count as one item, "the token or a word in front is promoted": its log-odds against the
    reader's background weigh each of them, nothing where the z-score is below the reader's. So a direction whose
    promoted tokens never occur where it fires costs the label nothing.
    """

    name = "ensemble"

    def __init__(self, reader: InputExplainer, writer: OutputExplainer):
        self.reader, self.writer = reader, writer

    def explain(self, examples: UnitExamples) -> Label:
        """The label of one unit."""
        return self.combine(self.reader.explain(examples), self.writer.explain(examples), examples)

    def combine(self, reads: Label, writes: Label, examples: UnitExamples) -> Label:
        """One label from the reader's and the writer's."""
        firing, background = examples.spread, self.reader.background
        both = {}
        for kind, occurs in (
            ("tokens", lambda e: e.token in writes.tokens),
            ("words", lambda e: not e.words.isdisjoint(writes.words)),
        ):
            hits, others = sum(map(occurs, firing)), sum(map(occurs, background))
            value, z = log_odds(hits, len(firing), others, len(background))
            items = getattr(reads, kind)
            earned = getattr(writes, kind).keys() - items.keys() if hits >= 3 and z >= self.reader.least_z else ()
            both[kind] = items | dict.fromkeys(sorted(earned), value)
        text = f"{reads.text}; {writes.text}" if any((reads.tokens, reads.shapes, reads.words)) else writes.text
        return replace(reads, method=self.name, text=text, promotes=writes.promotes, **both)


class ModelExplainer:
    """A language model that runs here writes the line: it continues a few-shot prompt with the top contexts, greedily.

    `writer`: adds what the unit promotes to the label (not to the prompt). A model of 135M parameters copies words from
    the contexts more often than it generalises; the scores tell.
    """

    name = "local_llm"

    def __init__(
        self, lm: LanguageModel, n_contexts: int = 6, n_tokens: int = 16, writer: OutputExplainer | None = None
    ):
        self.lm, self.n_contexts, self.n_tokens, self.writer = lm, n_contexts, n_tokens, writer

    def explain(self, examples: UnitExamples) -> Label:
        """The label of one unit."""
        texts = [marked(e, before=8) for e in examples.top[: self.n_contexts]]
        answer = self.lm.decode(greedy(self.lm, [explain_prompt(texts)], self.n_tokens)[0])
        promotes = self.writer.explain(examples).promotes if self.writer else {}
        return text_label(examples.unit, self.name, first_line(answer), promotes)


_FUNCTION_WORDS = frozenset(
    "the and for with from that this which who when after before into onto over under has have had was were are not "
    "its their his her mostly among texts word words marked name names term terms used".split()
)


def text_label(unit: int, method: str, text: str, promotes: Mapping[str, float] | None = None) -> Label:
    """A label from a line of language. Its content words serve judges that read items: each weighs 1."""
    found = dict.fromkeys(re.findall(r"[^\W\d_]{3,}", text))
    content = [word for word in found if word.lower() not in _FUNCTION_WORDS]
    tokens = {form: 1.0 for word in content for form in (f" {word}", f" {word.lower()}", f" {word.capitalize()}")}
    words = {word.lower(): 1.0 for word in content}
    return Label(unit, method, text or "(no answer)", tokens, words=words, promotes=dict(promotes or {}))


def background_examples(corpus: Corpus, where: Tensor, n: int = 2_000, seed: int = 0) -> list[Example]:
    """Random tokens of the labelling half: what explainers compare firing contexts with."""
    return corpus.examples(corpus.sample(where.nonzero().squeeze(1), n, per_doc=10, seed=seed), "silent")
