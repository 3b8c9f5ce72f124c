"""Checks of what changes a model: edits, training, LoRA, erasure, and every attack that needs no text from outside."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...attacks import (
    CandidateConfig,
    GCGConfig,
    PatchConfig,
    ProbeConfig,
    QuantiseConfig,
    RelearnConfig,
    SoftPromptConfig,
    SuffixObjective,
    UndoConfig,
    candidate_sets,
    gcg_step,
    hidden_knowledge,
    patch,
    probe,
    quantise,
    relearn,
    soft_prompt,
    suffix_tokens,
    teach,
    undo,
)
from ...edits import INPUT, Dense, LowRank, Rows, WeightEdit, random_like, value_edit
from ...erasure import (
    Dictionaries,
    Feature,
    GradientAscent,
    Loss,
    NegativePreference,
    TuningConfig,
    directional_edit,
    finetune_texts,
    neuron_signs,
    pisces_edit,
)
from ...evaluation import score_questions
from ...models import LanguageModel, rows_that_fit
from ...sae import SAEConfig, TopKSAE
from .bench import Bench, Figures, bits, furthest, name_of, require, require_untouched

CFG = RelearnConfig(batch_size=4, n_ctx=24, lr=1e-5)


def edits(bench: Bench) -> Figures:
    """Edits of every kind hold inside the block, and leave every bit as it was, also after an error."""
    figures = {}
    for kind in ("Llama", "Gemma2"):
        for dtype in (torch.float32, bench.half):
            lm = bench.model(kind, dtype)
            before, prints = bits(lm), lm.fingerprint()
            ids, _ = lm.tokens(bench.texts[:2])
            clean = lm.logits(ids)
            for what, edit in _edits(bench, lm).items():
                with edit.applied(lm):
                    require(not torch.equal(lm.logits(ids), clean), f"The edit {what} changes nothing.")
                    require(lm.fingerprint() != prints, f"The edit {what} leaves the fingerprint as it was.")
                require_untouched(lm, before, f"the edit {what} in {name_of(dtype)}")
                try:
                    with edit.applied(lm):
                        raise KeyError
                except KeyError:
                    require_untouched(lm, before, f"an error inside the edit {what}")
            require(torch.equal(lm.logits(ids), clean), "The model answers otherwise after its edits.")
            require(lm.fingerprint() == prints, "The fingerprint is another after the edits.")
            figures[f"{kind} {name_of(dtype)}"] = "to the bit"
    return figures


def _edits(bench: Bench, lm: LanguageModel) -> dict[str, WeightEdit]:
    """One of each kind, among them one of numbers that lie on the CPU."""
    table, d = lm.embedding_name(), lm.d_model
    first, second = lm.encode(bench.texts[0])[:2]
    rows = Rows(torch.tensor([first, second, first]), 0.5 * bench.normal(3, d).cpu(), torch.tensor(lm.d_vocab))
    name = lm.down_proj_name(0)
    low = LowRank(bench.normal(d, 2), 0.1 * bench.normal(2, lm.d_mlp, seed=1))
    found = {
        "of value vectors": value_edit(lm, 1, [3, 7], bench.normal(2, d).to(lm.dtype)),
        "of rows": WeightEdit.of(lm, {table: rows}),
        "of the input side": WeightEdit.of(lm, {table + INPUT: Rows(torch.arange(lm.d_vocab), 0.1 * bench.normal(
            lm.d_vocab, d).cpu(), torch.tensor(lm.d_vocab))}),
        "of low rank": WeightEdit.of(lm, {name: low}),
        "dense, from the CPU": WeightEdit.of(lm, {name: Dense(low.dense().cpu())}),
    }  # fmt: skip
    loaded: list[LowRank | Dense] = [
        LowRank(low.left.cpu(), low.right.cpu()),
        Dense(low.dense().cpu()),
    ]  # as from a file
    sums = {f"summed with {type(x).__name__}": found["of low rank"] + WeightEdit.of(lm, {name: x}) for x in loaded}
    far = Rows(rows.index.to(bench.device), rows.delta.to(bench.device), rows.n_rows)
    sums["summed with Rows"] = WeightEdit.of(lm, {table: far}) + found["of rows"]
    return found | sums | {"of random numbers": random_like(found["of low rank"])}


def _both(bench: Bench, run: Callable[[LanguageModel], object]) -> tuple:
    """(in half precision, in float32) of the same numbers, every bit checked afterwards."""
    lm, exact = bench.model(dtype=bench.half), bench.model()
    with torch.no_grad():
        for name, p in exact.parameters().items():
            p.copy_(lm.parameters()[name])
    found = []
    for model in (lm, exact):
        before = bits(model)
        found.append(run(model))
        require_untouched(model, before, "training")
    return tuple(found)


def relearning(bench: Bench) -> Figures:
    """Weights that move in half precision on float32 masters, and the loss against float32."""
    half, exact = _both(bench, lambda lm: relearn(lm, None, bench.texts[:40], CFG, steps=bench.sizes.steps))
    masters, weights = half.moved
    off = max(abs(a - b) / b for a, b in zip(half.losses, exact.losses, strict=True))
    require(
        masters > 0.9 and 0 < weights < masters, f"{masters:.1%} of the masters moved and {weights:.1%} of weights."
    )
    require(off < 2e-2, f"The loss is {off:.1%} from that of float32.")
    tokens = half.cost.tokens / half.cost.seconds
    return {"masters_moved": masters, "weights_moved": weights, "loss_relative_off": off, "tokens_per_second": tokens}


def adapters(bench: Bench) -> Figures:
    """Relearning with LoRA in half precision falls as in float32."""
    run = _both(bench, lambda lm: relearn(lm, None, bench.texts[:40], CFG, steps=bench.sizes.steps, rank=4, lr=1e-3))
    half, exact = (r.losses for r in run)
    off = max(abs(a - b) / b for a, b in zip(half, exact, strict=True))
    require(off < 2e-2, f"The loss of LoRA is {off:.1%} from that of float32.")
    return {"loss_relative_off": off, "fall": half[0] - half[-1], "fall_float32": exact[0] - exact[-1]}


def erasers(bench: Bench) -> Figures:
    """Fine-tuned erasers and teaching leave an edit that is not lost in rounding."""
    lm, figures = bench.model(dtype=bench.half), {}
    before = bits(lm)
    cfg = TuningConfig(steps=bench.sizes.steps, batch_size=2, n_ctx=24, lr=1e-4)
    for method, term in (("npo", NegativePreference()), ("gradient_ascent", GradientAscent())):
        edit = finetune_texts(lm, Loss(term), bench.texts[:8], bench.texts[8:16], cfg)
        figures[f"{method}_moved"] = moved = edit.info["moved"]
        require(moved > 0.01, f"{method} moves {moved:.2%} of the weights.")
    taught = teach(lm, bench.texts[:8], steps=bench.sizes.steps, lr=1e-3, batch_size=4, n_ctx=24)
    figures["taught_norm"] = taught.report(lm)["relative_norm"]
    require(figures["taught_norm"] > 0, "Teaching changed nothing.")
    require_untouched(lm, before, "erasers")
    return figures


def pisces(bench: Bench) -> Figures:
    """The published edit and directional ablation against the CPU, with dictionary and model on the device."""
    features = [Feature(0, 3), Feature(0, 7, -1), Feature(1, 5)]
    dense: dict[str, list[Tensor]] = {}
    changes: dict[str, Tensor] = {}
    signs: dict[int, Tensor] = {}
    for where in ("cpu", str(bench.device)):
        lm = bench.model("Gemma2", on=where)
        saes: Dictionaries = {layer: dictionary(lm, layer) for layer in (0, 1)}
        own = neuron_signs(lm, [0, 1], bench.texts[:8], ["the", "of"])
        signs = signs or own  # the CPU's for both: a sum of signs near 0 may fall either way
        same = min(float((own[layer].cpu() == signs[layer].cpu()).float().mean()) for layer in own)
        require(same > 0.99, f"Signs of neurons agree with the CPU's for {same:.1%}.")
        found = [pisces_edit(lm, saes, features, 0.1, 2.0, signs), directional_edit(lm, saes, features)]
        dense[where] = [change.dense() for edit in found for change in edit.changes.values()]
        asked = score_questions(lm, bench.questions, "").logprobs
        with found[0].applied(lm):
            changes[where] = score_questions(lm, bench.questions, "").logprobs - asked
    off = max(furthest(a, b) for a, b in zip(dense[str(bench.device)], dense["cpu"], strict=True))
    nats = float((changes[str(bench.device)] - changes["cpu"]).abs().max())
    require(off < 1e-2, f"The edit is {off:.2g} of its size from that of the CPU.")
    require(nats < 1e-2, f"What the edit does to the questions is {nats:.2g} nats from what it does on the CPU.")
    return {"relative_off": off, "nats_off": nats, "largest_change": float(changes["cpu"].abs().max())}


def dictionary(lm: LanguageModel, layer: int) -> TopKSAE:
    """A random one of the MLP output of a layer."""
    cfg = SAEConfig("topk", lm.d_model, 4 * lm.d_model, 8, lm.name, layer, lm.mlp_output(layer))
    return TopKSAE(cfg, layer).to(lm.device).requires_grad_(False)


def prompts(bench: Bench) -> Figures:
    """A soft prompt and GCG: losses that fall, a step against the CPU, candidates per second from free memory."""
    few, steps = bench.sizes.few_shot, bench.sizes.steps
    facts, asked = bench.facts[:3], bench.questions[:4]
    lm = bench.model(dtype=bench.chosen_dtype())
    soft = soft_prompt(lm, None, facts, asked, SoftPromptConfig(steps=steps, n_tokens=2), few)
    require(min(soft.losses[1:]) < soft.losses[0], "The loss of the soft prompt does not fall.")
    rows = rows_that_fit(lm, 64, 8, bench.sizes.most_rows)
    cfg = GCGConfig(search_width=min(rows, 256), n_tokens=4, batch_size=rows)
    found = []
    for where in ("cpu", bench.device):  # in float32, where both take the same step
        exact = bench.model(on=str(where))
        objective, allowed = SuffixObjective(exact, facts, few), suffix_tokens(exact, facts).to(where)
        found.append(objective.gradient(allowed[:4], allowed))
    off = furthest(found[1], found[0])
    require(off < 1e-2, f"The gradient by the tokens of a suffix is {off:.2g} of its size from that of the CPU.")
    objective, allowed = SuffixObjective(lm, facts, few), suffix_tokens(lm, facts).to(bench.device)

    def step() -> object:
        return gcg_step(objective, allowed[:4], allowed, cfg, torch.Generator().manual_seed(0))

    candidates = cfg.search_width / bench.seconds(step)
    return {"soft_losses": [soft.losses[0], soft.losses[-1]], "gradient_relative_off": off, "gcg_rows": rows,
            "candidates_per_second": candidates}  # fmt: skip


def inner_attacks(bench: Bench) -> Figures:
    """Patching, probes, candidate sets, rounding, undoing and hidden knowledge run, and leave every bit as it was."""
    lm, few = bench.model(dtype=bench.chosen_dtype()), bench.sizes.few_shot
    before, edit = bits(lm), _edits(bench, lm)["of low rank"]
    asked, facts = bench.questions[:4], bench.facts

    def score(model: LanguageModel):
        return score_questions(model, asked, few)

    clean = score(lm).logprobs
    figures: Figures = {}
    runs = {
        "patch": lambda: patch(lm, edit, score, PatchConfig(layers=(0,))),
        "probe": lambda: probe(lm, edit, facts, asked, ProbeConfig(layers=(0, 1), folds=2), few),
        "candidate_sets": lambda: candidate_sets(lm, edit, asked, CandidateConfig(budgets=(1, 5)), few),
        "quantise": lambda: quantise(lm, edit, score, QuantiseConfig(bits=(8, 4))),
        "undo": lambda: undo(lm, edit, score, UndoConfig(directions=(1, 2))),
        "hidden_knowledge": lambda: hidden_knowledge(lm, edit, facts, asked, ProbeConfig(layers=(1,), folds=2), few),
    }
    for name, run in runs.items():
        found = run()
        figures[name] = f"{len(found.values)} values in {found.cost.seconds:.2f} s"
        require_untouched(lm, before, name)
    patched = runs["patch"]().last.logprobs
    figures["patched_nats_off"] = off = float((patched - clean).abs().max())
    require(off < 1e-2, f"Patching the only layer that was edited leaves the model {off:.2g} nats off.")
    return figures


CHECKS = {
    "edits": edits,
    "relearning": relearning,
    "lora": adapters,
    "erasers": erasers,
    "pisces": pisces,
    "prompts": prompts,
    "attacks": inner_attacks,
}
