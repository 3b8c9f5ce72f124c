"""Methods that work at run time: the weights stay, and with them everything that is in them."""

from .corruption import ECO, CorruptedPrompts
from .detector import Detector, DetectorConfig, fit_detector, fit_logistic, prompt_of
from .difference import ULD, LogitDifference, assistant
from .notes import NOTES, Notes
from .refusal import IN_CONTEXT_REFUSAL, Refusal
from .restriction import GUARD, RestrictedDecoding
from .runtime import RunTime, false_alarms, latency

__all__ = [
    "CorruptedPrompts",
    "Detector",
    "DetectorConfig",
    "ECO",
    "GUARD",
    "LogitDifference",
    "NOTES",
    "Notes",
    "IN_CONTEXT_REFUSAL",
    "Refusal",
    "RestrictedDecoding",
    "RunTime",
    "ULD",
    "assistant",
    "false_alarms",
    "fit_detector",
    "fit_logistic",
    "latency",
    "prompt_of",
]
