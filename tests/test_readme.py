"""The front page and the files beside it: links lead somewhere, the picture is the table's, other ways in are sound."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from conceptlab.course import authors, colab, notebook
from conceptlab.course.course_map import PLAIN
from conceptlab.course.plots.picture import GROUPS, SERIES, erased_estimates
from conceptlab.course.plots.thumbnails import THUMBNAILS
from conceptlab.experiments import lab_table

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files(page):
    for words, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?://|mailto:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), f"[{words}]({target})"


def test_the_front_page_says_what_the_table_says():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    found = erased_estimates(ROOT / "data" / "results" / "lab_smollm2-135m.csv")
    assert list(found) == ["before", *SERIES.values()] and all(len(rows) == len(GROUPS) for rows in found.values())
    after, control = found["after PISCES"], found["control: same rows, other features"]
    assert f"lost {1 - after[0][0]:.0%}".replace("%", " %") in text
    assert f"kept {after[1][0]:.0%}".replace("%", " %") in text
    assert f"lost it {1 - control[0][0]:.0%}".replace("%", " %") in text
    near = lab_table("smollm2-135m").mean("pisces", "specificity_unseen_known")
    assert (
        near.n == 16
        and f"keep {near.value:.0%} [{near.low * 100:.0f}, {near.high * 100:.0f}]".replace("%", " %") in text
    )
    assert (ROOT / "docs" / "images" / "japan_erased.png").stat().st_size > 5_000


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
