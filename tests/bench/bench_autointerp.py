"""Labelling and scoring features of SmolLM2 offline, in features per minute; harvest and dictionary are not timed.

One feature: examples from both halves of the texts, the ensemble's label, detection with 20 foreign labels, hard
negatives, fuzzing, simulation, line-ups and steering, every number with its interval. There is no peer to run: all of
them need an endpoint or a GPU. Ours is measured against the rate that is asked for, 100 features in four minutes.
"""

import time
from collections.abc import Iterator

from harness import Case

FEATURES = 25  # of each timed run
ASKED = 25.0  # features per minute


def bench_label() -> Iterator[Case]:
    from conceptlab.autointerp import label_features

    bench = _bench()
    features = bench.choose()

    def ours() -> float:
        began = time.perf_counter()
        label_features(bench, features)
        return 60 * len(features) / (time.perf_counter() - began)

    title = "label and score features, peer: the rate asked for"
    yield Case(title, ours, lambda: ASKED, "features/min", 1.0, warmup=0, lower_is_better=False)


def _bench():
    """A shipped dictionary and the texts of notebook 03."""
    from conceptlab.autointerp import LabelConfig, Labelling, as_articles
    from conceptlab.course import PROFILES
    from conceptlab.data import harvest, label_texts, token_rows
    from conceptlab.models import load_model
    from conceptlab.sae import load_shipped

    quick, texts = PROFILES["quick"], label_texts()
    lm, layer = load_model(quick.model, device="cpu"), quick.sae_layer
    data = harvest(lm, token_rows(lm, texts), [layer])
    return Labelling(lm, load_shipped(lm, layer), data, as_articles(texts), LabelConfig(n=FEATURES))
