"""The same questions under many edits of late layers: the layers below an edit run only once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from ..core import ConceptLabError
from ..data import Question
from ..evaluation import QuestionScores, score_questions
from ..models import LanguageModel


class Replay:
    """Scores `questions` again and again under edits that leave the first layers alone.

    `clean` holds the scores of the model as it is when the replay is made. `score(first_layer)` gives what
    `score_questions` would give for the model as it is now, but starts from the recorded input of a layer: an edit of
    layer 25 of 30 costs a fifth. `layers` are the layers to start from; each costs memory, about 0.1 MB a question.
    """

    def __init__(self, lm: LanguageModel, questions: Sequence[Question], layers: Iterable[int], batch_size: int = 16):
        self.lm, self.questions, self.batch_size = lm, tuple(questions), batch_size
        # for each layer one input per forward pass, in the order of the passes
        self._inputs: dict[int, list[Tensor]] = {lm.check_layer(layer): [] for layer in layers}

        def keep(layer: int) -> Callable[[Tensor], None]:
            return lambda x: self._inputs[layer].append(x.detach().clone())

        with lm.intervene({("resid_pre", layer): keep(layer) for layer in self._inputs}):
            self.clean = score_questions(lm, self.questions, batch_size=batch_size)

    def score(self, first_layer: int) -> QuestionScores:
        """Scores under whatever edit is applied now; nothing before `first_layer` may have changed."""
        usable = [layer for layer in self._inputs if layer <= self.lm.check_layer(first_layer)]
        if not usable:
            raise ConceptLabError(
                f"This replay starts at layer {min(self._inputs)} or later and the edit begins at layer {first_layer}; "
                "make the replay with an earlier layer."
            )
        start = max(usable)
        recorded = iter(self._inputs[start])
        with self.lm.skip_before(start), self.lm.intervene({("resid_pre", start): lambda _: next(recorded)}):
            return score_questions(self.lm, self.questions, batch_size=self.batch_size)
