"""Figures from plain arrays: one module per notebook, one look for all."""

from .style import COLORS, described, finish, new_figure

__all__ = ["COLORS", "described", "finish", "new_figure"]
