"""Labels of dictionaries in data/labels: written, read, and searched by words, with both kinds of evidence.

One file per dictionary, `<model>/layer_NN.jsonl.gz`, one JSON object per feature and line, features ascending; the same
records always give the same bytes. `layer_NN.json` beside it says how they were made.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

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
    numbers = {k: tuple(round(x, 4) for x in v[:3]) for k, v in (own | dict(scores)).items() if v is not None}
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
    """Records of one file; raises ConceptLabError for a damaged one."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [_record(json.loads(line)) for line in file]
    except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
        raise ConceptLabError(
            f"{path.name} cannot be read as labels ({type(error).__name__}); fetch it again or delete it and run "
            "`conceptlab label`."
        ) from None


def _record(raw: dict) -> FeatureLabel:
    listed = {f.name: tuple(raw[f.name]) for f in fields(FeatureLabel) if isinstance(raw[f.name], list)}
    return FeatureLabel(**raw | listed | {"scores": {k: tuple(v) for k, v in raw["scores"].items()}})


# ---- search ----------------------------------------------------------------------------------------------
class Hit(NamedTuple):
    """A feature that has to do with the words asked for."""

    record: FeatureLabel
    reads: tuple[str, ...]  # items of its input side that match: it fires on or after these
    writes: tuple[str, ...]  # promoted tokens that match
    score: float  # sum over matching items of 1 / rank in their list


def search_labels(
    words: Sequence[str], records: Iterable[FeatureLabel], n: int = 10, explained_only: bool = False
) -> list[Hit]:
    """Features for some words, best first, with what matches on the input side and on the output side.

    A word matches an item that equals it, or that begins with it where the word has four letters or more; case and
    spaces do not matter. Each side counts its items by rank, so a feature that both reads and writes the words comes
    before one with as good a match on one side. Raises ConceptLabError when no word is left to search for.
    """
    wanted = [w for w in (word.strip().lower() for word in words) if w]
    if not wanted:
        raise ConceptLabError("Give at least one word to search for.")
    hits = []
    for record in records:
        if explained_only and not record.explained:
            continue
        sides = [_matches(wanted, side) for side in (record.top_tokens, record.words, record.promoted)]
        score = sum(1 / rank for side in sides for rank, _ in side)
        if score:
            reads, context, writes = (tuple(item for _, item in side) for side in sides)
            hits.append(Hit(record, tuple(dict.fromkeys(reads + context)), writes, score))
    return sorted(hits, key=lambda hit: (-hit.score, hit.record.layer, hit.record.feature))[:n]


def hit_lines(hits: Sequence[Hit], width: int = 112) -> str:
    """A table in plain text: where, how well the label detects, what matches on each side, and the label."""
    lines = [f"{'layer:feature':14}{'AUROC':7}{'reads':26}{'writes':26}label"]
    for hit in hits:
        record = hit.record
        area = f"{record.scores['detection_auroc'][0]:.2f}" if "detection_auroc" in record.scores else "-"
        reads, writes = (_shortened(", ".join(x.strip() for x in side) or "-", 24) for side in (hit.reads, hit.writes))
        line = f"{f'{record.layer}:{record.feature}':14}{area:7}{reads:26}{writes:26}{record.label}"
        lines.append(_shortened(line, width))
    return "\n".join(lines)


def _shortened(text: str, width: int) -> str:
    text = " ".join(text.split("\n"))
    return text if len(text) <= width else text[: width - 1] + "\u2026"


def _matches(wanted: Sequence[str], items: Sequence[str]) -> list[tuple[int, str]]:
    """(rank from 1, item) of the items that match a word."""
    found = []
    for rank, item in enumerate(items, 1):
        plain = item.strip().lower()
        if any(plain == word or (len(word) >= 4 and plain.startswith(word)) for word in wanted):
            found.append((rank, item))
    return found
