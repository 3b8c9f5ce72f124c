"""The course as a static site that opens from disk without a network: no script, no CDN."""

from __future__ import annotations

import base64
import re
from html import escape
from pathlib import Path

from jinja2 import Template
from latex2mathml.converter import convert as latex_to_mathml
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from ..core import ConceptLabError, atomic_path
from .decisions import decision_table
from .notebook import code_cells, tags
from .results import Result

# JupyterLab's look without its scripts; solutions folded; a figure's alternative text kept.
PAGE = """{%- extends 'lab/index.html.j2' -%}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block extra_css %}<style>
body { max-width: 62rem; margin: 0 auto; }
details.solution > summary { cursor: pointer; padding: 0.3em 0.6em; color: #555; }
math[display="block"] { margin: 0.8em 0; overflow-x: auto; }
.jp-RenderedImage img { max-width: 100%; height: auto; }
nav.course { padding: 0.8rem 1rem; font-family: system-ui, sans-serif; }
</style>{% endblock %}
{% block body_header %}{{ super() }}<nav class="course"><a href="index.html">Course</a></nav>
{% endblock %}
{% block input %}{% if cell.metadata.get('jupyter', {}).get('source_hidden') %}
<details class="solution"><summary>Show the solution</summary>{{ super() }}</details>
{% else %}{{ super() }}{% endif %}{% endblock %}
{% block data_png scoped %}
{%- set width = output | get_metadata('width', 'image/png') -%}
<div class="jp-RenderedImage jp-OutputArea-output">
<img src="data:image/png;base64,{{ output.data['image/png'] | escape_html }}"
 alt="{{ output | get_metadata('alt', 'image/png') or 'Figure drawn by the code above' }}"
 {% if width is not none %}width="{{ width }}"{% endif %}></div>
{% endblock %}
"""


INDEX = Template(
    """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Concept Lab</title>
<style>
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1.2rem; margin-top: 1.2rem; }
a.card { display: flex; flex-direction: column; color: inherit; text-decoration: none;
  border: 1px solid #8886; border-radius: 8px; overflow: hidden; }
a.card:hover, a.card:focus { border-color: #36c; }
a.card img, a.card .blank { width: 100%; height: 12rem; object-fit: contain; background: #fff; }
a.card div.text { padding: 0.8rem 1rem; }
h2 { font-size: 1.05rem; margin: 0 0 0.3rem; } p { margin: 0.3rem 0; }
.small { font-size: 0.85rem; opacity: 0.8; } .failed { color: #c22; }
</style></head><body>
<h1>Concept Lab</h1>
<p>What a language model knows, where it is stored, and whether it can be erased.
Profile <b>{{ profile }}</b>. Numbers are from the last run of each notebook.</p>
<main>
{%- for c in cards %}
<a class="card"{% if c.page %} href="{{ c.page }}"{% endif %}>
{%- if c.thumbnail %}<img src="{{ c.thumbnail }}" alt="Figure from {{ c.name }}">
{%- else %}<div class="blank"></div>{% endif %}
<div class="text"><p class="small">{{ c.name }}</p><h2>{{ c.question }}</h2>
{%- if c.headline %}<p>{{ c.headline }}</p>{% endif %}
<p class="small">{{ "%.1f" | format(c.minutes) }} min
{%- if c.error %} <span class="failed">stopped at an error</span>{% endif %}</p>
</div></a>
{%- endfor %}
</main>
{%- for name, label in docs.items() %}
<p><a href="{{ name }}.html">{{ label }}</a></p>
{%- endfor %}
<h2>Which method for which question?</h2>
{{ decisions }}
</body></html>
""",
    autoescape=True,
)


# pages of docs/ that notebooks link to, and what the index calls them
SITE_DOCS = {"glossary": "Glossary", "reproductions": "Figures of papers in miniature"}


DOC = Template(
    """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Concept Lab: {{ title }}</title><style>
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
th, td { border-bottom: 1px solid #8886; padding: 0.3rem 0.6rem; text-align: left; }
</style></head><body><nav><a href="index.html">Course</a></nav>{{ body }}</body></html>
"""
)


# Anything that a page would fetch from elsewhere when opened (links to click are fine).
EXTERNAL = re.compile(
    r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|(?:@import\s+|import\s*\(\s*)["'](https?://[^"']+)|url\(\s*["']?(https?://[^"')]+)""",
    re.I,
)


class MathMLRenderer(IPythonRenderer):
    """Markdown whose formulas become MathML, and whose links lead to the site's pages."""

    def block_math(self, body: str) -> str:
        return mathml(body, "block")

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")

    def link(self, text: str, url: str, title: str | None = None) -> str:
        url = re.sub(r"^([\w./-]+)\.ipynb(?=$|#)", r"\1.html", url)
        return super().link(text, re.sub(r"^(?:\.\./docs/)?([\w-]+)\.md(?=$|#)", r"\1.html", url), title)

    def heading(self, text: str, level: int, **attrs: object) -> str:
        anchor = slug(re.sub(r"<[^>]+>", "", text))
        return f'<h{level} id="{anchor}">{text}</h{level}>\n'


class OfflineHTMLExporter(HTMLExporter):
    """nbconvert's page without anything that comes from a network."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.raw_template = PAGE

    def default_filters(self):
        yield from super().default_filters()
        yield (
            "markdown2html",
            lambda source: MarkdownWithMath(renderer=MathMLRenderer(escape=False)).render(source),
        )


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def write_doc(path: Path, site: Path) -> None:
    """Write a Markdown page of docs/ as a page of the site."""
    body = MarkdownWithMath(renderer=MathMLRenderer(escape=False)).render(path.read_text(encoding="utf-8"))
    with atomic_path(site / f"{path.stem}.html") as temporary:
        temporary.write_text(DOC.render(title=path.stem, body=body), encoding="utf-8")


def mathml(latex: str, display: str) -> str:
    """A formula as MathML; its source as code where the converter cannot read it."""
    try:
        return latex_to_mathml(latex.strip(), display=display)
    except Exception:  # the converter raises many kinds; the page must stay readable
        return f"<code>{escape(latex.strip())}</code>"


def write_page(nb: NotebookNode, path: Path, heading: str) -> None:
    """Write a notebook as one self-contained HTML file.

    Raises ConceptLabError if the page would fetch something from the network, cannot be made, or cannot be written;
    an older page is then gone.
    """
    path.unlink(missing_ok=True)
    try:
        html, _ = OfflineHTMLExporter().from_notebook_node(nb, resources={"metadata": {"name": heading}})
    except Exception as error:  # nbconvert, Jinja and mistune raise many kinds
        told = " ".join(str(error).split())[:200]
        raise ConceptLabError(f"{path.name} could not be made ({type(error).__name__}: {told}).") from error
    if found := external_resources(html):
        raise ConceptLabError(
            f"{path.name} would load from the network: {', '.join(found)}; take that out of the cells or their outputs."
        )
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def external_resources(html: str) -> list[str]:
    """What the page would load from elsewhere."""
    return [next(filter(None, match.groups())) for match in EXTERNAL.finditer(html)]


def write_figures(nb: NotebookNode, folder: Path) -> Path | None:
    """Write every PNG output as NN.png; return the thumbnail: first tagged `headline`, or first."""
    for old in folder.glob("*.png"):
        old.unlink()
    figures: list[tuple[bool, Path]] = []
    for cell in code_cells(nb):
        for output in cell.outputs:
            if png := output.get("data", {}).get("image/png"):
                figures.append(("headline" in tags(cell), folder / f"{len(figures):02d}.png"))
                with atomic_path(figures[-1][1]) as temporary:
                    temporary.write_bytes(_decoded(png))
    tagged = [path for chosen, path in figures if chosen]
    return next(iter(tagged or [path for _, path in figures]), None)


def _decoded(png: str) -> bytes:
    try:
        return base64.b64decode(png)
    except ValueError:
        raise ConceptLabError("A PNG among the outputs is not base64; draw that figure again.") from None


def write_index(results: dict[str, Result], site: Path, profile: str) -> None:
    """Write index.html: one card per notebook that has run."""
    cards = [
        {**vars(result), "name": name, "headline": str(result.headline or "")}
        for name, result in sorted(results.items())
    ]
    decisions = decision_table()._repr_html_()
    docs = {name: label for name, label in SITE_DOCS.items() if (site / f"{name}.html").exists()}
    with atomic_path(site / "index.html") as temporary:
        temporary.write_text(
            INDEX.render(cards=cards, profile=profile, decisions=Markup(decisions), docs=docs), encoding="utf-8"
        )
