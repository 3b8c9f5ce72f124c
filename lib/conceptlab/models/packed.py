"""Many short rows of tokens behind one prefix as ONE row: the mask keeps the rows from seeing each other.

Every position of the prefix and of all rows is then a position of one forward pass: what is read or changed at a site
is read or changed everywhere, nothing is padded, and the prefix is run once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core import ConceptLabError
from .language_model import LanguageModel


@dataclass(frozen=True)
class Packed:
    """Rows behind a prefix. Token `t` of row `i` stands at `starts[i] + t`."""

    ids: Int[Tensor, "1 pos"]
    positions: Int[Tensor, "1 pos"]  # where each token would stand behind the prefix in a row of its own
    allowed: Bool[Tensor, "1 1 pos pos"]  # who sees whom
    starts: tuple[int, ...]

    def __len__(self) -> int:
        return self.ids.shape[1]

    def only(self, n_rows: int) -> Packed:
        """The prefix and the first `n_rows` rows."""
        end = self.starts[n_rows] if n_rows < len(self.starts) else len(self)
        allowed = self.allowed[..., :end, :end]
        return Packed(self.ids[:, :end], self.positions[:, :end], allowed, self.starts[:n_rows])


def pack(lm: LanguageModel, prefix: Sequence[int], rows: Sequence[Sequence[int]]) -> Packed:
    """Put rows of token ids behind `prefix` (which may be empty; then rows begin with the model's start token, if any).

    Raises ConceptLabError for no row, an empty one, and rows beyond the context or a sliding attention window.
    """
    if not rows or not all(len(row) for row in rows):
        raise ConceptLabError("Packing needs at least one row, and every row a token.")
    longest = lm.check_length(len(prefix) + max(map(len, rows)))
    window = getattr(lm.hf.config.get_text_config(), "sliding_window", None)
    if window is not None and longest > window:
        raise ConceptLabError(f"{lm.name} attends to {window} tokens and a text has {longest}; shorten the prefix.")
    for row in [*([list(prefix)] if prefix else []), *rows]:
        lm.check_ids(torch.tensor([list(row)]))
    ids, positions, starts = list(prefix), list(range(len(prefix))), []
    for row in rows:
        starts.append(len(ids))
        ids += row
        positions += range(len(prefix), len(prefix) + len(row))
    group = torch.zeros(len(ids), dtype=torch.long)  # 0: the prefix, which all see
    for i, (start, row) in enumerate(zip(starts, rows, strict=True)):
        group[start : start + len(row)] = i + 1
    same = (group[:, None] == group[None, :]) | (group[None, :] == 0)
    allowed = same & torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
    return Packed(torch.tensor([ids]), torch.tensor([positions]), allowed[None, None], tuple(starts))


def packed_hidden(lm: LanguageModel, packed: Packed) -> Float[Tensor, "1 pos d_model"]:
    """Normalised final hidden states of all positions, ready for `head`; with gradients where they are on."""
    mask = torch.where(packed.allowed, 0.0, torch.finfo(lm.dtype).min).to(lm.dtype)
    return lm.hf.get_decoder()(
        packed.ids.to(lm.device), attention_mask=mask.to(lm.device), position_ids=packed.positions.to(lm.device),
        use_cache=False,
    ).last_hidden_state  # fmt: skip
