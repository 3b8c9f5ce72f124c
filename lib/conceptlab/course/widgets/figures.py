"""Search over vectors, dashboards of features, search over labels: with the figures they draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure

from ...autointerp import FeatureLabel, Firings, Hit, meant_by, search_labels
from ...concept_vectors import Atlas, search
from ...core import ConceptLabError
from ...data import Harvest, list_concepts, load_concept
from ...models import LanguageModel, project
from ...sae import SAE
from ..plots.concept_vectors import word_bars
from ..plots.dashboard import feature_dashboard
from ..plots.sae import Context
from ..site.contexts import Context as TextAround
from ..site.contexts import strongest_words
from .panel import Panel, whole_number, words_field

MOST_VECTORS = 20  # that a figure has room for


def search_figure(lm: LanguageModel, words: list[str], n: int = 8, atlas: Atlas | None = None) -> Figure:
    """The `n` best vector ends for some words as a figure: the widget's picture, and the static one beside it."""
    found = search(lm, words, n, atlas)
    title = f"{lm.name}: vectors that promote " + ", ".join(words[:4]) + (", ..." if len(words) > 4 else "")
    return word_bars([v.name for v in found], [v.score for v in found], [v.tokens[:8] for v in found], title)


def search_widget(lm: LanguageModel, atlas: Atlas, words: str = "music, song, guitar") -> Panel:
    """A search box over the atlas: type words, separated by commas, and press Enter."""
    controls = {
        "words": words_field(words, "words", "words, separated by commas"),
        "count": whole_number(8, f"vectors (1 to {MOST_VECTORS})"),
    }

    def draw(words: str, count: int) -> Figure:
        if not 1 <= count <= MOST_VECTORS:
            raise ConceptLabError(f"Ask for 1 to {MOST_VECTORS} vectors, not {count}.")
        return search_figure(lm, [w.strip() for w in words.split(",") if w.strip()], count, atlas)

    return Panel(controls, draw)


def top_contexts(
    lm: LanguageModel, found: Harvest, firings: Firings, feature: int, n: int = 8, before: int = 14, after: int = 3
) -> list[Context]:
    """The `n` strongest firings of a feature, each from another text: tokens around it and the activations there."""
    token, value = firings.of(feature)
    docs, column = found.docs(), firings.dense(feature)
    lines, seen = list[Context](), set[int]()
    for i in token[value.argsort(descending=True, stable=True)].tolist():
        if int(docs[i]) in seen or len(lines) == n:
            continue
        seen.add(int(docs[i]))
        window = [w for w in range(max(0, i - before), min(i + after + 1, found.n_tokens)) if docs[w] == docs[i]]
        ids = found.rows.ids[found.row[window], found.pos[window]]
        lines.append((lm.words(ids), column[window].tolist(), f"{float(column[i]):.1f}"))
    return lines


def feature_figure(lm: LanguageModel, sae: SAE, found: Harvest, firings: Firings, feature: int, n: int = 8) -> Figure:
    """Dashboard of one feature from its firings on a harvest. Raises ConceptLabError for one that never fires."""
    token, value = firings.of(feature)
    if not len(token):
        raise ConceptLabError(f"Feature {feature} fires on none of the {found.n_tokens:,} tokens; choose a live one.")
    written = project(lm, sae.residual_directions(lm)[feature : feature + 1], k=5)
    ids = torch.cat([written.top_ids[0], written.bottom_ids[0].flip(0)])
    effects = torch.cat([written.top_values[0], written.bottom_values[0].flip(0)])
    tokens = list(zip(lm.words(ids), effects.tolist(), strict=True))
    rates = firings.rates()
    title = f"Feature {feature} of layer {sae.cfg.hook_layer}: fires on {float(rates[feature]):.2%} of the tokens"
    contexts = top_contexts(lm, found, firings, feature, n)
    return feature_dashboard(title, contexts, value.numpy(), float(rates[feature]), rates.numpy(), tokens)


def feature_widget(lm: LanguageModel, sae: SAE, found: Harvest, firings: Firings, feature: int = 0) -> Panel:
    """Dashboards on demand: type a feature's number. Draws what `feature_figure` draws."""
    controls = {"feature": whole_number(feature, f"feature (0 to {len(firings) - 1})")}
    return Panel(controls, lambda feature: feature_figure(lm, sae, found, firings, feature))


TIED = 0.4  # what a word of the concept counts, where one of its words was asked for and not the concept


def label_hits(
    records: Sequence[FeatureLabel],
    query: str,
    lm: LanguageModel | None = None,
    contexts: Mapping[int, Mapping[int, Sequence[TextAround]]] | None = None,
) -> list[Hit]:
    """Features for words, or for a concept of the course where the query is its name, title or one of its words.

    `contexts`: layer -> feature -> its texts; the words on which it fires most count too.
    """
    concept, named = meant_by(query, [load_concept(name) for name in list_concepts()])
    around = {
        (layer, feature): strongest_words(texts)
        for layer, by_feature in (contexts or {}).items()
        for feature, texts in by_feature.items()
    }
    return search_labels(records, query, concept, lm, tied=1.0 if named else TIED, around=around)
