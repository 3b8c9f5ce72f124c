"""Configuration of Sphinx, and what the site adds to it: formulas as MathML instead of a script.

Read by Sphinx in a process of its own, so it imports nothing of the library.
"""

from html import escape
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert as latex_to_mathml

project = "Concept Lab"
author = "Concept Lab authors"
copyright = "Concept Lab authors, MIT licence; texts quoted from Wikipedia CC BY-SA 4.0"
extensions = ["myst_nb", "sphinx_copybutton"]
language = "en"
html_theme = "sphinx_book_theme"
html_title = "Concept Lab"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["course.css"]
html_js_files = ["course.js"]
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # it fetches pages, which browsers refuse for files on disk
html_show_sphinx = False
smartquotes = False
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js: dict[str, dict] = {}  # they would come from a network
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 4
myst_update_mathjax = False
suppress_warnings = ["myst.header", "myst.xref_missing", "mystnb.unknown_mime_type", "misc.highlighting_failure"]
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "toc_title": "On this page",
    "navbar_persistent": [],  # the sidebar has the search
}
html_context = {"default_mode": "auto"}


def mathml(latex: str, display: str) -> str:
    """A formula as MathML; its source as code where the converter cannot read it."""
    try:
        return latex_to_mathml(latex.strip(), display=display)
    except Exception:  # the converter raises many kinds; the page must stay readable
        return f"<code>{escape(latex.strip())}</code>"


def _inline(writer: Any, node: nodes.Element) -> None:
    writer.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.Element) -> None:
    writer.body.append(f'<div class="formula" tabindex="0">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
