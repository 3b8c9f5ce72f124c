"""Foundations without a model: errors, files, packages, results, statistics, ranking, shares, selection."""

from .console import say
from .errors import ConceptLabError, NotPossible
from .files import atomic_path, cache_dir, check_output, data_dir, require_space, sha256
from .interrupts import hold_signals, protect, release_signals
from .merging import merge
from .packages import Package, package_path, read_member
from .provenance import commit, versions
from .ranking import (
    Confusion,
    auroc,
    auroc_draws,
    auroc_interval,
    auroc_rows,
    balanced_accuracy_interval,
    best_threshold,
    confusion,
    correlation_interval,
    draws_interval,
    f1_interval,
)
from .selection import largest
from .shares import recovered_share, share_difference, share_of_means
from .statistics import (
    Interval,
    binomial_draws,
    bootstrap,
    clustered,
    combined,
    exact_levels,
    interval_of,
    mean_interval,
    paired_bootstrap,
    proportion,
    t_quantile,
    widened,
)
from .store import Store
from .tables import COLUMNS, KEY, POOLED, Cell, Contents, contents, read_table, results, row_interval, table_path

__all__ = [
    "COLUMNS",
    "Cell",
    "ConceptLabError",
    "Confusion",
    "Contents",
    "Interval",
    "KEY",
    "NotPossible",
    "POOLED",
    "Package",
    "Store",
    "atomic_path",
    "auroc",
    "auroc_draws",
    "auroc_interval",
    "auroc_rows",
    "balanced_accuracy_interval",
    "best_threshold",
    "binomial_draws",
    "bootstrap",
    "cache_dir",
    "check_output",
    "clustered",
    "combined",
    "commit",
    "confusion",
    "contents",
    "correlation_interval",
    "data_dir",
    "draws_interval",
    "exact_levels",
    "f1_interval",
    "hold_signals",
    "interval_of",
    "largest",
    "mean_interval",
    "merge",
    "package_path",
    "paired_bootstrap",
    "protect",
    "proportion",
    "read_member",
    "read_table",
    "recovered_share",
    "release_signals",
    "require_space",
    "results",
    "row_interval",
    "say",
    "sha256",
    "share_difference",
    "share_of_means",
    "t_quantile",
    "table_path",
    "versions",
    "widened",
]
