"""Writing features out of the MLP weights: the published edit in closed form, and simpler ones beside it.

The rows of `lm.down_proj(layer)`, one per neuron, live in the space of `mlp_output`, before any norm after the MLP.
A dictionary that reads there edits them as they are. One that reads behind the norm (Gemma Scope) sees the rows times
the norm's gain, and its directions go back through the same gain. The authors' code encodes the raw rows in both cases
(`raw_side=True` does the same, to show what it costs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...core import ConceptLabError, NotPossible
from ...edits import LowRank, WeightEdit
from ...models import LanguageModel
from ...sae import SAE, TopKSAE, sae_site
from .features import Dictionaries, Feature, by_layer


def rows_for(lm: LanguageModel, sae: SAE, raw_side: bool = False) -> Float[Tensor, "d_mlp d_model"]:
    """What each neuron of the dictionary's layer writes, in the space that the dictionary reads."""
    return _rows(lm, sae_site(sae), raw_side).to(sae.W_dec)  # a bfloat16 model is edited in the dictionary's precision


def _rows(lm: LanguageModel, site: tuple[str, int], raw_side: bool = False) -> Float[Tensor, "d_mlp d_model"]:
    kind, layer = site
    return lm.value_vectors(layer) if kind == "mlp_contribution" and not raw_side else lm.down_proj(layer)


def columns_for(
    lm: LanguageModel, sae: SAE, directions: Float[Tensor, "k d_model"], raw_side: bool = False
) -> Float[Tensor, "d_model k"]:
    """Directions of the dictionary's space as columns of the raw down projection."""
    return _columns(lm, sae_site(sae), directions, raw_side)


def _columns(
    lm: LanguageModel, site: tuple[str, int], directions: Float[Tensor, "k d_model"], raw_side: bool = False
) -> Float[Tensor, "d_model k"]:
    kind, layer = site
    behind_norm = kind == "mlp_contribution" and not raw_side
    return (lm.weight_delta(layer, directions) if behind_norm else directions.T).contiguous()


@torch.no_grad()
def pisces_edit(
    lm: LanguageModel,
    saes: Dictionaries,
    features: Sequence[Feature],
    tau: float = 0.1,
    mu: float = 0.5,
    neuron_signs: dict[int, Float[Tensor, " d_mlp"]] | None = None,
    *,
    ramp: int = 0,
    raw_side: bool = False,
) -> WeightEdit:
    """The published edit (section 3.2), in closed form: one rank-one change per feature.

    With `w_j` a row of the down projection and `e_jf = w_j . W_enc[:, f]`: feature `f` is changed in the rows
    `J_f = {j: |e_jf| > tau max_j |e_jf|}`, where its activation `a_jf = encode(w_j)_f` becomes
    `-sign_f sigma_j mu M`, with `M = max |e_jf|` over the selected features of the layer. Because decoding is linear
    and the reconstruction error is kept, encode-edit-decode equals `w_j += sum_f (a'_jf - a_jf) W_dec[f]`. Decoder rows
    count as of norm 1 (`SAE.detectors`, `strengths`, `directions`), so that no free scale of a feature enters.
    `neuron_signs`: layer -> sigma (`neuron_signs(...)`); without it all are 1. `ramp`: layers below it get
    `mu (0.1 + 0.9 layer / (ramp - 1))` ("linscale" there: 10 for Gemma-2). `raw_side`: see the module.
    """
    changes = {}
    info = _info("pisces", features, tau=tau, mu=mu, signed=neuron_signs is not None, ramp=ramp)
    for layer, chosen in by_layer(lm, saes, features).items():
        sae = saes[layer]
        rows = rows_for(lm, sae, raw_side)
        index = _indices(chosen, sae)
        picked, scale = pisces_rows(sae, rows, index, tau)
        signs = torch.tensor([-float(f.sign) for f in chosen]).to(rows)
        sigma = torch.ones(len(rows)).to(rows) if neuron_signs is None else neuron_signs[layer].to(rows)
        strength = mu * (0.1 + 0.9 * layer / (ramp - 1)) if layer < ramp - 1 else mu
        wanted = sigma[:, None] * signs * strength * scale  # [d_mlp, k]
        used = picked.any(1).nonzero()[:, 0]  # only these rows have to be encoded
        present = torch.zeros_like(wanted)
        present[used] = activations(sae, rows[used], index) * sae.norms[index].to(rows)
        coefficients = (wanted - present) * picked
        left = columns_for(lm, sae, sae.directions(index).to(rows), raw_side)
        changes[lm.down_proj_name(layer)] = LowRank(left, coefficients.T.contiguous())
    return WeightEdit.of(lm, changes, info)


SAMPLE = 8  # one feature in so many is looked at before the whole dictionary is


def activations(
    sae: SAE, rows: Float[Tensor, "n d_model"], index: Int[Tensor, " k"], sample: int = SAMPLE
) -> Float[Tensor, "n k"]:
    """`sae.encode(rows, index)`, in the dictionary's own scale; for TopK without scoring every feature on every row.

    What does not reach the k-th largest score of a sample of the features is not among the k largest of all, so most
    rows need no more than the sample.
    """
    if type(sae) is not TopKSAE or sae.cfg.d_sae // sample < sae.cfg.k:
        return sae.encode(rows, index)
    found = rows.new_zeros(len(rows), len(index))
    centred = rows - sae.b_dec
    seen = centred @ sae.W_enc[:, ::sample] + sae.b_enc[::sample]
    least = seen.topk(sae.cfg.k, dim=1).values[:, -1:]
    own = centred @ sae.W_enc[:, index] + sae.b_enc[index]
    slack = 1e-5 * seen.abs().amax(1, keepdim=True)  # two products of the same numbers round differently
    needed = ((own > 0) & (own >= least - slack)).any(1)
    if bool(needed.any()):
        found[needed] = sae.encode(rows[needed], index)
    return found


def pisces_rows(
    sae: SAE, rows: Float[Tensor, "d_mlp d_model"], index: Int[Tensor, " k"], tau: float
) -> tuple[Bool[Tensor, "d_mlp k"], Tensor]:
    """Which rows hold enough of which feature, and the scale M of the layer (a 0-d tensor)."""
    if not 0 <= tau < 1:
        raise ConceptLabError(f"tau is a share of the largest projection, at least 0 and below 1; got {tau}.")
    size = (rows @ sae.detectors(index).to(rows)).abs()
    return size > tau * size.amax(0), size.max()


def directional_edit(lm: LanguageModel, saes: Dictionaries, features: Sequence[Feature], c: float = 2.0) -> WeightEdit:
    """Directional ablation (`ablation_edit`) of what some features of a layer write."""
    spans = {}
    for layer, chosen in by_layer(lm, saes, features).items():
        spans[sae_site(saes[layer])] = saes[layer].directions(_indices(chosen, saes[layer])).detach()
    return ablation_edit(lm, spans, c, _info("directional", features, c=c))


@torch.no_grad()
def ablation_edit(
    lm: LanguageModel,
    spans: Mapping[tuple[str, int], Float[Tensor, "k d_model"]],
    c: float = 2.0,
    info: dict | None = None,
) -> WeightEdit:
    """Directional ablation: `W <- W - c (W Q) Q^T` for the rows `W` of a layer's down projection.

    `spans`: site (`("mlp_output", layer)`, or `("mlp_contribution", layer)` for directions behind a norm) -> directions
    in its space; `Q` is an orthonormal basis of their span (for one direction, itself). c = 1 removes what the layer
    writes along them, c = 2 turns it round, c = 0 changes nothing.
    """
    changes = {}
    for site, directions in spans.items():
        rows = _rows(lm, site).to(directions)
        Q, _ = torch.linalg.qr(directions.T)  # [d_model, k]
        changes[lm.down_proj_name(site[1])] = LowRank(-c * _columns(lm, site, Q.T), (rows @ Q).T.contiguous())
    return WeightEdit.of(lm, changes, {"method": "directional", "c": c} if info is None else info)


@torch.no_grad()
def signed_edit(
    lm: LanguageModel,
    saes: Dictionaries,
    features: Sequence[Feature],
    neuron_signs: dict[int, Float[Tensor, " d_mlp"]],
    c: float = 1.0,
) -> WeightEdit:
    """Directional ablation of those rows only that write the concept, given the neurons' signs on it.

    For each feature, `w_j <- w_j - c p_j d` with `p_j = w_j . d`, in the rows with `sign sigma_j p_j > 0`; the others
    already write against it. c = 1 leaves no such row for a single feature, c = 2 turns them round.
    """
    changes, info = {}, _info("signed", features, c=c)
    for layer, chosen in by_layer(lm, saes, features).items():
        sae = saes[layer]
        rows = rows_for(lm, sae)
        d = sae.directions(_indices(chosen, sae)).to(rows)
        along = rows @ d.T  # [d_mlp, k]
        writes = neuron_signs[layer].to(rows)[:, None] * torch.tensor([float(f.sign) for f in chosen]).to(rows) * along
        coefficients = torch.where(writes > 0, -c * along, 0.0)
        changes[lm.down_proj_name(layer)] = LowRank(columns_for(lm, sae, d), coefficients.T.contiguous())
    return WeightEdit.of(lm, changes, info)


@torch.no_grad()
def neuron_signs(lm: LanguageModel, layers: Sequence[int], texts: Sequence[str], words: Sequence[str], n_ctx: int = 96):
    """layer -> sign of each neuron's summed sign `[d_mlp]` at tokens of `words`; 0 where it was never seen.

    A gated neuron whose activation is negative on the concept writes `-w_j`, so the change of its row must turn too.
    Raises NotPossible where no word is a single token or none occurs in the texts: an edit by signs would be empty.
    """
    wanted = torch.tensor(sorted(lm.single_tokens(words).values()), device=lm.device)
    if not len(wanted):
        raise NotPossible(f"None of {list(words)[:5]} is a single token of {lm.name}, so no neuron has a sign on them.")
    n_found = 0
    total = {layer: torch.zeros(lm.d_mlp, device=lm.device) for layer in layers}
    for i in range(0, len(texts), 16):
        ids, mask = lm.tokens(list(texts[i : i + 16]), n_ctx)
        found = lm.capture(ids, [("neurons", layer) for layer in layers], mask)
        at = torch.isin(ids, wanted) & mask
        n_found += int(at.sum())
        for layer in layers:
            total[layer] += found["neurons", layer][at].sign().float().sum(0)
    if not n_found:
        raise NotPossible(
            f"None of {list(words)[:5]} stands in the {len(texts)} texts, so no neuron has a sign on them."
        )
    return {layer: value.sign() for layer, value in total.items()}


def _indices(features: Sequence[Feature], sae: SAE) -> Int[Tensor, " k"]:
    return torch.tensor([f.index for f in features], device=sae.W_dec.device)


def _info(method: str, features: Sequence[Feature], **settings) -> dict:
    return {"method": method, "features": [[f.layer, f.index, f.sign] for f in features], **settings}
