"""The hidden state of every layer for every text of a task, cached on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from ..core import ConceptLabError, atomic_path, cache_dir, require_space
from ..models import LanguageModel
from .tasks import Task

POOLS = ("last", "mean")


@dataclass(frozen=True)
class States:
    """States after each of `layers` blocks and the labels, split into training and test items.

    A state is divided by its root mean square, as the model's own final norm would do it: exits of all layers then
    read numbers of one size, and float16 holds them.
    """

    train: Float[Tensor, "layers n_train d_model"]
    test: Float[Tensor, "layers n_test d_model"]
    y_train: Int[Tensor, " n_train"]
    y_test: Int[Tensor, " n_test"]
    n_classes: int

    @property
    def n_layers(self) -> int:
        return len(self.train)

    def reduced(self, k: int = 128) -> States:
        """Each layer in `k` numbers: standardised, then turned to the principal directions of its training items.

        A linear exit on these is a linear exit on the state; fitting takes a fifth of the time and overfits less.
        """
        train, test = (torch.empty(self.n_layers, x.shape[1], k) for x in (self.train, self.test))
        if not 0 < k <= self.train.shape[2]:
            raise ConceptLabError(f"A state has {self.train.shape[2]} numbers; keep 1 to that many, not {k}.")
        for layer, x in enumerate(self.train):  # one layer at a time: all at once would double the memory
            mean, spread = x.mean(0), x.std(0).clamp_min(1e-6)
            z = (x - mean) / spread
            _, turned = torch.linalg.eigh(z.T @ z)
            top = turned[:, -k:].flip(1) / z.shape[1] ** 0.5
            train[layer], test[layer] = z @ top, (self.test[layer] - mean) / spread @ top
        scale = train.square().mean((1, 2), keepdim=True).sqrt()
        return States(train / scale, test / scale, self.y_train, self.y_test, self.n_classes)

    def shuffled_labels(self, seed: int = 0) -> States:
        """The control: training labels dealt to other items; the test stays as it is."""
        order = torch.randperm(len(self.y_train), generator=torch.Generator().manual_seed(seed))
        return States(self.train, self.test, self.y_train[order], self.y_test, self.n_classes)

    def random_features(self, seed: int = 0) -> States:
        """The control: noise of the same size and shape in place of every state."""
        generator = torch.Generator().manual_seed(seed)
        train, test = (torch.randn(x.shape, generator=generator) for x in (self.train, self.test))
        return States(train, test, self.y_train, self.y_test, self.n_classes)


def task_states(
    lm: LanguageModel, task: Task, pool: str = "last", batch_tokens: int = 512, progress: bool = True
) -> States:
    """States of a task's texts at the last token (or averaged over tokens without the first), from disk if there.

    Raises ConceptLabError for an unknown pool and when the disk is full.
    """
    if pool not in POOLS:
        raise ConceptLabError(f"Unknown pool {pool!r}; choose one of {', '.join(POOLS)}.")
    key = hashlib.sha256("\0".join([lm.fingerprint(), pool, *task.texts]).encode()).hexdigest()[:16]
    path = cache_dir() / "early_exit" / f"{task.name}-{pool}-{key}.npy"
    held = _held(path, (lm.n_layers, len(task.texts), lm.d_model))
    if held is None:
        require_space(path.parent.parent, 2 * len(task.texts) * lm.n_layers * lm.d_model, f"Caching {task.name}")
        with atomic_path(path) as temporary:
            np.save(temporary, text_states(lm, task.texts, pool, batch_tokens, progress).numpy())
        held = np.load(path)
    states = torch.from_numpy(held).float()
    k, y = task.n_train, task.targets
    return States(states[:, :k], states[:, k:], y[:k], y[k:], len(task.classes))


def _held(path: Path, shape: tuple[int, int, int]) -> np.ndarray | None:
    """What the file holds; None where there is none or it is damaged: then it is computed anew."""
    try:
        found = np.load(path)
    except (OSError, ValueError, EOFError):
        return None
    return found if isinstance(found, np.ndarray) and found.shape == shape and found.dtype == np.float16 else None


@torch.no_grad()
def text_states(
    lm: LanguageModel, texts: Sequence[str], pool: str = "last", batch_tokens: int = 512, progress: bool = False
) -> Float[Tensor, "layers texts d_model"]:
    """One pass over `texts`, those of like length together; float16, each state divided by its root mean square.

    A batch holds about `batch_tokens` tokens: small ones wait for the weights to be read, large ones for memory.
    """
    rows = [[*lm.start_ids, *ids] for ids in lm.encode_all(texts)]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    sites = [("resid_post", layer) for layer in range(lm.n_layers)]
    out = torch.empty(lm.n_layers, len(rows), lm.d_model, dtype=torch.float16)
    bar = tqdm(total=len(order), disable=not progress, desc="states of all layers")
    while order:
        chosen = order[-max(1, batch_tokens // len(rows[order[-1]])) :]  # the longest first: memory fails at once
        order = order[: -len(chosen)]
        ids, mask = lm.pad([rows[j] for j in chosen])
        for layer, state in enumerate(lm.capture(ids, sites, mask).values()):
            out[layer, chosen] = pool_rows(state.float(), mask, pool).to("cpu", torch.float16)
        bar.update(len(chosen))
    bar.close()
    return out


def pool_rows(state: Float[Tensor, "batch pos d_model"], mask: Tensor, pool: str) -> Float[Tensor, "batch d_model"]:
    """One vector a text with root mean square 1: the last token's, or the mean without the first token's."""
    last = mask.sum(1) - 1
    if pool == "last":
        x = state[torch.arange(len(state), device=state.device), last]
    else:
        keep = mask.clone()
        keep[:, 0] = last == 0  # the first token is an attention sink; kept only where there is no other
        x = (state * keep[..., None]).sum(1) / keep.sum(1, keepdim=True)
    return x / x.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)
