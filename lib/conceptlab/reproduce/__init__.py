"""Long experiments: `conceptlab reproduce NAME --model M` fills data/results/NAME_<model>.csv, resumable."""

from .autointerp import autointerp
from .layers import layers
from .table import COLUMNS, ResultTable, read_table

EXPERIMENTS = {"autointerp": autointerp, "layers": layers}

__all__ = ["COLUMNS", "EXPERIMENTS", "ResultTable", "autointerp", "layers", "read_table"]
