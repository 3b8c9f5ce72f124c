"""Benchmarks of ours against a peer: alternating runs in one process, medians, one line each.

A file `bench_<name>.py` holds functions `bench_<what>()` that yield `Case`s:

    def bench_projection():
        lm = load_model("smollm2-135m")
        yield Case("projection", ours=lambda: project(lm), peer=lambda: matmuls(lm), target=0.71)
"""

import csv
import importlib.util
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import torch

RUNS = 5
COLUMNS = ("name", "ours", "peer", "unit", "ratio", "target")


@dataclass(frozen=True)
class Case:
    """One comparison; a function that returns a float reports that number instead of its time."""

    name: str  # begins with projection, load, sae, label, edit, score, attacks or gcg
    ours: Callable[[], object]
    peer: Callable[[], object]
    unit: str = "s"
    target: float | None = None  # the least ratio wanted
    runs: int = RUNS  # of each side, alternating
    warmup: int = 1  # untimed runs of each side before
    ours_scale: float = 1.0  # the measured number times this, where only a sample is run
    peer_scale: float = 1.0
    lower_is_better: bool = True  # False for throughput


@dataclass(frozen=True)
class Row:
    """Medians of one case; ratio > 1 means ours is better."""

    name: str
    ours: float
    peer: float
    unit: str
    ratio: float
    target: float | None

    def __str__(self) -> str:
        wanted = "" if self.target is None else f", target {self.target:g}"
        missed = " MISSED" if self.target is not None and self.ratio < self.target else ""
        return (
            f"{self.name}: ours {self.ours:.4g} {self.unit}, peer {self.peer:.4g} {self.unit}, "
            f"ratio {self.ratio:.2f}{wanted}{missed}"
        )


def measure(case: Case) -> Row:
    """Run both sides in turn and take medians. Raises ValueError for fewer than 5 runs."""
    if case.runs < RUNS:
        raise ValueError(f"{case.name}: at least {RUNS} runs, got {case.runs}")
    for _ in range(case.warmup):
        case.ours(), case.peer()
    ours, peer = [], []
    for i in range(case.runs):
        # Swap who goes first, so that neither always runs on the other's warm caches.
        sides = [(case.ours, ours), (case.peer, peer)]
        for function, numbers in sides if i % 2 == 0 else reversed(sides):
            numbers.append(_once(function))
    a = statistics.median(ours) * case.ours_scale
    b = statistics.median(peer) * case.peer_scale
    return Row(case.name, a, b, case.unit, b / a if case.lower_is_better else a / b, case.target)


def _once(function: Callable[[], object]) -> float:
    """Seconds that one call takes, or the number that it returns."""
    start = time.perf_counter()
    result = function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return result if isinstance(result, float) else seconds


def collect(folder: Path, only: list[str]) -> Iterator[tuple[str, Callable]]:
    """The functions bench_* of the files bench_<name>.py, or of those whose <name> begins so."""
    for path in sorted(folder.glob("bench_*.py")):
        name = path.stem.removeprefix("bench_")
        if only and not name.startswith(tuple(only)):
            continue
        yield from _functions(path)


def _functions(path: Path) -> Iterator[tuple[str, Callable]]:
    """The benchmarks of one file; a file that does not import counts as a failing benchmark."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # reported by main like any other failure
        yield path.stem, _raiser(error)
        return
    for key, value in vars(module).items():
        if key.startswith("bench_") and callable(value):
            yield f"{path.stem}.{key}", value


def _raiser(error: Exception) -> Callable:
    def fail():
        raise error

    return fail


def write(rows: list[Row], path: Path) -> None:
    """Write the table, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerows(astuple(row) for row in rows)
    partial.replace(path)


def main(folder: Path, target: Path, only: list[str]) -> int:
    """Run the benchmarks, print a line each, write the table; 1 if one of them failed."""
    functions = list(collect(folder, only))
    if not functions:
        known = sorted(p.stem.removeprefix("bench_") for p in folder.glob("bench_*.py"))
        print(f"No benchmark chosen. There are: {', '.join(known) or 'none'}", file=sys.stderr)
        return 1
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {device}; ", end="")
    print(f"medians of >= {RUNS} alternating runs, ratio > 1: ours is better", flush=True)
    rows, failed = [], []
    for name, function in functions:
        try:
            for case in function():
                rows.append(measure(case))
                print(rows[-1], flush=True)
        except Exception:
            failed.append(name)
            print(f"{name}: FAILED", flush=True)
            traceback.print_exc()
        write(rows, target)
    return int(bool(failed))
