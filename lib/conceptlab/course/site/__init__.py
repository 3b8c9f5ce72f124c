"""The course as a static site, built by Sphinx from committed or fresh outputs; opens from disk without a network."""

from .builder import CourseSite, Shown
from .contexts import Context, context_articles, read_contexts, write_contexts
from .stage import external_resources, write_figures

__all__ = [
    "Context",
    "CourseSite",
    "Shown",
    "context_articles",
    "external_resources",
    "read_contexts",
    "write_contexts",
    "write_figures",
]
