"""Vocabulary projection of all value vectors of SmolLM2, top and bottom 50 tokens each; disk cache off."""

import resource
import threading

import torch

from harness import Case

SAMPLE = 192  # vectors of the per-vector loop, and
PART = 4_096  # vectors of ours beside it; both times are scaled up to all 46,080


def bench_projection():
    from transformer_lens.tools.analysis import logit_readout

    from conceptlab.concept_vectors import all_value_vectors
    from conceptlab.models import load_model, project

    lm = load_model("smollm2-135m")
    vectors = all_value_vectors(lm)
    rows = lm.unembedding_rows()
    buffer = torch.empty(512, len(rows))

    def ours():
        return project(lm, vectors, k=50, cache=False)

    def products():
        """The matrix products alone: the same inputs, chunks of 512 into a buffer that is allocated once."""
        folded = vectors * lm.final_gain()
        for part in folded.split(512):
            torch.mm(part, rows.T, out=buffer[: len(part)])

    def loop():
        """One vector at a time, both ends."""
        for vector in vectors[:SAMPLE]:
            logit_readout(lm.bridge, vector[None], top_k=50)
            logit_readout(lm.bridge, -vector[None], top_k=50)

    def ours_part():
        return project(lm, vectors[:PART], k=50, cache=False)

    print(f"projection: extra memory {_extra_memory(ours) / 2**30:.2f} GiB, {len(vectors):,} vectors", flush=True)
    products()  # ours has just run as well: both sides are warm
    yield Case("projection of all value vectors, peer: the bare matrix products", ours, products, target=0.71, warmup=0)
    n = len(vectors)
    yield Case(
        "projection of all value vectors, peer: logit_readout vector by vector (both from a sample)",
        ours_part, loop, target=8, ours_scale=n / PART, peer_scale=n / SAMPLE,
    )  # fmt: skip


def _extra_memory(function) -> int:
    """Peak of the process's resident memory while `function` runs, above what it was before, in bytes."""
    page = resource.getpagesize()
    done, peak = threading.Event(), [0]

    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * page

    def watch():
        while not done.wait(0.01):
            peak[0] = max(peak[0], resident())

    start = resident()
    watcher = threading.Thread(target=watch)
    watcher.start()
    function()
    done.set()
    watcher.join()
    return peak[0] - start
