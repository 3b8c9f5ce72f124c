"""The front page and the files beside it: links lead somewhere, the picture is the table's, other ways in are sound."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from conceptlab.course import authors, colab, notebook
from conceptlab.course.course_map import PLAIN, hours, learner_minutes
from conceptlab.course.plots.picture import GROUPS, SERIES, erased_estimates
from conceptlab.course.plots.thumbnails import THUMBNAILS
from conceptlab.course.site.builder import reading_time
from conceptlab.experiments import lab_table

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")]
KOREA = "left_unseen_korea_known"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files(page):
    for words, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?://|mailto:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), f"[{words}]({target})"


def share(estimate):
    """A share with its interval, as the front page writes it."""
    value, low, high = estimate[:3]
    return f"{value:.0%} [{low * 100:.0f}, {high * 100:.0f}]".replace("%", " %")


def lost(estimate):
    """The share that is not left."""
    value, low, high = estimate[:3]
    return 1 - value, 1 - high, 1 - low


def test_the_front_page_says_what_the_table_says():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    found, table = erased_estimates(ROOT / "data" / "results" / "lab_smollm2-135m.csv"), lab_table("smollm2-135m")
    assert list(found) == ["before", *SERIES.values()] and all(len(rows) == len(GROUPS) for rows in found.values())
    after, control = found["after PISCES"], found["control: same rows, other features"]
    assert f"lost {share(lost(after[0]))} of what it had known about Japan" in text
    assert f"kept {share(after[1])} of what it knew about China" in text
    assert f"already took {share(lost(control[0]))} of Japan" in text
    assert f"Korea, which was used for no choice, kept only {share(table.get('japan', 'pisces', KOREA))}" in text
    near = table.mean("pisces", "specificity_unseen_known")
    assert near.n == 16 and f"keep {share(near)}" in text
    back = share(table.get("japan", "pisces", "share", "relearning", "5"))
    assert f"half of the lost margin, the lead of the right option ({back})" in text
    uncorrected = table.get("japan", "pisces", "accuracy_target_after_known").value
    told = f"the model had answered rightly, {uncorrected:.1%} still are. But a guess is right in one of four"
    assert f"{told}, so {after[0][0]:.0%} are left".replace("%", " %") in text
    alt = re.search(r"!\[([^\]]+)\]\(docs/images/japan_erased", text)[1]
    for value in (after[0][0], after[1][0], after[2][0], control[0][0]):
        assert f"{value:.0%}".replace("%", " %") in alt
    assert (ROOT / "docs" / "images" / "japan_erased.png").stat().st_size > 5_000


def test_the_clone_line_is_the_project_s_address():
    text, address = (ROOT / "README.md").read_text(encoding="utf-8"), colab.course_address(ROOT)
    cloned = re.findall(r"git clone (\S+)", text)
    assert cloned == ([address] if address else []) and ("names no public address" in text) == (not address)
    assert not re.search(r"^    .*<[^>]+>", text, re.M), "a placeholder that is pasted into a shell is an error"


def test_the_hours_of_the_course_are_those_of_its_notebooks():
    minutes = sum(learner_minutes(reading_time(notebook.read(path))) or 0 for path in NOTEBOOKS)
    assert f"About {hours(minutes)} of your time" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_notebook_is_on_the_map():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        plain = PLAIN[path.stem]
        assert f"](notebooks/{path.name})<br>{plain} |" in text, f"{path.stem} has no row, or its row no link or result"


def test_thumbnails_and_badges_are_what_the_code_draws():
    text, images = (ROOT / "README.md").read_text(encoding="utf-8"), ROOT / "docs" / "images"
    assert set(THUMBNAILS) == {path.stem for path in NOTEBOOKS}
    drawn = {images / "thumbnails" / f"{name}.svg": f"{draw().svg()}\n" for name, draw in THUMBNAILS.items()}
    drawn |= {images / "badges" / f"{name}.svg": made for name, made in authors.badges(ROOT).items()}
    for path, made in drawn.items():
        assert path.read_text(encoding="utf-8") == made, f"{path.name}: run `python -m conceptlab.course picture`"
        assert str(path.relative_to(ROOT)) in text and path.stat().st_size < 12_000
    assert sum(path.stat().st_size for path in drawn) < 300_000
    shown = re.findall(r'src="([^"]+)"|!\[[^\]]+\]\(([^)]+)\)', text)
    assert all((ROOT / (a or b)).exists() for a, b in shown) and len(shown) == len(drawn) + 1
    outer = re.findall(r"\)\]\(([^)#]+)\)", text)
    assert outer and all((ROOT / target).exists() for target in outer), "where the badges lead"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_colab_cell_is_the_course_s(path):
    nb = notebook.read(path)
    before = [cell.source for cell in nb.cells]
    assert [cell.source for cell in colab.with_colab_cell(nb, ROOT).cells] == before, "`make commit` writes it"
    assert not any("OWNER" in source for source in before)


def test_the_colab_cell_without_an_address_ends_with_one_sentence(tmp_path):
    cell = next(cell.source for cell in notebook.read(NOTEBOOKS[0]).cells if "colab" in notebook.tags(cell))
    script = (
        "import builtins, sys, types\nfrom IPython.core.interactiveshell import InteractiveShell\n"
        "sys.modules['google.colab'] = types.ModuleType('google.colab')\nbuiltins.input = lambda prompt: ' '\n"
        f"found = InteractiveShell.instance().run_cell({cell!r})\nassert found.success\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"IPYTHONDIR": str(tmp_path)},
    )  # fmt: skip
    assert told.stdout.strip() == "No address, no course: run this cell again and paste one.", told.stderr


def test_the_colab_cell_takes_its_address_from_the_project(tmp_path):
    assert colab.course_address(tmp_path) == ""
    (tmp_path / "pyproject.toml").write_text('[project]\nurls.Repository = "https://e.org/x.git"\n', encoding="utf-8")
    nb = colab.with_colab_cell(notebook.read(NOTEBOOKS[0]), tmp_path)
    source = next(cell.source for cell in nb.cells if "colab" in notebook.tags(cell))
    assert '"https://e.org/x.git"' in source and "{address} concept-lab" in source


def test_binder_and_the_container_install_what_the_project_lists():
    lines = (ROOT / ".binder" / "requirements.txt").read_text(encoding="utf-8").split("\n")
    option, path = lines[0].split()  # pip reads it from the folder of the file that names it
    assert option == "-c" and (ROOT / ".binder" / path).resolve() == ROOT / ".ci" / "constraints.txt"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = Requirement(f"conceptlab{lines[1].removeprefix('.')}").extras
    assert extras <= set(project["optional-dependencies"])
    assert subprocess.run(["bash", "-n", str(ROOT / ".binder" / "postBuild")]).returncode == 0
    made = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert (ROOT / ".devcontainer" / made["build"]["dockerfile"]).exists()
    target = made["postCreateCommand"].removeprefix("make ")
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
