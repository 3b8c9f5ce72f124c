"""GCG on SmolLM2: candidates tried per second, ours against nanogcg, on the same prompt, suffix and answer.

The peer runs in an environment and a process of its own, on as many threads, and takes turns with ours. Both try
single replacements of an 8-token suffix; the prompt before it is a few-shot prompt with a question (about 80 tokens),
the answer behind it has a few tokens. nanogcg runs with `use_prefix_cache=False`: its cache does not work with the
version of transformers that is here. A number is candidates times tokens of the whole text per second, the gradient
step included.
"""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import torch

from bench_sae import _peers_python
from harness import Case

HERE = Path(__file__).resolve().parent
WIDTH, STEPS, N_TOKENS = 32, 2, 8  # candidates per step, steps of a timed run, length of the suffix


def bench_gcg():
    from conceptlab.attacks import GCGConfig, SuffixObjective, gcg_step, suffix_tokens
    from conceptlab.data import FEW_SHOT, load_concept, question_stem
    from conceptlab.models import load_model

    lm = load_model("smollm2-135m", device="cpu")
    question = load_concept("japan").dev[0]
    allowed = suffix_tokens(lm, [question])
    suffix, generator = allowed[:N_TOKENS], torch.Generator().manual_seed(0)
    objective = SuffixObjective(lm, [question])
    head, cue = (FEW_SHOT + question_stem(question)).rsplit("\n", 1)
    n_text = len(lm.tokenizer(f"{head}\n{cue} {question.gold}").input_ids) + N_TOKENS
    cfg = GCGConfig(search_width=WIDTH, batch_size=WIDTH, n_tokens=N_TOKENS)

    def ours() -> float:
        began = time.perf_counter()
        for _ in range(STEPS):
            gcg_step(objective, suffix, allowed, cfg, generator)
        return STEPS * WIDTH * n_text / (time.perf_counter() - began)

    task = {
        "model": lm.path, "prompt": head, "cue": f"\n{cue}", "target": f" {question.gold}",
        "suffix": lm.tokenizer.decode(suffix.tolist()), "width": WIDTH, "steps": STEPS,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, _Peer(Path(folder), task) as peer:
        yield Case(
            "gcg tokens x candidates, peer: nanogcg 0.3.0 without its prefix cache",
            ours, lambda: peer.rate() * n_text, "tokens/s", target=2, lower_is_better=False,
        )  # fmt: skip


class _Peer:
    """The process in which nanogcg runs; `rate()` is candidates per second."""

    def __init__(self, folder: Path, task: dict):
        (folder / "task.json").write_text(json.dumps(task))
        env = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            [_peers_python(), str(HERE / "gcg_peer.py"), str(folder / "task.json")], env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> "_Peer":
        return self

    def __exit__(self, *_error) -> None:
        self.process.stdin.close()
        self.process.wait(60)

    def rate(self) -> float:
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("The process of nanogcg ended; its message stands above.")
        return json.loads(answer)["candidates_per_second"]
