"""Loading the cached conversion against de-quantising the same GGUF file with plain transformers."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from conceptlab.core import package_path
from conceptlab.models import PACKAGED, load_model, packaged_checkpoint, quiet_transformers
from conceptlab.models.registry import _join
from harness import Case

NAME = "smollm2-135m"


def bench_load() -> Iterator[Case]:
    """SmolLM2: weights and tokenizer, from files that the system has read before (both sides)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    packaged_checkpoint(NAME)  # converted before the clock starts
    model = PACKAGED[NAME]
    with tempfile.TemporaryDirectory() as folder:
        gguf = Path(folder) / f"{NAME}.gguf"
        _join([package_path(p) for p in model.packages], model, gguf)

        def peer():
            with quiet_transformers():
                AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name)
                AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf.name, dtype=torch.float32)

        # No warm-up run: a peer's run takes half a minute, and medians of 5 forgive a cold first one.
        ours = lambda: load_model(NAME, device="cpu")  # noqa: E731
        yield Case(f"load_cached_{NAME}", ours=ours, peer=peer, target=10, warmup=0)
