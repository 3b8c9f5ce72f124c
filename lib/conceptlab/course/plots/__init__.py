"""Figures from plain arrays: one module per notebook, one look for all."""

from .style import COLORS, finish, new_figure

__all__ = ["COLORS", "finish", "new_figure"]
