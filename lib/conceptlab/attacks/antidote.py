"""After the attack: pruning what a relearned model uses for a concept (Antidote, Huang et al., arXiv 2408.09600).

A defence that comes last, whatever the attacker's learning rate or steps were: once, without training,

    score_ij = |W_ij| ||x_j||      x_j: the input j of the weight over the unwanted texts (Wanda, arXiv 2306.11695)

and the `share` of each weight with the highest score is set to zero. It needs texts on what is unwanted, and nobody's
gradients. Weights that are among the `spare` highest on other texts may be left alone (ours; 0: as in the paper).
Controls: as many weights at random, and those of the largest size (`by`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core import ConceptLabError
from ..data import text_rows
from ..edits import Dense, Intervention, WeightEdit, trained_parameters
from ..models import LanguageModel
from .base import AttackResult
from .relearning import RelearnConfig, relearn

WAYS_TO_PRUNE = ("wanda", "magnitude", "random")


@dataclass(frozen=True)
class AntidoteConfig:
    """What is pruned."""

    share: float = 0.01  # of each weight matrix
    by: str = "wanda"  # of WAYS_TO_PRUNE
    spare: float = 0.0  # share of each matrix, the highest on the texts to keep, that is never pruned
    weights: str = "mlp"  # which matrices, as in RelearnConfig: mlp or down_proj
    layers: tuple[int, ...] | None = None  # of which layers; None: all
    n_ctx: int = 32  # tokens per row
    n_rows: int = 48  # rows that are read of each kind of text
    seed: int = 0  # of random pruning

    def __post_init__(self) -> None:
        if self.by not in WAYS_TO_PRUNE or self.weights not in ("mlp", "down_proj"):
            raise ConceptLabError(
                f"Weights of 'mlp' or 'down_proj' are pruned by one of {', '.join(WAYS_TO_PRUNE)}; got "
                f"{self.weights!r} and {self.by!r}."
            )
        if not 0 < self.share < 1 or not 0 <= self.spare < 1:
            raise ConceptLabError(f"A share lies between 0 and 1; got share={self.share:g} and spare={self.spare:g}.")


@torch.no_grad()
def antidote(
    lm: LanguageModel, unwanted: Sequence[str], keep: Sequence[str] = (), cfg: AntidoteConfig = AntidoteConfig()
) -> WeightEdit:
    """The pruning as an edit of the model as it is now: apply it while the attacker's change is on."""
    chosen = {n: p for n, p in trained_parameters(lm, cfg.weights, cfg.layers).items() if p.ndim == 2}
    if cfg.spare and not keep:
        raise ConceptLabError("Weights can be spared where there are texts to keep; give some, or spare=0.")
    generator = torch.Generator().manual_seed(cfg.seed)
    bad = _input_norms(lm, unwanted, cfg) if cfg.by == "wanda" else {}
    good = _input_norms(lm, keep, cfg) if cfg.spare else {}
    changes = {}
    for name, p in chosen.items():
        size = p.detach().abs().float()
        if cfg.by == "random":
            size = torch.rand(size.shape, generator=generator).to(size)
        elif cfg.by == "wanda":
            size = size * bad[_place(lm, name)]
        if cfg.spare:
            size[highest(p.detach().abs().float() * good[_place(lm, name)], cfg.spare)] = -1.0
        changes[name] = Dense(torch.where(highest(size, cfg.share), -p.detach(), 0.0))
    return WeightEdit.of(lm, changes, {"method": "antidote", "by": cfg.by, "share": cfg.share})


def highest(scores: Float[Tensor, "out in"], share: float) -> Bool[Tensor, "out in"]:
    """Where the highest `share` of the scores stands, at least one of them."""
    n = max(1, round(share * scores.numel()))
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[scores.flatten().topk(n).indices] = True
    return mask.view(scores.shape)


def prune_after_relearning(
    lm: LanguageModel,
    intervention: Intervention | None,
    texts: Sequence[str],
    unwanted: Sequence[str],
    evaluate: Callable[[LanguageModel], object],
    attack: RelearnConfig,
    cfg: AntidoteConfig = AntidoteConfig(),
    shares: Sequence[float] = (0.002, 0.01),
    keep: Sequence[str] = (),
) -> AttackResult:
    """The attacker relearns on `texts`, the defender prunes by `unwanted`: `evaluate` before it, then at each share.

    Steps are the shares in parts per 10,000, 0 first. Controls: as many weights at random.
    """
    shares = tuple(sorted(shares))

    def defend(model: LanguageModel) -> tuple[list, list]:
        first = evaluate(model)
        found: tuple[list, list] = ([first], [first])
        for share in shares:
            for by, values in zip((cfg.by, "random"), found, strict=True):
                with antidote(model, unwanted, keep, replace(cfg, share=share, by=by)).applied(model):
                    values.append(evaluate(model))
        return found

    result = relearn(lm, intervention, texts, attack, evaluate=defend)
    values, controls = result.last
    steps = (0, *(round(10_000 * share) for share in shares))
    labels = ("relearned", *(f"{share:.2%} pruned" for share in shares))
    return replace(result, steps=steps, values=tuple(values), controls=tuple(controls), labels=labels)


def _place(lm: LanguageModel, name: str) -> tuple[str, int]:
    """The site that a weight of an MLP reads."""
    for layer in range(lm.n_layers):
        down = lm.down_proj_name(layer)
        if name.startswith(down.removesuffix("down_proj.weight")):
            return ("neurons" if name == down else "mlp_input"), layer
    raise ConceptLabError(f"{name} is no weight of an MLP; prune 'mlp' or 'down_proj'.")


def _input_norms(
    lm: LanguageModel, texts: Sequence[str], cfg: AntidoteConfig
) -> dict[tuple[str, int], Float[Tensor, " in"]]:
    """Length of each input of the MLPs' weights over all tokens of the texts."""
    layers = range(lm.n_layers) if cfg.layers is None else [lm.check_layer(layer) for layer in cfg.layers]
    sites = [(kind, layer) for layer in layers for kind in ("mlp_input", "neurons")]
    rows = text_rows(lm, texts, cfg.n_ctx)[: cfg.n_rows]
    total: dict[tuple[str, int], Tensor] = {}
    for i in range(0, len(rows), 16):
        ids, mask = lm.pad(rows[i : i + 16])
        for site, x in lm.capture(ids, sites, mask).items():
            found = x[mask].float().square().sum(0)
            total[site] = total[site] + found if site in total else found
    return {site: x.sqrt() for site, x in total.items()}
