"""Labels for features, and how well they do: examples, explainers, judges and scorers, each behind one interface."""

from .command import as_articles, label_dictionaries, label_features
from .controls import Units, control_neurons, control_units, feature_units, strongest
from .embedding import Encoder, load_encoder
from .endpoint import Endpoint, EndpointConfig, EndpointExplainer, EndpointJudge
from .examples import Corpus, Example, UnitExamples, hard_negatives, unit_examples
from .explain import (
    EnsembleExplainer,
    Explainer,
    InputExplainer,
    Label,
    ModelExplainer,
    OutputExplainer,
    background_examples,
    log_odds,
    text_label,
)
from .firings import (
    Firings,
    dense_firings,
    keep_neurons,
    neuron_values,
    often_enough,
    random_dictionary,
    sae_firings,
    sample_by_rate,
)
from .judge import EmbeddingJudge, EvidenceJudge, LabelJudge, ModelJudge, judge_all
from .labelling import LabelConfig, Labelled, Labelling
from .labels import (
    FeatureLabel,
    check_label_folder,
    labelled_layers,
    labels_path,
    load_records,
    read_labels,
    write_labels,
)
from .neuronpedia import write_neuronpedia
from .score import UNEXPLAINED, Detection, detect
from .scorers import SCORERS, detection, first_contexts, fuzzing, intruder, score_label, simulation
from .search import Hit, search_labels
from .steer import SCORE_PROMPTS, SteerConfig, named_tokens, output_scores, output_tables, risen_tokens, steered_change

__all__ = [
    "Corpus",
    "Detection",
    "EmbeddingJudge",
    "Encoder",
    "Endpoint",
    "EndpointConfig",
    "EndpointExplainer",
    "EndpointJudge",
    "EnsembleExplainer",
    "EvidenceJudge",
    "Example",
    "Explainer",
    "FeatureLabel",
    "Firings",
    "Hit",
    "InputExplainer",
    "LabelJudge",
    "Label",
    "LabelConfig",
    "Labelled",
    "ModelExplainer",
    "ModelJudge",
    "OutputExplainer",
    "SCORERS",
    "SCORE_PROMPTS",
    "SteerConfig",
    "UNEXPLAINED",
    "UnitExamples",
    "Units",
    "Labelling",
    "as_articles",
    "background_examples",
    "check_label_folder",
    "control_neurons",
    "control_units",
    "dense_firings",
    "detect",
    "detection",
    "feature_units",
    "first_contexts",
    "fuzzing",
    "hard_negatives",
    "intruder",
    "judge_all",
    "keep_neurons",
    "label_dictionaries",
    "label_features",
    "labelled_layers",
    "labels_path",
    "load_encoder",
    "load_records",
    "log_odds",
    "named_tokens",
    "neuron_values",
    "often_enough",
    "output_scores",
    "output_tables",
    "random_dictionary",
    "read_labels",
    "risen_tokens",
    "sae_firings",
    "sample_by_rate",
    "score_label",
    "search_labels",
    "simulation",
    "steered_change",
    "strongest",
    "text_label",
    "unit_examples",
    "write_labels",
    "write_neuronpedia",
]
