"""Which candidates may be edited: each filter returns those it keeps, and for every other one the reason.

The three filters of the paper (section 3.1; `feature_finder` of the authors' code) edit one feature at a time and look
what happens. Two of their tests are changed on purpose: look-alike words must not fall (there the threshold of -2 on a
mean probability can never be reached), and general questions are our dev questions instead of part of MMLU's test set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...core import ConceptLabError, NotPossible
from ...data import Concept, Question, fact_texts, general_questions, text_passes
from ...edits import WeightEdit
from ...evaluation import score_questions
from ...models import LanguageModel
from ...sae import sae_site
from .features import Dictionaries, Feature, by_layer

MakeEdit = Callable[[Feature], WeightEdit]  # the edit of one feature alone


@dataclass(frozen=True)
class Filtered:
    """What is left of a list of features, in its order, and why the others went."""

    kept: tuple[Feature, ...]
    dropped: tuple[tuple[Feature, str], ...]

    def then(self, other: Filtered) -> Filtered:
        """This filter followed by one that saw only what it kept."""
        return Filtered(other.kept, self.dropped + other.dropped)


def filter_features(
    lm: LanguageModel,
    saes: Dictionaries,
    features: Sequence[Feature],
    concept: Concept,
    make: MakeEdit,
    n_prompts: int = 16,
    n_questions: int = 40,
) -> Filtered:
    """The three filters one after the other, the cheap ones first. Everything is judged on dev data.

    `features` may come from `find_features` or from `hand_picked`; `make(feature)` is the edit to judge it by (the
    authors use `pisces_edit` with tau 0.9 and mu 16).
    """
    found = activation_filter(lm, saes, features, concept.texts()[:n_prompts])
    found = found.then(word_filter(lm, found.kept, concept, make, n_prompts))
    return found.then(ability_filter(lm, found.kept, make, general_questions("dev")[:n_questions]))


@torch.no_grad()
def activation_filter(
    lm: LanguageModel, saes: Dictionaries, features: Sequence[Feature], texts: Sequence[str], n_ctx: int = 96
) -> Filtered:
    """Drops what never fires on the concept's texts; the start token, an attention sink, does not count."""
    if not features:
        return Filtered((), ())
    groups = by_layer(lm, saes, features)
    sites = {layer: sae_site(saes[layer]) for layer in groups}
    fires: set[tuple[int, int]] = set()
    for batch in text_passes(lm, texts, list(sites.values()), n_ctx):
        for layer, chosen in groups.items():
            acts = saes[layer].encode(batch.found[sites[layer]][batch.keep].to(saes[layer].W_dec))
            fires |= {(layer, f.index) for f in chosen if bool((acts[:, f.index] > 0).any())}
    return _filtered(
        features, (None if (f.layer, f.index) in fires else f"never fires on {len(texts)} texts" for f in features)
    )


def word_filter(
    lm: LanguageModel,
    features: Sequence[Feature],
    concept: Concept,
    make: MakeEdit,
    n_prompts: int = 16,
    max_fall: float = 0.1,
) -> Filtered:
    """Causal filter: the edit must make the concept's words less likely and leave its look-alikes alone.

    The probability of a list of words is their sum, averaged over all positions of `n_prompts` answered dev questions
    each of concept and neighbour. Dropped are features whose edit raises that of the concept's words, or lowers that
    of the look-alikes by more than a share `max_fall`. Words that are several tokens are left out.
    """
    lists = {name: list(lm.single_tokens(words).values()) for name, words in _word_lists(concept).items()}
    if not lists["concept"]:
        raise NotPossible(f"No word of {concept.name} is a single token for {lm.name}; add words to its file.")
    asked = concept.dev[:n_prompts] + (concept.neighbour.dev[:n_prompts] if concept.neighbour else ())
    ids, mask = lm.tokens(fact_texts(asked))
    wanted = [torch.tensor(sorted(found), dtype=torch.long) for found in lists.values()]
    before = word_probability(lm, ids, mask, wanted)

    def reason(feature: Feature) -> str | None:
        with make(feature).applied(lm):
            own, look = (word_probability(lm, ids, mask, wanted) / before.clamp_min(1e-12) - 1).tolist()
        if own > 0:
            return f"its edit makes the concept's words {own:.1%} more likely"
        if len(wanted[1]) and look < -max_fall:
            return f"its edit makes look-alike words {-look:.1%} less likely"
        return None

    return _filtered(features, map(reason, features))


def _word_lists(concept: Concept) -> dict[str, tuple[str, ...]]:
    return {"concept": concept.words, "look-alikes": concept.lookalikes}


@torch.no_grad()
def word_probability(
    lm: LanguageModel, ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"], words: Sequence[Tensor]
) -> Float[Tensor, " lists"]:
    """For each list of token ids: their summed probability as the next token, mean over all real positions."""
    total, n = torch.zeros(len(words), dtype=torch.float64), int(mask.sum())
    for i in range(0, len(ids), 4):
        probabilities = lm.logits(ids[i : i + 4], mask[i : i + 4])[mask[i : i + 4]].float().softmax(-1)
        total += torch.stack([probabilities[:, w.to(lm.device)].sum().double().cpu() for w in words])
    return total / n


def ability_filter(
    lm: LanguageModel,
    features: Sequence[Feature],
    make: MakeEdit,
    questions: Sequence[Question],
    max_drop: float = 0.02,
) -> Filtered:
    """Drops what costs general ability: accuracy on `questions` may fall by `max_drop` (0.02 as published)."""
    before = score_questions(lm, questions).accuracy if features else 0.0

    def reason(feature: Feature) -> str | None:
        with make(feature).applied(lm):
            lost = before - score_questions(lm, questions).accuracy
        return f"its edit costs {lost:.1%} of general accuracy" if lost > max_drop + 1e-9 else None

    return _filtered(features, map(reason, features))


def _filtered(features: Sequence[Feature], reasons: Iterable[str | None]) -> Filtered:
    pairs = list(zip(features, reasons, strict=True))
    return Filtered(tuple(f for f, why in pairs if why is None), tuple((f, why) for f, why in pairs if why))


def causal_filter(
    features: Sequence[Feature], effects: Float[Tensor, "n 3"], min_drop: float = 0.05, max_share: float = 0.5
) -> list[Feature]:
    """The features whose own edit does what it should, strongest first (section 3.1 there, in nats instead of words).

    `effects`: row i is `edit_effects` of an edit of `features[i]` alone (columns: target, neighbour, general). Kept are
    those that cost the target at least `min_drop` nats and the two others at most `max_share` of what it lost.
    """
    if len(features) != len(effects):
        raise ConceptLabError(f"{len(features)} features need as many rows of effects; got {len(effects)}.")
    drop, side = -effects[:, 0], -effects[:, 1:].amin(1)
    kept = (drop >= min_drop) & (side <= max_share * drop)
    return [features[i] for i in drop.argsort(descending=True).tolist() if kept[i]]
