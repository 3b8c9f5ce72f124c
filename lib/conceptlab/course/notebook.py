"""Notebooks as files: what the committed copies hold, and the copies without solutions."""

from __future__ import annotations

import base64
import copy
import io
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
from nbformat import NotebookNode
from PIL import Image

from ..core import ConceptLabError, atomic_path

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


PLACEHOLDER = "# your code here"


WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


KEPT_METADATA = {"kernelspec", "language_info"}


TIMING_METADATA = {"execution", "ExecuteTime", "papermill"}


# A path into the folders where people, CI and Colab keep things, on Linux, macOS or Windows.
# It starts a word, so that relative paths and web addresses do not match.
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.~/:-])/(?:home|root|Users|tmp|var|private|mnt|opt|usr|srv|work|content|workspace)/[\w.]"
    r"|(?<!\w)[A-Za-z]:\\{1,2}(?:Users|Temp|Windows)\\"
)


def read(path: Path) -> NotebookNode:
    """Read a notebook as nbformat 4. Raises ConceptLabError for a file that is none, or cannot be read."""
    try:
        nb = nbformat.read(path, as_version=4)
        nbformat.validate(nb)
        return nb
    except Exception as error:  # nbformat raises many kinds
        told = " ".join(str(error).split())[:200]
        told = f"{type(error).__name__}: {told}"
        raise ConceptLabError(f"{path.name} is no notebook that can be read ({told}).") from None


def write(nb: NotebookNode, path: Path) -> None:
    """Validate and write a notebook atomically, making its folder."""
    nbformat.validate(nb)
    with atomic_path(path) as temporary:
        nbformat.write(nb, temporary)


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    """The code cells, in order."""
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def tags(cell: NotebookNode) -> list[str]:
    """The cell's tags."""
    return cell.metadata.get("tags", [])


def title(nb: NotebookNode) -> str:
    """The first heading of the notebook: its question."""
    for cell in nb.cells:
        match = re.search(r"^#\s+(.+)$", cell.source, re.M)
        if cell.cell_type == "markdown" and match:
            return match.group(1).strip()
    return ""


def clean(nb: NotebookNode) -> NotebookNode:
    """A copy as it is committed: no widget state, no widget views, no timing; cell ids kept."""
    nb = copy.deepcopy(nb)
    nb.metadata = NotebookNode({k: v for k, v in nb.metadata.items() if k in KEPT_METADATA})
    nb.metadata.get("language_info", {}).pop("version", None)  # differs between machines
    for cell in nb.cells:
        for key in TIMING_METADATA & set(cell.metadata):
            del cell.metadata[key]
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if WIDGET_VIEW not in out.get("data", {})]
            for data in (out.get("data", {}) for out in cell.outputs):
                if "image/png" in data:
                    data["image/png"] = smaller_png(data["image/png"])
    return nb


def smaller_png(encoded: str) -> str:
    """A base64 PNG with a palette of 256 colours: figures look the same at a third of the size."""
    out = io.BytesIO()
    try:
        found = Image.open(io.BytesIO(base64.b64decode(encoded)))
        if found.mode == "P":
            return encoded
        image = found.convert("RGB")
        image.quantize(palette=_palette(image), dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # no picture that Pillow can read
        return encoded
    return base64.b64encode(out.getvalue()).decode() if out.tell() < 0.75 * len(encoded) else encoded


def _palette(image: Image.Image) -> Image.Image:
    """Half of the palette are the image's own colours, strong ones first: a median cut alone spends it on the greys of
    the letters, and two kinds of points come out in one colour.
    """
    pixels, counts = np.unique(np.asarray(image).reshape(-1, 3), axis=0, return_counts=True)
    strength = 1 + np.ptp(pixels.astype(int), axis=1)
    own = pixels[np.argsort(-counts * strength, kind="stable")[:128]]
    cut = image.quantize(128, dither=Image.Dither.NONE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*own.ravel().tolist(), *cut[: 3 * (256 - len(own))]])
    return palette


def machine_paths(nb: NotebookNode, root: Path | None = None) -> list[str]:
    """Places in sources or outputs that name a folder of some machine.

    With `root`, this machine's own folders (home, the repository, temporary files) count too.
    """
    own = []
    if root is not None:
        own = [str(p) for p in (Path.home(), root.resolve(), Path(tempfile.gettempdir()))]
        own = [p for p in own if len(p) > 1]
    found = []
    for i, cell in enumerate(nb.cells):
        outputs = "\n".join(texts(cell.get("outputs", [])))
        for place, text in (("source", cell.source), ("outputs", outputs)):
            hits = [m.group(0) for m in ABSOLUTE_PATH.finditer(text)]
            hits += [p for p in own if re.search(re.escape(p) + r"(?![\w-])", text)]
            found += [f"cell {i}, {place}: {hit}" for hit in dict.fromkeys(hits)]
    return found


def student_copy(nb: NotebookNode) -> NotebookNode:
    """A copy without outputs in which every solution is replaced by a placeholder."""
    nb = copy.deepcopy(clean(nb))
    for i, cell in enumerate(nb.cells):
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        if BEGIN in cell.source or END in cell.source:
            try:
                cell.source = strip_solutions(cell.source)
            except ValueError as error:
                raise ValueError(f"cell {i}: {error}") from None
            cell.metadata.pop("jupyter", None)  # the reader should see where to write
    return nb


def strip_solutions(source: str) -> str:
    """Replace each block between the solution markers by a placeholder of the same indentation."""
    kept, inside = [], False
    for line in source.splitlines():
        marker = line.strip()
        if marker in (BEGIN, END) and (marker == BEGIN) == inside:
            raise ValueError(f"'{BEGIN}' and '{END}' must alternate, and do not")
        if marker == BEGIN:
            inside = True
            kept.append(line[: len(line) - len(line.lstrip())] + PLACEHOLDER)
        elif marker == END:
            inside = False
        elif not inside:
            kept.append(line)
    if inside:
        raise ValueError(f"'{BEGIN}' is not closed by '{END}'")
    return "\n".join(kept)


def solution_blocks(source: str) -> list[str]:
    """What stands between the solution markers, block by block."""
    return [block.rstrip() for block in re.findall(rf"{BEGIN}\n(.*?){END}", source, re.S)]


def texts(value: object) -> Iterator[str]:
    """Every string inside nested outputs, images left out (base64 holds any letters)."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in ("image/png", "image/jpeg"):
                yield from texts(item)
