"""Answers of notebooks 00, 01 and 03: reading a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log
from typing import Any

import torch
from torch import Tensor


# ---- 00 ------------------------------------------------------------------------------------------------------------
def direct_effects(pieces: Tensor, direction: Tensor) -> Tensor:
    """What each piece `[n, d_model]` of a state adds to the logit read along `direction`: `[n]`."""
    return pieces @ direction / pieces.sum(0).square().mean().sqrt()


def settles_at(ranks: Tensor) -> Tensor:
    """First layer from which the rank `[layers, prompts]` stays 0: `[prompts]`."""
    return len(ranks) - (ranks == 0).flip(0).long().cumprod(0).sum(0)


def per_neuron(neurons: Tensor, W_down: Tensor, gain: Tensor) -> Tensor:
    """What every neuron adds to the stream behind a norm: `[d_mlp, d_model]`."""
    return neurons[:, None] * W_down * gain / (neurons @ W_down).square().mean().sqrt()


def promoted(activation: float, value: Tensor, rows: Tensor, k: int) -> Tensor:
    """Ids `[k]` of the tokens that a neuron raises most at this activation."""
    return (rows @ (activation * value)).topk(k).indices


def option_score(logits: Tensor, ids: Tensor, n_prompt: int) -> Tensor:
    """Mean log-probability of the tokens behind the prompt; `logits [pos, d_vocab]`, `ids [pos]`."""
    logp = logits.log_softmax(-1)[n_prompt - 1 : -1]
    return logp.gather(1, ids[n_prompt:, None]).mean()


# ---- 01 ------------------------------------------------------------------------------------------------------------
def both_ends(vector: Tensor, gain: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` most promoted and the `k` most suppressed tokens, strongest first."""
    logits = rows @ (vector * gain)
    return logits.topk(k).indices, logits.topk(k, largest=False).indices


def pair_cosine(units: Tensor) -> Tensor:
    """Mean cosine of all pairs of different rows of length 1."""
    n = len(units)
    return (units.sum(0).square().sum() - n) / (n * (n - 1))


def effects(vectors: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
    """Effects of vectors on tokens `ids`, in standard deviations over the vocabulary: `[n, m]`."""
    table = vectors @ rows.T
    return ((table - table.mean(1, keepdim=True)) / table.std(1, keepdim=True))[:, ids]


def my_clamp(layer: int, neuron: int, value: float) -> dict:
    """Hooks that set one activation to `value` at every position."""

    def hook(activation: Tensor) -> Tensor:
        activation = activation.clone()
        activation[..., neuron] = value
        return activation

    return {("neurons", layer): hook}


def validate(weight: Tensor, columns: Sequence[int], c: float, evaluate: Callable[[], Any]) -> list[Any]:
    """`evaluate()` with noise of `c` times its length on one column at a time; the weight is restored to the bit."""
    results = []
    for j in columns:
        old, noise = weight[:, j].clone(), torch.randn(len(weight))
        weight[:, j] += noise * c * old.norm() / noise.norm()
        results.append(evaluate())
        weight[:, j] = old
    return results


# ---- 03 ------------------------------------------------------------------------------------------------------------
def my_log_odds(k: int, n: int, K: int, N: int) -> tuple[float, float]:
    """Smoothed difference of log-odds, `k` of `n` against `K` of `N`, and its z-score."""
    a, b, c, d = (count + 0.5 for count in (k, n - k, K, N - K))
    delta = log(a / b) - log(c / d)
    return delta, delta / (1 / a + 1 / c) ** 0.5


def push(direction: Tensor, mask: Tensor, size: float) -> Callable[[Tensor], Tensor]:
    """A hook that adds `size` typical lengths along `direction` at every position but the first and the padding."""
    inner = mask.bool().clone()
    inner[:, 0] = False

    def hook(states: Tensor) -> Tensor:
        length = states[inner].norm(dim=1).mean()
        return states + size * length * direction / direction.norm() * inner[..., None]

    return hook


def my_auroc(firing: Tensor, silent: Tensor) -> Tensor:
    """AUROC from the ranks of the firing side."""
    both = torch.cat([firing, silent]).sort().values
    below, not_above = torch.searchsorted(both, firing), torch.searchsorted(both, firing, right=True)
    n, m = len(firing), len(silent)
    return (((below + not_above + 1).double() / 2).sum() - n * (n + 1) / 2) / (n * m)


def wrong_place(activations: Sequence[float], place: int, generator: torch.Generator) -> int:
    """A silent place, every one equally likely; -1 without any."""
    silent = [p for p, value in enumerate(activations) if value == 0]
    return silent[int(torch.randint(len(silent), (1,), generator=generator))] if silent else -1


def my_hard_negatives(token_ids: Tensor, on: Tensor, off: Tensor) -> Tensor:
    """For each firing place a silent one with the same token, none used twice; -1 where none is left."""
    places: dict[int, list[int]] = {}
    for place in off[torch.randperm(len(off), generator=torch.Generator().manual_seed(0))].tolist():
        places.setdefault(int(token_ids[place]), []).append(place)
    return torch.tensor([places[t].pop() if places.get(t) else -1 for t in token_ids[on].tolist()])


ANSWERS: dict[str, Callable[..., Any]] = {
    "which part writes the answer": direct_effects,
    "where the answer settles": settles_at,
    "what one neuron adds": per_neuron,
    "what a neuron promotes on this token": promoted,
    "the score of an option": option_score,
    "both ends of a value vector": both_ends,
    "coherence by hand": pair_cosine,
    "effects in standard deviations": effects,
    "clamping a neuron": my_clamp,
    "causal validation without the bug": validate,
    "log-odds of an item": my_log_odds,
    "a push along a direction": push,
    "AUROC": my_auroc,
    "wrong places": wrong_place,
    "hard negatives": my_hard_negatives,
}
