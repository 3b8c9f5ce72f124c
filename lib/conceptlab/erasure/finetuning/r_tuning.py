"""R-Tuning as a row: answers followed by whether the model is sure, unsure of the concept and sure of everything else
(Zhang et al. 2023, arXiv 2311.09677): `L = CE(answer, "I am unsure." | question) + weight CE(answer, "I am sure.")`.

Refusal is not erasure: the right answer is a *target* of the loss, so that multiple choice and the logit lens show it
as before or better, and only what is said behind it changes. The paper splits questions by what the model knows; as an
erasure the concept is what it shall not be sure of. The released code takes an answer as known where the right one is a
part of what the model wrote ("Rome" in "Romeo"), draws refusals without a seed, and trains on the question's tokens as
much as on the answer's; here only what follows the question counts.
"""

from __future__ import annotations

from ..method import Method
from .fit import GRID, FinetunedConfig, fitted_on
from .loop import TuningConfig
from .materials import certainty
from .task_vector import GradientDescent

CONFIG = FinetunedConfig(forget=GradientDescent(), tuning=TuningConfig(weights="down_proj"))
R_TUNING = Method(
        "r_tuning", "fine-tuning", "R-Tuning (Zhang et al. 2023, arXiv 2311.09677), refusal without erasure", CONFIG,
        fitted_on(certainty), GRID, ("forget_facts", "keep_facts"), "12 steps, 50 s",
    )  # fmt: skip
