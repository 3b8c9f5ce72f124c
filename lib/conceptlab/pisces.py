"""PISCES: find the features that carry a concept, and write them out of the MLP weights (Gur-Arieh et al. 2025).

A feature is a row `d = W_dec[f]` of a dictionary of MLP outputs. The rows of `lm.down_proj(layer)`, one per neuron,
live in the same space, before any norm after the MLP, so an edit needs no gain; only the projection on the vocabulary
does (`SAE.residual_directions`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .cache import ConceptLabError
from .concepts import Concept
from .edits import LowRank, WeightEdit
from .models import LanguageModel
from .projection import project
from .sae import SAE
from .text import vital_articles

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

    @property
    def contrast(self) -> float:
        """Mean activation on concept texts minus the larger of the two others."""
        return self.mean_concept - max(self.mean_neighbour, self.mean_background)

    def __str__(self) -> str:
        return f"layer {self.layer} feature {self.index} ({'+' if self.sign > 0 else '-'})"


# ---- finding --------------------------------------------------------------------------------------------
def find_features(
    lm: LanguageModel,
    saes: Dictionaries,
    concept: Concept,
    n: int = 20,
    *,
    min_auroc: float = 0.7,
    n_texts: int = 60,
    n_ctx: int = 96,
    k_tokens: int = 50,
    min_tokens: int = 2,
    seed: int = 0,
    means: dict[int, tuple[Tensor, Tensor, Tensor]] | None = None,
) -> list[Feature]:
    """The `n` best candidates over all dictionaries, best first.

    Input-side evidence: the mean activation per text tells `n_texts` texts of the concept from as many of its
    neighbour and of the rest of the encyclopedia (AUROC >= `min_auroc`, positive contrast). Output-side evidence
    (section 3.1 there): at least `min_tokens` concept words among the `k_tokens` tokens that `d` (or `-d`) promotes;
    it also gives the sign. A feature that never fires on the concept's texts is dropped (activation filter).
    Candidates by input-side evidence come first, ordered by contrast; then those by projection alone.
    `means`: what `activation_means` returned, if it is at hand.
    """
    _check_saes(lm, saes)
    means = means or activation_means(lm, saes, concept, n_texts, n_ctx, seed)
    found = []
    for layer, sae in saes.items():
        target, near, far = means[layer]
        scores = auroc(target, torch.cat([near, far]))
        counts, ids = concept_token_counts(lm, sae, concept, k_tokens)  # [d_sae, 2], [d_sae, 2, k]
        a, b, c = target.mean(0), near.mean(0), far.mean(0)
        reads = (scores >= min_auroc) & (a > torch.maximum(b, c))
        writes = counts.amax(1) >= min_tokens
        for f in ((reads | writes) & (a > 0)).nonzero()[:, 0].tolist():
            end = int(counts[f, 1] > counts[f, 0] and writes[f])
            found.append(
                Feature(
                    layer, f, -1 if end else 1, float(scores[f]), float(a[f]), float(b[f]), float(c[f]),
                    int(counts[f, end]), tuple(lm.words(ids[f, end, :8])),
                )
            )  # fmt: skip
    found.sort(key=lambda x: (x.auroc >= min_auroc, x.contrast), reverse=True)
    return found[:n]


@torch.no_grad()
def activation_means(
    lm: LanguageModel, saes: Dictionaries, concept: Concept, n_texts: int = 60, n_ctx: int = 96, seed: int = 0
) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
    """Per layer: mean feature activation of each text `[texts, d_sae]` of concept, neighbour and background.

    The first position of a text, an attention sink, is left out.
    """
    groups = evidence_texts(concept, n_texts, seed)
    return {
        layer: tuple(parts)
        for layer, parts in zip(
            saes, zip(*(_text_means(lm, saes, texts, n_ctx) for texts in groups), strict=True), strict=True
        )
    }


def evidence_texts(concept: Concept, n_texts: int = 60, seed: int = 0) -> tuple[list[str], list[str], list[str]]:
    """At most `n_texts` texts each: of the concept, of its neighbour, and of neither (shuffled by `seed`)."""
    if concept.neighbour is None:
        raise ConceptLabError(f"{concept.name} has no neighbour; add one to its file, selectivity needs it.")
    own, near = ({a.title: a.text for a in c.articles()} for c in (concept, concept.neighbour))
    far = {a.title: a.text for a in vital_articles() if a.title not in own and a.title not in near}
    near = {title: text for title, text in near.items() if title not in own}
    groups = []
    for texts in (own, near, far):
        chosen = random.Random(seed).sample(sorted(texts), min(n_texts, len(texts)))
        groups.append([texts[title] for title in chosen])
    return tuple(groups)


def _text_means(lm: LanguageModel, saes: Dictionaries, texts: list[str], n_ctx: int) -> list[Tensor]:
    parts: dict[int, list[Tensor]] = {layer: [] for layer in saes}
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for i in range(0, len(order), 16):
        ids, mask = lm.tokens([texts[j] for j in order[i : i + 16]], n_ctx)
        found = lm.capture(ids, [("mlp_output", layer) for layer in saes], mask)
        mask[:, 0] = False
        for layer, sae in saes.items():
            acts = sae.encode(found["mlp_output", layer].float()) * mask[..., None]
            parts[layer].append(acts.sum(1).cpu() / mask.sum(1, keepdim=True).clamp_min(1).cpu())
    return [torch.cat(parts[layer]) for layer in saes]


def auroc(positive: Float[Tensor, "n f"], negative: Float[Tensor, "m f"]) -> Float[Tensor, " f"]:
    """For each column: the probability that a positive item scores higher than a negative one (ties count half)."""
    greater = (positive[:, None] > negative[None]).float().mean((0, 1))
    equal = (positive[:, None] == negative[None]).float().mean((0, 1))
    return greater + equal / 2


def concept_token_counts(
    lm: LanguageModel, sae: SAE, concept: Concept, k: int = 50
) -> tuple[Int[Tensor, "d_sae 2"], Int[Tensor, "d_sae 2 k"]]:
    """How many words of the concept are among the `k` tokens that each end of each feature promotes; those tokens.

    End 0 is `+d`, end 1 is `-d`. Words that are several tokens are left out.
    """
    wanted = torch.tensor(sorted(lm.single_tokens(concept.words).values()), dtype=torch.long)
    if not len(wanted):
        raise ConceptLabError(f"No word of {concept.name} is a single token for {lm.name}; add words to its file.")
    ids = project(lm, sae.residual_directions(lm), k).signed_ids()
    return torch.isin(ids, wanted).sum(-1), ids


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


# ---- editing --------------------------------------------------------------------------------------------
@torch.no_grad()
def pisces_edit(
    lm: LanguageModel,
    saes: Dictionaries,
    features: Sequence[Feature],
    tau: float = 0.1,
    mu: float = 0.5,
    neuron_signs: dict[int, Float[Tensor, " d_mlp"]] | None = None,
) -> WeightEdit:
    """The published edit (section 3.2), in closed form: one rank-one change per feature.

    With `w_j` a row of the down projection and `e_jf = w_j . W_enc[:, f]`: feature `f` is changed in the rows
    `J_f = {j: |e_jf| > tau max_j |e_jf|}`, where its activation `a_jf = encode(w_j)_f` becomes
    `-sign_f sigma_j mu M`, with `M = max |e_jf|` over the selected features of the layer. Because decoding is linear
    and the reconstruction error is kept, encode-edit-decode equals `w_j += sum_f (a'_jf - a_jf) W_dec[f]`.
    `neuron_signs`: layer -> sigma (`neuron_signs(...)`); without it all are 1.
    """
    changes, info = {}, _info("pisces", features, tau=tau, mu=mu, signed=neuron_signs is not None)
    for layer, chosen in _by_layer(lm, saes, features).items():
        sae, rows = saes[layer], lm.down_proj(layer)
        index = torch.tensor([f.index for f in chosen], device=rows.device)
        picked, scale = pisces_rows(sae, rows, index, tau)
        signs = torch.tensor([-float(f.sign) for f in chosen]).to(rows)
        sigma = torch.ones(len(rows)).to(rows) if neuron_signs is None else neuron_signs[layer].to(rows)
        wanted = sigma[:, None] * signs * mu * scale  # [d_mlp, k]
        used = picked.any(1).nonzero()[:, 0]  # only these rows have to be encoded
        present = torch.zeros_like(wanted)
        present[used] = sae.encode(rows[used])[:, index]
        coefficients = (wanted - present) * picked
        left = sae.W_dec[index].T.to(rows)
        changes[lm.down_proj_name(layer)] = LowRank(left.contiguous(), coefficients.T.contiguous())
    return WeightEdit(lm.name, changes, info)


def pisces_rows(
    sae: SAE, rows: Float[Tensor, "d_mlp d_model"], index: Int[Tensor, " k"], tau: float
) -> tuple[Bool[Tensor, "d_mlp k"], Tensor]:
    """Which rows hold enough of which feature, and the scale M of the layer (a 0-d tensor)."""
    if not 0 <= tau < 1:
        raise ConceptLabError(f"tau is a share of the largest projection, at least 0 and below 1; got {tau}.")
    size = (rows @ sae.W_enc[:, index].to(rows)).abs()
    return size > tau * size.amax(0), size.max()


@torch.no_grad()
def directional_edit(lm: LanguageModel, saes: Dictionaries, features: Sequence[Feature], c: float = 2.0) -> WeightEdit:
    """Directional ablation: `W <- W - c (W Q) Q^T` for the rows `W` of a layer's down projection.

    `Q` is an orthonormal basis of the span of the layer's features (for one feature, `d` itself). c = 1 removes what
    the layer writes along them, c = 2 turns it round, c = 0 changes nothing.
    """
    changes, info = {}, _info("directional", features, c=c)
    for layer, chosen in _by_layer(lm, saes, features).items():
        rows = lm.down_proj(layer)
        Q, _ = torch.linalg.qr(saes[layer].W_dec[[f.index for f in chosen]].T.to(rows))  # [d_model, k]
        changes[lm.down_proj_name(layer)] = LowRank(-c * Q, (rows @ Q).T.contiguous())
    return WeightEdit(lm.name, changes, info)


@torch.no_grad()
def neuron_signs(lm: LanguageModel, layers: Sequence[int], texts: Sequence[str], words: Sequence[str], n_ctx: int = 96):
    """layer -> sign of each neuron's summed sign `[d_mlp]` at tokens of `words`; 0 where it was never seen.

    A gated neuron whose activation is negative on the concept writes `-w_j`, so the change of its row must turn too.
    """
    wanted = torch.tensor(sorted(lm.single_tokens(words).values()), device=lm.device)
    total = {layer: torch.zeros(lm.d_mlp, device=lm.device) for layer in layers}
    for i in range(0, len(texts), 16):
        ids, mask = lm.tokens(list(texts[i : i + 16]), n_ctx)
        found = lm.capture(ids, [("neurons", layer) for layer in layers], mask)
        at = torch.isin(ids, wanted) & mask
        for layer in layers:
            total[layer] += found["neurons", layer][at].sign().float().sum(0)
    return {layer: value.sign() for layer, value in total.items()}


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


# ---- bad input ------------------------------------------------------------------------------------------
def _check_saes(lm: LanguageModel, saes: Dictionaries) -> None:
    if not saes:
        raise ConceptLabError("No dictionary was given; train some with live_dictionaries(lm, rows, layers, cfg).")
    for layer, sae in saes.items():
        if sae.cfg.d_in != lm.d_model or lm.check_layer(layer) != sae.cfg.hook_layer:
            raise ConceptLabError(
                f"The dictionary given for layer {layer} reads layer {sae.cfg.hook_layer} of {sae.cfg.model_name} with "
                f"width {sae.cfg.d_in}; {lm.name} has width {lm.d_model}, use a dictionary of this model and layer."
            )


def _by_layer(lm: LanguageModel, saes: Dictionaries, features: Sequence[Feature]) -> dict[int, list[Feature]]:
    if not features:
        raise ConceptLabError("No features were given, so there is nothing to edit; choose some with find_features.")
    _check_saes(lm, saes)
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


def _info(method: str, features: Sequence[Feature], **settings) -> dict:
    return {"method": method, "features": [[f.layer, f.index, f.sign] for f in features], **settings}
