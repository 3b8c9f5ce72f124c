"""Dictionaries side by side: architectures at several sparsities, and what else rebuilds a layer with k directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..core import Interval, bootstrap, paired_bootstrap
from ..data import Harvest, course_texts, harvest, token_rows, unseen_leads
from ..models import LanguageModel
from ..sae import (
    SAE,
    TrainConfig,
    fve,
    length_ratio,
    loss_recovered,
    probe_draws,
    quality,
    spliced_loss,
    train_sae,
    weighted_rows,
)
from ..sae import planted as worlds

RaceSetting = tuple[str, dict[str, Any]]  # architecture, and what differs from the common settings

# tuned on the planted world of notebook 02: three sparsities of each architecture
PLANTED_SETTINGS: tuple[RaceSetting, ...] = (
    *(("relu", {"sparsity": s, "lr": 1e-2}) for s in (0.1, 0.4, 0.8)),
    *(("gated", {"sparsity": s, "lr": 1e-2}) for s in (0.2, 0.8, 1.5)),
    *(("topk", {"k": k}) for k in (3, 6, 12)),
    *(("batchtopk", {"k": k, "lr": 1e-2}) for k in (3, 6, 12)),
    *(("jumprelu", {"sparsity": s, "lr": 5e-3}) for s in (0.003, 0.02, 0.05)),
)

# tuned on layer 6 of SmolLM2-135M, 100 steps of 512 tokens: two sparsities of each
LAYER_SETTINGS: tuple[RaceSetting, ...] = (
    *(("relu", {"sparsity": s, "lr": 3e-3}) for s in (0.15, 0.25)),
    *(("gated", {"sparsity": s, "lr": 3e-3}) for s in (0.3, 0.5)),
    *(("topk", {"k": k}) for k in (16, 48)),
    *(("batchtopk", {"k": k}) for k in (16, 48)),
    *(("jumprelu", {"sparsity": s, "lr": 3e-3}) for s in (0.002, 0.006)),
)

# TopK on the planted world, one setting changed at a time
BROKEN_SETTINGS: Mapping[str, dict[str, Any]] = {
    "as it should be": {},
    "learning rate x 100": {"lr": 0.4},
    "learning rate / 30": {"lr": 1.3e-4},
    "encoder starts x 30": {"encoder_scale": 3.0},
    "no auxiliary loss": {"dead_after": 10**9},
    "k too small": {"k": 1},
    "k too large": {"k": 12},
    "too narrow": {"d_sae": 48},
}


@dataclass(frozen=True)
class LayerData:
    """What one layer's MLP writes: text to train on, and leads that no dictionary was trained on."""

    training: Float[Tensor, "tokens d_model"]
    found: Harvest  # neurons of the held-out leads
    topics: tuple[str, ...]  # topic of every held-out lead
    neurons: Float[Tensor, "n d_mlp"]  # held out, as all below
    written: Float[Tensor, "n d_model"]
    ids: Int[Tensor, " n"]  # token
    lead: Int[Tensor, " n"]  # index of its text


def layer_data(lm: LanguageModel, layer: int, n_leads: int, n_tokens: int) -> LayerData:
    """Harvest a layer: `n_tokens` of the course's text to train on, `n_leads` unseen leads of every topic."""
    leads = unseen_leads(n_leads)
    found = harvest(lm, token_rows(lm, [text for _, text in leads]), [layer], kind="neurons", progress=False)
    neurons = found.tensor(layer).to(lm.device)
    rows = token_rows(lm, course_texts(), n_tokens=n_tokens)
    training = harvest(lm, rows, [layer], progress=False).tensor(layer).to(lm.device)
    topics = tuple(topic for topic, _ in leads)
    return LayerData(training, found, topics, neurons, neurons @ lm.down_proj(layer), found.token_ids(), found.docs())


@dataclass
class Runner:
    """One dictionary of a race and what it does on held-out activations."""

    name: str  # architecture, or what a caller calls the setting
    sae: SAE
    fve: float  # share of variance explained
    l0: float  # active features per token
    dead: float  # share of features that never fire there
    length: float  # of reconstructions, `length_ratio`; 1 where nothing shrinks
    recall: float = float("nan")  # of planted features, where there are any


def race(
    data: Float[Tensor, "tokens d_in"], held_out: Float[Tensor, "n d_in"], settings: Sequence[RaceSetting],
    common: Mapping[str, Any],
) -> list[Runner]:  # fmt: skip
    """Train one dictionary per setting on the same tokens and measure it on others."""
    runners = []
    for name, options in settings:
        sae, _ = train_sae(data, TrainConfig(**{"architecture": name, **common, **options}), progress=False)
        q = quality(sae, held_out)
        runners.append(Runner(name, sae, q.fve, q.l0, q.dead, length_ratio(sae, held_out)))
    return runners


def curves(runners: Sequence[Runner], measures: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Architecture -> measure -> one value per setting, as `plots.sae.sparsity_frontier` draws them."""
    names = dict.fromkeys(r.name for r in runners)
    return {n: {m: [getattr(r, m) for r in runners if r.name == n] for m in ("l0", *measures)} for n in names}


@torch.no_grad()
def explained_by_k(
    sae: SAE,
    x: Float[Tensor, "n d_model"],
    neurons: Float[Tensor, "n d_mlp"],
    W_down: Float[Tensor, "d_mlp d_model"],
    training: Float[Tensor, "m d_model"],
    ks: Sequence[int],
    seed: int = 0,
    chunk: int = 250,
) -> dict[str, list[float]]:
    """Share of the variance of `x` that k directions per token explain, for each of `ks` and five kinds.

    Features: the k with the largest scores. Neurons: those that contribute most, `|a_j| |v_j|`, exact. PCA: the first k
    axes of the activations `training`, the same for all tokens. Random directions, and directions of tokens of
    `training`, each as many as features: the k that fit a token best, their strengths refitted by least squares (slow,
    and `chunk` tokens at a time).
    """
    scores = getattr(sae, "pre_activations", sae.encode)(x)
    best = scores.topk(max(ks), dim=1)
    strong = (neurons.abs() * W_down.norm(dim=1)).topk(max(ks), dim=1).indices
    centred = x - x.mean(0)
    axes = torch.linalg.svd(training - training.mean(0), full_matrices=False).Vh
    generator = torch.Generator().manual_seed(seed)
    noise = F.normalize(torch.randn(sae.cfg.d_sae, x.shape[1], generator=generator), dim=1).to(x.device)
    start = training[torch.randperm(len(training), generator=generator)[: sae.cfg.d_sae].to(training.device)]
    tokens = F.normalize(start - training.mean(0), dim=1)
    kinds = ("features", "neurons", "PCA", "random directions, refitted", "directions of tokens, refitted")
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for k in ks:
        rebuilt = weighted_rows(best.values[:, :k], best.indices[:, :k], sae.W_dec) + sae.b_dec
        kept = weighted_rows(neurons.gather(1, strong[:, :k]), strong[:, :k], W_down)
        random, drawn = (torch.cat([refitted(x, rows, k) for x in centred.split(chunk)]) for rows in (noise, tokens))
        values = (
            fve(x, rebuilt),
            fve(centred, kept - kept.mean(0)),
            fve(centred, centred @ axes[:k].T @ axes[:k]),
            fve(centred, random),
            fve(centred, drawn),
        )
        for column, value in zip(found.values(), values, strict=True):
            column.append(value)
    return found


def refitted(x: Float[Tensor, "n d"], rows: Float[Tensor, "m d"], k: int) -> Float[Tensor, "n d"]:
    """Each token from the k rows with the largest projections, strengths by least squares (rows may be alike)."""
    scores, indices = (x @ rows.T).topk(k, dim=1)
    used = rows[indices]  # [n, k, d]
    gram = used @ used.mT + 1e-3 * torch.eye(k, device=x.device)
    return (used * torch.linalg.solve(gram, scores[..., None])).sum(1)


# ---- detectors, the model's loss, absorption ----------------------------------------------------------------------
MONTHS = frozenset("January February March April May June July August September October November December".split())
TOKEN_CLASSES: Mapping[str, Callable[[str], bool]] = {
    "opening bracket": lambda w: "(" in w,
    "month": MONTHS.__contains__,
    "was, were": {"was", "were"}.__contains__,
    "capital letter first": lambda w: w[:1].isupper(),
    "digit": str.isdigit,
}


def known_classes(lm: LanguageModel, layer: LayerData, n_topics: int = 3) -> dict[str, Bool[Tensor, " n"]]:
    """Classes of held-out tokens whose members are known: by the token itself, then by the topic of its text."""
    words = [w.strip() for w in lm.words(layer.ids)]
    classes = {name: torch.tensor([test(w) for w in words]) for name, test in TOKEN_CLASSES.items()}
    for topic in sorted(set(layer.topics))[:n_topics]:
        classes[topic] = torch.tensor([t == topic for t in layer.topics])[layer.lead]
    return classes


def detectors(
    units: Mapping[str, Float[Tensor, "n units"]],
    classes: Mapping[str, Bool[Tensor, " n"]],
    texts: Int[Tensor, " n"],
    counts: Sequence[int] = (1, 4, 16),
    seed: int = 0,
) -> dict[str, list[dict[int, Tensor]]]:
    """Kind of unit -> per class what `probe_draws` gives, on at most 500 members and 1,500 others of each class."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[dict[int, Tensor]]] = {kind: [] for kind in units}
    for truth in classes.values():
        parts = [(side.nonzero()[:, 0], n) for side, n in ((truth, 500), (~truth, 1_500))]
        pick = torch.cat([part[torch.randperm(len(part), generator=generator)[:n]] for part, n in parts])
        for kind, values in units.items():
            some = values[pick.to(values.device)].cpu()
            found[kind].append(probe_draws(some, truth[pick], texts[pick], counts))
    return found


def losses_in_place(
    lm: LanguageModel,
    ids: Int[Tensor, "rows n_ctx"],
    layer: int,
    replacements: Mapping[str, Callable[[Tensor], Tensor]],
    n_resamples: int = 2_000,
) -> dict[str, tuple[Interval, Interval, Interval]]:
    """Name -> rise of the model's loss (nats per token) with the layer's output replaced, its difference to the rise
    under the first replacement on the same rows, and the share recovered.

    0 of the loss is recovered by zeros, 1 by the true output. Intervals are over rows.
    """
    clean = spliced_loss(lm, ids, layer, None)
    zeros = spliced_loss(lm, ids, layer, torch.zeros_like)
    losses = {name: spliced_loss(lm, ids, layer, f) for name, f in replacements.items()} | {"zeros": zeros}
    first = next(iter(losses.values()))
    return {
        name: (paired_bootstrap(x, clean), paired_bootstrap(x, first), loss_recovered(clean, x, zeros, n_resamples))
        for name, x in losses.items()
    }


def absorption(widths: Sequence[int], common: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Rows per width: cosine of children's features with the child and with child + parent; then how often the
    parent's feature is silent although the parent is there: beside its child, beside another feature, beside neither;
    and how much more often it is beside the child than beside another feature.
    """
    family = worlds.PlantedConfig(d_in=32, n_features=48, active=2.0, children=8, child_share=0.4)
    home, away = worlds.plant(family, 60_000), worlds.plant(family, 20_000, seed=2)
    there, d, rows = away.features > 0, away.directions, []
    besides = (there[:, 40:], there[:, 20:28], ~there[:, 40:])
    for width in widths:
        config = TrainConfig(**{**common, "d_sae": width, "architecture": "relu", "sparsity": 0.3, "lr": 1e-2})
        sae, _ = train_sae(home.x, config, progress=False)
        silent = sae.encode(away.x)[:, worlds.cosines(d[:8], sae.W_dec).argmax(1)] == 0
        near = [worlds.max_cosines(v, sae.W_dec) for v in (d[40:], d[40:] + d[:8])]
        holes = [
            torch.stack([silent[there[:, j] & beside[:, j], j].double().mean() for j in range(8)]) for beside in besides
        ]
        rows.append((width, *(bootstrap(v) for v in (*near, *holes)), paired_bootstrap(holes[0], holes[1])))
    return rows
