"""Numbers of papers that several notebooks print, each with its rank: how we know it.

*read*: in the paper's text or abstract; *derived*: from the authors' committed code or outputs, or computed from them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PiscesCell:
    """PISCES on one concept of Gemma-2-2B-it, in EMBER's own rerun (its committed configurations; rank: derived).

    Open questions, judged by a model. All are shares from 0 to 1.
    """

    concept: str  # the course's name for it
    efficacy: float
    specificity: float
    left: float  # accuracy on the concept's questions after the erasure
    relearned: float  # and after relearning


PISCES_GEMMA_2 = (
    PiscesCell("golf", 0.735, 0.892, 0.18, 0.44),
    PiscesCell("ancient_rome", 0.784, 0.914, 0.16, 0.44),
    PiscesCell("uranium", 0.542, 0.571, 0.22, 0.24),
    PiscesCell("gambling", 0.759, 0.899, 0.14, 0.30),
    PiscesCell("ireland", 0.912, 0.851, 0.06, 0.32),
    PiscesCell("cannabis", 0.618, 0.792, 0.26, 0.32),
    PiscesCell("baseball", 1.0, 0.736, 0.00, 0.06),
    PiscesCell("greek_culture", 0.815, 0.962, 0.10, 0.22),
)
