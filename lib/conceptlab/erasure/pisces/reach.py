"""What an edit will write, and where: choosing features by the neurons that an edit has to go through.

An edit of the down projection can only write where neurons are active. For a feature `f` PISCES changes the rows
`J_f`, so that at a token with neuron activations `n` it writes `-sign_f mu M s_f(n) d_f` with

    s_f(n) = sum over j in J_f of sigma_j n_j.

How selective an erasure is, is decided by how much larger `s_f` is on the concept than on anything else, however well
the feature itself may tell them apart. That needs no edited forward pass: one pass over texts gives it for every
feature and every tau. (Ours; the paper asks the edited model about each feature.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...core import ConceptLabError, NotPossible
from ...data import Concept, evidence_texts, fact_texts, general_questions, text_passes
from ...models import LanguageModel
from ...sae import SAE, sae_site
from .edit import rows_for
from .features import Dictionaries, Feature, check_saes

CHUNK = 1_024  # features at a time


@dataclass(frozen=True)
class Evidence:
    """Neuron activations of some layers at every token of four or six groups of texts, those of the concept first.

    `own` groups are about the concept (encyclopedia leads, answered dev questions), the others are about its neighbour
    and about anything else. The first position of a text, an attention sink, is left out.
    """

    neurons: dict[int, tuple[Float[Tensor, "_ d_mlp"], ...]]  # layer -> one tensor per group
    own: int  # how many groups are the concept's
    is_word: Bool[Tensor, " _"]  # tokens of the first group that are words of the concept

    @property
    def signs(self) -> dict[int, Float[Tensor, " d_mlp"]]:
        """layer -> sign of each neuron's summed sign at the concept's words, as `neuron_signs` gives it."""
        return {layer: groups[0][self.is_word].sign().sum(0).sign() for layer, groups in self.neurons.items()}


@dataclass(frozen=True)
class Reach:
    """Per feature: root mean square of `s_f` on the concept (the weaker group), and the largest on another group."""

    own: Float[Tensor, " k"]
    other: Float[Tensor, " k"]
    rows: Float[Tensor, " k"]  # how many rows the edit of each changes

    @property
    def ratio(self) -> Float[Tensor, " k"]:
        return self.own / self.other.clamp_min(1e-9)


@torch.no_grad()
def gather_evidence(
    lm: LanguageModel,
    layers: list[int],
    concept: Concept,
    n_texts: int = 30,
    n_questions: int = 40,
    n_ctx: int = 64,
    seed: int = 0,
) -> Evidence:
    """One pass over at most `n_texts` leads and `n_questions` answered dev questions per group; dev data only.

    Raises ConceptLabError for a concept without neighbour, one of the two without texts, and texts that hold none of
    the concept's words.
    """
    own, near, far = evidence_texts(concept, n_texts, seed)
    if not own or not near:
        raise ConceptLabError(f"{concept.name} and its neighbour need texts; widen `texts` in the concept's file.")
    assert concept.neighbour is not None  # `evidence_texts` has raised
    asked = [fact_texts(qs[:n_questions]) for qs in (concept.dev, concept.neighbour.dev, general_questions("dev"))]
    groups = [g for g in (own, asked[0], near, far, asked[1], asked[2]) if g]
    words = torch.tensor(sorted(lm.single_tokens(concept.words).values()), dtype=torch.long, device=lm.device)
    parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    at = torch.zeros(0, dtype=torch.bool)
    for number, texts in enumerate(groups):
        found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        for batch in text_passes(lm, texts, [("neurons", layer) for layer in layers], n_ctx, batch_size=10):
            for layer in layers:
                found[layer].append(batch.found["neurons", layer][batch.keep].float())
            if number == 0:
                at = torch.cat([at, torch.isin(batch.ids, words)[batch.keep].cpu()])
        for layer in layers:
            parts[layer].append(torch.cat(found[layer]))
    if not bool(at.any()):
        raise ConceptLabError(
            f"No word of {concept.name} that is one token occurs in its texts; add words to its file."
        )
    return Evidence({layer: tuple(p) for layer, p in parts.items()}, 2 if asked[0] else 1, at.to(lm.device))


@torch.no_grad()
def edit_reach(
    lm: LanguageModel, sae: SAE, evidence: Evidence, tau: float = 0.5, index: Int[Tensor, " k"] | None = None
) -> Reach:
    """How much the PISCES edit of each feature of a dictionary would write, on the concept and elsewhere (mu M = 1).

    `index`: the features to look at (None: all).
    """
    layer = sae_site(sae)[1]
    rows, groups, sigma = rows_for(lm, sae), evidence.neurons[layer], evidence.signs[layer]
    index = torch.arange(sae.cfg.d_sae) if index is None else index
    parts = [torch.zeros(3, 0)]
    for chosen in index.split(CHUNK):
        size = (rows @ sae.detectors(chosen.to(sae.W_dec.device)).to(rows)).abs()  # [d_mlp, chunk]
        through = sigma[:, None] * (size > tau * size.amax(0))
        rms = torch.stack([(n @ through).square().mean(0).sqrt() for n in groups])
        parts.append(
            torch.stack([rms[: evidence.own].amin(0), rms[evidence.own :].amax(0), through.abs().sum(0)]).cpu()
        )
    return Reach(*torch.cat(parts, 1))


@torch.no_grad()
def reaching_features(
    lm: LanguageModel,
    saes: Dictionaries,
    evidence: Evidence,
    n: int = 10,
    tau: float = 0.5,
    *,
    min_share: float = 2.0,
) -> list[Feature]:
    """The `n` features whose edit is most selective, best first, among those that fire on the concept.

    A feature fires on the concept when its mean activation on each of the concept's groups is `min_share` times that
    on every other group. Their sign is +1: where an activation is positive, it is `+d` that is written.
    Raises NotPossible when no feature does.
    """
    check_saes(lm, saes)
    found = []
    for layer, sae in saes.items():
        gain = lm.post_mlp_gain(layer).float() if sae_site(sae)[0] == "mlp_contribution" else None
        means = []
        for neurons in evidence.neurons[layer]:
            written = neurons @ lm.down_proj(layer).float()
            if gain is not None:  # a dictionary behind the norm reads the normalised output
                written = written / written.square().mean(1, keepdim=True).sqrt().clamp_min(1e-9) * gain
            means.append(sae.strengths(written.to(sae.W_dec)).float().mean(0).cpu())
        own, other = torch.stack(means[: evidence.own]).amin(0), torch.stack(means[evidence.own :])
        fires = ((own > 0) & (own >= min_share * other.amax(0))).nonzero()[:, 0]
        ratios = edit_reach(lm, sae, evidence, tau, fires).ratio
        for i, ratio in zip(fires.tolist(), ratios.tolist(), strict=True):
            near, far = (float(other[g, i]) for g in (0, 1))
            found.append(Feature(layer, i, 1, 0.5, float(own[i]), near, far, reach=ratio))
    if not found:
        raise NotPossible("No feature fires on the concept and hardly elsewhere; lower min_share or add texts.")
    return sorted(found, key=lambda f: -f.reach)[:n]
