"""Where a model computes: device, number type, memory and threads, each decided in one place.

Measured on 2 cores with a loop of products of the size of SmolLM2's MLP for 32 tokens (steps per second, the range
over several runs; first beside 1 or 2 other busy threads, then beside 3 to 13):

    2 threads, torch as it comes (waiting threads spin)      1.7 to 2.0       0.1 to 0.7
    2 threads, OMP_WAIT_POLICY=passive                       5.1 to 5.6       4.4 to 12.6
    2 threads, GOMP_SPINCOUNT=1000                           5.1 to 6.2       3.5 to 10.4
    2 threads, GOMP_SPINCOUNT=10000 or 20000                 4.2 to 6.2       0.7 to 5.2
    1 thread                                                 14.2 to 14.6     2.8 to 9.4

Alone, waiting passively costs a quarter (11.7 instead of 16.0 steps per second, measured before on the same kind of
machine); beside others, spinning costs nine tenths. So threads wait passively (set by `conceptlab.__init__`, since it
must be there before torch is imported), and a busy machine gets only as many threads as it has cores free.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..core import ConceptLabError, say

BATCH_TOKENS = 512  # tokens of the batch whose activations are counted in the estimate of memory
_THREADS_ARE_SET: list[int] = []  # the number chosen, once per process


# ---- device and number type ---------------------------------------------------------------------------------
def choose_device(device: str | None = None) -> torch.device:
    """The device that was asked for, or CUDA where there is one. Raises ConceptLabError for one that is not there."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    known: list[str] = ["cpu", *(["cuda"] if found else []), *(f"cuda:{i}" for i in range(found))]
    if torch.backends.mps.is_available():
        known.append("mps")
    name = ("cuda" if found else "cpu") if device is None else device
    if name in known:
        return torch.device(name)
    if str(name).startswith("cuda") and not found:
        raise ConceptLabError("There is no GPU that torch can use here; load the model with device='cpu'.")
    raise ConceptLabError(f"There is no device {name!r} here; there are {', '.join(known)}.")


def choose_dtype(device: torch.device, model_type: str, dtype: torch.dtype | None = None) -> torch.dtype:
    """float32 on a CPU; on a GPU bfloat16 where the chip computes with it (capability 8, Ampere), else float32.

    `model_type`: the configuration's. Gemma's residual stream overflows in float16, so that is refused.
    """
    if dtype is torch.float16 and model_type.startswith("gemma"):
        raise ConceptLabError(
            f"Gemma overflows in float16; load it in {str(choose_dtype(device, model_type)).removeprefix('torch.')}."
        )
    if dtype is not None:
        if dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            raise ConceptLabError(
                f"{dtype!r} is no number type to compute in; choose torch.float32, torch.bfloat16 or torch.float16."
            )
        return dtype
    fast = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
    return torch.bfloat16 if fast else torch.float32


# ---- memory -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Memory:
    """Bytes that a model takes."""

    weights: int
    activations: int  # of one batch of `BATCH_TOKENS` tokens, forward, its logits once more in float32

    @property
    def parts(self) -> dict[str, int]:
        """What the bytes are for -> how many."""
        return {"of weights": self.weights, f"for a batch of {BATCH_TOKENS} tokens": self.activations}

    def __str__(self) -> str:
        return _listed(self.parts)


def memory_needed(skeleton: Any, dtype: torch.dtype) -> Memory:
    """What a model will take in `dtype`, from its skeleton (a model without weights, on torch's meta device)."""
    n_parameters = sum(p.numel() for p in skeleton.parameters())
    d_vocab, d_model = skeleton.get_output_embeddings().weight.shape
    return Memory(n_parameters * dtype.itemsize, BATCH_TOKENS * bytes_per_token(d_vocab, d_model, dtype))


def bytes_per_token(d_vocab: int, d_model: int, dtype: torch.dtype) -> int:
    """What a token takes in a forward pass: its logits, once more in float32, and the states of one block."""
    return d_vocab * (dtype.itemsize + 4) + 16 * d_model * dtype.itemsize  # a block's states are freed behind it


def rows_that_fit(lm: Any, n_tokens: int, least: int, most: int = 1_024) -> int:
    """Rows of `n_tokens` that a forward pass of a loaded model can take at once: a power of two up to `most`.

    On a GPU as many as half of its free memory holds, at least one; elsewhere `least`, since a CPU is no faster with
    more. `lm`: a LanguageModel, which this module stands below.
    """
    free = memory_free(lm.device) if lm.device.type == "cuda" else None
    if free is None:
        return least
    fit = free // 2 // (n_tokens * bytes_per_token(lm.d_vocab, lm.d_model, lm.dtype))
    return 1 << max(0, min(int(fit), most).bit_length() - 1)


def memory_free(device: torch.device) -> int | None:
    """Free bytes of a device; None where it cannot be found out."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    free = [n for n in (_free_of_machine(), _free_of_group()) if n is not None]
    return min(free, default=None)


def require_memory(name: str, need: Memory, device: torch.device) -> None:
    """Raise, with the number, where a device lacks the memory for a model."""
    _require(name, need.parts, device, "choose a smaller model, a smaller dtype or another device")


def require_training_memory(what: str, parts: Mapping[str, int], device: torch.device) -> None:
    """Say what a training will take beside all that is there already, and raise, with the number, where that is more
    than a device has free: before the first step, not after an hour.

    `parts`: what the bytes are for ("of gradients") -> how many. On a CPU of which it takes less than half, nothing is
    said.
    """
    advice = "train fewer weights or features, take smaller batches, or another device"
    free = _require(what, parts, device, advice)
    if device.type != "cpu" or (free is not None and sum(parts.values()) > free / 2):
        room = "" if free is None else f"; {free / 1e9:.1f} GB are free"
        say(f"{what}: about {_listed(parts)} on {device}{room}")


def optimiser_memory(n_weights: int, dtype: torch.dtype) -> dict[str, int]:
    """Bytes that a step of Adam takes for so many weights: gradients, two moments, and float32 masters with their own
    gradients and the weights at the start where the weights are in half precision."""
    parts = {"of gradients": n_weights * dtype.itemsize, "of Adam's moments": n_weights * 2 * max(4, dtype.itemsize)}
    if dtype.itemsize < 4:
        parts["of float32 masters"] = n_weights * (4 + 4 + dtype.itemsize)
    return parts


def backward_memory(lm: Any, n_tokens: int) -> dict[str, int]:
    """Bytes that `n_tokens` take forward and back: what every block keeps for its gradients, and the logits.

    A block keeps some 12 vectors of the residual stream's width and 4 of the MLP's. `lm`: a LanguageModel.
    """
    block = (12 * lm.d_model + 4 * lm.d_mlp) * lm.dtype.itemsize
    logits = lm.d_vocab * (lm.dtype.itemsize + 8)  # once more in float32, and their gradients
    return {f"for {n_tokens} tokens forward and back": n_tokens * (lm.n_layers * block + logits)}


def _require(what: str, parts: Mapping[str, int], device: torch.device, advice: str) -> int | None:
    free = memory_free(device)
    if free is not None and sum(parts.values()) > free:
        raise ConceptLabError(f"{what} needs {_listed(parts)}, and {device} has {free / 1e9:.1f} GB free; {advice}.")
    return free


def _listed(parts: Mapping[str, int]) -> str:
    *first, last = [f"{n / 1e9:.1f} GB {what}" for what, n in parts.items()]
    return f"{', '.join(first)} and {last}" if first else last


def _free_of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        kilobytes = {key: int(value.split()[0]) for key, value in (line.split(":") for line in lines)}
        return 1024 * (kilobytes["MemAvailable"] + kilobytes.get("SwapFree", 0))
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _free_of_group() -> int | None:
    """What is left of the limit of a container (control groups, version 2)."""
    try:
        limit, used = (
            int((Path("/sys/fs/cgroup") / name).read_text(encoding="utf-8"))
            for name in ("memory.max", "memory.current")
        )
        return max(0, limit - used)
    except (OSError, ValueError):  # no such file, or "max"
        return None


# ---- threads ------------------------------------------------------------------------------------------------
def cores() -> int:
    """Cores that this process may use, as the scheduler and the container's quota have it."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for path, split in (("cpu.max", True), ("cpu/cpu.cfs_quota_us", False)):
        try:
            words = (Path("/sys/fs/cgroup") / path).read_text(encoding="utf-8").split()
            period = words[1] if split else Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text(encoding="utf-8")
            if int(words[0]) > 0:
                allowed = min(allowed, max(1, int(words[0]) // int(period)))
        except (OSError, ValueError, IndexError):  # no such file, or "max": no quota
            continue
    return allowed


def busy_elsewhere(samples: int = 20, pause: float = 0.005) -> float:
    """Threads of other processes that run at this moment, on average over `samples` looks `pause` seconds apart."""
    try:
        looks = []
        for _ in range(samples):
            looks.append(int(Path("/proc/loadavg").read_text(encoding="utf-8").split()[3].split("/")[0]) - 1)
            time.sleep(pause)
        return max(0.0, sum(looks) / len(looks))
    except (OSError, ValueError, IndexError):  # no Linux
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def choose_threads() -> int:
    """Give torch as many threads as there are cores free, at least one; once per process, and only if nobody has.

    OMP_NUM_THREADS, MKL_NUM_THREADS and an earlier `torch.set_num_threads` are left as they are. Returns the number.
    """
    if not _THREADS_ARE_SET:
        n, available = torch.get_num_threads(), cores()
        untouched = not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys() and n >= available
        if untouched and n > 1:
            n = max(1, round(available - busy_elsewhere()))
            torch.set_num_threads(n)
        _THREADS_ARE_SET.append(n)
    return _THREADS_ARE_SET[0]
