"""Erasure by fine-tuning: one training loop, one file per method."""

from .continual import CONTINUAL, BoundedAscent, forget_in_turn
from .dpo import DPO, DirectPreference, dpo_loss
from .fila import diagonal_fisher, weighted_low_rank
from .fit import FinetunedConfig, finetune_texts
from .flat import DIVERGENCES, FLAT, LossAdjustment, flat_loss
from .ga_kl import GA_KL
from .gradient_ascent import GRADIENT_ASCENT, GradientAscent
from .gradient_difference import GRADIENT_DIFFERENCE
from .ihl import IHL, LOKU, InvertedHinge, inverted_hinge
from .loop import Loss, Material, TuningConfig, finetune
from .materials import whole
from .npo import NPO, NPO_ALONE, NPO_KL, NegativePreference, npo_loss
from .poisoning import POISONING
from .r_tuning import R_TUNING
from .refusal import REFUSAL, OtherAnswer
from .simnpo import SIMNPO, SimpleNegativePreference, simnpo_loss
from .task_vector import TASK_VECTOR, GradientDescent
from .terms import KeepDistribution, KeepLoss, MarkedRows, Step, Term

__all__ = [
    "BoundedAscent",
    "CONTINUAL",
    "DIVERGENCES",
    "DPO",
    "DirectPreference",
    "FLAT",
    "FinetunedConfig",
    "GA_KL",
    "GRADIENT_ASCENT",
    "GRADIENT_DIFFERENCE",
    "GradientAscent",
    "GradientDescent",
    "IHL",
    "InvertedHinge",
    "KeepDistribution",
    "KeepLoss",
    "LOKU",
    "Loss",
    "LossAdjustment",
    "MarkedRows",
    "Material",
    "NPO",
    "NPO_ALONE",
    "NPO_KL",
    "NegativePreference",
    "OtherAnswer",
    "POISONING",
    "REFUSAL",
    "R_TUNING",
    "SIMNPO",
    "SimpleNegativePreference",
    "Step",
    "TASK_VECTOR",
    "Term",
    "TuningConfig",
    "diagonal_fisher",
    "dpo_loss",
    "finetune",
    "finetune_texts",
    "forget_in_turn",
    "flat_loss",
    "inverted_hinge",
    "npo_loss",
    "simnpo_loss",
    "weighted_low_rank",
    "whole",
]
