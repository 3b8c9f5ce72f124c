"""Relearning: fine-tune a changed model on text about the concept and see what comes back.

Retraining on T (Deeb & Roger, arXiv 2410.08827): the attacker trains on some of what was to be removed and is tested
on *other* facts, which the text does not hold. What returns must still have been in the weights. `split_facts` makes
such a split; `unrelated_texts` shows what any training at all repairs (Lucki et al., arXiv 2409.18025).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..cache import ConceptLabError
from ..concepts import Concept, cut_answers
from ..evaluation.questions import few_shot_prompt
from ..models import LanguageModel
from ..pisces import evidence_texts
from ..text import Question
from .base import AttackResult, Cost, Intervention, applied, leaked
from .lora import lora

PARTS = {"down_proj": "mlp.down_proj.", "mlp": "mlp.", "attention": "self_attn.", "block": ""}


@dataclass(frozen=True)
class RelearnConfig:
    """The attacker's budget."""

    steps: int = 12  # optimisation steps
    batch_size: int = 8  # rows per step
    n_ctx: int = 32  # tokens per row
    lr: float = 1e-4  # AdamW, constant
    weight_decay: float = 0.0
    weights: str = "mlp"  # what is trained: down_proj, mlp, attention, block, or all (embeddings too)
    layers: tuple[int, ...] | None = None  # of these layers; None: of every layer
    rank: int | None = None  # None: the weights themselves; else LoRA of this rank on their linear layers
    alpha: float = 16.0  # LoRA: its change is scaled by alpha / rank (16 in the released code of PISCES)
    seed: int = 0  # order of the rows, start of LoRA


def next_token_loss(
    lm: LanguageModel, ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy (nats) of every real token but the first of its row; padding neither predicts nor counts."""
    ids, mask = ids.to(lm.device), mask.to(lm.device)
    hidden = lm.hf.get_decoder()(ids, attention_mask=mask.long(), use_cache=False).last_hidden_state
    counted = mask[:, 1:] & mask[:, :-1]
    if not counted.any():
        raise ConceptLabError("No token to predict: every row needs at least two tokens.")
    logits = lm.head(hidden[:, :-1][counted])  # the unembedding is the dearest product; padding never reaches it
    return torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][counted])


def relearn(
    lm: LanguageModel,
    intervention: Intervention | None,
    texts: Sequence[str],
    cfg: RelearnConfig = RelearnConfig(),
    *,
    evaluate: Callable[[LanguageModel], object] | None = None,
    at: Sequence[int] | None = None,
    **changes,
) -> AttackResult:
    """Fine-tune the model with `intervention` applied on `texts`; evaluate after the numbers of steps in `at`.

    `changes` override fields of `cfg` (`steps=4, lr=1e-3`). `at` holds numbers from 0 to `steps` (default: only
    `steps`); `evaluate(lm)` is called there without gradients and its results are kept. Afterwards, also after an
    exception, every weight is bit-identical to what it was and no weight asks for gradients that did not before.
    Raises ConceptLabError for a budget that makes no sense, texts with nothing to predict, or a loss that diverges.
    """
    cfg = replace(cfg, **changes)
    at = tuple(sorted(set((cfg.steps,) if at is None else at)))
    _check(cfg, at)
    chosen = trained_parameters(lm, cfg.weights, cfg.layers)
    rows = text_rows(lm, texts, cfg.n_ctx)
    with applied(intervention, lm), torch.enable_grad():
        if cfg.rank is None:
            with trainable(lm, chosen):
                return _train(lm, list(chosen.values()), rows, cfg, evaluate, at)
        with trainable(lm, {}), lora(lm, list(chosen), cfg.rank, cfg.alpha, cfg.seed) as adapters:
            return _train(lm, [p for a in adapters.values() for p in (a.A, a.B)], rows, cfg, evaluate, at)


@contextmanager
def trainable(lm: LanguageModel, chosen: dict[str, torch.nn.Parameter]) -> Iterator[LanguageModel]:
    """Inside the block only `chosen` ask for gradients; afterwards every weight is bit-identical to before."""
    before = {name: (p.detach().clone(), p.requires_grad) for name, p in chosen.items()}
    asked = [p for p in lm.hf.parameters() if p.requires_grad]
    try:
        for p in asked:
            p.requires_grad_(False)
        for p in chosen.values():
            p.requires_grad_(True)
        yield lm
    finally:
        with torch.no_grad():
            for name, p in chosen.items():
                p.copy_(before[name][0])
                p.requires_grad_(before[name][1])
                p.grad = None
        for p in asked:
            p.requires_grad_(True)


def _train(lm, parameters: list, rows: list[list[int]], cfg: RelearnConfig, evaluate, at: tuple) -> AttackResult:
    optimiser = torch.optim.AdamW(parameters, lr=cfg.lr, weight_decay=cfg.weight_decay)
    losses: list[float] = []
    values: list = []
    tokens, seconds = 0, 0.0
    batches = row_batches(rows, cfg.batch_size, cfg.seed)
    for step in range(cfg.steps + 1):
        if step in at and evaluate is not None:
            with torch.no_grad():
                values.append(evaluate(lm))
        if step == cfg.steps:
            break
        start = time.perf_counter()
        ids, mask = lm.pad(next(batches))
        loss = next_token_loss(lm, ids, mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        tokens += int(mask.sum())
        seconds += time.perf_counter() - start
        if not torch.isfinite(loss):
            raise ConceptLabError(f"The loss is {losses[-1]} at step {step}: the attack diverged; lower lr={cfg.lr:g}.")
    return AttackResult(at if evaluate else (), tuple(values), tuple(losses), Cost(cfg.steps, tokens, seconds))


def trained_parameters(
    lm: LanguageModel, weights: str = "mlp", layers: Sequence[int] | None = None
) -> dict[str, torch.nn.Parameter]:
    """Parameters that an attack trains, by name: one of the parts of each of `layers`, or "all" of the model."""
    if weights != "all" and weights not in PARTS:
        raise ConceptLabError(f"Unknown weights {weights!r}; an attack trains one of {', '.join((*PARTS, 'all'))}.")
    named = dict(lm.hf.named_parameters())
    if weights == "all":
        if layers is not None:
            raise ConceptLabError('weights="all" trains the whole model; for some layers only, use weights="block".')
        return named
    found = {}
    for layer in range(lm.n_layers) if layers is None else layers:
        prefix = lm.down_proj_name(layer).removesuffix("mlp.down_proj.weight") + PARTS[weights]
        found |= {name: p for name, p in named.items() if name.startswith(prefix)}
    if not found:
        raise ConceptLabError("No layer was chosen to train; give at least one, or layers=None for every layer.")
    return found


def unrelated_texts(
    concept: Concept, n: int = 10, seed: int = 0, without_answers: Sequence[Question] = ()
) -> list[str]:
    """`n` encyclopedia leads about neither the concept nor its neighbour (10 examples: arXiv 2409.18025).

    Sentences that hold the right answer to one of `without_answers` are cut; a lead may vanish by that.
    """
    return cut_answers(evidence_texts(concept, n, seed)[2], without_answers)


def split_facts(
    questions: Sequence[Question], n_given: int, seed: int = 0
) -> tuple[tuple[Question, ...], tuple[Question, ...]]:
    """Retraining on T: at most `n_given` facts for the attacker, and the others, none of whose answers T holds.

    A fact whose answer is also asked for among the tested ones is left out on the attacker's side, so it may get fewer.
    """
    if not 0 < n_given < len(questions):
        raise ConceptLabError(f"Of {len(questions)} questions 1 to {len(questions) - 1} can be given; got {n_given}.")
    order = torch.randperm(len(questions), generator=torch.Generator().manual_seed(seed)).tolist()
    tested = tuple(questions[i] for i in sorted(order[n_given:]))
    given = tuple(questions[i] for i in sorted(order[:n_given]))
    given = tuple(q for q in given if not leaked(fact_texts([q]), tested))
    if not given:
        raise ConceptLabError("Every given fact holds an answer that is tested; give more facts or test fewer.")
    return given, tested


def fact_texts(facts: Sequence[Question]) -> list[str]:
    """Answered questions as training texts, in the form in which the questions are scored."""
    return [few_shot_prompt([(f.q, f.gold)]) for f in facts]


def text_rows(lm: LanguageModel, texts: Sequence[str], n_ctx: int = 32) -> list[list[int]]:
    """Each text cut into rows of at most `n_ctx` token ids (the model's own start token included, if it has one)."""
    if isinstance(texts, str):
        raise ConceptLabError("relearn needs a list of texts; put a single text into a list.")
    start = [lm.tokenizer.bos_token_id] if lm.tokenizer("x").input_ids[0] == lm.tokenizer.bos_token_id else []
    width, rows = n_ctx - len(start), []
    for text in texts:
        ids = lm.tokenizer(text, add_special_tokens=False).input_ids
        rows += [start + ids[i : i + width] for i in range(0, len(ids), width)]
    rows = [row for row in rows if len(row) >= len(start) + 2]
    if not rows:
        raise ConceptLabError(
            "No text is left to train on; give texts of at least two tokens (a filter that removes the answers may "
            "have removed everything)."
        )
    return rows


def row_batches(rows: Sequence[list[int]], size: int, seed: int = 0) -> Iterator[list[list[int]]]:
    """Endless shuffled batches of `size` rows; every row is used once before any is used again."""
    generator, queue = torch.Generator().manual_seed(seed), []
    while True:
        while len(queue) < size:
            queue += torch.randperm(len(rows), generator=generator).tolist()
        yield [rows[i] for i in queue[:size]]
        queue = queue[size:]


def _check(cfg: RelearnConfig, at: tuple[int, ...]) -> None:
    if not cfg.lr > 0:
        raise ConceptLabError(f"The learning rate must be positive; got lr={cfg.lr:g}.")
    if cfg.steps < 1 or cfg.batch_size < 1 or cfg.n_ctx < 3:
        raise ConceptLabError(
            f"An attack needs steps >= 1, batch_size >= 1 and n_ctx >= 3; got {cfg.steps}, {cfg.batch_size}, "
            f"{cfg.n_ctx}."
        )
    if any(not 0 <= step <= cfg.steps for step in at):
        raise ConceptLabError(f"Checkpoints lie between 0 and {cfg.steps} steps; got {list(at)}.")
