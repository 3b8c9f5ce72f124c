"""Foundations without a model: errors, files, packages, statistics, ranking, shares, selection."""

from .errors import ConceptLabError, NotPossible
from .files import atomic_path, cache_dir, data_dir, require_space, sha256
from .packages import Package, package_path, read_member
from .ranking import (
    Confusion,
    auroc,
    auroc_draws,
    auroc_interval,
    auroc_rows,
    balanced_accuracy_interval,
    best_direction,
    best_threshold,
    confusion,
    correlation_interval,
    draws_interval,
    f1_interval,
)
from .selection import largest
from .shares import recovered_share, share_difference
from .statistics import Interval, bootstrap, paired_bootstrap

__all__ = [
    "ConceptLabError",
    "Confusion",
    "Interval",
    "NotPossible",
    "Package",
    "atomic_path",
    "auroc",
    "auroc_draws",
    "auroc_interval",
    "auroc_rows",
    "balanced_accuracy_interval",
    "best_direction",
    "best_threshold",
    "bootstrap",
    "cache_dir",
    "confusion",
    "correlation_interval",
    "data_dir",
    "draws_interval",
    "f1_interval",
    "largest",
    "package_path",
    "paired_bootstrap",
    "read_member",
    "recovered_share",
    "require_space",
    "sha256",
    "share_difference",
]
