"""Labels for features, and how well they do: examples, explainers, judges and scorers, each behind one interface."""

from .examples import Corpus, Example, UnitExamples, hard_negatives, unit_examples
from .explain import Explainer, InputExplainer, Label, OutputExplainer, background_examples, log_odds
from .firings import Firings, dense_firings, neuron_values, random_dictionary, sae_firings, sample_by_rate
from .score import (
    Detection,
    EvidenceJudge,
    Judge,
    auroc,
    auroc_interval,
    balanced_accuracy_interval,
    best_threshold,
    detect,
    shuffled_aurocs,
)

__all__ = [
    "Corpus",
    "Detection",
    "EvidenceJudge",
    "Example",
    "Explainer",
    "Firings",
    "InputExplainer",
    "Judge",
    "Label",
    "OutputExplainer",
    "UnitExamples",
    "auroc",
    "auroc_interval",
    "background_examples",
    "balanced_accuracy_interval",
    "best_threshold",
    "dense_firings",
    "detect",
    "hard_negatives",
    "log_odds",
    "neuron_values",
    "random_dictionary",
    "sae_firings",
    "sample_by_rate",
    "shuffled_aurocs",
    "unit_examples",
]
