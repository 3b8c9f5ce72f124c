"""TopK sparse autoencoder (Gao et al. 2024): exactly k features per token, revived by an auxiliary loss."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .base import EVERY, SAE, Batch, Features, Recipe
from .sparse import top_scores, weighted_rows

K_AUX = 32  # dead features that explain a token's error


AUX_WEIGHT = 1 / 32


class TopKSAE(SAE):
    """`encode(x) = TopK(relu((x - b_dec) W_enc + b_enc))`."""

    recipe = Recipe(lr=4e-3, encoder_scale=0.1, resamples=False)
    resample_scale = 1.0  # a small encoder column would not come among the k largest
    b_enc: nn.Parameter

    def pre_activations(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """Feature scores before the k largest are kept."""
        return F.relu((x - self.b_dec) @ self.W_enc + self.b_enc)

    def encode_sparse(self, x: Float[Tensor, "batch d_in"]) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
        """Values and indices of the k active features, in no particular order."""
        top = self.pre_activations(x).topk(self.cfg.k, dim=-1, sorted=False)
        return top.values, top.indices

    def encode(self, x: Float[Tensor, "*batch d_in"], features: Features = EVERY) -> Float[Tensor, "*batch n"]:
        values, indices = self.encode_sparse(x.reshape(-1, x.shape[-1]))
        dense = torch.zeros(len(values), self.cfg.d_sae, dtype=values.dtype, device=values.device)
        return dense.scatter(-1, indices, values).view(*x.shape[:-1], self.cfg.d_sae)[..., features]

    def decode_sparse(
        self, values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"]
    ) -> Float[Tensor, "batch d_in"]:
        """The same as `decode`, touching only the k active rows of each token."""
        return weighted_rows(values, indices, self.W_dec) + self.b_dec

    def objective(self, x: Float[Tensor, "batch d_in"], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error over the variance of `x`, plus the auxiliary loss of dead features (section 2.4 there).

        `sparsity` has no meaning here. A feature counts as fired when it was among the k, also with a value of zero.
        """
        bias = self.b_enc - self.b_dec @ self.W_enc  # the centring of x, moved out of the large product
        values, indices = top_scores(x, self.W_enc, bias, self.cfg.k)
        error = x - self.decode_sparse(values, indices)
        loss = error.square().sum() / batch.variance
        info = self.sparse_report(loss, values, indices, len(x), batch)
        return loss + self.auxiliary_loss(x, error, bias, batch), info

    def sparse_report(self, loss: Tensor, values: Tensor, indices: Tensor, n_tokens: int, batch: Batch) -> dict:
        """As `report`, from the squared error over the variance and the uses of features."""
        fired = torch.zeros(self.cfg.d_sae, dtype=torch.bool, device=values.device)
        fired[indices.flatten()] = True
        l0 = batch.world.mean((values.detach() > 0).sum() / n_tokens)
        return {"fve": 1 - batch.world.mean(loss.detach()), "l0": l0, "fired": fired}

    def auxiliary_loss(
        self,
        x: Float[Tensor, "batch d_in"],
        error: Float[Tensor, "batch d_in"],
        bias: Float[Tensor, " d_sae"],
        batch: Batch,
    ) -> Tensor | float:
        """Dead features reconstruct, with their own `K_AUX` largest scores, what the live ones leave. 0 if none is."""
        if batch.dead is None or (n_dead := int(batch.dead.sum())) == 0:
            return 0.0
        which = batch.dead.nonzero()[:, 0]
        own = top_scores(x, self.W_enc[:, which], bias[which], min(K_AUX, n_dead))
        guess, left = weighted_rows(own[0], own[1], self.W_dec[which]), error.detach()
        aux = (guess - left).square().sum() / batch.world.mean(left.square().sum())
        return AUX_WEIGHT * aux.nan_to_num(0.0)
