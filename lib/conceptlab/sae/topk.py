"""TopK sparse autoencoder (Gao et al. 2024): exactly k features per token, revived by an auxiliary loss."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from .base import SAE
from .sparse import top_scores, weighted_rows


class TopKSAE(SAE):
    """`encode(x) = TopK(relu((x - b_dec) W_enc + b_enc))`."""

    def pre_activations(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """Feature scores before the k largest are kept."""
        return F.relu((x - self.b_dec) @ self.W_enc + self.b_enc)

    def encode_sparse(self, x: Float[Tensor, "batch d_in"]) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
        """Values and indices of the k active features, in no particular order."""
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
        return weighted_rows(values, indices, self.W_dec) + self.b_dec

    def loss(
        self,
        x: Float[Tensor, "batch d_in"],
        dead: Bool[Tensor, " d_sae"] | None = None,
        k_aux: int = 32,
        aux_weight: float = 1 / 32,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error over the variance of `x`, plus the auxiliary loss of dead features (section 2.4 there).

        `dead`: the features that reconstruct, with their own `k_aux` largest scores, what the live ones leave.
        Returns the loss and `{"fve", "indices"}`.
        """
        bias = self.b_enc - self.b_dec @ self.W_enc  # the centring of x, moved out of the large product
        values, indices = top_scores(x, self.W_enc, bias, self.cfg.k)
        error = x - self.decode_sparse(values, indices)
        loss = error.square().sum() / (x - x.mean(0)).square().sum()
        fve = 1 - loss.detach()
        if dead is not None and (n_dead := int(dead.sum())) > 0:
            which = dead.nonzero()[:, 0]
            own = top_scores(x, self.W_enc[:, which], bias[which], min(k_aux, n_dead))
            guess, left = weighted_rows(own[0], own[1], self.W_dec[which]), error.detach()
            aux = (guess - left).square().sum() / left.square().sum()
            loss = loss + aux_weight * aux.nan_to_num(0.0)
        return loss, {"fve": fve, "indices": indices}
