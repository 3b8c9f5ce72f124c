"""Features of dictionaries: what names one, published ones, lists given by hand, controls, what lists must fulfil."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ...core import ConceptLabError
from ...models import LanguageModel
from ...sae import SAE, check_editable, model_family

Dictionaries = dict[int, SAE]  # layer -> dictionary; TopKSAE is one


@dataclass(frozen=True)
class Feature:
    """One feature of one layer's dictionary, and the evidence that it carries a concept."""

    layer: int
    index: int  # row of W_dec
    sign: int = 1  # +1: the concept is written by +d; -1: by -d (only output-side evidence can say so)
    auroc: float = 0.5  # mean activation per text tells concept from neighbour and background texts; 0.5 is chance
    mean_concept: float = 0.0  # mean activation per token (a length, as decoder rows have norm 1) on concept texts,
    mean_neighbour: float = 0.0  # on texts of the neighbour,
    mean_background: float = 0.0  # and on other texts
    concept_tokens: int = 0  # concept words among the tokens that sign * d promotes most
    top: tuple[str, ...] = ()  # the first of those tokens
    reach: float = 0.0  # what its edit writes on the concept over what it writes elsewhere (`edit_reach`)

    @property
    def contrast(self) -> float:
        """Mean activation on concept texts minus the larger of the two others."""
        return self.mean_concept - max(self.mean_neighbour, self.mean_background)

    def __str__(self) -> str:
        return f"layer {self.layer} feature {self.index} ({'+' if self.sign > 0 else '-'})"


@dataclass(frozen=True)
class PublicDictionaries:
    """Dictionaries of one model's MLP outputs on the Hub. A repository may hold several per layer; one is meant."""

    repository: str  # "owner/name"
    names: tuple[str, ...]  # of layers 0, 1, ...: the folder, as `load_sae` takes it
    layers: tuple[int, ...]  # those that are read unless others are asked for; one takes 2 * d_sae * d_model * 4 bytes
    d_sae: int  # features of each
    source: str


@dataclass(frozen=True)
class PublishedEdit:
    """Features and strength that the authors of PISCES give for a concept."""

    features: tuple[Feature, ...]
    tau: float
    mu: float
    ramp: int  # layers below this one are edited more weakly, see `pisces_edit`
    dictionaries: PublicDictionaries  # those whose features are meant
    source: str


# average_l0 of the 16k file of layers 0 to 25 that the authors' ids belong to
_GEMMA_L0 = (
    119, 105, 95, 95, 85, 114, 133, 60, 136, 88, 110, 98, 108, 112, 97, 80, 72, 68, 106, 109, 109, 113, 121, 128, 73,
    126,
)  # fmt: skip


GEMMA_SCOPE = PublicDictionaries(
    "google/gemma-scope-2b-pt-mlp",
    tuple(f"layer_{layer}/width_16k/average_l0_{l0}" for layer, l0 in enumerate(_GEMMA_L0)),
    layers=(1, 4, 20),  # of the published edit
    d_sae=16_384,
    source="gemma_id_to_average in editor.py of the authors' code, commit 1d576fe",
)


LLAMA_SCOPE = PublicDictionaries(
    "fnlp/Llama3_1-8B-Base-LXM-8x",
    tuple(f"Llama3_1-8B-Base-L{layer}M-8x" for layer in range(32)),
    layers=(16, 17, 18, 19, 21, 22),  # where four or more of EMBER's eleven concepts have a feature of PISCES
    d_sae=32_768,
    source="llama_scope_lxm_8x in the same file; repository and folders by SAELens' loader of that release; layers by "
    "data/pisces_concept_features_llama.json of EMBER's code, commit 14d6f6d",
)


PUBLIC = {"gemma-2-2b-it": GEMMA_SCOPE, "llama-3.1-8b-instruct": LLAMA_SCOPE}  # trained on the base models


# (model, concept) -> edit. "neg" there (promoted by +f, to be pushed down) is sign +1 here.
PUBLISHED = {
    ("gemma-2-2b-it", "harry_potter"): PublishedEdit(
        (Feature(1, 8965), Feature(1, 13394, -1), Feature(4, 661), Feature(20, 11104), Feature(20, 14668, -1)),
        tau=0.4, mu=36.0, ramp=10, dictionaries=GEMMA_SCOPE,
        source="erasing_harry_potter.ipynb of the authors' code",
    )
}  # fmt: skip


def public_dictionaries(model: str) -> PublicDictionaries | None:
    """Those on the Hub for a model, named as in the registry, on the Hub or by its folder; None where none is known."""
    return next((found for name, found in PUBLIC.items() if model_family(name) == model_family(model)), None)


def published_edit(lm: LanguageModel, saes: Dictionaries, concept: str) -> PublishedEdit | None:
    """What the authors give for a concept (by name) and exactly this model; None where they give nothing.

    None also where the dictionaries are not of the published kind, so that its numbers would mean other features. A
    dictionary does not say which file it is, so kind means site and width: with the same width and another l0 the
    features are others, unnoticed.
    """
    name = lm.name.rstrip("/").rsplit("/", 1)[-1].lower()
    edit = PUBLISHED.get((name, concept))
    if edit is None or not saes:
        return None
    kinds = {(sae.cfg.hook_name, sae.cfg.d_sae) for sae in saes.values()}
    wanted = {(f"blocks.{layer}.hook_mlp_out", edit.dictionaries.d_sae) for layer in saes}
    return edit if kinds == wanted else None


def hand_picked(lm: LanguageModel, saes: Dictionaries, places: Sequence[tuple[int, ...]]) -> list[Feature]:
    """Features from `(layer, index)` or `(layer, index, sign)`; sign 1 where `+d` writes the concept.

    Raises ConceptLabError for a place that no dictionary has, or one that is named twice.
    """
    features = [Feature(layer, index, sign[0] if sign else 1) for layer, index, *sign in places]
    by_layer(lm, saes, features)
    if len({(f.layer, f.index) for f in features}) < len(features):
        raise ConceptLabError("A feature was named twice; each counts once.")
    return features


def random_features(saes: Dictionaries, features: Sequence[Feature], seed: int = 0) -> list[Feature]:
    """A control: as many other features of the same layers, drawn at random, with the same signs."""
    generator = random.Random(seed)
    taken = {(f.layer, f.index) for f in features}
    drawn = []
    for f in features:
        free = [i for i in range(saes[f.layer].cfg.d_sae) if (f.layer, i) not in taken]
        index = generator.choice(free)
        taken.add((f.layer, index))
        drawn.append(Feature(f.layer, index, f.sign))
    return drawn


def check_saes(lm: LanguageModel, saes: Dictionaries) -> None:
    """Raise unless there are dictionaries, each of the MLP's output of its layer and of the model's width."""
    if not saes:
        raise ConceptLabError("No dictionary was given; give one per layer, as `shipped_dictionaries(lm)` does.")
    for layer, sae in saes.items():
        check_editable(sae)
        if sae.cfg.d_in != lm.d_model or lm.check_layer(layer) != sae.cfg.hook_layer:
            raise ConceptLabError(
                f"The dictionary given for layer {layer} reads layer {sae.cfg.hook_layer} of {sae.cfg.model_name} with "
                f"width {sae.cfg.d_in}; {lm.name} has width {lm.d_model}, use a dictionary of this model and layer."
            )


def by_layer(lm: LanguageModel, saes: Dictionaries, features: Sequence[Feature]) -> dict[int, list[Feature]]:
    """The features of each layer, checked against its dictionary."""
    if not features:
        raise ConceptLabError("No features were given, so there is nothing to edit; choose some with find_features.")
    check_saes(lm, saes)
    groups: dict[int, list[Feature]] = {}
    for f in features:
        if f.layer not in saes:
            raise ConceptLabError(f"{f} has no dictionary; those given are of layers {sorted(saes)}.")
        if not 0 <= f.index < saes[f.layer].cfg.d_sae or f.sign not in (-1, 1):
            raise ConceptLabError(
                f"{f}: the index must lie in 0 to {saes[f.layer].cfg.d_sae - 1} and the sign be 1 or -1."
            )
        groups.setdefault(f.layer, []).append(f)
    return groups
