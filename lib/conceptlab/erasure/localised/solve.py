"""Closed forms: the smallest change of a down projection that sends some keys to new values.

With keys `K [n, d_mlp]` and wanted changes of the output `R [n, d_model]`, the change `D [d_model, d_mlp]` that
minimises `|D K^T - R^T|^2 + ridge tr(D M^-1 D^T)` is

    D^T = M K^T (K M K^T + ridge I)^-1 R.

`M` says along which keys a change is cheap: the inverse second moment of general keys (ROME and MEMIT, arXiv
2210.07229) or the projection on their null space (AlphaEdit, arXiv 2410.02355). With ridge 0 and independent keys
`D K^T = R^T` to the rounding.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import NotPossible
from ...edits import LowRank


@torch.no_grad()
def key_update(
    K: Float[Tensor, "n d_mlp"], R: Float[Tensor, "n d_model"], M: Float[Tensor, "d_mlp d_mlp"], ridge: float = 0.0
) -> LowRank:
    """The change of rank n. `ridge`: in mean squared lengths of the keys as `M` sees them.

    Raises NotPossible where `M` leaves nothing of the keys.
    """
    K, R, M = K.double(), R.double(), M.double()
    seen = K @ M  # [n, d_mlp]
    gram = seen @ K.T
    size = float(gram.diagonal().mean())
    if not size > 1e-9 * float(K.square().sum(1).mean()) * float(M.diagonal().abs().max()):
        raise NotPossible("The keys of the concept lie among those to keep, so nothing may change there; keep fewer.")
    gram = gram + (ridge * size + 1e-9 * size) * torch.eye(len(K)).to(gram)
    left = torch.linalg.solve(gram, R)  # [n, d_model]
    return LowRank(left.T.float().contiguous(), seen.float().contiguous())


@torch.no_grad()
def inverse_moment(moment: Float[Tensor, "d_mlp d_mlp"], ridge: float = 0.1) -> Float[Tensor, "d_mlp d_mlp"]:
    """`(C + ridge mean(C_ii) I)^-1`, in float64."""
    moment = moment.double()
    eye = torch.eye(len(moment)).to(moment)
    return torch.linalg.inv(moment + ridge * moment.diagonal().mean() * eye)


@torch.no_grad()
def null_space(moment: Float[Tensor, "d_mlp d_mlp"], leak: float = 0.0) -> Float[Tensor, "d_mlp d_mlp"]:
    """The projection on those directions that hold together at most a share `leak` of the keys' mean square.

    `leak` 0 is the true null space: a change behind it alters the output of no key that the moment was made of.
    AlphaEdit's code takes the singular values below .02 of an unscaled moment, which is another share in every model.
    Raises NotPossible where nothing is left.
    """
    values, vectors = torch.linalg.eigh(moment.double())  # ascending
    total = values.clamp_min(0).cumsum(0)
    free = total <= max(leak, 1e-10) * total[-1]
    if not bool(free.any()):
        raise NotPossible("The keys to keep span everything, so there is no null space; keep fewer, or allow a leak.")
    basis = vectors[:, free]
    return basis @ basis.T
