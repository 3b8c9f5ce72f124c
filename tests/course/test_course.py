"""The course runner, on tiny notebooks made here."""

import base64
import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from conceptlab.course import notebook
from conceptlab.course import run as course
from conceptlab.course.headline import Headline, find_headline, headline
from conceptlab.course.results import read_results, update_results
from conceptlab.course.site import CourseSite

FIGURE = base64.b64encode(b"not really a PNG, but bytes").decode()
SOLUTION = "### BEGIN SOLUTION\nanswer = 6 * 7\n### END SOLUTION\nassert answer"
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def save(path, *cells):
    nb = new_notebook(cells=list(cells), metadata={**KERNEL, "widgets": {"state": {}}})
    path.parent.mkdir(exist_ok=True)
    nbformat.write(nb, path)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A course of a sound and a failing notebook, run once."""
    root = tmp_path_factory.mktemp("course")
    show = "from IPython.display import display\n"
    number = "from conceptlab.course import headline\n"
    save(
        root / "notebooks" / "00_sound.ipynb",
        new_markdown_cell("# Is it sound?\n\nThe norm $\\|x\\|_2$; next: [next](01_broken.ipynb)."),
        new_code_cell(show + f"display({{'image/png': {FIGURE!r}}}, raw=True)"),
        new_code_cell(SOLUTION, metadata={"jupyter": {"source_hidden": True}}),
        new_code_cell("from ipywidgets import interact\ninteract(lambda x: print(x), x=(0, 3));"),
        new_code_cell(number + "headline('drop', 0.5, 0.4, 0.6, control=0.1, control_label='random')"),
    )
    save(
        root / "notebooks" / "01_broken.ipynb",
        new_markdown_cell("# Does it break?"),
        new_code_cell("print('before')"),
        new_code_cell("1 / 0"),
        new_code_cell("print('after')"),
    )
    return root


@pytest.fixture(scope="module")
def output(ran):
    """What the run printed, and its exit code."""
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(CourseSite, "build", lambda site: None)  # tests/course/test_site.py builds one
        code = course.main(["run", "--root", str(ran)])
    return code, out.getvalue(), err.getvalue()


def test_run_reports_cells_and_headlines(output):
    code, out, err = output
    assert code == 1
    assert "00_sound: 4 cells, about 3:00" in out and "01_broken: 3 cells" in out
    assert "drop: 0.5 [0.4, 0.6]; random: 0.1" in out
    assert "01_broken" in out.split("headline (control)")[1] and "FAILED" in out


def test_failure_is_shown_and_partial_copy_kept(ran, output):
    err = output[2]
    assert "cell 2 failed" in err and "1 / 0" in err and "ZeroDivisionError" in err
    nb = notebook.read(ran / "build" / "notebooks" / "01_broken.ipynb")
    assert nb.cells[1].outputs[0].text == "before\n" and not nb.cells[3].outputs


@pytest.mark.parametrize(
    ("source", "said"),
    [("import time; time.sleep(60)", "timed out"), ("import os; os._exit(1)", "Kernel died")],
)
def test_a_hanging_cell_and_a_dead_kernel_are_failures(tmp_path, source, said):
    path = tmp_path / "00_stops.ipynb"
    save(path, new_code_cell("x = 1"), new_code_cell(source), new_code_cell("x"))
    done = course.execute(path, timeout=2)
    assert done.error.startswith("cell 1 failed") and said in done.error
    assert done.nb.cells[0].execution_count == 1 and not done.nb.cells[2].outputs


def test_executed_copy_keeps_no_widgets(ran, output):
    nb = notebook.read(ran / "build" / "notebooks" / "00_sound.ipynb")
    assert "widgets" not in nb.metadata and not nb.cells[3].outputs
    original = notebook.read(ran / "notebooks" / "00_sound.ipynb")
    assert [c.id for c in nb.cells] == [c.id for c in original.cells]


def test_second_partial_run_keeps_the_other_cards(ran, output):
    results = update_results(ran / "build" / "results.json", {}, {"00_sound"})
    assert set(results) == {"00_sound"}
    assert read_results(ran / "build" / "results.json") == results


def test_commit_writes_sound_notebooks_only(ran, output, capsys):
    before = (ran / "notebooks" / "01_broken.ipynb").read_bytes()
    assert course.main(["commit", "--root", str(ran)]) == 1
    assert (ran / "notebooks" / "01_broken.ipynb").read_bytes() == before
    nb = notebook.read(ran / "notebooks" / "00_sound.ipynb")
    assert [c.execution_count for c in notebook.code_cells(nb)] == [1, 2, 3, 4]
    assert "version" not in nb.metadata.get("language_info", {})
    assert "01_broken: not written" in capsys.readouterr().err


def test_commit_refuses_machine_paths(tmp_path, capsys):
    save(tmp_path / "notebooks" / "00_p.ipynb", new_code_cell("import os; print(os.getcwd())"))
    assert course.main(["commit", "--root", str(tmp_path)]) == 1
    assert "names a folder of this machine" in capsys.readouterr().err


def test_student_copy(ran):
    assert course.main(["student", "--only", "00", "--root", str(ran)]) == 0
    nb = notebook.read(ran / "build" / "student" / "00_sound.ipynb")
    assert nb.cells[2].source == "# your code here\nassert answer"
    assert "source_hidden" not in json.dumps(nb)
    assert not any(cell.outputs for cell in notebook.code_cells(nb))


@pytest.mark.parametrize("source", ["### BEGIN SOLUTION\nx", "x\n### END SOLUTION"])
def test_unbalanced_solution_markers(source):
    with pytest.raises(ValueError, match="SOLUTION"):
        notebook.strip_solutions(source)


def test_unknown_notebook_lists_the_known(ran, capsys):
    assert course.main(["run", "--only", "77", "--root", str(ran)]) == 1
    assert "There are: 00_sound" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/home/ann/x.py", 1),
        ("saved to /tmp/abc", 1),
        ("File \n/root/x", 1),
        ("C:\\Users\\ann", 1),
        ("data/concepts/golf.yaml", 0),
        ("https://example.org/home/index.html", 0),
        ("km/h, and/or, ~/home/x", 0),
    ],
)
def test_machine_paths(text, found):
    assert len(notebook.machine_paths(new_notebook(cells=[new_markdown_cell(text)]))) == found


def test_headline_outside_a_notebook(capsys):
    headline("drop", 12.34, 10, 15, control=1, control_label="random vectors", unit="%")
    expected = "Headline: drop: 12.3% [10, 15]; random vectors: 1%\n"
    assert capsys.readouterr().out == expected
    with pytest.raises(ValueError, match="finite"):
        headline("drop", float("nan"))
    with pytest.raises(ValueError, match="outside"):
        headline("drop", 2, 0, 1)
    assert find_headline([]) is None
    assert str(Headline("perplexity", 1234.5, unit="nats")) == "perplexity: 1234 nats"


def test_the_map_shows_the_number_first_and_whether_the_interval_holds_the_control():
    near = Headline("drop", 12.3, 10.0, 15.0, "random vectors", 11.0, "%")
    assert str(near) == "drop: 12.3% [10, 15]; random vectors: 11%, inside the interval"
    assert near.map_cell() == "**12.3 % [10, 15]**<br>drop<br>*control:* random vectors: 11 %, inside the interval"
    assert Headline("loss", 2.0).map_cell() == "**2**<br>loss"
