"""Figures from plain arrays: one module per notebook, one look for all."""

from .shared import interval_panels, strength_curves
from .style import COLORS, described, finish, new_figure

__all__ = ["COLORS", "described", "finish", "interval_panels", "new_figure", "strength_curves"]
