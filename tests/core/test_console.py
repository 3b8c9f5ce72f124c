"""Lines on the console, and an error as a notebook shows it."""

import io
import subprocess
import sys

import pytest

from conceptlab.core import ConceptLabError, NotPossible, say

PROGRAM = """
import sys
from conceptlab.core import say
for _ in range(2000): say("x" * 200{})
open(sys.argv[1], "w").close()
"""


@pytest.mark.parametrize(("where", "option"), [("stdout", ""), ("stderr", ", error=True")])
def test_a_reader_that_leaves_ends_the_printing_and_not_the_work(tmp_path, where, option):
    command = [sys.executable, "-c", PROGRAM.format(option), str(tmp_path / "done")]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, where: subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        stream = getattr(process, where)
        stream.readline()
        stream.close()
    assert process.returncode == 0 and (tmp_path / "done").exists()


def test_a_replaced_stream_without_a_descriptor(monkeypatch):
    class Gone(io.StringIO):
        def write(self, _):
            raise BrokenPipeError

    for name, error in (("stdout", False), ("stderr", True)):
        monkeypatch.setattr(sys, name, Gone())
        say("one", error)
        say("two", error)


def test_errors_go_to_stderr(capsys):
    say("a")
    say("b", error=True)
    assert capsys.readouterr() == ("a\n", "b\n")


@pytest.mark.parametrize("kind", [ConceptLabError, NotPossible])
def test_a_notebook_shows_the_sentence_alone(kind):
    from IPython.core.interactiveshell import InteractiveShell

    shell, shown = InteractiveShell(), []
    shell._showtraceback = lambda etype, value, lines: shown.append(lines)
    shell.user_ns["Kind"] = kind
    cell = "try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise Kind('No room; make some.')"
    assert isinstance(shell.run_cell(cell).error_in_exec, kind)
    assert shown == [[f"{kind.__name__}: No room; make some."]]
    shell.run_cell("1 / 0")
    assert "Traceback" in "\n".join(shown[1]) and len(shown[1]) > 1, "other errors keep theirs"


def test_an_unknown_profile_in_a_cell_is_one_line(monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.setenv("CONCEPTLAB_PROFILE", "nonsense")
    shell, shown = InteractiveShell(), []
    shell._showtraceback = lambda etype, value, lines: shown.extend(lines)
    shell.run_cell("from conceptlab.course import get_profile\nget_profile()")
    assert len(shown) == 1 and shown[0].startswith(
        "ConceptLabError: Unknown profile 'nonsense'; set CONCEPTLAB_PROFILE"
    )
