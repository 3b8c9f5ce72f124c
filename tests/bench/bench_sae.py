"""TopK training on activations of SmolLM2 (width 576, 4,096 features, k 32, batches of 4,096) against two peers.

The peers run in an environment and a process of their own, on as many threads, and take turns with ours. All start
from the same weights, see the same batches in the same order and take the same number of steps with Adam at the same
constant learning rate; the share of variance that each explains on held-out tokens is printed beside the speed.
dictionary_learning clips the norm of its gradient, which makes later steps larger: beside it ours clips at the same
norm. All on the CPU. Ours is the step of `train_sae`, dead features counted as in the peers (after 10 million tokens).
"""

import functools
import json
import os
import subprocess
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from harness import Case

HERE = Path(__file__).resolve().parent
D_SAE, K, BATCH, LAYER = 4_096, 32, 4_096, 6
LR = 1e-3  # as in sae_peers.py
BATCHES = 10  # to train on, again and again
STEPS = 4  # of each timed run


def bench_sae():
    from conceptlab.sae import quality

    train, held_out = _activations()
    start = _start(train)
    floor = _product(train, start["W_enc"])
    title = "sae TopK training, peer: the floor, which is the encoder's matrix product alone"
    yield Case(title, _Ours(start, train).run, floor, "tokens/s", lower_is_better=False)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "train.npy"), train.numpy())
        np.save(Path(folder, "held_out.npy"), held_out.numpy())
        save_file(start, Path(folder, "start.safetensors"))
        with _Peers(Path(folder)) as peers:
            for name, target in (("dictionary_learning", 3.0), ("sparsify", 1.5)):
                ours = _Ours(start, train, clips=name == "dictionary_learning")
                title = f"sae TopK training, peer: {name} {peers.versions[name]}"
                peer = functools.partial(peers.run, name)
                yield Case(title, ours.run, peer, "tokens/s", target, lower_is_better=False)
                mine, other = quality(ours.run_.sae, held_out).fve, peers.fve
                print(f"sae: held-out FVE after {ours.steps} steps: ours {mine:.4f}, {name} {other:.4f}", flush=True)


def _activations() -> tuple[torch.Tensor, torch.Tensor]:
    """`[BATCHES, BATCH, 576]` to train on and `[BATCH, 576]` held out, with a mean square of 1."""
    from conceptlab.data import harvest, token_rows, vital_articles
    from conceptlab.models import load_model

    lm = load_model("smollm2-135m")
    size = (BATCHES + 1) * BATCH
    rows = token_rows(lm, [a.text for a in vital_articles()], n_tokens=size + size // 20)  # separators are left out
    x = harvest(lm, rows, [LAYER]).tensor(LAYER)
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:size]]
    x = x / x.square().mean().sqrt()
    return x[BATCH:].view(BATCHES, BATCH, -1), x[:BATCH]


def _start(train: torch.Tensor) -> dict[str, torch.Tensor]:
    """Weights that all begin with: tokens as decoder rows, a tenth of their transpose as encoder."""
    mean = train.mean((0, 1))
    W_dec = torch.nn.functional.normalize(train.flatten(0, 1)[:D_SAE] - mean, dim=1)
    return {"W_dec": W_dec, "W_enc": 0.1 * W_dec.T.contiguous(), "b_dec": mean, "b_enc": torch.zeros(D_SAE)}


def _product(train: torch.Tensor, W_enc: torch.Tensor) -> Callable[[], float]:
    """Tokens per second of `x @ W_enc` alone: no exact step without other numbers than float32 is faster."""
    out = torch.empty(BATCH, D_SAE)

    def run() -> float:
        began = time.perf_counter()
        for x in train[:STEPS]:
            torch.mm(x, W_enc, out=out)
        return STEPS * BATCH / (time.perf_counter() - began)

    return run


class _Ours:
    """A training run of ours, `STEPS` steps at a time."""

    def __init__(self, start: dict[str, torch.Tensor], train: torch.Tensor, clips: bool = False):
        from conceptlab.sae import SOLO, SAEConfig, TopKSAE, TrainConfig
        from conceptlab.sae.train import _Run

        sae = TopKSAE(SAEConfig("topk", train.shape[-1], D_SAE, K, "smollm2-135m", LAYER, ""))
        sae.load_state_dict(start)
        cfg = TrainConfig(D_SAE, K, 10**9, BATCH, LR, warmup=0.0, sparsity=0.0, dead_after=10_000_000)
        self.run_, self.train, self.steps = _Run(sae, cfg, SOLO, 1.0), train, 0
        if clips:  # their loss is the squared error per token, clipped at 1; ours is divided by the variance per token
            most = BATCH / float((train[0] - train[0].mean(0)).square().sum())

            def clip(*_):
                torch.nn.utils.clip_grad_norm_(list(sae.parameters()), most)

            self.run_.optimiser.register_step_pre_hook(clip)

    def run(self) -> float:
        """Tokens per second."""
        began = time.perf_counter()
        for _ in range(STEPS):
            self.run_.update(self.steps, self.train[self.steps % len(self.train)])
            self.steps += 1
        return STEPS * BATCH / (time.perf_counter() - began)


class _Peers:
    """The process in which the peers train."""

    def __init__(self, folder: Path):
        python = _peers_python()
        versions = [line.split("==") for line in (HERE / "peers.txt").read_text().split() if "==" in line]
        self.versions = {name.removeprefix("eai-").replace("-", "_"): version for name, version in versions}
        self.fve = float("nan")  # of the peer that ran last
        env = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            [python, str(HERE / "sae_peers.py"), str(folder)], env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> "_Peers":
        return self

    def __exit__(self, *_error) -> None:
        self.process.stdin.close()
        self.process.wait(60)

    def run(self, name: str) -> float:
        """Tokens per second of `STEPS` further steps."""
        self.process.stdin.write(json.dumps({"peer": name, "steps": STEPS, "k": K}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The process of the peers ended while {name} trained; its message stands above.")
        answer = json.loads(answer)
        self.fve = answer["fve"]
        return answer["tokens_per_second"]


def _peers_python() -> str:
    """The interpreter of `build/peers-venv`, made on first use: the peers on top of the packages that are here."""
    home = HERE.parents[1] / "build" / "peers-venv"
    python, done = home / "bin" / "python", home / "installed.txt"
    wanted = (HERE / "peers.txt").read_text()
    if not done.exists() or done.read_text() != wanted:
        venv.create(home, with_pip=True, clear=True)
        site = next((home / "lib").glob("python*/site-packages"))
        (site / "parent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # torch is not downloaded twice
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "-r", HERE / "peers.txt"], check=True)
        done.write_text(wanted)
    return str(python)
