"""Long experiments: `conceptlab reproduce NAME --model M` fills data/results/NAME_<model>.csv, resumable."""

from .attacks import BUDGET, attacks, shipped_edit
from .autointerp import autointerp
from .erasure import erasure
from .layers import layers
from .merge import merge_tables
from .table import COLUMNS, ResultTable, read_table, results, table_path

EXPERIMENTS = {"attacks": attacks, "autointerp": autointerp, "erasure": erasure, "layers": layers}

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
