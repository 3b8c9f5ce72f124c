"""Checks of exercises: one module per notebook. They print graded feedback, return points and never raise."""

from .answers import use
from .feedback import check_equal, check_true, check_written, passed

__all__ = ["check_equal", "check_true", "check_written", "passed", "use"]
