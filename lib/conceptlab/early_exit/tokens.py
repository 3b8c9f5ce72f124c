"""Early exit inside a language model: every token may stop at its own layer, and its state is copied upward.

A token that has stopped is still attended to by later ones. The layers above it therefore compute their keys and
values from the state it stopped with (arXiv 2312.11882 and CALM do the same). One forward pass with hooks is an exact
simulation: in each layer, tokens that have stopped keep their state.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core import ConceptLabError
from ..models import LanguageModel

RULES = ("layer", "confidence", "patience")


@dataclass(frozen=True)
class Lens:
    """Per layer a map from the normalised state to the last layer's; the model's own head reads the result.

    A tuned lens by least squares (Belrose et al., arXiv 2303.08112, fit theirs by gradient descent on the logits). The
    last layer's is the identity. `W` None: the logit lens.
    """

    gain: Float[Tensor, " d_model"]
    W: Float[Tensor, "layers d_model_plus_1 d_model"] | None = None

    def final(self, state: Float[Tensor, "n d_model"], layer: int) -> Float[Tensor, "n d_model"]:
        """What the head should read, from residual states after `layer`."""
        x = normalised(state)
        if self.W is not None and layer < len(self.W):
            x = torch.cat([x, torch.ones_like(x[:, :1])], 1) @ self.W[layer]
        return x * self.gain


def normalised(state: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
    """Divided by the root mean square, in float32."""
    state = state.float()
    return state / state.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)


@torch.no_grad()
def fit_lens(lm: LanguageModel, ids: Int[Tensor, "rows pos"], ridge: float = 0.01, batch_size: int = 8) -> Lens:
    """Least squares from every layer's normalised state to the last one's, over all tokens but the first of each row.

    `ridge` in units of the mean square of a state. Raises ConceptLabError for fewer tokens than a state has numbers.
    """
    n = ids.shape[0] * (ids.shape[1] - 1)
    if n <= lm.d_model:
        raise ConceptLabError(f"A lens for {lm.name} needs more than {lm.d_model} tokens; {n} were given.")
    d, layers = lm.d_model, lm.n_layers - 1
    A = torch.zeros(layers, d + 1, d + 1, dtype=torch.float64)
    B = torch.zeros(layers, d + 1, d, dtype=torch.float64)
    sites = [("resid_post", layer) for layer in range(lm.n_layers)]
    for i in range(0, len(ids), batch_size):
        found = lm.capture(ids[i : i + batch_size], sites)
        states = [normalised(x[:, 1:].flatten(0, 1)).cpu() for x in found.values()]
        for layer, x in enumerate(states[:-1]):
            x = torch.cat([x, torch.ones(len(x), 1)], 1)
            A[layer] += x.T @ x
            B[layer] += x.T @ states[-1]
    A += ridge * n * torch.eye(d + 1, dtype=torch.float64)
    # A is symmetric and positive: a factor of Cholesky, layer by layer, needs no pivots (a batched LU in float32 failed
    # with bad pivots on a machine of another kind).
    W = torch.stack([torch.cholesky_solve(b, torch.linalg.cholesky(a)) for a, b in zip(A, B, strict=True)])
    return Lens(lm.final_gain().float(), W.float().to(lm.device))


@dataclass(frozen=True)
class TokenExits:
    """For every scored token: the layers it used and what was predicted after it."""

    depth: Float[Tensor, " n"]  # layers, from 1
    agrees: Bool[Tensor, " n"]  # the same first guess as the whole model's
    logprob: Float[Tensor, " n"]  # of the true next token, nats
    full: Float[Tensor, " n"]  # the same from the whole model

    @property
    def perplexity(self) -> float:
        return float((-self.logprob.mean()).exp())


@torch.no_grad()
def run_with_exits(
    lm: LanguageModel,
    ids: Int[Tensor, "rows pos"],
    lens: Lens,
    rule: str,
    knob: float | int,
    copy: bool = True,
) -> TokenExits:
    """Read `ids` with early exits and score every token's prediction of the next one.

    `rule`: "layer" (all tokens after `knob` layers), "confidence" (largest probability reaches `knob`), "patience"
    (the same first guess `knob` times in a row). The first token always uses all layers and is not scored. With
    `copy=False` a stopped token goes on computing its true keys and values: what skipping alone would cost.
    """
    if rule not in RULES:
        raise ConceptLabError(f"Unknown rule {rule!r}; choose one of {', '.join(RULES)}.")
    run = _Run(lm, ids.to(lm.device), lens, rule, knob, copy)
    hooks = {("resid_post", layer): functools.partial(run.after, layer) for layer in range(lm.n_layers)}
    with lm.intervene(hooks):
        lm.final_hidden(run.ids)
    whole = _read(lm, lm.final_hidden(run.ids)[:, :-1].flatten(0, 1), run.ids[:, 1:].flatten())
    keep = torch.ones_like(run.ids[:, :-1], dtype=torch.bool)
    keep[:, 0] = False
    keep = keep.flatten()
    return TokenExits(
        run.depth[keep].double().cpu(), (run.guess == whole[0])[keep].cpu(), run.logprob[keep].cpu(),
        whole[1][keep].cpu(),
    )  # fmt: skip


class _Run:
    """What happens after each layer of one forward pass; tokens lie flat, the last of each row predicts nothing."""

    def __init__(self, lm: LanguageModel, ids: Tensor, lens: Lens, rule: str, knob: float | int, copy: bool):
        self.lm, self.ids, self.lens, self.rule, self.knob, self.copy = lm, ids, lens, rule, knob, copy
        rows, n = ids.shape[0], ids[:, 1:].numel()
        self.targets = ids[:, 1:].flatten()
        self.out = torch.zeros(rows, ids.shape[1], dtype=torch.bool, device=ids.device)  # stopped so far
        self.held: Tensor | None = None
        self.depth = torch.zeros(n, device=ids.device)
        self.guess = torch.full((n,), -1, device=ids.device)
        self.logprob = torch.zeros(n, device=ids.device)
        self.repeats = torch.zeros(n, device=ids.device)

    def after(self, layer: int, state: Tensor) -> Tensor | None:
        if self.copy and self.held is not None:
            state = torch.where(self.out[..., None], self.held, state)
        last = layer == self.lm.n_layers - 1
        alive = ~self.out[:, :-1].flatten()
        if last or self.rule != "layer" or layer + 1 >= self.knob:
            self._stop(layer, state[:, :-1].flatten(0, 1), alive.nonzero()[:, 0], last)
        self.held = state
        return state if self.copy else None

    def _stop(self, layer: int, state: Tensor, alive: Tensor, last: bool) -> None:
        if not len(alive):
            return
        guess, logprob, top = _read(self.lm, self.lens.final(state[alive], layer), self.targets[alive])
        self.repeats[alive] = torch.where(guess == self.guess[alive], self.repeats[alive] + 1, 0.0)
        self.guess[alive], self.logprob[alive], self.depth[alive] = guess, logprob, float(layer + 1)
        value = {"layer": torch.full_like(top, self.knob), "confidence": top, "patience": self.repeats[alive]}
        stops = (value[self.rule] >= self.knob) | last
        width = self.ids.shape[1] - 1
        chosen = alive[stops]
        row, pos = chosen // width, chosen % width
        self.out[row[pos > 0], pos[pos > 0]] = True


def _read(lm: LanguageModel, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(first guess, log-probability of the target, largest probability), a few tokens at a time."""
    found = []
    for i in range(0, len(hidden), 256):
        logprobs = lm.head(hidden[i : i + 256].to(lm.dtype)).float().log_softmax(-1)
        top = logprobs.max(-1)
        found.append((top.indices, logprobs.gather(1, targets[i : i + 256, None])[:, 0], top.values.exp()))
    guess, logprob, largest = (torch.cat(x) for x in zip(*found, strict=True))
    return guess, logprob, largest


def passage_ids(lm: LanguageModel, texts: Sequence[str], n_ctx: int = 64) -> Int[Tensor, "rows n_ctx"]:
    """The first `n_ctx` tokens of those texts that are long enough."""
    start = lm.start_ids
    rows = [[*start, *ids][:n_ctx] for ids in lm.encode_all(texts) if len(start) + len(ids) >= n_ctx]
    if not rows:
        raise ConceptLabError(f"No text has {n_ctx} tokens; give longer ones.")
    return torch.tensor(rows)
