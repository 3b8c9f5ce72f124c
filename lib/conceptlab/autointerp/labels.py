"""Labels of dictionaries in data/labels: written, and read by one validating reader.

One file per dictionary, `<model>/layer_NN.jsonl.gz`, one JSON object per feature and line, features ascending; the same
records always give the same bytes. `layer_NN.json` beside it says how they were made.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..core import ConceptLabError, Interval, atomic_path, data_dir
from .explain import Label
from .score import UNEXPLAINED, Detection


@dataclass(frozen=True)
class FeatureLabel:
    """What is known about one feature of a dictionary."""

    layer: int
    feature: int
    label: str  # the line, or "unexplained" where it does no better than the labels of other features
    method: str  # name of the explainer
    explained: bool
    rate: float  # share of tokens on which it fires
    scores: Mapping[str, tuple[float, float, float]]  # metric -> value, low, high (95 % interval over contexts)
    control_high: float | None  # upper end of the 95 % range of the foreign labels' detection AUROC
    top_tokens: tuple[str, ...] = ()  # over-represented where it fires, strongest first
    words: tuple[str, ...] = ()  # over-represented in front of its firings
    promoted: tuple[str, ...] = ()  # tokens that its direction promotes


def feature_label(
    layer: int, detection: Detection, scores: Mapping[str, Interval | None], reads: Label, writes: Label
) -> FeatureLabel:
    """The record of a scored label: detection's own numbers first, then `scores` (None: not measurable).

    `reads` and `writes`: the labels of both sides, from which the searchable items come.
    """
    own = {
        "detection_auroc": detection.auroc,
        "hard_auroc": detection.hard,
        "balanced_accuracy": detection.balanced_accuracy,
        "f1": detection.f1,
    }
    numbers = {
        k: (round(v.value, 4), round(v.low, 4), round(v.high, 4))
        for k, v in (own | dict(scores)).items()
        if v is not None
    }
    return FeatureLabel(
        layer, reads.unit, detection.text, detection.label.method, detection.explained, _short(detection.rate), numbers,
        round(detection.control_high, 4), tuple(reads.tokens), tuple(reads.words), tuple(writes.promotes),
    )  # fmt: skip


def silent_label(layer: int, feature: int, method: str, rate: float, promoted: Sequence[str] = ()) -> FeatureLabel:
    """The record of a feature that fires too seldom to be labelled: unexplained, without scores."""
    return FeatureLabel(layer, feature, UNEXPLAINED, method, False, _short(rate), {}, None, promoted=tuple(promoted))


def _short(number: float) -> float:
    return float(f"{number:.4g}")


# ---- files -----------------------------------------------------------------------------------------------
def labels_path(model: str, layer: int, root: Path | None = None) -> Path:
    """Where the labels of a layer lie (default root: data/labels)."""
    return (root or data_dir() / "labels") / model.replace("/", "_") / f"layer_{layer:02d}.jsonl.gz"


def check_label_folder(root: Path | None) -> None:
    """Raise ConceptLabError unless labels can be written below `root` (None: data/labels), before any work is done."""
    root = root or data_dir() / "labels"
    there = next(path for path in (root, *root.absolute().parents) if path.exists() or path.is_symlink())
    if not there.is_dir():
        raise ConceptLabError(f"Labels are written into a folder, and {there} is a file; choose another --out.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConceptLabError(f"The folder {there} cannot be written to; choose another --out.")


def labelled_layers(model: str, root: Path | None = None) -> tuple[int, ...]:
    """Layers of `model` whose labels are there."""
    folder = labels_path(model, 0, root).parent
    return tuple(sorted(int(re.sub(r"\D", "", path.name)) for path in folder.glob("layer_??.jsonl.gz")))


def write_labels(path: Path, records: Iterable[FeatureLabel]) -> None:
    """Write records (atomic); the bytes depend on the records alone, not on their order or the time."""
    lines = [json.dumps(asdict(r), ensure_ascii=False) for r in sorted(records, key=lambda r: r.feature)]
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
            packed.write("".join(f"{line}\n" for line in lines).encode())


def read_labels(model: str, layer: int, root: Path | None = None) -> list[FeatureLabel]:
    """The labels of a layer, features ascending. Raises ConceptLabError when there are none or they cannot be read."""
    path = labels_path(model, layer, root)
    if not path.exists():
        there = ", ".join(map(str, labelled_layers(model, root))) or "none"
        raise ConceptLabError(
            f"There are no labels of {model}, layer {layer} (labelled layers: {there}); make them with "
            f"`conceptlab label --model {model} --layers {layer}`."
        )
    return load_records(path)


def load_records(path: Path) -> list[FeatureLabel]:
    """Records of one file. Raises ConceptLabError for a file that is damaged, empty or no label file."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _unreadable(path, type(error).__name__) from None
    if not lines:
        raise _unreadable(path, "it is empty")
    records = [_record(line, path, number) for number, line in enumerate(lines, 1)]
    if len({(r.layer, r.feature) for r in records}) < len(records):
        raise _unreadable(path, "a feature is in it twice")
    return records


def _unreadable(path: Path, why: str) -> ConceptLabError:
    return ConceptLabError(
        f"{path.name} cannot be read as labels ({why}); fetch it again or delete it and run `conceptlab label`."
    )


def _record(line: str, path: Path, number: int) -> FeatureLabel:
    """One line as a record: every field there, of its type, no other."""
    try:
        raw = json.loads(line)
        names = {f.name for f in fields(FeatureLabel)}
        if not isinstance(raw, dict) or set(raw) != names:
            raise ValueError("fields")
        wrong = [name for name, right in _RIGHT.items() if not right(raw[name])]
    except (ValueError, RecursionError):
        raise _unreadable(path, f"line {number} is no record") from None
    if wrong:
        raise _unreadable(path, f"line {number}: {wrong[0]}")
    listed = {name: tuple(raw[name]) for name in ("top_tokens", "words", "promoted")}
    return FeatureLabel(**raw | listed | {"scores": {k: tuple(v) for k, v in raw["scores"].items()}})


def _count(x: object) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and x >= 0


def _share(x: object) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x <= 1


def _texts(x: object) -> bool:
    return isinstance(x, list) and all(isinstance(item, str) for item in x)


def _scores(x: object) -> bool:
    return isinstance(x, dict) and all(
        isinstance(v, list) and len(v) == 3 and all(type(n) in (int, float) and math.isfinite(n) for n in v)
        for v in x.values()
    )


_RIGHT = {
    "layer": _count,
    "feature": _count,
    "label": lambda x: isinstance(x, str),
    "method": lambda x: isinstance(x, str),
    "explained": lambda x: isinstance(x, bool),
    "rate": _share,
    "scores": _scores,
    "control_high": lambda x: x is None or _share(x),
    "top_tokens": _texts,
    "words": _texts,
    "promoted": _texts,
}
