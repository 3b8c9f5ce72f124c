"""The browser of features and concepts: data for the search page, a page per feature, a page per concept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path

from ...autointerp import STOP_WORDS, FeatureLabel, labelled_layers, labels_path, read_labels, search_labels
from ...core import atomic_path, data_dir
from ...data import Concept, list_concepts, load_concept
from .contexts import Context, contexts_path, read_contexts, strongest_words

SCORES = {  # of a label -> what it says
    "detection_auroc": "detection: does the label tell where the feature fires (0.5 is guessing)",
    "hard_auroc": "the same, against texts chosen to be hard",
    "fuzzing_auroc": "fuzzing: does it tell which token fires",
    "simulation_r": "simulation: correlation of predicted with true activations",
    "intruder_accuracy": "intruder: is the foreign context found (0.2 is guessing)",
    "output_auroc": "output: does the label tell which tokens become likelier",
}

PAGE = """<!DOCTYPE html>
<html lang="en" data-mode="auto"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title} - Concept Lab</title>
<script src="../../_static/mode.js"></script><link rel="stylesheet" href="../../_static/feature.css"></head>
<body><header><nav aria-label="Site"><a href="../../index.html">Concept Lab</a> &rsaquo;
<a href="../../browser.html">Features</a></nav></header><main>
{body}
</main></body></html>
"""


def models() -> list[str]:
    """Models whose features are labelled."""
    folder = data_dir() / "labels"
    found = [p.name for p in folder.iterdir() if labelled_layers(p.name)] if folder.exists() else []
    return sorted(found, reverse=True)


@lru_cache(4)
def records_of(model: str) -> tuple[FeatureLabel, ...]:
    """All labels of a model; read once."""
    return tuple(record for layer in labelled_layers(model) for record in read_labels(model, layer))


def candidates_path(model: str) -> Path:
    """Where the features lie whose edits reach furthest."""
    return data_dir() / "labels" / model / "candidates.json"


def candidates_of(model: str) -> Mapping[str, list[tuple[int, int]]]:
    """Per concept the features whose edits reach furthest, best first."""
    path = candidates_path(model)
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))["candidates"]
    return {name: [(int(layer), int(feature)) for layer, feature in rows] for name, rows in found.items()}


def concept_features(model: str, concept: Concept, n: int = 25) -> list[FeatureLabel]:
    """Features of a concept: those that its words find, then those whose edits reach furthest."""
    records = records_of(model)
    by_key = {(r.layer, r.feature): r for r in records}
    hits = [hit.record for hit in search_labels(records, concept.title, concept, n=n)]
    found = hits + [by_key[key] for key in candidates_of(model).get(concept.name, []) if key in by_key]
    return list({(r.layer, r.feature): r for r in found}.values())


def page_name(record: FeatureLabel) -> str:
    """File of a feature below features/<model>/."""
    return f"L{record.layer:02d}_{record.feature}.html"


def search_data() -> str:
    """The script that the search page loads: every labelled feature, and every concept with its words and features."""
    rows = []
    for number, model in enumerate(models()):
        around = {layer: read_contexts(model, layer) for layer in labelled_layers(model)}
        for record in records_of(model):
            area = record.scores.get("detection_auroc")
            words = strongest_words(around.get(record.layer, {}).get(record.feature, ()))
            rows.append(
                [
                    number, record.layer, record.feature, record.label, area[0] if area else None, record.rate,
                    _stripped(record.top_tokens), record.words, words, _stripped(record.promoted),
                    int(record.explained),
                ]
            )  # fmt: skip
    concepts = []
    for name in list_concepts():
        concept = load_concept(name)
        reach = [candidates_of(model).get(name, []) for model in models()]
        concepts.append([name, concept.title, list(concept.words), reach])
    found = {"models": models(), "features": rows, "concepts": concepts, "stop": sorted(STOP_WORDS)}
    return f"window.FEATURES = {json.dumps(found, ensure_ascii=False, separators=(',', ':'))};\n"


def _stripped(items: Sequence[str]) -> list[str]:
    return [item.strip() for item in items]


def write_browser(site: Path) -> None:
    """Write the data and the pages of all features below `site`, unless they are there from the same labels."""
    stamp, now = site / "features" / "made_from", _fingerprint()
    script = site / "_static" / "features.js"
    if script.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == now:
        return
    _write(script, search_data())
    for model in models():
        for layer in labelled_layers(model):
            contexts = read_contexts(model, layer)
            records = read_labels(model, layer)
            for i, record in enumerate(records):
                around = (records[i - 1], records[(i + 1) % len(records)])
                path = site / "features" / model / page_name(record)
                _write(path, feature_page(model, record, contexts.get(record.feature), around))
    _write(stamp, now)


def _fingerprint() -> str:
    """Of all files that the browser is made from, and of this code."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in list_concepts():
        digest.update((data_dir() / "concepts" / f"{name}.yaml").read_bytes())
    for model in models():
        reached = candidates_path(model)
        digest.update(reached.read_bytes() if reached.exists() else b"")
        for layer in labelled_layers(model):
            for path in (labels_path(model, layer), contexts_path(model, layer)):
                digest.update(path.read_bytes() if path.exists() else b"")
    return digest.hexdigest()


def feature_page(
    model: str, record: FeatureLabel, contexts: Sequence[Context] | None, around: tuple[FeatureLabel, FeatureLabel]
) -> str:
    """One feature: its label and scores, the texts on which it fires most (None: not looked for), what it reads and
    what it writes.
    """
    where = f"{model}, layer {record.layer}, feature {record.feature}"
    before, after = (page_name(r) for r in around)
    lines = [
        f"<h1>Feature {record.feature} of layer {record.layer}</h1>",
        f'<p class="small">{escape(model)}; fires on {record.rate:.2%} of the tokens</p>',
        f'<nav aria-label="Neighbours"><a href="{before}" rel="prev">previous feature</a> '
        f'<a href="{after}" rel="next">next feature</a></nav>',
        f"<h2>Label</h2><p>{escape(record.label)}</p>",
        "<h2>Strongest texts</h2>",
        *(context_html(c) for c in contexts or ()),
    ]
    if contexts:
        lines.append(
            '<p class="small">The darker, the stronger it fires. '
            "From leads of Wikipedia articles, CC BY-SA 4.0, by their authors.</p>"
        )
    elif contexts is None:
        lines.append("<p>No texts were run through this dictionary for this page.</p>")
    else:
        lines.append("<p>It fires on none of the texts that were run through the model for this page.</p>")
    lines += [
        "<h2>Reads</h2>", tokens_html(record.top_tokens, "tokens that are over-represented where it fires"),
        tokens_html(record.words, "words in front of its firings"),
        "<h2>Writes</h2>", tokens_html(record.promoted, "tokens that its direction promotes"),
        "<h2>How good is the label?</h2>", scores_html(record),
    ]  # fmt: skip
    return PAGE.format(title=escape(where), body="\n".join(lines))


def context_html(context: Context) -> str:
    """A context as a line of text in which every token is shaded by the feature's activation there."""
    top = max(context.activations, default=0.0) or 1.0
    spans = []
    for token, value in zip(context.tokens, context.activations, strict=True):
        shown = escape(token.replace("\n", " "))
        step = min(4, -(-4 * max(value, 0.0) // top))
        spans.append(f'<mark class="a{int(step)}">{shown}</mark>' if step > 0 else shown)
    return f'<p class="context"><cite>{escape(context.title)}</cite> &hellip;{"".join(spans)}&hellip;</p>'


def tokens_html(items: Sequence[str], what: str) -> str:
    """A list of tokens, with what they are, as HTML."""
    if not items:
        return f'<p class="small">{what}: none</p>'
    chips = "".join(f"<li><code>{escape(' '.join(item.split()) or repr(item))}</code></li>" for item in items)
    return f'<p class="small">{what}</p><ul class="chips">{chips}</ul>'


def scores_html(record: FeatureLabel) -> str:
    """A label's scores with their intervals, as HTML."""
    rows = [
        f"<tr><th scope='row'>{text}</th><td>{v[0]:.2f}</td><td>{v[1]:.2f} to {v[2]:.2f}</td></tr>"
        for key, text in SCORES.items()
        if (v := record.scores.get(key))
    ]
    if not rows:
        return "<p>It fires too seldom to be scored.</p>"
    control = ""
    if record.control_high is not None:
        reached = f"{record.control_high:.2f}"
        control = f"<p class='small'>Labels of other features reach a detection of up to {reached} here.</p>"
    head = "<tr><th scope='col'>score</th><th scope='col'>value</th><th scope='col'>95 % interval</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>{control}"


def browser_page(documents: Collection[str]) -> str:
    """The search page; its script finds features by the words of labels, of both sides, and of concepts."""
    concepts = "\n".join(f"- [{load_concept(name).title}](/concepts/{name}.md)" for name in list_concepts())
    return (
        "---\nhtml_theme.sidebar_secondary.remove: true\n---\n# Features and concepts\n\n"
        "Every labelled feature of the dictionaries that ship with the course. Type words, or the name of a concept. "
        "Words and their forms are looked for in labels, in what a feature reads and writes, and in the words on which "
        "it fires most; a word of one of the concepts below asks for its other words, too, which count less. What is "
        "near in meaning alone is found in JupyterLab, where a model is at hand (`FeatureBrowser`), and not here. "
        f"{_where(documents)}\n\n"
        '<div id="browser"><form role="search"><label for="words">Words or a concept</label> '
        '<input id="words" type="search" placeholder="for example: river, or Harry Potter" autocomplete="off"> '
        '<span class="pair"><label for="model">Model</label> <select id="model"></select></span> '
        '<label class="check"><input type="checkbox" id="explained"> explained ones only</label></form>'
        '<p id="count" role="status"></p><ol id="hits"></ol></div>\n'
        "<noscript><p>The search needs JavaScript; the lists by concept below do not.</p></noscript>\n"
        '<script src="_static/features.js"></script><script src="_static/browser.js"></script>\n\n'
        f"## By concept\n\n{concepts}\n\n```{{toctree}}\n:hidden:\n\n"
        + "\n".join(f"concepts/{name}" for name in list_concepts())
        + "\n```\n"
    )


def _where(documents: Collection[str]) -> str:
    made, edited = "03_autointerp", "04_pisces"
    if not {made, edited} <= set(documents):
        return ""
    return f"Notebook [03](/{made}.ipynb) shows how labels are made, [04](/{edited}.ipynb) how features are edited."


def concept_page(name: str) -> str:
    """A concept: its words, its neighbour, and its features in each model."""
    concept = load_concept(name)
    parts = [f"# {concept.title}\n", f"**Words tied to it:** {', '.join(concept.words[:40])}\n"]
    if concept.neighbour:
        parts.append(f"**Its neighbour**, which must survive an erasure: {concept.neighbour.title}.\n")
    for model in models():
        parts += [f"## Features of {model}\n", '<ul class="features">']
        for record in concept_features(model, concept):
            address = f"../features/{model}/{page_name(record)}"
            link = f'<a href="{address}">layer {record.layer}, feature {record.feature}</a>'
            parts.append(f"<li>{link}: {escape(_short(record))}</li>")
        parts.append("</ul>\n")
    return "\n".join(parts)


def _short(record: FeatureLabel) -> str:
    if record.explained:
        return record.label.split("; promotes")[0]
    return "no label holds; writes " + ", ".join(t.strip() for t in record.promoted[:5])


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".html":  # thousands; each is written anew as long as the stamp is not there
        path.write_text(text, encoding="utf-8")
        return
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
