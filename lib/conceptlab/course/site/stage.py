"""Notebooks and pages as Sphinx reads them: solutions folded, figures with alternative texts, no dead link."""

from __future__ import annotations

import base64
import copy
import io
import re
from collections.abc import Collection
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from PIL import Image

from ...core import ConceptLabError, atomic_path
from ..notebook import code_cells, tags, texts
from .recorded import CALLS, TITLES

# Anything that a page would fetch from elsewhere when opened (links to click are fine).
EXTERNAL = re.compile(
    r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|(?:@import\s+|import\s*\(\s*)["'](https?://[^"']+)|url\(\s*["']?(https?://[^"')]+)""",
    re.I,
)
FORMULA = re.compile(r"(?m)^(?![>|\s*-])([^\n$]*)(\$\$[^$]+\$\$)[ \t]*([^\n]*)$")
LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(([^)\s]+)\)")


def external_resources(html: str) -> list[str]:
    """What the page would load from elsewhere."""
    return [next(filter(None, match.groups())) for match in EXTERNAL.finditer(html)]


def staged(nb: NotebookNode, name: str) -> NotebookNode:
    """A copy for the site. Raises ConceptLabError if a cell or an output would load something from the network."""
    nb = copy.deepcopy(nb)
    nb.metadata.setdefault("language_info", {"name": "python"})  # what colours the code; not every copy names it
    nb.metadata.language_info.setdefault("pygments_lexer", "ipython3")
    shown = [c.source for c in nb.cells if c.cell_type == "markdown"]
    shown += [t for c in code_cells(nb) for t in texts([o.get("data", {}) for o in c.outputs])]
    if found := [address for text in shown for address in external_resources(text)]:
        raise ConceptLabError(
            f"{name} would load from the network: {', '.join(found)}; take that out of the cells or their outputs."
        )
    heading = ""
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = formulas_apart(cell.source)
            heads = re.findall(r"^#{1,4}\s+(.+)$", cell.source, re.M)
            heading = heads[-1] if heads else heading
            continue
        _mark(cell, re.sub(r"[`$*]", "", heading))
    return nb


def noted(nb: NotebookNode, pages: Collection[str]) -> NotebookNode:
    """The notebook with a line below every cell that makes a widget: where its recorded states are, and from a
    feature browser to the search over all features.

    `pages`: those that there are.
    """
    cells = []
    for cell in nb.cells:
        cells.append(cell)
        names = [page for call, page in CALLS.items() if cell.cell_type == "code" and call in cell.source]
        links = [f"[{TITLES[page]}](/{page}.md)" for page in dict.fromkeys(names) if page in pages]
        if "recorded_features" in names and "browser" in pages:
            links.append("[all labelled features, with a search](/browser.md)")
        if links:
            cells.append(new_markdown_cell(f"*A page has no model to ask. What it can show: {', '.join(links)}.*"))
    nb.cells = cells
    return nb


def formulas_apart(text: str) -> str:
    """Markdown in which displayed formulas are paragraphs of their own.

    JupyterLab shows `$$...$$` between two lines of text as well; MyST would take the words behind it for mathematics.
    Formulas inside quotes, lists and tables are left.
    """
    apart = FORMULA.sub(lambda m: "\n\n".join(part for part in ("", *m.groups(), "") if part or not m[1]), text)
    return re.sub(r"\n{3,}", "\n\n", apart)


def _mark(cell: NotebookNode, heading: str) -> None:
    """Tags and settings of MyST-NB for one code cell; `heading`: of its section."""
    marked = set(tags(cell))
    if "colab" in marked:
        marked.add("remove-cell")
    options: dict[str, object] = {}
    if cell.metadata.get("jupyter", {}).get("source_hidden"):
        marked.add("hide-input")
        options |= {"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
    pictures = [o for o in cell.outputs if "image/png" in o.get("data", {})]
    if pictures:
        options["image"] = {"alt": "; ".join(alternative(o, heading) for o in pictures)}
    cell.metadata["tags"] = sorted(marked)
    if options:
        cell.metadata["mystnb"] = options


def alternative(output: NotebookNode, heading: str) -> str:
    """The alternative text of a figure: its own (claim and main number), else where it stands."""
    about = output.get("metadata", {})
    text = about.get("image/png", {}).get("alt") or about.get("alt")
    return " ".join((text or f"Figure of the section: {heading}").split())


def local_links(text: str, pages: set[str]) -> str:
    """Markdown whose links lead to pages of the site or to addresses; other links become their words.

    `pages`: staged documents without suffix. A link to `docs/x.md`, `../README.md` or a file of code has no page.
    """

    def changed(match: re.Match[str]) -> str:
        words, target = match.groups()
        if re.match(r"https?://|mailto:|#", target):
            return match.group(0)
        path, _, anchor = target.partition("#")
        page = re.sub(r"\.(md|ipynb)$", "", path.rsplit("/", 1)[-1])
        if page not in pages:
            return words
        return f"[{words}](/{page}.{'ipynb' if path.endswith('.ipynb') else 'md'}{'#' + anchor if anchor else ''})"

    return LINK.sub(changed, text)


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


def thumbnail(figure: Path, target: Path, width: int = 640, height: int = 360) -> None:
    """A figure on a white card of one size for all; a file that Pillow cannot read is copied."""
    with atomic_path(target) as temporary:
        try:
            image = Image.open(figure).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            temporary.write_bytes(figure.read_bytes())
            return
        image.thumbnail((width - 24, height - 24), Image.Resampling.LANCZOS)
        card = Image.new("RGB", (width, height), "white")
        card.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        out = io.BytesIO()
        card.quantize(128, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        temporary.write_bytes(out.getvalue())


def _decoded(png: str) -> bytes:
    try:
        return base64.b64decode(png)
    except ValueError:
        raise ConceptLabError("A PNG among the outputs is not base64; draw that figure again.") from None
