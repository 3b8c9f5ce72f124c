"""The activations that a dictionary is trained on: by index, looked through once, with a fingerprint."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError
from ..data import Harvest
from ..models import fingerprint

CHUNK = 4_096  # tokens looked at together


class Source:
    """Activations by index, from a harvest on disk or from a tensor.

    Raises ConceptLabError for a harvest without `layer`, anything but a matrix, and no tokens at all.
    """

    def __init__(self, data: Harvest | Tensor, layer: int | None):
        if not isinstance(data, Harvest) and not (isinstance(data, Tensor) and data.is_floating_point()):
            what = data.dtype if isinstance(data, Tensor) else type(data).__name__
            raise ConceptLabError(
                f"Activations are a harvest or a tensor of real floating-point numbers; got {what}: convert them with "
                "torch.as_tensor(...).float()."
            )
        if isinstance(data, Harvest) and layer is None:
            raise ConceptLabError(f"A harvest needs layer=; this one holds layers {list(data.layers)}.")
        self.harvest = data if isinstance(data, Harvest) else None
        shape = (data.n_tokens, data.d_model) if isinstance(data, Harvest) else tuple(data.shape)
        if len(shape) != 2 or 0 in shape:
            raise ConceptLabError(
                f"Activations of shape {list(shape)} cannot be trained on; give a matrix [tokens, d_in] with at least "
                "one token (more texts, or longer ones)."
            )
        if isinstance(data, Harvest):
            assert layer is not None  # see above
            self.data: np.ndarray | Tensor = data.memmap(layer)
        else:
            self.data = data
        gpu = torch.cuda.is_available() and isinstance(data, Harvest)
        self.device = torch.device("cuda") if gpu else getattr(data, "device", torch.device("cpu"))
        self.width = shape[1]

    def __len__(self) -> int:
        return len(self.data)

    def take(self, picks: np.ndarray) -> Float[Tensor, "n d_in"]:
        if isinstance(self.data, Tensor):
            return self.data[torch.from_numpy(picks).to(self.data.device)].detach().float()
        return torch.from_numpy(self.data[picks].astype(np.float32))

    def fingerprint(self) -> str:
        """16 hexadecimal digits of the numbers and their order: another order of the tokens is other data."""
        parts = (fingerprint({"x": part}) for part in self._chunks())
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]

    def check(self) -> None:
        """Look through all tokens once: raise for what nothing can be learnt from, warn of what spoils the rest.

        Raises ConceptLabError for NaN, infinite or only equal tokens. Warns where a single token holds a tenth of all
        variance: the loss is then that of this token.
        """
        total, square, place, largest = torch.zeros(self.width, dtype=torch.float64), 0.0, 0, -1.0
        for number, part in enumerate(self._chunks()):
            x = part.detach().double()
            size = x.square().sum(1)
            if not bool(torch.isfinite(size).all()):
                bad = number * CHUNK + int((~torch.isfinite(size)).nonzero()[0])
                raise ConceptLabError(f"The activations of {self._name(bad)} are not finite; leave it out.")
            total += x.sum(0).cpu()
            square += float(size.sum())
            if float(size.max()) > largest:
                place, largest = number * CHUNK + int(size.argmax()), float(size.max())
        mean, n = total / len(self), len(self)
        variance = square - n * float(mean.square().sum())
        if variance <= 1e-9 * square:
            what = "all zero" if square == 0 else "all the same"
            raise ConceptLabError(
                f"The activations are {what}, so that there is nothing to learn; check layer and place of the harvest."
            )
        x = self.take(np.array([place]))[0].double().cpu()
        share = float((x - mean).square().sum()) / variance
        if share > max(0.1, 20 / n):
            warnings.warn(
                f"{self._name(place).capitalize()} has size {largest**0.5:.3g} and holds {share:.1%} of the variance "
                f"of {n:,} tokens: the dictionary will fit that token; leave it out.",
                stacklevel=3,
            )

    def _chunks(self) -> Iterator[Tensor]:
        for start in range(0, len(self), CHUNK):
            part = self.data[start : start + CHUNK]
            yield part if isinstance(part, Tensor) else torch.from_numpy(np.array(part))

    def _name(self, index: int) -> str:
        if self.harvest is None:
            return f"token {index}"
        return f"token {index} (row {self.harvest.row[index]}, position {self.harvest.pos[index]})"
