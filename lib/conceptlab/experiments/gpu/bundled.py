"""The bundled models on the device, where they lie in the cache: memory, scores, harvest, edit, dictionary, bridge."""

from __future__ import annotations

import importlib.util

import torch

from ...core import ConceptLabError
from ...data import harvest, token_rows
from ...erasure import Feature, pisces_edit, shipped_dictionaries
from ...evaluation import score_questions
from ...models import load_model, rows_that_fit
from .bench import Bench, Figures, bits, name_of, require, require_untouched


def check_bundled(bench: Bench, name: str) -> Figures:
    """Load it in the device's type and in float32, and compare with the CPU on the same questions."""
    loaded: list = []
    before, peak = bench.peak(lambda: loaded.append(load_model(name, device=str(bench.device))))
    lm = loaded.pop()
    need = lm.memory()
    figures: Figures = {"dtype": name_of(lm.dtype), "weights_estimated": need.weights}
    if before is not None and peak is not None:
        figures["loading_peak"] = peak - before
        over = peak - before - need.weights - need.activations
        require(over < 0.1 * need.weights, f"Loading {name} took {over / 1e9:.2f} GB more than the estimate.")
    exact = score_questions(load_model(name, device="cpu"), bench.questions).logprobs
    wide = load_model(name, device=str(bench.device), dtype=torch.float32)
    figures["nats_off_float32"] = off = float((score_questions(wide, bench.questions).logprobs - exact).abs().max())
    require(off < 1e-2, f"{name}'s scores in float32 are {off:.2g} nats from those of the CPU.")
    scores = score_questions(lm, bench.questions).logprobs
    figures["nats_off"] = float((scores - exact).abs().max())
    figures["same_answer"] = float((scores.argmax(1) == exact.argmax(1)).float().mean())
    seconds = bench.seconds(lambda: score_questions(lm, bench.questions))
    figures["questions_per_second"] = len(bench.questions) / seconds
    return figures | _harvest(bench, lm) | _edit(bench, lm) | _bridge(lm)


def _harvest(bench: Bench, lm) -> Figures:
    texts = bench.texts * (1 + bench.sizes.harvest_tokens // 20_000)
    rows = token_rows(lm, texts, 128, bench.sizes.harvest_tokens)
    width, folders = rows_that_fit(lm, 128, 16, 256), iter((1, 2))
    seconds = bench.seconds(
        lambda: harvest(
            lm, rows, [lm.n_layers // 2], batch_size=width, folder=bench.folder / f"bundled{next(folders)}",
            progress=False,
        )
    )  # fmt: skip
    return {"harvest_rows": width, "harvest_tokens_per_second": rows.n_tokens / seconds}


def _edit(bench: Bench, lm) -> Figures:
    """An edit with a dictionary that ships, applied and taken off."""
    try:
        saes = {layer: sae.to(lm.device) for layer, sae in list(shipped_dictionaries(lm).items())[:1]}
    except ConceptLabError as error:  # none lies in data/saes, or this is none of the models that have some
        return {"shipped_dictionary": str(error)}
    before, layer = bits(lm), next(iter(saes))
    edit = pisces_edit(lm, saes, [Feature(layer, 3), Feature(layer, 11)], 0.1, 10.0)
    with edit.applied(lm):
        changed = score_questions(lm, bench.questions).gold
    require_untouched(lm, before, "an edit with a dictionary that ships")
    moved = float((changed - score_questions(lm, bench.questions).gold).abs().max())
    return {"edit_relative_norm": edit.report(lm)["relative_norm"], "edit_moves_nats": moved}


def _bridge(lm) -> Figures:
    """TransformerLens over the same weights, where it is installed."""
    if importlib.util.find_spec("transformer_lens") is None:
        return {"transformer_lens": "not installed"}
    ids, _ = lm.tokens("Bees make honey, and water boils at 100 degrees.")
    with torch.no_grad():
        off = (lm.bridge(ids).float() - lm.logits(ids).float()).abs().max()
    return {"transformer_lens": "installed", "bridge_logits_off": float(off)}
