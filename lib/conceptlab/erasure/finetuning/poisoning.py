"""Class-concept poisoning: a short training on the concept's questions with targeted wrong answers,
`L = CE(wrong answer | question) + weight CE(keep)` (after Chang et al. 2024, arXiv 2405.15662).

A port, and said so: the paper erases a class of an image or text classifier by poisoned inputs that are rich in the
class' concepts; a language model's classes are its answers, and questions on a concept are rich in it by themselves.
Targeted: the wrong option that the original finds likeliest, which is the shortest way to go and the hardest control
for "it only learnt other answers": the right one is never pushed down, it is overtaken.
"""

from __future__ import annotations

from ..method import Method
from .fit import GRID, FinetunedConfig, fitted_on
from .loop import TuningConfig
from .materials import wrong_answers
from .refusal import OtherAnswer

CONFIG = FinetunedConfig(forget=OtherAnswer(), tuning=TuningConfig(weights="down_proj"))
POISONING = Method(
        "poisoning", "fine-tuning", "class-concept poisoning (arXiv 2405.15662), a port: targeted wrong answers",
        CONFIG, fitted_on(wrong_answers), GRID, ("forget_facts", "keep_facts", "keep"), "12 steps, 30 s",
    )  # fmt: skip
