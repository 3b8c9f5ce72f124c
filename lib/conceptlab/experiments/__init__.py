"""Long experiments: `conceptlab reproduce NAME --model M` fills data/results/NAME_<model>.csv, resumable."""

import functools
from collections.abc import Callable
from pathlib import Path

from ..core import COLUMNS, read_table, results, table_path
from ..models import LanguageModel
from .attacks import BUDGET, attacks, shipped_edit
from .autointerp import autointerp
from .erasure import erasure
from .layers import layers
from .merge import merge_tables
from .table import ResultTable


def _into_table(name: str, fill: Callable) -> Callable:
    """An experiment that fills a ResultTable, with the interface of those that stand on the store."""

    @functools.wraps(fill)
    def run(lm: LanguageModel, path: Path, seed: int = 0, **chosen) -> Path:
        table = ResultTable(name, lm, path.parent, seed)
        fill(lm, table, **chosen)
        return table.path

    return run


# name -> experiment(lm, path of the table, seed=, ...), which returns the path
EXPERIMENTS = {
    "attacks": _into_table("attacks", attacks),
    "autointerp": autointerp,
    "erasure": _into_table("erasure", erasure),
    "layers": layers,
}

__all__ = [
    "BUDGET",
    "COLUMNS",
    "EXPERIMENTS",
    "ResultTable",
    "attacks",
    "autointerp",
    "erasure",
    "layers",
    "merge_tables",
    "read_table",
    "results",
    "shipped_edit",
    "table_path",
]
