"""Checks of what reads a model: number types, identities, scores, text, projections, harvests, batches, memory."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...concept_vectors import build_atlas, search
from ...core import ConceptLabError
from ...data import fact_texts, harvest, text_means, token_rows
from ...evaluation import fluency, score_questions
from ...models import (
    RANDOM_KINDS,
    LanguageModel,
    check_architecture,
    choose_dtype,
    greedy,
    memory_free,
    project,
    rows_that_fit,
)
from .bench import Bench, Figures, furthest, name_of, require

FLOAT32 = 1e-3  # nats, or relative: float32 on two devices, sums in another order


def number_types(bench: Bench) -> Figures:
    """The type by capability, and whether the chip is really faster in it than in float32."""
    n, name, speed = bench.sizes.matrix, name_of(bench.chosen_dtype()), {}
    figures: Figures = {"chosen": name}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = bench.normal(n, n).to(dtype)
        speed[name_of(dtype)] = 2e-12 * n**3 / bench.seconds(partial(torch.matmul, x, x), 10)
        figures[f"tflops_{name_of(dtype)}"] = speed[name_of(dtype)]
    figures["tf32"] = torch.backends.cuda.matmul.allow_tf32
    try:
        choose_dtype(bench.device, "gemma2", torch.float16)
    except ConceptLabError as error:
        figures["gemma_in_float16"] = str(error)
    require("gemma_in_float16" in figures, "Gemma in float16 was not refused.")
    require(speed[name] >= 0.8 * speed["float32"], f"{name} is chosen, and float32 is faster here.")
    return figures


def architectures(bench: Bench) -> Figures:
    """The three identities that every loaded model is checked for: the largest relative deviation."""
    figures = {}
    for kind in RANDOM_KINDS:
        for dtype in dict.fromkeys((torch.float32, bench.half, bench.chosen_dtype())):
            lm = bench.model(kind, dtype)
            require(lm.device.type == bench.device.type, f"{kind} lies on {lm.device}.")
            figures[f"{kind} {name_of(dtype)}"] = max(check_architecture(lm).values())
    return figures


def scoring(bench: Bench) -> Figures:
    """Log-probabilities of options against the CPU, in batches of several sizes, and in the chosen type."""
    few_shot, figures = bench.sizes.few_shot, {}
    for kind in ("Llama", "Gemma2"):
        exact = score_questions(bench.model(kind, on="cpu"), bench.questions, few_shot).logprobs
        lm = bench.model(kind)
        for rows in (1, 4, 16):
            found = score_questions(lm, bench.questions, few_shot, batch_size=rows).logprobs
            figures[f"{kind} nats_off_batch_{rows}"] = off = float((found - exact).abs().max())
            require(off < FLOAT32, f"{kind}'s scores in batches of {rows} are {off:.2g} nats from those of the CPU.")
        rounded = score_questions(bench.model(kind, bench.half), bench.questions, few_shot).logprobs
        figures[f"{kind} nats_off_{name_of(bench.half)}"] = float((rounded - exact).abs().max())
        same = (rounded.argmax(1) == exact.argmax(1)).float().mean()
        figures[f"{kind} same_answer_{name_of(bench.half)}"] = float(same)
        seconds = bench.seconds(partial(score_questions, lm, bench.questions, few_shot))
        figures[f"{kind} questions_per_second"] = len(bench.questions) / seconds
    return figures


def writing(bench: Bench) -> Figures:
    """Greedy continuations and the loss of texts against the CPU."""
    prompts, here, there = fact_texts(bench.questions), bench.model(), bench.model(on="cpu")
    ours, theirs = (greedy(lm, prompts, 8) for lm in (here, there))
    same = sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(ours)
    require(same > 0.7, f"{1 - same:.0%} of the continuations differ from those of the CPU.")  # ties may fall otherwise
    off = abs(fluency(here, prompts).loss - fluency(there, prompts).loss)
    require(off < FLOAT32, f"The loss of texts is {off:.2g} nats from that of the CPU.")
    return {"same_continuations": same, "loss_nats_off": off}


def projections(bench: Bench) -> Figures:
    """Vocabulary projection and the search for concept vectors against the CPU."""
    here, there = bench.model(), bench.model(on="cpu")
    ours, theirs = (project(lm, lm.value_vectors(0), k=5, cache=False) for lm in (here, there))
    off = furthest(ours.top_values, theirs.top_values)
    require(off < FLOAT32, f"Logits of value vectors are off by {off:.2g} of their size.")
    words = [q.gold for q in bench.questions]
    found = [[v.name for v in search(lm, words, 5, build_atlas(lm, k=5))] for lm in (here, there)]
    n = len(here.value_vectors(0))
    seconds = bench.seconds(lambda: project(here, here.value_vectors(0), k=5, cache=False))
    shared = len(set(found[0]) & set(found[1])) / len(found[1])
    require(shared >= 0.6, f"The search finds {shared:.0%} of the concept vectors that it finds on the CPU.")
    return {"relative_off": off, "search_shared": shared, "vectors_per_second": n / seconds}


def harvests(bench: Bench) -> Figures:
    """Activations on disk against the CPU's, and tokens per second in the chosen type."""
    here, there = bench.model(), bench.model(on="cpu")
    rows = token_rows(here, bench.texts, 32, 512)
    ours, theirs = (
        harvest(lm, rows, [0, 1], folder=bench.folder / name, progress=False).tensor(1)
        for name, lm in (("here", here), ("there", there))
    )
    off = furthest(ours, theirs)
    require(off < 2e-3, f"Harvested activations are off by {off:.2g} of their size.")  # float16 on disk: 5e-4
    site = ("mlp_output", 0)
    means = [text_means(lm, bench.texts[:8], [site])[site] for lm in (here, there)]
    require(furthest(*means) < FLOAT32, "Mean activations of texts differ from the CPU's.")
    fast = bench.model(dtype=bench.chosen_dtype())
    texts = bench.texts * (1 + bench.sizes.harvest_tokens // 20_000)
    many = token_rows(fast, texts, 128, bench.sizes.harvest_tokens)
    width = rows_that_fit(fast, 128, 16, bench.sizes.most_rows)
    folders = iter((bench.folder / "first", bench.folder / "second"))
    seconds = bench.seconds(lambda: harvest(fast, many, [0, 1], batch_size=width, folder=next(folders), progress=False))
    return {"relative_off": off, "tokens": many.n_tokens, "rows": width, "tokens_per_second": many.n_tokens / seconds}


def _float_logits(lm: LanguageModel, ids: Tensor) -> Tensor:
    return lm.logits(ids).float()


def batches(bench: Bench) -> Figures:
    """The rows that free memory is said to hold are held, forward, and what they take of it."""
    figures: Figures = {}
    for n_tokens in (32, 512):
        lm = bench.model(dtype=bench.chosen_dtype())
        rows = rows_that_fit(lm, n_tokens, 4, bench.sizes.most_rows)
        ids = torch.arange(rows * n_tokens).view(rows, n_tokens) % lm.d_vocab
        lm.logits(ids[:1, :8])  # what the libraries take for themselves, once
        free = memory_free(bench.device)
        before, peak = bench.peak(partial(_float_logits, lm, ids))
        figures[f"rows_of_{n_tokens}"] = rows
        if peak is not None and before is not None and free is not None:
            figures[f"share_of_free_{n_tokens}"] = share = (peak - before) / free
            require(share < 0.75, f"{rows} rows of {n_tokens} tokens took {share:.0%} of the free memory, not half.")
    return figures


def memory(bench: Bench) -> Figures:
    """The estimate printed before a model is loaded, against what the device counts."""
    lm, kept = bench.model(dtype=bench.chosen_dtype()), []
    need = lm.memory()
    weights = sum(p.nbytes for p in lm.parameters().values())
    require(need.weights == weights, f"The estimate says {need.weights:,} bytes of weights and there are {weights:,}.")
    ids = (torch.arange(512) % lm.d_vocab)[None]
    lm.logits(ids[:, :8])
    before, peak = bench.peak(lambda: kept.append(lm.logits(ids).float()))
    figures: Figures = {"weights": weights, "activations_estimated": need.activations}
    if peak is not None and before is not None:
        figures["activations"] = peak - before
        require(
            peak - before <= 1.5 * need.activations,
            f"512 tokens took {(peak - before) / 1e6:.0f} MB, and the estimate says {need.activations / 1e6:.0f}.",
        )
    return figures


CHECKS = {
    "number types": number_types,
    "architectures": architectures,
    "scoring": scoring,
    "writing": writing,
    "projections": projections,
    "harvests": harvests,
    "batches": batches,
    "memory": memory,
}
