"""Where to stop, as reinforcement learning: the exit distribution, its gradient exact, sampled and as released.

After layer t a policy stops with probability p_t = sigmoid(s_t), else the item goes on; the last layer stops everyone.
So the exit t has probability q_t = p_t prod_{i<t} (1 - p_i): in closed form, and so is the gradient of the expected
reward. ConsistentEE (arXiv 2312.11882) estimates that gradient by REINFORCE; here both stand side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core import ConceptLabError

ESTIMATORS = ("exact", "sampled", "greedy")


def exit_distribution(scores: Float[Tensor, "*n layers"]) -> Float[Tensor, "*n layers"]:
    """`q_t`: how likely each exit is, from the policy's scores before the sigmoid. Rows sum to 1."""
    p = scores.sigmoid()
    p = torch.cat([p[..., :-1], torch.ones_like(p[..., :1])], -1)  # the last layer stops everyone
    going_on = torch.cat([torch.ones_like(p[..., :1]), (1 - p[..., :-1]).cumprod(-1)], -1)
    return p * going_on


def exact_gradient(scores: Float[Tensor, "n layers"], rewards: Float[Tensor, "n layers"]) -> Float[Tensor, "n layers"]:
    """Gradient of each item's expected reward with respect to its scores, in closed form.

    `dE/ds_t = q_t (1 - p_t) (R_t - V_t)`, with `V_t` the reward expected by going on after layer t: stop where that is
    better than going on. 0 at the last layer, which has no choice. Equals autograd (a test compares them).
    """
    p, q = scores.sigmoid(), exit_distribution(scores)
    later = (q * rewards).flip(-1).cumsum(-1).flip(-1) - q * rewards  # sum over u > t of q_u R_u
    left = (q.flip(-1).cumsum(-1).flip(-1) - q).clamp_min(torch.finfo(q.dtype).tiny)
    gradient = q * (1 - p) * (rewards - later / left)
    gradient[..., -1] = 0
    return gradient


def sampled_exits(scores: Float[Tensor, "n layers"], k: int, generator: torch.Generator) -> Int[Tensor, "k n"]:
    """`k` exits per item, drawn from the exit distribution (layers from 0)."""
    return torch.multinomial(exit_distribution(scores), k, replacement=True, generator=generator).T


def reinforce_gradient(
    scores: Float[Tensor, "n layers"],
    rewards: Float[Tensor, "n layers"],
    exits: Int[Tensor, "k n"],
    leave_one_out: bool = True,
) -> Float[Tensor, "n layers"]:
    """REINFORCE over `k` exits per item: mean of `(R_k - baseline) grad log q(exit_k)`.

    The paper's baseline is the mean of all k rewards, the item's own included: its expectation is (1 - 1/k) of the
    gradient, for which `leave_one_out` corrects. With k = 1 there is no baseline to leave anything out of.
    """
    k, n_layers = len(exits), scores.shape[1]
    if k < 2:
        raise ConceptLabError("A baseline from the other copies needs at least two exits per item.")
    got = rewards.gather(1, exits.T)  # [n, k]
    # differences of equal rewards are exactly 0; rounding would move Adam, to which no gradient is small
    advantage = (got[:, :, None] - got[:, None]).sum(2) / (k - 1 if leave_one_out else k)
    at, layer = exits.T[..., None], torch.arange(n_layers)
    p = scores.sigmoid()[:, None]
    # d log q_t / d s_i: 1 - p at the exit, -p before it, 0 after it; nothing at the last layer, which has no choice
    slope = torch.where(layer == at, 1 - p, torch.where(layer < at, -p, 0.0)) * (layer < n_layers - 1)
    return (advantage[..., None] * slope).mean(1)


def stopped_at(scores: Float[Tensor, "n layers"]) -> Int[Tensor, " n"]:
    """Inference: the first layer (from 0) whose probability exceeds 1/2, else the last."""
    stops = scores > 0
    stops[:, -1] = True
    return stops.long().argmax(1)


def make_rewards(
    losses: Float[Tensor, "n layers"], alpha: float, memorised: Int[Tensor, " n"] | None = None
) -> Float[Tensor, "n layers"]:
    """`R_t = -CE_t - alpha (1 - ML / L) t`, t from 1, in nats; without `memorised` the plain `-CE_t - alpha t`.

    The released code leaves the second term out (`alpha = 0`): then nothing speaks for leaving early.
    """
    n_layers = losses.shape[1]
    cost = alpha * torch.arange(1, n_layers + 1) * torch.ones(len(losses), 1)
    if memorised is not None:
        cost = cost * (1 - memorised / n_layers)[:, None]
    return -losses - cost


@dataclass(frozen=True)
class PolicyConfig:
    """How a policy is trained."""

    hidden: int = 16  # units between state and score
    steps: int = 250  # steps of Adam
    batch: int = 256  # items a step
    lr: float = 2e-3
    weight_decay: float = 0.03  # AdamW's
    k: int = 8  # exits drawn per item where the gradient is sampled; the paper's K
    estimator: str = "exact"
    seed: int = 0


class Policy(nn.Module):
    """Per layer: state -> `hidden` units (GELU) -> one score; all layers at once."""

    def __init__(self, n_layers: int, d_model: int, hidden: int, seed: int = 0):
        super().__init__()
        start = -math.log(max(n_layers, 2))  # at first a third of the items sees all layers
        generator = torch.Generator().manual_seed(seed)
        self.W1 = nn.Parameter(torch.randn(n_layers, d_model, hidden, generator=generator) / d_model**0.5)
        self.b1 = nn.Parameter(torch.zeros(n_layers, 1, hidden))
        self.W2 = nn.Parameter(torch.randn(n_layers, hidden, 1, generator=generator) * 0.1 / hidden**0.5)
        self.b2 = nn.Parameter(torch.full((n_layers, 1, 1), start))

    def forward(self, x: Float[Tensor, "layers n d_model"]) -> Float[Tensor, "n layers"]:
        hidden = torch.nn.functional.gelu(torch.baddbmm(self.b1, x, self.W1))
        return torch.baddbmm(self.b2, hidden, self.W2)[..., 0].T


def train_policy(
    x: Float[Tensor, "layers n d_model"],
    rewards: Float[Tensor, "n layers"],
    cfg: PolicyConfig = PolicyConfig(),
) -> Policy:
    """Ascend the expected reward, with the gradient that `cfg.estimator` names.

    exact: the closed form; sampled: REINFORCE on `k` drawn exits; greedy: the released code's, whose `k` copies all
    take the first `p > 1/2`, so that no copy differs from their mean and nothing is learnt on a frozen model.
    """
    if cfg.estimator not in ESTIMATORS:
        raise ConceptLabError(f"Unknown estimator {cfg.estimator!r}; choose one of {', '.join(ESTIMATORS)}.")
    policy = Policy(len(x), x.shape[2], cfg.hidden, cfg.seed)
    adam = torch.optim.AdamW(policy.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, cfg.steps)
    generator = torch.Generator().manual_seed(cfg.seed)
    for _ in range(cfg.steps):
        picks = torch.randperm(x.shape[1], generator=generator)[: cfg.batch]
        scores = policy(x[:, picks])
        gradient = _gradient(scores.detach(), rewards[picks], cfg, generator)
        adam.zero_grad()
        scores.backward(-gradient / len(picks))
        adam.step()
        schedule.step()
    return policy.eval()


def _gradient(scores: Tensor, rewards: Tensor, cfg: PolicyConfig, generator: torch.Generator) -> Tensor:
    if cfg.estimator == "exact":
        return exact_gradient(scores, rewards)
    if cfg.estimator == "greedy":
        return reinforce_gradient(scores, rewards, stopped_at(scores).expand(cfg.k, -1))
    return reinforce_gradient(scores, rewards, sampled_exits(scores, cfg.k, generator))


@torch.no_grad()
def policy_exits(policy: Policy, x: Float[Tensor, "layers n d_model"]) -> Int[Tensor, " n"]:
    """The layer (from 0) at which the policy stops each item."""
    return stopped_at(policy(x))
