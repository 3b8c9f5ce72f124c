"""`conceptlab gpu-check`: every room on one device, check after check, with figures; `build/gpu.json` keeps them.

Random models made in code need neither network nor downloads; the bundled models are checked as well on a GPU, where
they lie in the cache. A check that fails does not stop the others. TransformerLens is optional.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import torch

from ..core import ConceptLabError, atomic_path, check_output, commit, say, versions
from ..models import cached_models, choose_device, choose_threads, memory_free
from .gpu import changing, dictionaries, judging, reading
from .gpu.bench import ON_GPU, Bench, Figures, Sizes
from .gpu.bundled import check_bundled

Check = Callable[[Bench], Figures]
CHECKS: dict[str, Check] = {**reading.CHECKS, **changing.CHECKS, **dictionaries.CHECKS, **judging.CHECKS}
MINUTES = 8.0


def check_gpu(
    device: str | None = None,
    path: Path | str = Path("build/gpu.json"),
    *,
    only: Collection[str] = (),
    minutes: float = MINUTES,
) -> dict:
    """Run every check on a device and write what each found; returns what is written.

    `device`: "cuda" (default), "cuda:1" or "cpu", where the same checks run at tiny size. `only`: names of checks.
    After `minutes` no further check is begun. Each check is written with `state` (ok, failed, not run), `reason` (one
    line, empty when ok), `seconds` and `figures`. Raises ConceptLabError before any work for a device that is not
    there, an unknown check, and a path that cannot be written.
    """
    where, path = _device(device), check_output(path)
    checks = _chosen(where, only)
    choose_threads()
    started, found = time.perf_counter(), machine(where)
    say(f"{found['name']} ({where}), torch {torch.__version__}, {len(checks)} checks")
    results = found["checks"] = {}
    with tempfile.TemporaryDirectory(prefix="conceptlab-gpu-") as folder:
        bench = Bench(where, ON_GPU if where.type == "cuda" else Sizes(), Path(folder))
        for name, check in checks.items():
            late = time.perf_counter() - started > 60 * minutes
            results[name] = _not_run(minutes) if late else _run(check, bench)
            say(_line(name, results[name]))
            shutil.rmtree(folder, ignore_errors=True)  # harvests of one check are of no use to the next
            Path(folder).mkdir(exist_ok=True)
    found["seconds"] = time.perf_counter() - started
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def failed_checks(found: dict) -> list[str]:
    """Names of the checks of a result that did not come out ok."""
    return [name for name, result in found["checks"].items() if result["state"] != "ok"]


def _device(device: str | None) -> torch.device:
    name = "cuda" if device is None else device
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConceptLabError(
            "There is no GPU that torch can use here, so nothing was checked; `conceptlab gpu-check --device cpu` runs "
            "the same checks on the CPU at tiny size."
        )
    return choose_device(name)


def _chosen(device: torch.device, only: Collection[str]) -> dict[str, Check]:
    """The checks by name; on a GPU also the bundled models that are here (a CPU would be compared with itself)."""
    checks = dict(CHECKS)
    if device.type == "cuda":
        checks |= {name: partial(check_bundled, name=name) for name in cached_models()}
    if unknown := [name for name in only if name not in checks]:
        raise ConceptLabError(f"There is no check {unknown[0]!r} here; the checks are {', '.join(checks)}.")
    return {name: check for name, check in checks.items() if not only or name in only}


def _run(check: Check, bench: Bench) -> dict:
    start, reason, figures = time.perf_counter(), "", {}
    try:
        figures = check(bench)
        bench.wait()
    except Exception as error:  # the other checks can still say something about this machine
        text = (str(error).strip() or "without a word").splitlines()[0]
        reason = text if isinstance(error, ConceptLabError) else f"{type(error).__name__}: {text}"
    if bench.is_gpu:
        torch.cuda.empty_cache()
    state, seconds = "failed" if reason else "ok", time.perf_counter() - start
    return {"state": state, "reason": reason, "seconds": seconds, "figures": figures}


def _not_run(minutes: float) -> dict:
    return {"state": "not run", "reason": f"{minutes:g} minutes were over", "seconds": 0.0, "figures": {}}


def machine(device: torch.device) -> dict:
    """What a device is: versions, name, capability, driver, memory; and the commit of the code."""
    found: dict = {
        "device": str(device), "name": "CPU", "versions": versions(), "commit": commit(), "cuda": torch.version.cuda,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "memory_free": memory_free(device),
    }  # fmt: skip
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "name": properties.name, "capability": list(torch.cuda.get_device_capability(device)),
            "driver": _driver(), "memory": properties.total_memory,
        }  # fmt: skip
    return found


def _driver() -> str:
    """Version of the kernel's driver, as it says itself; "unknown" where it does not (outside Linux)."""
    try:
        first = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return "unknown"
    words = [word for word in first.split() if word[0].isdigit() and "." in word]
    return words[0] if words else "unknown"


def _line(name: str, result: dict) -> str:
    """`scoring  ok  3.1 s  a 0.1, b 2`: what a person reads while it runs."""
    return f"{name:<16} {result['state']:<8} {result['seconds']:6.1f} s  {result['reason'] or shown(result['figures'])}"


def shown(figures: Figures) -> str:
    """Figures in one line, numbers to three digits."""
    return ", ".join(f"{name} {_short(value)}" for name, value in figures.items())


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, dict):
        return f"({shown(value)})"
    if isinstance(value, list):
        return " to ".join(map(_short, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
