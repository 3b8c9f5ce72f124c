"""Long experiments: `conceptlab reproduce NAME --model M` fills data/results/NAME_<model>.csv, resumable."""

from .layers import layers
from .table import COLUMNS, ResultTable, read_table

EXPERIMENTS = {"layers": layers}

__all__ = ["COLUMNS", "EXPERIMENTS", "ResultTable", "layers", "read_table"]
