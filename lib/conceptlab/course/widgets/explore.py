"""Vector explorer and feature browser: what a single vector writes, and the labelled features one by one."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import ipywidgets
import torch
from matplotlib.figure import Figure

from ...autointerp import FeatureLabel, labelled_layers, read_labels
from ...core import ConceptLabError
from ...models import LanguageModel, project
from ..plots.sides import two_sided_bars
from ..site.browser import context_html, scores_html, tokens_html
from ..site.contexts import Context, read_contexts
from .figures import label_hits
from .panel import Panel, decimal, whole_number, words_field

MOST_HELD = 1_000.0  # far beyond what any neuron reaches; much larger numbers leave the model with none


def vector_effects(
    lm: LanguageModel, layer: int, neuron: int, clamp: float, prompt: str = "The weather today is", n: int = 10
) -> dict[str, list[tuple[str, float]]]:
    """Both ends of one value vector, and what holding its neuron at `clamp` does to the next token after `prompt`.

    First the tokens that the vector promotes and suppresses most (logit effect), then those whose probability rises
    and falls most when the neuron's activation is `clamp` at every position. Raises ConceptLabError for a layer or
    neuron that is not there, a value out of range, or a prompt without a token.
    """
    layer = lm.check_layer(layer)
    if not 0 <= neuron < lm.d_mlp:
        raise ConceptLabError(f"Layer {layer} has neurons 0 to {lm.d_mlp - 1}; neuron {neuron} does not exist.")
    if not prompt.strip():
        raise ConceptLabError("Type a prompt: a few words that the model is to go on from.")
    if not abs(clamp) <= MOST_HELD:
        raise ConceptLabError(f"Hold the neuron at -{MOST_HELD:g} to {MOST_HELD:g}, not at {clamp:g}.")
    written = project(lm, lm.value_vectors(layer)[neuron][None], k=n)
    ends = torch.cat([written.top_ids[0], written.bottom_ids[0].flip(0)])
    effects = torch.cat([written.top_values[0], written.bottom_values[0].flip(0)])
    ids = lm.tokens(prompt)[0]

    def held(values: torch.Tensor) -> torch.Tensor:
        values = values.clone()
        values[..., neuron] = clamp
        return values

    before = lm.logits(ids)[0, -1].softmax(-1)
    with lm.intervene({("neurons", layer): held}):
        change = lm.logits(ids)[0, -1].softmax(-1) - before
    moved = torch.cat([change.topk(n).indices, change.topk(n, largest=False).indices.flip(0)])
    return {
        f"layer {layer}, neuron {neuron}: logit effect": list(zip(lm.words(ends), effects.tolist(), strict=True)),
        f"next token, neuron held at {clamp:g}: change of probability": list(
            zip(lm.words(moved), change[moved].tolist(), strict=True)
        ),
    }


def vector_figure(
    lm: LanguageModel, layer: int, neuron: int, clamp: float, prompt: str = "The weather today is", n: int = 10
) -> Figure:
    """`vector_effects` as bars: the vector's two ends on the left, what holding its neuron does on the right."""
    return two_sided_bars(vector_effects(lm, layer, neuron, clamp, prompt, n), vector_title(lm.name, prompt))


def vector_title(model: str, prompt: str) -> str:
    """The figure's title."""
    return f"{model}, after {prompt!r}"


def vector_alt(effects: Mapping[str, Sequence[Sequence]], title: str) -> str:
    """What the figure shows, in words and numbers."""
    told = []
    for panel, bars in effects.items():
        ends = (*bars[:3], *bars[-3:])
        told.append(
            f"{panel}: " + ", ".join(f"{str(token).strip() or 'a space'} {value:+.2g}" for token, value in ends)
        )
    return f"{title}. {'; '.join(told)}."


def vector_explorer(lm: LanguageModel, layer: int = 0, neuron: int = 0, clamp: float = 5.0) -> Panel:
    """Layer, neuron, the value it is held at and a prompt beside `vector_figure`."""
    controls = {
        "layer": whole_number(layer, f"layer (0 to {lm.n_layers - 1})"),
        "neuron": whole_number(neuron, f"neuron (0 to {lm.d_mlp - 1})"),
        "clamp": decimal(clamp, "hold at"),
        "prompt": words_field("The weather today is", "prompt", "a few words to go on from"),
    }
    return Panel(controls, lambda **values: vector_figure(lm, **values))


def feature_html(record: FeatureLabel, contexts: Sequence[Context] = ()) -> str:
    """One labelled feature as HTML: label, texts, what it reads and writes, its scores."""
    head = f"<p><b>Layer {record.layer}, feature {record.feature}</b>, fires on {record.rate:.2%} of the tokens</p>"
    sides = tokens_html(record.top_tokens, "reads") + tokens_html(record.promoted, "writes")
    label = tokens_html([record.label], "label")
    return head + label + "".join(map(context_html, contexts)) + sides + scores_html(record)


SHADES = {"a1": "#fdebd8", "a2": "#fbd0a3", "a3": "#f6ad64", "a4": "#ec8a2f"}  # as on the site, on a light page
STYLE = "<style>{}.cl-feature mark {{ color: #111; }}{}</style>".format(
    ".cl-feature .context { white-space: pre-wrap; } .cl-feature cite { display: block; } "
    ".cl-feature th { text-align: left; padding-right: 12px; } "
    ".cl-feature .chips { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 6px; } ",
    "".join(f".cl-feature mark.{kind} {{ background: {color}; }}" for kind, color in SHADES.items()),
)  # JupyterLab has no style sheet of the course


class FeatureBrowser(ipywidgets.VBox):
    """Search labels by words or concept, go to the next hit or to any feature, and hand one on.

    `contexts`: layer -> feature -> its texts. `chosen` is the record that is shown. `desk`: an erasure desk, on which
    a button switches the chosen feature on.
    """

    def __init__(
        self,
        records: Sequence[FeatureLabel],
        contexts: Mapping[int, Mapping[int, Sequence[Context]]] | None = None,
        words: str = "river",
        lm: LanguageModel | None = None,
        seed: int = 0,
        desk: Panel | None = None,
    ):
        if not records:
            raise ConceptLabError("There is no label to browse; read some with `read_labels(model, layer)`.")
        self.records, self.contexts, self.lm = list(records), contexts or {}, lm
        self.draw_any, self.place, self.hits = random.Random(seed), 0, list[FeatureLabel]()
        following = ipywidgets.Button(description="next hit")
        anywhere = ipywidgets.Button(description="any feature")
        following.on_click(lambda _: self.go(self.place + 1))
        anywhere.on_click(lambda _: self.show_any())
        self.box = words_field(words, "words", "words or a concept, then Enter")
        self.panel = Panel({"words": self.box}, self.search)
        row = [following, anywhere]
        if desk is not None:
            row.append(ipywidgets.Button(description="edit with this feature", layout=ipywidgets.Layout(width="auto")))
            row[-1].on_click(lambda _: self.hand_on(desk))
        super().__init__([ipywidgets.HBox(row), self.panel])

    @property
    def chosen(self) -> FeatureLabel:
        """The feature that is shown. Raises ConceptLabError where the search found none."""
        if not self.hits:
            raise ConceptLabError("No feature is shown; search for other words.")
        return self.hits[self.place]

    def search(self, words: str) -> str:
        """The best hit for some words, as HTML. Raises ConceptLabError where there is none."""
        self.hits, self.place = [], 0
        self.hits = [hit.record for hit in label_hits(self.records, words, self.lm, self.contexts)]
        if not self.hits:
            raise ConceptLabError(f"No label has to do with {words!r}; try one word, or another spelling.")
        return self.shown()

    def shown(self) -> str:
        """The chosen feature as HTML, with its place among the hits."""
        record = self.chosen
        texts = self.contexts.get(record.layer, {}).get(record.feature, ())
        shown = f"<p>hit {self.place + 1} of {len(self.hits)}</p>{feature_html(record, texts)}"
        return f"{STYLE}<div class='cl-feature'>{shown}</div>"

    def go(self, place: int) -> None:
        """Show another hit; after the last one comes the first."""
        if self.hits:
            self.place = place % len(self.hits)
            self.panel.text.value = self.shown()

    def show_any(self) -> None:
        """Show a feature drawn at random."""
        self.hits, self.place = [self.draw_any.choice(self.records)], 0
        self.panel.message.value, self.panel.text.value = "", self.shown()

    def hand_on(self, desk: Panel) -> None:
        """Switch the chosen feature on at an erasure desk."""
        if not self.hits:
            self.panel.message.value = "<p role='alert'><b>No feature is shown; search for other words.</b></p>"
            return
        place = f"{self.chosen.layer}:{self.chosen.feature}"
        desk.controls["features"].add(place)
        self.panel.message.value = f"<p role='status'>{place} is on at the erasure desk; press Erase there.</p>"


def with_browser(desk: Panel, lm: LanguageModel, words: str) -> ipywidgets.VBox:
    """An erasure desk below a browser of the model's features that hands them to it; alone where none has a label."""
    records = [record for layer in labelled_layers(lm.name) for record in read_labels(lm.name, layer)]
    if not records:
        return ipywidgets.VBox([desk])
    texts = {layer: read_contexts(lm.name, layer) for layer in labelled_layers(lm.name)}
    return ipywidgets.VBox([FeatureBrowser(records, texts, words, lm, desk=desk), desk])
