"""What every sparse autoencoder here has in common: weights, decode, and how its directions meet the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..core import ConceptLabError
from ..models import LanguageModel
from .distributed import SOLO, World
from .sites import written_site

Features = Int[Tensor, " n"] | slice  # indices of features


EVERY = slice(None)


@dataclass(frozen=True)
class SAEConfig:
    """What a dictionary is and what it reads."""

    architecture: str  # a name in `ARCHITECTURES`: relu, gated, topk, batchtopk, jumprelu
    d_in: int  # width of the activations
    d_sae: int  # number of features
    k: int  # active features per token: exact (topk), on average (batchtopk), aimed at by the start (others)
    model_name: str  # the model it was trained on
    hook_layer: int  # 0-based
    hook_name: str  # TransformerLens' name of the place it reads, `LanguageModel.mlp_output(layer)`


@dataclass(frozen=True)
class Recipe:
    """Training settings that depend on the architecture. Tuned on SmolLM2-135M, layer 6, 500 steps of 512 tokens."""

    lr: float  # Adam's learning rate
    encoder_scale: float  # the encoder starts as this times the decoder's transpose
    sparsity: float = 0.0  # coefficient of the penalty, no unit; 0: sparse by construction
    resamples: bool = True  # dead features are restarted at badly reconstructed tokens (else: an auxiliary loss)


@dataclass(frozen=True)
class Batch:
    """What an objective needs to know of a batch beside the activations."""

    variance: Float[Tensor, ""]  # sum |x - mean|^2, averaged over the processes
    sparsity: float  # coefficient of the penalty, no unit
    dead: Bool[Tensor, " d_sae"] | None  # features that have not fired for long
    world: World  # the processes that share the batch


class SAE(nn.Module):
    """`x_hat = encode(x) @ W_dec + b_dec` with unit-norm rows of `W_dec`; an architecture adds `encode`, `objective`.

    Weights: `W_enc [d_in, d_sae]`, `W_dec [d_sae, d_in]`, `b_dec [d_in]`, and one vector `[d_sae]` for each name in
    `feature_vectors`.
    """

    feature_vectors: ClassVar[tuple[str, ...]] = ("b_enc",)
    thresholds: ClassVar[tuple[str, ...]] = ()  # further tensors in the unit of the features
    recipe: ClassVar[Recipe]
    lr_factors: ClassVar[dict[str, float]] = {}  # parameters that learn faster or slower than the others
    resample_scale: ClassVar[float] = 0.2  # size of a restarted encoder column, in mean norms of the live ones

    def __init__(self, cfg: SAEConfig, seed: int = 0):
        super().__init__()
        self.cfg = cfg
        self.unit_norm = True  # False while a penalty on the decoder's norms is trained with (ReLU only)
        W_dec = torch.randn(cfg.d_sae, cfg.d_in, generator=torch.Generator().manual_seed(seed))
        W_dec = W_dec / W_dec.norm(dim=1, keepdim=True)
        self.W_dec = nn.Parameter(W_dec)
        self.W_enc = nn.Parameter(W_dec.T.clone())  # encoder starts as the decoder's transpose
        for name in self.feature_vectors:
            setattr(self, name, nn.Parameter(torch.zeros(cfg.d_sae)))
        self.b_dec = nn.Parameter(torch.zeros(cfg.d_in))

    # ---- use ----------------------------------------------------------------------------------------
    def encode(self, x: Float[Tensor, "*batch d_in"], features: Features = EVERY) -> Float[Tensor, "*batch n"]:
        """Activations of some features (default: all, n = d_sae), non-negative and sparse."""
        raise NotImplementedError

    def decode(self, features: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        """Reconstruction from feature activations."""
        return features @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        return self.decode(self.encode(x))

    # ---- results that free rescaling leaves alone ---------------------------------------------------
    # `W_dec * c, W_enc / c, b_enc / c` is the same dictionary for every c > 0. What stands on single features uses the
    # four methods below, in which decoder rows have norm 1 and activations are the lengths that they write.
    @property
    def norms(self) -> Float[Tensor, " d_sae"]:
        """Lengths of the decoder rows; 1 for a row of zeros, which writes nothing."""
        lengths = self.W_dec.norm(dim=1)
        return torch.where(lengths > 0, lengths, 1.0)

    def directions(self, features: Features = EVERY) -> Float[Tensor, "n d_out"]:
        """What some features write, as unit rows."""
        return self.W_dec[features] / self.norms[features][:, None]

    def detectors(self, features: Features = EVERY) -> Float[Tensor, "d_in n"]:
        """Columns of the encoder that give lengths along `directions`."""
        return self.W_enc[:, features] * self.norms[features]

    def strengths(self, x: Float[Tensor, "*batch d_in"], features: Features = EVERY) -> Float[Tensor, "*batch n"]:
        """`encode` in lengths along `directions`."""
        return self.encode(x, features) * self.norms[features]

    def fold_norms(self) -> None:
        """Give the decoder rows norm 1 without changing the function, where the architecture allows it.

        TopK and BatchTopK compare features with each other as they are scored, so there nothing is folded.
        """

    @torch.no_grad()
    def residual_directions(self, lm: LanguageModel) -> Float[Tensor, "d_sae d_model"]:
        """`directions` as they act on the residual stream.

        The gain of a post-MLP norm is included where the dictionary writes before it. Raises ConceptLabError for a
        dictionary of neurons, which does not write to the residual stream.
        """
        kind, layer = written_site(self)
        if kind == "neurons":
            raise ConceptLabError("A dictionary of neurons writes no residual stream; use one of the MLP's output.")
        return self.directions() * lm.post_mlp_gain(layer) if kind == "mlp_output" else self.directions()

    # ---- training -----------------------------------------------------------------------------------
    def loss(
        self,
        x: Float[Tensor, "batch d_in"],
        dead: Bool[Tensor, " d_sae"] | None = None,
        sparsity: float | None = None,
        world: World = SOLO,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What training minimises: squared error over the variance of the batch, plus what the architecture adds.

        `dead`: features that have not fired for long (for an auxiliary loss). `sparsity`: coefficient of the penalty
        (None: the recipe's). `world`: the processes that share the batch, of which `x` is one's part.
        Returns the loss of this part, whose mean over the processes is that of the batch, and detached `{"fve"`, `"l0"`
        (of the whole batch), `"fired" [d_sae]` (of this part)`}`.
        """
        coefficient = self.recipe.sparsity if sparsity is None else sparsity
        return self.objective(x, Batch(variance_sum(x, world), coefficient, dead, world))

    def objective(self, x: Float[Tensor, "batch d_in"], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The equation behind `loss`, one per architecture; `x` are the tokens of this process."""
        raise NotImplementedError

    def start(self, sample: Float[Tensor, "n d_in"]) -> None:
        """Set what an architecture wants set from data before the first step. Encoder and decoder stand already."""

    def scores(self, x: Float[Tensor, "batch d_in"], bias: Float[Tensor, " d_sae"]) -> Float[Tensor, "batch d_sae"]:
        """`(x - b_dec) @ W_enc + bias`, the centring moved out of the large product."""
        return torch.addmm(bias - self.b_dec @ self.W_enc, x, self.W_enc).to(x.dtype)

    def report(self, error: Tensor, features: Float[Tensor, "batch d_sae"], batch: Batch) -> dict[str, Tensor]:
        """What `loss` says beside the loss, from the error of this process."""
        on = features.detach() > 0
        return {
            "fve": 1 - batch.world.mean(error.detach().square().sum()) / batch.variance,
            "l0": batch.world.mean(on.sum() / len(on)),
            "fired": on.any(0),
        }

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Give every decoder row norm 1."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-8))

    @torch.no_grad()
    def remove_parallel_gradient(self) -> None:
        """Drop the part of the decoder's gradient that would only change the rows' norms."""
        grad, W_dec = self.W_dec.grad, self.W_dec
        assert grad is not None  # this comes after a backward pass
        grad -= (grad * W_dec).sum(1, keepdim=True) * W_dec

    @torch.no_grad()
    def scale_inputs(self, factor: float) -> None:
        """Fold `encode(x / factor) * factor` into the weights: trained on scaled activations, read raw ones."""
        for name in ("b_dec", *(n for n in self.feature_vectors if n.startswith("b_")), *self.thresholds):
            getattr(self, name).mul_(factor)

    def finish(self) -> None:
        """What is left to do after the last step."""

    @torch.no_grad()
    def restart_features(self, dead: Bool[Tensor, " d_sae"], rows: Float[Tensor, "n_dead d_in"]) -> None:
        """Give dead features new directions (`rows`, of norm 1): small encoder columns, biases as at the start."""
        live = ~dead if not bool(dead.all()) else dead
        self.W_dec[dead] = rows
        self.W_enc[:, dead] = self.resample_scale * self.W_enc[:, live].norm(dim=0).mean() * rows.T
        for name in self.feature_vectors:
            getattr(self, name)[dead] = 0.0


def variance_sum(x: Float[Tensor, "batch d"], world: World = SOLO) -> Float[Tensor, ""]:
    """`sum |x - mean|^2` over the tokens of this process, the mean that of the batch; averaged over the processes."""
    return world.mean((x - world.mean(x.mean(0))).square().sum())
