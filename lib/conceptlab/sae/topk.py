"""TopK sparse autoencoder (Gao et al. 2024): exactly k features per token, revived by an auxiliary loss."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from .base import SAE


class TopKSAE(SAE):
    """`encode(x) = TopK(relu((x - b_dec) W_enc + b_enc))`."""

    def pre_activations(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """Feature scores before the k largest are kept."""
        return F.relu((x - self.b_dec) @ self.W_enc + self.b_enc)

    def encode_sparse(self, x: Float[Tensor, "batch d_in"]) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
        """Values and indices of the k active features."""
        top = self.pre_activations(x).topk(self.cfg.k, dim=-1, sorted=False)
        return top.values, top.indices

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        values, indices = self.encode_sparse(x.reshape(-1, x.shape[-1]))
        dense = torch.zeros(len(values), self.cfg.d_sae, dtype=values.dtype, device=values.device)
        return dense.scatter(-1, indices, values).view(*x.shape[:-1], self.cfg.d_sae)

    def decode_sparse(
        self, values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"]
    ) -> Float[Tensor, "batch d_in"]:
        """The same as `decode`, touching only the k active rows of each token."""
        return F.embedding_bag(indices, self.W_dec, per_sample_weights=values, mode="sum") + self.b_dec

    def loss(
        self, x: Float[Tensor, "batch d_in"], dead: Tensor | None = None, k_aux: int = 128, aux_weight: float = 1 / 32
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error over the variance of `x`, plus the auxiliary loss of dead features (section 3 there).

        `dead`: boolean `[d_sae]`; those features reconstruct, with their own `k_aux` largest scores, what the live
        ones leave. Returns the loss and `{"fve", "indices"}`.
        """
        scores = self.pre_activations(x)
        top = scores.topk(self.cfg.k, dim=-1, sorted=False)
        error = x - self.decode_sparse(top.values, top.indices)
        variance = (x - x.mean(0)).square().sum()
        loss = error.square().sum() / variance
        fve = 1 - loss.detach()
        if dead is not None and int(dead.sum()) > 0:
            k = min(k_aux, int(dead.sum()))
            revived = torch.where(dead, scores, -torch.inf).topk(k, dim=-1, sorted=False)
            guess = F.embedding_bag(revived.indices, self.W_dec, per_sample_weights=revived.values, mode="sum")
            residual = error.detach()
            aux = (guess - residual).square().sum() / residual.square().sum()
            loss = loss + aux_weight * aux.nan_to_num(0.0)
        return loss, {"fve": fve, "indices": top.indices}
