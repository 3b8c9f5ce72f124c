"""ROME and MEMIT: what one layer writes at the subject is moved to where the model answers with a refusal.

    shift = argmin over d of -log p(refusal | question, W n + d at the subject's last token) + decay |d|^2 / |W n|^2
    D^T = C^-1 K^T (K C^-1 K^T + ridge I)^-1 (shift in every row)   (`solve.key_update`, C the moment of general keys)

ROME (arXiv 2202.05262) finds the new value of one fact by gradient and writes it with rank one; MEMIT (arXiv
2210.07229) writes many at once. Here the subject is the concept: one key per word, one shift for all, the
object a refusal. ConceptVectors' "empty" variant (arXiv 2406.11614) does so per fact. One layer only.

`alphaedit` is the same edit with the projection on the null space of general keys in place of C^-1 (arXiv 2410.02355).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import NotPossible
from ...data import Concept, Question, question_stem
from ...edits import WeightEdit
from ...models import LanguageModel
from ..method import Method
from .keys import answer_logprob, early_layers, shared_keys, subject_ends
from .solve import inverse_moment, key_update, null_space

if TYPE_CHECKING:
    from ..shared import Shared

REFUSAL = "I don't know."


@dataclass(frozen=True)
class RankOneConfig:
    """Where and how far the outputs at the concept's words are moved."""

    place: int = 1  # of the early layers, 0 to 2: 3, 5 or 7 in SmolLM2
    strength: float = 1.0  # of the shift
    metric: str = "moment"  # or "null space"
    ridge: float = 0.1  # of the keys' mean squared length
    leak: float = 0.01  # share of the general keys' mean square that the null space may hold
    n_facts: int = 8  # answered dev questions (that no strength is chosen on) which name the concept
    steps: int = 10  # of the search for the shift
    lr: float = 0.2  # of its largest length
    clamp: float = 3.0  # its largest length, in mean lengths of what the layer writes there
    decay: float = 0.05


def refusal_shift(
    lm: LanguageModel, layer: int, facts: list[Question], words: tuple[str, ...], config: RankOneConfig
) -> Float[Tensor, " d_model"]:
    """The shift of `mlp_output` at the words' last tokens after which the questions are answered by `REFUSAL`.

    Raises NotPossible where no question names the concept.
    """
    rows, n_stem = [], []
    for q in facts:
        stem = [*lm.start_ids, *lm.encode(question_stem(q, ""))]
        if bool(subject_ends(lm, torch.tensor([stem]), words)[0].any()):
            rows.append(stem + lm.encode(f" {REFUSAL}"))
            n_stem.append(len(stem))
    if not rows:
        raise NotPossible("No dev question that may be shown names the concept by one of its words.")
    ids, mask = lm.pad(rows[: config.n_facts])
    at = subject_ends(lm, ids, words)[0]
    length = torch.tensor(n_stem[: config.n_facts], device=ids.device)[:, None]
    in_stem = torch.arange(ids.shape[1], device=ids.device) < length
    at, answer = at & in_stem, mask & ~in_stem
    size = lm.capture(ids, [("mlp_output", layer)], mask)["mlp_output", layer][at].float().norm(dim=1).mean()
    shift = torch.zeros(lm.d_model, device=lm.device, requires_grad=True)
    optimiser = torch.optim.Adam([shift], lr=config.lr * config.clamp * float(size) / lm.d_model**0.5)
    add = {("mlp_output", layer): lambda x: x + at[..., None] * shift.to(x.dtype)}
    with torch.enable_grad():
        for _ in range(config.steps):
            optimiser.zero_grad()
            with lm.intervene(add):
                loss = -answer_logprob(lm, ids, mask, answer) / len(ids) + config.decay * shift.square().sum() / size**2
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                shift.mul_((config.clamp * size / shift.norm().clamp_min(1e-9)).clamp_max(1.0))
    return shift.detach()


def fit_rank_one(lm: LanguageModel, concept: Concept, config: RankOneConfig, shared: Shared) -> WeightEdit:
    """Keys, shift and metric of a layer once; then the solve."""
    layers = early_layers(lm.n_layers)
    layer = layers[min(config.place, len(layers) - 1)]
    keys = shared_keys(shared, layers)[layer]
    shown = [q for q in concept.dev if q not in shared.judge.questions["target"]]
    shift = shared.made(("shift", layer, config.steps), lambda: refusal_shift(lm, layer, shown, concept.words, config))
    M = shared.made(("metric", layer, config.metric), lambda: _metric(keys.moment, config))
    change = key_update(keys.own, config.strength * shift.expand(len(keys.own), -1), M, config.ridge)
    info = {"method": "rank one", "metric": config.metric, "layer": layer, "keys": len(keys.own)}
    return WeightEdit.of(lm, {lm.down_proj_name(layer): change}, info)


def _metric(moment: Tensor, config: RankOneConfig) -> Tensor:
    return inverse_moment(moment) if config.metric == "moment" else null_space(moment, config.leak)


GRID = {"place": (0, 1, 2), "strength": (0.5, 1.0, 2.0, 4.0)}
MEMIT = Method(
    "memit", "localised", "ROME and MEMIT (arXiv 2202.05262; 2210.07229) to a refusal, one layer",
    RankOneConfig(), fit_rank_one, GRID, ("forget", "keep"), "a search of 10 steps per layer, 1 min; the solve 1 s",
)  # fmt: skip
ALPHAEDIT = Method(
    "alphaedit", "localised", "AlphaEdit (arXiv 2410.02355): the same in the null space of general keys",
    RankOneConfig(metric="null space"), fit_rank_one, GRID, ("forget", "keep"), "as memit",
)  # fmt: skip
