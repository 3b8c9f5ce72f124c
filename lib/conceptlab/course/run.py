"""Run the course: execute notebooks with progress, build the site, refresh committed outputs.

python -m conceptlab.course run [--only 01]      into build/
python -m conceptlab.course site                 the site alone, from the committed outputs
python -m conceptlab.course commit [--only 01]   outputs back into notebooks/
python -m conceptlab.course student              copies without solutions into build/student/
python -m conceptlab.course instructor           key, rubrics and schedules into build/instructor/
python -m conceptlab.course lab                  copies to work in, in build/lab/
python -m conceptlab.course refresh              Colab cells and the README's map, without a run (for authors)
python -m conceptlab.course picture              the README's picture, thumbnails and badges (for authors)
python -m conceptlab.course states               states of the widgets on the site, into data/widgets (for authors)
python -m conceptlab.course contexts             texts of the features' pages, into data/contexts (for authors)
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import textwrap
import time
from dataclasses import dataclass, replace
from pathlib import Path

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from ..core import ConceptLabError, check_output, say
from . import notebook as nbfile
from .authors import (
    instructor,
    refresh,
    refresh_readme,
    student,
    write_feature_contexts,
    write_picture,
    write_widget_states,
)
from .colab import with_colab_cell
from .headline import Headline, find_headline
from .lab import open_lab
from .progress import Clock, Progress, expected_seconds
from .record import VARIABLE
from .results import Result, read_results, update_results
from .selection import find_notebooks
from .site import CourseSite

TRACEBACK_LINES = 15  # of a failing cell, shown on the terminal
CELL_SECONDS = 7_200  # cells took twenty minutes beside other work; a limit is there for those that hang
INTERRUPTED = 130  # the exit status that shells give for Ctrl-C
START_SECONDS = 600  # until a kernel answers


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
        if progress:
            progress.begin(k)
        try:
            client.execute_cell(cell, index)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as failure:
            return _describe(index, cell, failure)
        if progress:
            progress.end()
    return None


def _describe(index: int, cell: NotebookNode, failure: Exception) -> str:
    """The cell that failed and the last lines of its traceback, without colours."""
    source = "\n".join(f"    {line}" for line in cell.source.splitlines())
    last = re.sub(r"\x1b\[[0-9;]*m", "", str(failure)).strip().splitlines()[-TRACEBACK_LINES:]
    trace = "\n".join(f"  {line}" for line in last)
    return f"cell {index} failed:\n{source}\n  ...\n{trace}"


def run(root: Path, only: list[str], timeout: int, with_site: bool = True) -> int:
    """Execute notebooks into build/ and write the site, renewed after each of them; 1 if a notebook failed.

    The site is there before the first cell runs, from the outputs that came with the course.
    """
    build = root / "build"
    kept = check_output(build / "results.json")
    check_output(build / "site", folder=True)
    everything, chosen = find_notebooks(root, []), find_notebooks(root, only)
    names, before = {path.stem for path in everything}, read_results(kept)
    site, results = CourseSite(root) if with_site else None, dict[str, Result]()
    if site:
        _stage_committed(site, everything)
        _build(site, "(from the outputs that came with the course; renewed after every notebook)")
    clock = _clock(chosen, before)
    for path in chosen:
        try:
            with Progress(path.stem, nbfile.read(path), clock) as progress:
                done = execute(path, progress, timeout)
            result = _publish(path.stem, done, build, site)
        except ConceptLabError as error:
            result = Result(path.stem, 0.0, None, str(error))
        if result.error:
            say(f"{path.stem}: {result.error}", error=True)
        results[path.stem] = result
        update_results(kept, {path.stem: result}, names)
        if site:
            _build(site, None)
    say(table(results))
    if site:
        say(f"Site: {site.index.relative_to(root)}")
    failures = [name for name, result in results.items() if result.error]
    if failures:
        say(f"Failed: {', '.join(failures)}", error=True)
    return int(bool(failures))


def _clock(chosen: list[Path], before: dict[str, Result]) -> Clock:
    expected = {}
    for path in chosen:
        try:
            known = before[path.stem].minutes if path.stem in before else None
            expected[path.stem] = expected_seconds(nbfile.read(path), known)
        except ConceptLabError:  # no notebook: said when its turn comes
            expected[path.stem] = 0.0
    return Clock(expected)


def _stage_committed(site: CourseSite, paths: list[Path]) -> None:
    """Every notebook as it is in the repository; one that cannot be shown is said and left out."""
    for path in paths:
        try:
            site.stage(path.stem, nbfile.read(path))
        except ConceptLabError as error:
            say(f"{path.stem}: not on the site. {error}", error=True)


def _build(site: CourseSite, remark: str | None) -> None:
    """Write the site; that it cannot be written stops no notebook."""
    start = time.perf_counter()
    try:
        site.build()
    except (ConceptLabError, OSError) as error:
        say(str(error), error=True)
        return
    if remark:
        took = time.perf_counter() - start
        say(f"Site: {site.index.relative_to(site.root)}, built in {took:.0f} s {remark}")


def build_site(root: Path) -> int:
    """Write the site from the committed outputs; 1 if a notebook cannot be shown."""
    check_output(root / "build" / "site", folder=True)
    site = CourseSite(root)
    _stage_committed(site, find_notebooks(root, []))
    site.build()
    if site.warnings:
        say(f"Sphinx warns:\n{site.warnings.strip()}", error=True)
    say(f"Site: {site.index.relative_to(root)}")
    return int(bool(site.refused))


def _publish(name: str, done: Execution, build: Path, site: CourseSite | None) -> Result:
    """Write the executed notebook and stage its page; what goes wrong with these is the notebook's error."""
    errors = [done.error] if done.error else []
    result = Result(nbfile.title(done.nb), done.minutes, done.headline, "\n".join(errors) or None)
    try:
        nbfile.write(done.nb, build / "notebooks" / f"{name}.ipynb")
        if site:
            site.stage(name, done.nb, result)
    except (ConceptLabError, OSError) as error:
        result = replace(result, error="\n".join([*errors, str(error)]))
    return result


def commit_outputs(root: Path, only: list[str], timeout: int) -> int:
    """Execute notebooks and write their outputs back, and their headlines into the README's table.

    A notebook with a problem stays as it was.
    """
    bad, chosen = 0, find_notebooks(root, only)
    clock = _clock(chosen, read_results(root / "build" / "results.json"))
    for path in chosen:
        try:
            with Progress(path.stem, nbfile.read(path), clock) as progress:
                done = execute(path, progress, timeout)
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
            nbfile.write(with_colab_cell(done.nb, root), path)
            refresh_readme(root / "README.md", path.stem, done.nb)
            say(f"{path.stem}: written ({path.stat().st_size / 1000:.0f} kB)")
    return bad


def table(results: dict[str, Result], width: int = 100) -> str:
    """Notebook, minutes, headline with interval, and its control on a line of its own; at most `width` columns."""
    first = max([len(name) for name in results] + [len("notebook")])
    indent = " " * (first + 11)
    lines = [f"{'notebook':<{first}}  {'minutes':>7}  headline (control)"]
    lines.append("-" * width)
    for name, result in results.items():
        shown = "FAILED" if result.error else str(result.headline or "-")
        head, *rest = textwrap.wrap(shown, width - len(indent)) or [""]
        lines.append(f"{name:<{first}}  {result.minutes:>7.1f}  {head}")
        lines += [f"{indent}{line}" for line in rest]
    return "\n".join(["", *lines, ""])


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser("python -m conceptlab.course", description="Run the course.")
    verbs = ["run", "site", "commit", "student", "instructor", "lab", "refresh", "contexts", "picture", "states"]
    parser.add_argument("verb", choices=verbs)
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="e.g. --only 1 04, pisces or 01,02")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the repository's root")
    parser.add_argument("--timeout", type=int, default=CELL_SECONDS, help="seconds allowed per cell")
    parser.add_argument("--no-site", action="store_true", help="run: execute only, write no site")
    args = parser.parse_args(argv)
    root = args.root.resolve()
    try:
        if args.verb == "run":
            return run(root, args.only, args.timeout, not args.no_site)
        if args.verb == "commit":
            return commit_outputs(root, args.only, args.timeout)
        if args.verb == "student":
            return student(root, args.only)
        if args.verb == "refresh":
            return refresh(root, args.only)
        others = {"site": build_site, "instructor": instructor, "lab": open_lab, "contexts": write_feature_contexts}
        others |= {"picture": write_picture, "states": write_widget_states}
        return others[args.verb](root)
    except ConceptLabError as error:
        say(str(error), error=True)
        return 1
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # the cell that was cut off would be logged at exit
        say("Interrupted; notebooks that had ended are kept.", error=True)
        return INTERRUPTED
