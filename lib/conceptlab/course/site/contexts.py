"""Texts on which labelled features fire, kept in data/contexts so that the site is built without a model.

One file per dictionary, `<model>/layer_NN.jsonl.gz`, one line per feature: its number and a few contexts, each with
the title of the encyclopedia lead it comes from. The same weights and texts give the same bytes.
"""

from __future__ import annotations

import gzip
import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...autointerp import Corpus, Firings, labelled_layers, read_labels, sae_firings
from ...core import ConceptLabError, atomic_path, data_dir
from ...data import Article, harvest, list_concepts, load_concept, token_rows, vital_articles
from ...models import LanguageModel
from ...sae import load_shipped

PER_CONCEPT, OTHERS = 6, 40  # leads about each concept, and about anything: 15,000 tokens
N_CONTEXTS = 5  # per feature, each from another text


class Context(NamedTuple):
    """One text around a firing."""

    title: str  # of the lead
    tokens: tuple[str, ...]
    activations: tuple[float, ...]  # of the feature at each token; 0 where it is silent


def context_articles(seed: int = 0) -> list[Article]:
    """Leads about the course's concepts and, drawn by `seed`, about anything else; each once."""
    chosen: dict[str, Article] = {}
    for name in list_concepts():
        found = [a for a in load_concept(name).articles() if a.topic]  # those of the corpus, not of our own writing
        for article in random.Random(seed).sample(found, min(PER_CONCEPT, len(found))):
            chosen[article.title] = article
    others = [a for a in vital_articles() if a.title not in chosen]
    chosen |= {a.title: a for a in random.Random(seed).sample(others, min(OTHERS, len(others)))}
    return [chosen[title] for title in sorted(chosen)]


def write_contexts(lm: LanguageModel, articles: Sequence[Article], root: Path | None = None) -> list[Path]:
    """Run the texts through the model and write the contexts of every labelled feature; returns the files."""
    layers = labelled_layers(lm.name)
    rows = token_rows(lm, [a.text for a in articles])
    with tempfile.TemporaryDirectory() as folder:
        found = harvest(lm, rows, layers, folder=Path(folder) / "harvest")
        corpus, paths = Corpus(lm, found, before=14, after=5), []
        for layer in layers:
            firings = sae_firings(load_shipped(lm, layer), found.tensor(layer))
            lines = [
                json.dumps([r.feature, strongest_texts(corpus, firings, r.feature, articles)], ensure_ascii=False)
                for r in read_labels(lm.name, layer)
            ]
            paths.append(contexts_path(lm.name, layer, root))
            with atomic_path(paths[-1]) as temporary, open(temporary, "wb") as file:
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                    packed.write("".join(f"{line}\n" for line in lines).encode())
    return paths


def strongest_texts(
    corpus: Corpus, firings: Firings, feature: int, articles: Sequence[Article], n: int = N_CONTEXTS
) -> list[Context]:
    """The `n` strongest firings of a feature, each from another text, with three digits of every activation."""
    token, value = firings.of(feature)
    order = token[value.argsort(descending=True, stable=True)]
    dense = firings.dense(feature)
    examples = corpus.examples(corpus.thin(order, n, per_doc=1), "strongest", dense)
    return [Context(articles[e.doc].title, e.tokens, tuple(float(f"{a:.3g}") for a in e.activations)) for e in examples]


def strongest_words(contexts: Sequence[Context]) -> list[str]:
    """The word of every context on which the feature fires most, put together from its tokens; each once."""
    found = []
    for tokens, values in ((c.tokens, c.activations) for c in contexts if c.tokens):
        at = max(range(len(values)), key=values.__getitem__)
        first = at
        while first > 0 and tokens[first][:1].isalpha() and tokens[first - 1][-1:].isalpha():
            first -= 1
        last = at + 1
        while last < len(tokens) and tokens[last - 1][-1:].isalpha() and tokens[last][:1].isalpha():
            last += 1
        found.append("".join(tokens[first:last]).strip())
    return [word for word in dict.fromkeys(found) if word]


def contexts_path(model: str, layer: int, root: Path | None = None) -> Path:
    """Where the contexts of a layer lie (default root: data/contexts)."""
    return (root or data_dir() / "contexts") / model.replace("/", "_") / f"layer_{layer:02d}.jsonl.gz"


def read_contexts(model: str, layer: int, root: Path | None = None) -> Mapping[int, list[Context]]:
    """Contexts by feature; empty where none were made. Raises ConceptLabError for a file that cannot be read."""
    path = contexts_path(model, layer, root)
    if not path.exists():
        return {}
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        return {
            int(feature): [Context(str(t), tuple(map(str, words)), tuple(map(float, values))) for t, words, values in c]
            for feature, c in rows
        }
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise ConceptLabError(
            f"{path.name} cannot be read as contexts ({type(error).__name__}); delete it and run "
            "`python -m conceptlab.course contexts`."
        ) from None
