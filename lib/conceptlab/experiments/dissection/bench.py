"""What all cells of one concept share: known questions, the two protocols, the original's traces, other concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ...core import Interval, NotPossible, Store
from ...data import Question, list_concepts, load_concept
from ...dissection import Forced, Traced, forced_gold, forced_own, layer_windows, traced
from ...erasure import Shared
from ...evaluation import Asked, ask
from ...models import LanguageModel

PROTOCOLS = ("gold", "own")
FEWEST_KNOWN = 6  # questions; with fewer the intervals say nothing


@dataclass(frozen=True)
class DissectionConfig:
    """Sizes of the experiment."""

    n_asked: int = 40  # test questions that are asked to find known ones
    n_questions: int = 12  # known ones that are dissected, in both protocols
    n_own: int = 10  # tokens of the original's own answers (30 in the paper)
    width: float = 1 / 6  # of a window, in shares of the depth: 5 of 30 layers, 3 of 18
    n_others: int = 8  # other concepts whose known questions say what else is lost
    n_collateral: int = 6  # questions of each
    span: int = 20  # directions that span the concept's value vectors
    n_vectors: int = 200  # value vectors that promote the concept's words


class Bench:
    """One concept on the bench. Raises NotPossible where the model knows too little about it."""

    def __init__(self, lm: LanguageModel, store: Store, config: DissectionConfig, name: str):
        self.lm, self.store, self.config, self.name = lm, store, config, name
        self.concept = load_concept(name)
        asked = ask(lm, self.concept.test, config.n_asked)
        if (n := int(asked.scores.correct.sum())) < FEWEST_KNOWN:
            raise NotPossible(f"{lm.name} knows {n} of {config.n_asked} test questions; {FEWEST_KNOWN} are needed.")
        self.known = asked.known(len(asked.questions))  # of which the first are dissected

    @cached_property
    def shared(self) -> Shared:
        """What the methods of erasure need of this concept."""
        return Shared(self.lm, self.concept, seed=self.store.seed)

    @cached_property
    def forced(self) -> dict[str, Forced]:
        """Protocol -> what is read. The original may answer some questions with nothing: the next ones take over."""
        n, lm = self.config.n_questions, self.lm
        found = {"gold": forced_gold(lm, self.known.questions[:n])}
        answered = forced_own(lm, self.known.questions[: 3 * n], self.config.n_own)
        return found | {"own": answered.first(n)}

    @cached_property
    def traces(self) -> dict[str, Traced]:
        return {protocol: traced(self.lm, self.forced[protocol]) for protocol in PROTOCOLS}

    @property
    def other_names(self) -> list[str]:
        """Concepts that are not dissected, the neighbour of this one first."""
        near = self.concept.neighbour
        names = [near.name] if near is not None and near.name in list_concepts() else []
        names += [n for n in list_concepts() if n != self.name and n not in names]
        return names[: self.config.n_others]

    @cached_property
    def others(self) -> dict[str, Asked]:
        """Known test questions of the other concepts."""
        found: dict[str, Asked] = {}
        for name in self.other_names:
            asked = ask(self.lm, load_concept(name).test, 3 * self.config.n_collateral)
            found[name] = asked.known(self.config.n_collateral)
        return found

    # ---- layers ---------------------------------------------------------------------------------------------
    @property
    def width(self) -> int:
        return max(1, round(self.config.width * self.lm.n_layers))

    @property
    def windows(self) -> list[tuple[int, int]]:
        """Windows side by side, the last layer alone (as the paper's window is cut at the end), and all layers."""
        last = self.lm.n_layers - 1
        return [*layer_windows(self.lm.n_layers, self.width, self.width), (last, last), (0, last)]

    @property
    def cumulative(self) -> list[tuple[int, int]]:
        """From a layer to the end, and from the beginning to a layer."""
        cuts, last = range(self.width, self.lm.n_layers, self.width), self.lm.n_layers - 1
        return [(cut, last) for cut in cuts] + [(0, cut - 1) for cut in cuts]


def point(value: float | int) -> Interval:
    return Interval(value, value, value, 1)


def label(first: int, last: int) -> str:
    return f"{first}-{last}"


def questions_of(sets: Sequence[Asked]) -> list[Question]:
    return [q for asked in sets for q in asked.questions]
