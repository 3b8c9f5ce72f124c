"""Labels in the layout of Neuronpedia's exports: `v1/MODEL/SOURCE/explanations/batch-N.jsonl.gz`.

One JSON object per line with the columns of its explanations, at most 1,024 lines per file, ordered by index. The ids
of models and sources are its own names for them; ours are `<layer>-conceptlab-mlp-out`. Scores have no column there.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from ..core import ConceptLabError, atomic_path
from .labels import FeatureLabel

BATCH = 1024  # lines of a file

AUTHOR = "conceptlab"

_NUMBERS = ("umap_x", "umap_y", "umap_cluster", "umap_log_feature_sparsity")


def write_neuronpedia(records: Sequence[FeatureLabel], model: str, root: Path) -> list[Path]:
    """Write the explained features of one layer below `root`; returns the files.

    An unexplained feature has no row, as there. Raises ConceptLabError for records of several layers, or of none.
    """
    layers = {record.layer for record in records}
    if len(layers) != 1:
        raise ConceptLabError(f"An export holds one layer's labels; got {len(layers)} layers.")
    source = f"{layers.pop()}-conceptlab-mlp-out"
    rows = [_row(r, _model_id(model), source) for r in records if r.explained]
    rows.sort(key=lambda row: row["index"])  # as texts: so are the indices of the exports
    folder = root / "v1" / _model_id(model) / source / "explanations"
    paths = []
    for number in range(-(-len(rows) // BATCH)):
        lines = [json.dumps(row) + "\n" for row in rows[number * BATCH : (number + 1) * BATCH]]
        paths.append(folder / f"batch-{number}.jsonl.gz")
        with atomic_path(paths[-1]) as temporary, open(temporary, "wb") as file:
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                packed.write("".join(lines).encode("utf-8"))
    return paths


def _model_id(model: str) -> str:
    """Letters, digits, underscores and dashes, in lower case: all that an id may hold there."""
    return re.sub(r"[^a-z0-9_-]+", "-", model.lower()).strip("-")[:128]


def _row(record: FeatureLabel, model: str, source: str) -> dict:
    digest = hashlib.sha256(f"{model}/{source}/{record.feature}".encode()).hexdigest()
    return {
        "id": f"c{digest[:24]}", "modelId": model, "layer": source, "index": str(record.feature), "authorId": AUTHOR,
        "description": record.label, "embedding": None, "typeName": f"conceptlab_{record.method}",
        "explanationModelName": None, **dict.fromkeys(_NUMBERS),
    }  # fmt: skip
