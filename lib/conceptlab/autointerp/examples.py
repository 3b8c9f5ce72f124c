"""Examples of a unit with their provenance: strongest, spread, silent, and hard negatives (same token, silent)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..core import ConceptLabError
from ..data import Harvest
from ..models import LanguageModel
from .firings import Firings


@dataclass(frozen=True)
class Example:
    """One token in its context, with where it came from."""

    index: int  # kept token of the harvest
    row: int  # where it stands in the token rows
    pos: int
    doc: int  # index of the text
    kind: str  # "top", "spread", "silent", "matched" or "hard"
    tokens: tuple[str, ...]  # the window around it, cut at the borders of the text
    place: int  # which of `tokens` it is
    activations: tuple[float, ...] = ()  # of the unit over the window, where they were asked for

    @property
    def token(self) -> str:
        return self.tokens[self.place]

    @property
    def before(self) -> str:
        """The text in front of the token: all that the model had seen of the context."""
        return "".join(self.tokens[: self.place])

    @cached_property
    def words(self) -> frozenset[str]:
        """Lower-case words (three letters or more) of the text in front of the token."""
        return frozenset(re.findall(r"[^\W\d_]{3,}", self.before.lower()))

    @property
    def shape(self) -> str:
        """What kind of token it is; every token has exactly one shape."""
        core = self.token.strip()
        if not any(c.isalnum() for c in core):
            return "punctuation" if core else "blanks"
        if core.isdigit():
            return "digits"
        if not self.token[0].isspace():
            return "word endings"
        if core[0].isupper():
            return "capitalised words"
        return "short words" if len(core) <= 3 else "longer words"

    @property
    def previous(self) -> str:
        """The token just in front; empty at the start of a text."""
        return self.tokens[self.place - 1] if self.place else ""

    @property
    def activation(self) -> float:
        return self.activations[self.place] if self.activations else 0.0


@dataclass(frozen=True)
class Corpus:
    """A harvest as text: windows, examples, and two halves of the texts."""

    lm: LanguageModel
    harvest: Harvest
    before: int = 16  # tokens of context in front, all that judges see
    after: int = 6  # tokens behind, shown to readers only: the model had not seen them
    _pieces: dict[int, str] = field(default_factory=dict, repr=False)

    @cached_property
    def token_ids(self) -> Tensor:
        return self.harvest.token_ids()

    @cached_property
    def docs(self) -> Tensor:
        return self.harvest.docs()

    def halves(self, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Two masks over the kept tokens: texts for labelling, and the other texts for scoring."""
        texts = self.docs.unique()
        chosen = texts[torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed))[: len(texts) // 2]]
        mask = torch.isin(self.docs, chosen)
        return mask, ~mask

    def piece(self, token_id: int) -> str:
        """Readable string of a token id."""
        if token_id not in self._pieces:
            self._pieces[token_id] = self.lm.words([token_id])[0]
        return self._pieces[token_id]

    def example(self, index: int, kind: str = "spread", activations: Tensor | None = None) -> Example:
        """The kept token `index` in its context; `activations` `[tokens]` of a unit, for the heat map."""
        row, pos, doc = int(self.harvest.row[index]), int(self.harvest.pos[index]), int(self.docs[index])
        docs, ids = self.harvest.rows.docs[row].tolist(), self.harvest.rows.ids[row].tolist()
        start, stop = pos, pos + 1
        while start > max(0, pos - self.before) and docs[start - 1] == doc:
            start -= 1
        while stop < min(len(ids), pos + self.after + 1) and docs[stop] == doc:
            stop += 1
        heat: tuple[float, ...] = ()
        if activations is not None:  # kept tokens of one text are neighbours; position 0 of a row is not kept
            heat = tuple(float(activations[index + p - pos]) if p > 0 else 0.0 for p in range(start, stop))
        return Example(index, row, pos, doc, kind, tuple(map(self.piece, ids[start:stop])), pos - start, heat)

    def examples(self, indices: Iterable[int] | Tensor, kind: str, activations: Tensor | None = None) -> list[Example]:
        """`example` for several tokens."""
        return [self.example(int(i), kind, activations) for i in indices]

    def sample(self, indices: Int[Tensor, " m"], n: int, per_doc: int = 2, seed: int = 0) -> Int[Tensor, " k"]:
        """Up to `n` of the given tokens in random order, at most `per_doc` from one text."""
        order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))
        return self.thin(indices[order], n, per_doc)

    def thin(self, indices: Int[Tensor, " m"], n: int, per_doc: int = 2) -> Int[Tensor, " k"]:
        """The first `n` of the given tokens that keep to `per_doc` from one text."""
        seen: dict[int, int] = {}
        kept: list[int] = []
        for block in indices.split(max(1, 4 * n)):  # most calls need a few hundred of a million tokens
            for index, doc in zip(block.tolist(), self.docs[block].tolist(), strict=True):
                if seen.get(doc, 0) < per_doc and len(kept) < n:
                    seen[doc] = seen.get(doc, 0) + 1
                    kept.append(index)
            if len(kept) == n:
                break
        return torch.tensor(kept, dtype=torch.long)


@dataclass(frozen=True)
class UnitExamples:
    """What an explainer or a scorer is given about one unit, all from the same half of the texts."""

    unit: int
    rate: float  # share of all tokens on which it fires
    top: list[Example]  # strongest first, one per text
    spread: list[Example]  # a random sample of its strong firings
    silent: list[Example]  # random tokens on which it does not fire
    matched: list[Example]  # those of `spread` that have a partner in `hard`, in the same order
    hard: list[Example]  # the same token as its partner, where the unit does not fire


def unit_examples(
    corpus: Corpus,
    firings: Firings,
    unit: int,
    where: Bool[Tensor, " tokens"],
    n: int = 100,
    n_top: int = 10,
    strong: float = 0.25,
    seed: int = 0,
) -> UnitExamples:
    """Examples of one unit among the tokens of `where`: the `n_top` strongest and up to `n` of each other kind.

    Firing examples come from the strongest share `strong` of the unit's firings; tokens on which it fires more weakly
    belong to neither side. Raises ConceptLabError when the unit does not fire strongly on these texts.
    """
    activations = firings.dense(unit)
    on = firings.strong(unit, strong)[0] if int(firings.counts()[unit]) else torch.zeros(0, dtype=torch.long)
    on = on[where[on]]
    if not len(on):
        raise ConceptLabError(f"Unit {unit} never fires strongly on these texts; choose units with `sample_by_rate`.")
    off = (where & (activations == 0)).nonzero().squeeze(1)
    strongest = on[activations[on].argsort(descending=True, stable=True)]
    picks = {
        "top": corpus.thin(strongest, n_top, per_doc=1),
        "spread": corpus.sample(on, n, seed=seed),
        "silent": corpus.sample(off, n, seed=seed + 1),
    }
    partner = hard_negatives(corpus.token_ids, picks["spread"], off, seed + 2)
    picks |= {"matched": picks["spread"][partner >= 0], "hard": partner[partner >= 0]}
    found = {kind: corpus.examples(indices, kind, activations) for kind, indices in picks.items()}
    return UnitExamples(unit, float(firings.rates()[unit]), **found)


def hard_negatives(
    token_ids: Int[Tensor, " tokens"], on: Int[Tensor, " n"], off: Int[Tensor, " m"], seed: int = 0
) -> Int[Tensor, " n"]:
    """For each firing place of `on`, a random place of `off` (where the unit is silent) with the same token.

    No place is used twice; -1 where no place is left: a token that never stays silent has no partner.
    """
    order = off[torch.randperm(len(off), generator=torch.Generator().manual_seed(seed))]
    order = order[torch.isin(token_ids[order], token_ids[on])]
    places: dict[int, list[int]] = {}
    for index, token in zip(order.tolist(), token_ids[order].tolist(), strict=True):
        places.setdefault(token, []).append(index)
    partners = [places[t].pop() if places.get(t) else -1 for t in token_ids[on].tolist()]
    return torch.tensor(partners, dtype=torch.long)
