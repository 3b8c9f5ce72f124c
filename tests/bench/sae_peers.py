"""The other side of bench_sae: trains a peer's TopK dictionary, a few steps for each line of JSON on stdin.

`sae_peers.py FOLDER` reads `train.npy`, `held_out.npy` and `start.safetensors` there. A line `{"peer": NAME,
"steps": N}` is answered with `{"tokens_per_second": ..., "fve": ...}`, the share of variance explained on the held-out
tokens after these steps (not timed). Each peer goes on from where it was.
"""

import json
import os
import sys
import time
import types
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

LR = 1e-3


class DictionaryLearning:
    """`TopKTrainer.update` of saprmarks/dictionary_learning, its own settings but for the learning rate's warm-up."""

    def __init__(self, start: dict, k: int):
        sys.modules["nnsight"] = types.ModuleType("nnsight")  # imported for its buffer of activations, not used here
        sys.modules["nnsight"].LanguageModel = object
        from dictionary_learning.trainers.top_k import TopKTrainer

        n, d = start["W_dec"].shape
        self.trainer = TopKTrainer(10**9, d, n, k, 0, "", lr=LR, warmup_steps=0, seed=0, device="cpu")
        self.sae = self.trainer.ae
        with torch.no_grad():
            self.sae.decoder.weight.copy_(start["W_dec"].T)
            self.sae.encoder.weight.copy_(start["W_enc"].T)
            self.sae.b_dec.copy_(start["b_dec"])

    def step(self, i: int, x: torch.Tensor) -> None:
        self.trainer.update(i + 1, x)  # step 0 would set the bias, which stands already

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        return self.sae(x)


class Sparsify:
    """`SparseCoder` of eai-sparsify with the steps of its `Trainer`: optimiser "adam", dead features as by default."""

    def __init__(self, start: dict, k: int):
        from sparsify import SparseCoder, SparseCoderConfig

        n, d = start["W_dec"].shape
        self.sae = SparseCoder(d, SparseCoderConfig(num_latents=n, k=k))
        with torch.no_grad():
            self.sae.W_dec.copy_(start["W_dec"])
            self.sae.encoder.weight.copy_(start["W_enc"].T)
            self.sae.b_dec.copy_(start["b_dec"])
        self.adam = torch.optim.Adam(self.sae.parameters(), lr=LR)
        self.silent = torch.zeros(n, dtype=torch.long)

    def step(self, i: int, x: torch.Tensor) -> None:
        self.sae.set_decoder_norm_to_unit_norm()
        variance = (x - x.mean(0)).pow(2).sum()
        out = self.sae(x, dead_mask=self.silent > 10_000_000, total_variance=variance)
        self.silent += len(x)
        self.silent[out.latent_indices.flatten()] = 0
        out.fvu.backward()
        self.sae.remove_gradient_parallel_to_decoder_directions()
        self.adam.step()
        self.adam.zero_grad()

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        return self.sae(x).sae_out


PEERS = {"dictionary_learning": DictionaryLearning, "sparsify": Sparsify}


def main(folder: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the peers print does not get among the answers
    start = load_file(folder / "start.safetensors")
    batches = torch.from_numpy(np.load(folder / "train.npy"))
    held_out = torch.from_numpy(np.load(folder / "held_out.npy"))
    total = float((held_out - held_out.mean(0)).square().sum())
    running: dict[str, tuple[object, int]] = {}
    for line in sys.stdin:
        task = json.loads(line)
        peer, done = running.get(task["peer"]) or (PEERS[task["peer"]](start, task["k"]), 0)
        began = time.perf_counter()
        for i in range(done, done + task["steps"]):
            peer.step(i, batches[i % len(batches)])
        seconds = time.perf_counter() - began
        running[task["peer"]] = peer, done + task["steps"]
        with torch.no_grad():
            left = float((held_out - peer.reconstruct(held_out)).square().sum())
        rate = task["steps"] * batches.shape[1] / seconds
        answers.write(json.dumps({"tokens_per_second": rate, "fve": 1 - left / total}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
