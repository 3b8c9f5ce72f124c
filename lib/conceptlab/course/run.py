"""Run the course: execute notebooks with progress, build the site, refresh committed outputs.

python -m conceptlab.course run [--only 01]      into build/
python -m conceptlab.course commit [--only 01]   outputs back into notebooks/
python -m conceptlab.course student              copies without solutions into build/student/
python -m conceptlab.course instructor           key, rubrics and schedules into build/instructor/
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from ..core import ConceptLabError, atomic_path, check_output, say
from . import notebook as nbfile
from .headline import Headline, find_headline, refresh_table
from .instructor import write_instructor
from .record import VARIABLE
from .results import Result, update_results
from .site import SITE_DOCS, write_doc, write_figures, write_index, write_page

TRACEBACK_LINES = 15  # of a failing cell, shown on the terminal
CELL_SECONDS = 7_200  # cells took twenty minutes beside other work; a limit is there for those that hang
INTERRUPTED = 130  # the exit status that shells give for Ctrl-C
START_SECONDS = 600  # until a kernel answers


Progress = Callable[[int, int, float], None]  # cell i of n ended after some seconds


@dataclass(frozen=True)
class Execution:
    """One executed notebook."""

    nb: NotebookNode  # with outputs, cleaned; up to the failing cell if there was one
    minutes: float
    headline: Headline | None
    error: str | None  # the failing cell and the end of its traceback


def execute(path: Path, progress: Progress | None = None, timeout: int = CELL_SECONDS) -> Execution:
    """Run every code cell of a notebook in its own folder; an error ends the run, not the call.

    `timeout` is the limit per cell in seconds. Raises ConceptLabError for a file that is no notebook.
    """
    nb = nbfile.read(path)
    for cell in nbfile.code_cells(nb):
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        nb,
        timeout=timeout,
        startup_timeout=START_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        extra_arguments=["--log-level=CRITICAL"],  # else kernels warn of local sockets and log 56 lines at Ctrl-C
        coalesce_streams=True,
    )
    start = time.perf_counter()
    with client.setup_kernel(env=os.environ | {VARIABLE: ""}):  # a run of the course is nobody's progress
        error = _execute_cells(client, progress)
    minutes = (time.perf_counter() - start) / 60
    nb = nbfile.clean(nb)
    outputs = [out for cell in nbfile.code_cells(nb) for out in cell.outputs]
    return Execution(nb, minutes, find_headline(outputs), error)


def _execute_cells(client: NotebookClient, progress: Progress | None) -> str | None:
    """Run the cells one by one, reporting each code cell as it ends; describe the first failure."""
    cells = [(i, c) for i, c in enumerate(client.nb.cells) if c.cell_type == "code"]
    for k, (index, cell) in enumerate(cells, start=1):
        start = time.perf_counter()
        try:
            client.execute_cell(cell, index)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as failure:
            return _describe(index, cell, failure)
        if progress:
            progress(k, len(cells), time.perf_counter() - start)
    return None


def _describe(index: int, cell: NotebookNode, failure: Exception) -> str:
    """The cell that failed and the last lines of its traceback, without colours."""
    source = "\n".join(f"    {line}" for line in cell.source.splitlines())
    last = re.sub(r"\x1b\[[0-9;]*m", "", str(failure)).strip().splitlines()[-TRACEBACK_LINES:]
    trace = "\n".join(f"  {line}" for line in last)
    return f"cell {index} failed:\n{source}\n  ...\n{trace}"


def run(root: Path, only: list[str], timeout: int) -> int:
    """Execute notebooks into build/ and write the site, renewed after each of them; 1 if a notebook failed."""
    build, site = root / "build", root / "build" / "site"
    kept = check_output(build / "results.json")
    check_output(site, folder=True)
    names = {path.stem for path in find_notebooks(root, [])}
    for page in sorted((root / "docs").glob("*.md")):
        if page.stem in SITE_DOCS:
            write_doc(page, site)
    results, profile = {}, os.environ.get("CONCEPTLAB_PROFILE", "default")
    for path in find_notebooks(root, only):
        try:
            result = _publish(path.stem, execute(path, _printer(path.stem), timeout), build)
        except ConceptLabError as error:
            result = Result(path.stem, 0.0, None, None, None, str(error))
        if result.error:
            say(f"{path.stem}: {result.error}", error=True)
        results[path.stem] = result
        write_index(update_results(kept, {path.stem: result}, names), site, profile)
    say(table(results))
    say(f"Site: {(site / 'index.html').relative_to(root)}")
    failures = [name for name, result in results.items() if result.error]
    if failures:
        say(f"Failed: {', '.join(failures)}", error=True)
    return int(bool(failures))


def _publish(name: str, done: Execution, build: Path) -> Result:
    """Write the executed notebook, its page and its figures; what goes wrong with these is the notebook's error."""
    site, question = build / "site", nbfile.title(done.nb)
    page, thumbnail, errors = None, None, [done.error] if done.error else []
    try:
        nbfile.write(done.nb, build / "notebooks" / f"{name}.ipynb")
        write_page(done.nb, site / f"{name}.html", question)
        page = f"{name}.html"
        if figure := write_figures(done.nb, build / "figures" / name):
            with atomic_path(site / f"{name}.png") as temporary:
                shutil.copyfile(figure, temporary)
            thumbnail = f"{name}.png"
    except (ConceptLabError, OSError) as error:
        errors.append(str(error))
    return Result(question, done.minutes, done.headline, page, thumbnail, "\n".join(errors) or None)


def commit_outputs(root: Path, only: list[str], timeout: int) -> int:
    """Execute notebooks and write their outputs back, and their headlines into the README's table.

    A notebook with a problem stays as it was.
    """
    bad = 0
    for path in find_notebooks(root, only):
        try:
            done = execute(path, _printer(path.stem), timeout)
        except ConceptLabError as error:
            bad = 1
            say(f"{path.stem}: not written. {error}", error=True)
            continue
        problem = done.error
        if paths := nbfile.machine_paths(done.nb, root):
            problem = problem or "names a folder of this machine:\n  " + "\n  ".join(paths)
        if problem:
            bad = 1
            say(f"{path.stem}: not written. {problem}", error=True)
        else:
            nbfile.write(done.nb, path)
            _refresh_readme(root / "README.md", path.stem, done.nb)
            say(f"{path.stem}: written ({path.stat().st_size / 1000:.0f} kB)")
    return bad


def _refresh_readme(readme: Path, name: str, nb: NotebookNode) -> None:
    found = find_headline(out for cell in nbfile.code_cells(nb) for out in cell.outputs)
    if found and readme.exists():
        text = refresh_table(readme.read_text(encoding="utf-8"), name, found)
        with atomic_path(readme) as temporary:
            temporary.write_text(text, encoding="utf-8")


def student(root: Path, only: list[str]) -> int:
    """Write copies without solutions and outputs to build/student/."""
    for path in find_notebooks(root, only):
        target = root / "build" / "student" / path.name
        try:
            nbfile.write(nbfile.student_copy(nbfile.read(path)), target)
        except ValueError as error:
            raise ConceptLabError(f"{path.name}: {error}.") from None
        say(f"{target.relative_to(root)}")
    return 0


def instructor(root: Path) -> int:
    """Write key, rubrics and schedules to build/instructor/."""
    for path in write_instructor(find_notebooks(root, []), root / "build" / "instructor"):
        say(f"{path.relative_to(root)}")
    return 0


def table(results: dict[str, Result]) -> str:
    """Notebook, minutes, headline with interval and control, as aligned text."""
    rows = [("notebook", "minutes", "headline (control)")]
    for name, result in results.items():
        shown = "FAILED" if result.error else str(result.headline or "-")
        rows.append((name, f"{result.minutes:.1f}", shown))
    width = max(len(row[0]) for row in rows)
    lines = [f"{name:<{width}}  {minutes:>7}  {shown}" for name, minutes, shown in rows]
    return "\n".join(["", lines[0], "-" * len(lines[0]), *lines[1:], ""])


def find_notebooks(root: Path, only: list[str]) -> list[Path]:
    """The course's notebooks in order, or those whose names begin with one of `only`."""
    found = sorted((root / "notebooks").glob("[0-9]*.ipynb"))
    if not found:
        raise ConceptLabError("No notebooks here: call this from the repository's root folder.")
    chosen = [p for p in found if not only or p.stem.startswith(tuple(only))]
    if not chosen:
        names = ", ".join(p.stem for p in found)
        raise ConceptLabError(f"No notebook begins with {' or '.join(only)}. There are: {names}.")
    return chosen


def _printer(name: str) -> Progress:
    def show(i: int, n: int, seconds: float) -> None:
        say(f"{name}  cell {i}/{n}  {seconds:.1f} s")

    return show


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser("python -m conceptlab.course", description="Run the course.")
    parser.add_argument("verb", choices=["run", "commit", "student", "instructor"])
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="e.g. --only 01 04")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the repository's root")
    parser.add_argument("--timeout", type=int, default=CELL_SECONDS, help="seconds allowed per cell")
    args = parser.parse_args(argv)
    root = args.root.resolve()
    try:
        if args.verb == "student":
            return student(root, args.only)
        if args.verb == "instructor":
            return instructor(root)
        return {"run": run, "commit": commit_outputs}[args.verb](root, args.only, args.timeout)
    except ConceptLabError as error:
        say(str(error), error=True)
        return 1
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # the cell that was cut off would be logged at exit
        say("Interrupted; notebooks that had ended are kept.", error=True)
        return INTERRUPTED
