"""States at the position where the answer begins, of every layer, and the scores of the answers, in one pass."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core import ConceptLabError, atomic_path, cache_dir, require_space
from ..data import ContrastItem
from ..models import LanguageModel, branch_states

QUESTION = "\nQuestion:"  # where a story ends


@dataclass(frozen=True)
class ItemStates:
    """What one pass over contrast items gives, in their order."""

    items: tuple[ContrastItem, ...]
    resid: Float[Tensor, "layers n d_model"]  # after every block, at the last token of "Answer:"
    margin: Float[Tensor, " n"]  # right option minus best wrong one, first tokens (nats)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def correct(self) -> Bool[Tensor, " n"]:
        return self.margin > 0

    def of(self, *kinds: str) -> Bool[Tensor, " n"]:
        """Which items are of one of these kinds."""
        return torch.tensor([item.kind in kinds for item in self.items])

    def at(self, index: Int[Tensor, " m"]) -> ItemStates:
        """The same of some of the items, by index."""
        return ItemStates(tuple(self.items[i] for i in index.tolist()), self.resid[:, index], self.margin[index])


def item_states(
    lm: LanguageModel, items: Sequence[ContrastItem], examples: str = "", batch_size: int = 16
) -> ItemStates:
    """One pass over `items`, each after `examples` (run once); questions about one story share its row.

    A question cannot see the others: the tree-shaped mask of `branch_states`. Raises ConceptLabError without items.
    """
    if not items:
        raise ConceptLabError("There is no item to read; give at least one.")
    trees, places = _trees(items, "\n\n" if examples else "")
    sites = [("resid_post", layer) for layer in range(lm.n_layers)]
    found = branch_states(lm, examples, trees, sites, batch_size)
    resid = torch.empty(lm.n_layers, len(items), lm.d_model)
    for (_, layer), states in found.items():
        for at, rows in zip(places, states, strict=True):
            resid[layer, torch.tensor(at)] = rows
    return ItemStates(tuple(items), resid, margins(lm, items, resid[-1]))


def kept_states(
    lm: LanguageModel, items: Sequence[ContrastItem], examples: str = "", batch_size: int = 16
) -> ItemStates:
    """`item_states` from the cache folder where they are there; computed and kept where not, or where damaged."""
    texts = "\0".join([lm.fingerprint(), examples, *(item.text for item in items)])
    path = cache_dir() / "directions" / f"{hashlib.sha256(texts.encode()).hexdigest()[:16]}.npy"
    try:
        found = np.load(path)
    except (OSError, ValueError, EOFError):
        found = None
    if found is not None and found.shape == (lm.n_layers, len(items), lm.d_model) and found.dtype == np.float32:
        resid = torch.from_numpy(found)
        return ItemStates(tuple(items), resid, margins(lm, items, resid[-1]))
    states = item_states(lm, items, examples, batch_size)
    require_space(path.parent.parent, states.resid.numel() * 4, "Keeping the states of a contrast set")
    with atomic_path(path) as temporary:
        np.save(temporary, states.resid.numpy())
    return states


def _trees(items: Sequence[ContrastItem], before: str) -> tuple[list[tuple[str, list[str]]], list[list[int]]]:
    """Stems with their branches, and which item each branch is; a stem that several items share stands once."""
    branches: dict[str, list[tuple[str, int]]] = {}
    for i, item in enumerate(items):
        story, cut, asked = item.text.partition(QUESTION)
        stem, branch = (story, cut + asked) if cut else (item.text[:-1], item.text[-1])
        branches.setdefault(before + stem, []).append((branch, i))
    trees = [(stem, [branch for branch, _ in part]) for stem, part in branches.items()]
    return trees, [[i for _, i in part] for part in branches.values()]


@torch.no_grad()
def margins(lm: LanguageModel, items: Sequence[ContrastItem], last: Float[Tensor, "n d_model"]) -> Float[Tensor, " n"]:
    """Right option minus best wrong one, in nats, read from the last layer's states through norm and unembedding.

    By the first token of each option; wrong options that begin with the right one's token do not count.
    """
    read = lm.folded(last.to(lm.device) / last.to(lm.device).square().mean(-1, keepdim=True).sqrt())
    rows, out = lm.unembedding_rows(), torch.empty(len(items))
    for i, item in enumerate(items):
        first = [lm.encode(f" {option}")[0] for option in item.options]
        gold = first[item.answer]
        wrong = [token for token in first if token != gold]
        if not wrong:
            out[i] = torch.nan
            continue
        scores = rows[[gold, *wrong]].to(read.dtype) @ read[i]
        out[i] = float(scores[0] - scores[1:].max())
    return out
