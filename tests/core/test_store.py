"""The table of all long experiments: interrupted at any moment, written by two, resumed otherwise, merged."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conceptlab.core import (
    COLUMNS,
    Cell,
    ConceptLabError,
    Interval,
    Store,
    atomic_path,
    commit,
    contents,
    merge,
    read_table,
    table_path,
)
from conceptlab.core.tables import journal_path
from killed import FORK, kill_after, kill_at

METRICS = ("efficacy", "specificity", "coherence")
SETTINGS = {"k": 5, "grid": (1, 2), "budget": {"lr": 1e-3}}


def opened(path, **changes):
    how = {"experiment": "lab", "model": "tiny", "fingerprint": "abc", "settings": SETTINGS} | changes
    return Store(path, **how)


def numbers(i):
    return {metric: Interval(i + j / 3, i, i + 1, 9) for j, metric in enumerate(METRICS)}


def fill(path, n=12, first=0, finish=True, **changes):
    """A run of an experiment: `n` cells with records, every third with a file."""
    with opened(path, **changes) as store:
        for i in range(first, first + n):
            cell = Cell(f"concept_{i}", "pisces", budget=i)
            if store.missing(cell):
                if i % 3 == 0:
                    with atomic_path(store.folder / f"{i}.edit") as temporary:
                        temporary.write_text(f"edit {i}")
                store.add(cell, numbers(i), record={"per question": [i, None, "é"]})
        if finish:
            store.finish()


def everything(folder):
    """File -> content of what a finished run leaves, without its times."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    # what a kill left in the instant before a temporary folder is marked as held goes after hours
    files = [p for p in files if not p.parent.name.startswith(".") or (p.parent / "held").exists()]
    found = {p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") for p in files}
    if "lab_m.json" in found:
        note = json.loads(found["lab_m.json"])
        found["lab_m.json"] = {k: v for k, v in note.items() if k != "minutes"}
    return found


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "lab_m.csv"


@pytest.fixture
def whole(tmp_path):
    """What the run gives that nothing interrupts."""
    path = tmp_path / "whole" / "lab_m.csv"
    fill(path)
    return everything(path.parent)


# ---- a run ------------------------------------------------------------------------------------------------------
def test_a_finished_table_holds_numbers_and_where_they_come_from(path):
    fill(path, fingerprints={"layer_04": "ff"}, device="cpu", seed=3)
    names = {"lab_m.csv", "lab_m.json", "lab_m.records.jsonl", "lab_m"}
    assert {p.name for p in path.parent.iterdir()} == names
    rows = read_table(path)
    assert len(rows) == 36 and tuple(rows[0]) == COLUMNS
    assert rows[4] == dict(
        zip(COLUMNS, ("lab", "tiny", "concept_1", "pisces", "", "1", "specificity", "1.3333", "1", "2", "9", "3"),
            strict=True)
    )  # fmt: skip
    note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert note["settings"] == {"k": 5, "grid": [1, 2], "budget": {"lr": 0.001}} and note["seeds"] == [3]
    assert {"python", "torch", "transformers", "numpy"} == note["versions"].keys() and note["commit"]
    assert note["fingerprint"] == "abc" and note["fingerprints"] == {"layer_04": "ff"} and note["cells"] == 12
    assert note["files"].keys() == {"0.edit", "3.edit", "6.edit", "9.edit"} and note["device"] == "cpu"
    found = contents(path)
    assert found.records["concept_2", "pisces", "", "2", "3"] == {"per question": [2, None, "é"]}
    assert (found.folder / "3.edit").read_text() == "edit 3"


def test_an_unfinished_table_can_be_read_and_goes_on(path, whole):
    fill(path, 5, finish=False)
    assert not path.exists() and [r["budget"] for r in read_table(path)] == [str(i) for i in range(5) for _ in METRICS]
    with opened(path) as store:
        assert not store.missing(Cell("concept_4", "pisces", budget=4)) and store.missing(Cell("concept_4", "pisces"))
        assert store.missing(Cell("concept_4", "pisces", budget=4, seed=1)) and len(store.rows) == 15
        assert store.record(Cell("concept_4", "pisces", budget=4)) == {"per question": [4, None, "é"]}
        assert store.record(Cell("concept_5", "pisces", budget=5)) is None
    fill(path)
    assert everything(path.parent) == whole


def test_a_finished_table_goes_on_with_further_cells(path, whole):
    fill(path, 5)
    before = everything(path.parent)
    fill(path, 3, first=5, finish=False)
    assert everything(path.parent).items() > {k: v for k, v in before.items() if k != "lab_m.json"}.items()
    fill(path)
    assert everything(path.parent) == whole
    fill(path)  # nothing is missing
    assert everything(path.parent) == whole


def test_a_record_computed_anew_and_a_run_that_goes_on_leave_a_whole_table(path):
    """The order of records is that of the cells, however often one of them was computed again."""
    for again in (0, 1):
        with opened(path) as store:
            for i in range(3) if not again else (0,):
                store.add(Cell(f"c{i}", "pisces"), numbers(i), record=[i, again])
            store.finish()
    with opened(path) as store:
        store.add(Cell("c3", "pisces"), numbers(3), record=[3, 2])
        store.finish()
    assert [record for record in contents(path).records.values()] == [[0, 1], [1, 0], [2, 0], [3, 2]]


def test_pooled_rows_are_computed_anew_when_a_run_goes_on(path):
    with opened(path) as store:
        store.add(Cell("japan"), numbers(1))
        store.add(Cell("all"), numbers(1), record=[1])
        store.finish()
    with opened(path) as store:
        assert store.missing(Cell("all")) and not store.missing(Cell("japan")) and store.record(Cell("all")) is None
        store.add(Cell("golf"), numbers(2))
        store.add(Cell("all"), numbers(3))
        store.finish()
    assert [r["value"] for r in read_table(path) if r["concept"] == "all"][0] == "3"


def test_cells_that_belong_together_are_kept_together(path):
    cost = Cell("japan", "pisces", "relearning", "cost")
    with opened(path) as store:
        store.add_all({cost._replace(budget=2.0): numbers(1), cost: numbers(2)}, {cost: [1]})
        with pytest.raises(ConceptLabError, match="a record of golf came without the numbers|A record of golf"):
            store.add_all({Cell("rome"): numbers(1)}, {Cell("golf"): [1]})
        with pytest.raises(ConceptLabError, match="golf: value of efficacy is nan"):
            store.add_all({Cell("rome"): numbers(1), Cell("golf"): {"efficacy": Interval(float("nan"), 0, 1, 2)}})
        assert store.missing(Cell("rome")) and not store.missing(cost._replace(budget=2))
    assert {r["budget"] for r in read_table(path)} == {"2", "cost"}


@pytest.mark.parametrize(
    ("metrics", "record", "message"),
    [
        ({}, None, "holds no number"),
        ({"m": Interval(float("inf"), 0, 1, 2)}, None, "value of m is inf"),
        ({"m": Interval(0, float("nan"), 1, 2)}, None, "low of m is nan"),
        ({"m\n": Interval(0, 0, 1, 2)}, None, "line break"),
        ({"": Interval(0, 0, 1, 2)}, None, "empty"),
        ({"m": Interval(0, 0, 1, 2)}, [float("nan")], "cannot be written as JSON"),
        ({"m": Interval(0, 0, 1, 2)}, object(), "cannot be written as JSON"),
    ],
)
def test_what_a_table_cannot_hold(path, metrics, record, message):
    with opened(path) as store:
        with pytest.raises(ConceptLabError, match=message):
            store.add(Cell("japan"), metrics, record)
        assert store.missing(Cell("japan"))
        store.add(Cell("japan"), {"m": Interval(0, float("-inf"), float("inf"), 2)})  # a bound that nothing holds
        store.finish()
    assert len(read_table(path)) == 1


def test_a_store_that_is_not_open_takes_nothing(path):
    store = opened(path)
    with pytest.raises(ConceptLabError, match="not open"):
        store.add(Cell(), numbers(1))
    with store, pytest.raises(ConceptLabError, match="no cell was computed"):
        store.finish()
    with store:
        store.add(Cell(), numbers(1))
        store.finish()
        with pytest.raises(ConceptLabError, match="not open"):
            store.add(Cell("x"), numbers(1))


# ---- killed -----------------------------------------------------------------------------------------------------
def check_readable(path, before):
    """Whole cells only, and none lost; returns those that are there."""
    if not (path.exists() or journal_path(path).exists()):
        assert not before
        return set()
    rows = read_table(path)
    cells = {r["concept"] for r in rows}
    assert all([r["metric"] for r in rows if r["concept"] == c] == list(METRICS) for c in cells) and cells >= before
    return cells


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_random_moments_it_comes_to_the_same_end(path, whole, how):
    pick, there = random.Random(0), set()
    for _ in range(40):
        code = kill_after(pick.uniform(0, 0.05), fill, path, how=how)
        there = check_readable(path, there)
        if code == 0:
            break
    fill(path)
    assert everything(path.parent) == whole


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_every_step_of_a_run_and_of_its_end(tmp_path, whole, how):
    """Two cells are missing, and the finished table of before is there: its parts are never mixed with new ones."""
    fill(tmp_path / "before" / "lab_m.csv", 10)
    for n in range(1, 400, 2 if how == signal.SIGKILL else 7):
        path = tmp_path / str(n) / "lab_m.csv"
        shutil.copytree(tmp_path / "before", path.parent)
        code = kill_at(n, fill, path, how=how)
        found = contents(path)
        assert len(found.cells) in (10, 12) and found.note["cells"] == len(found.cells)
        assert {p.name for p in found.folder.iterdir()} >= {f"{i}.edit" for i in (0, 3, 6, 9)}
        fill(path)
        assert everything(path.parent) == whole, f"after a kill at step {n}"
        if code == 0:
            break
    assert code == 0 and n > 30


def test_a_fresh_start_sees_no_file_of_an_earlier_run(path):
    fill(path, 4, finish=False)
    journal_path(path).unlink()  # discarded, as the messages advise
    with opened(path, settings={"k": 6}) as store:
        assert list(store.folder.iterdir()) == [] and store.rows == []
        store.add(Cell("japan"), numbers(1))
        store.finish()
    assert {p.name for p in path.parent.iterdir()} == {"lab_m.csv", "lab_m.json"}
    fill(path, 4, replace=True)
    with opened(path, settings={"k": 6}, replace=True) as store:  # another run without files takes the old ones away
        store.add(Cell("japan"), numbers(1))
        store.finish()
    assert {p.name for p in path.parent.iterdir()} == {"lab_m.csv", "lab_m.json"}


@pytest.mark.parametrize("cut", [1, 2, 30, 200])
def test_a_torn_last_line_is_no_cell(path, whole, cut):
    fill(path, 5, finish=False)
    with open(journal_path(path), "r+b") as file:
        file.truncate(journal_path(path).stat().st_size - cut)
    assert {r["budget"] for r in read_table(path)} == set("0123")
    fill(path)
    assert everything(path.parent) == whole


def test_a_damaged_line_in_the_middle_is_computed_again(path):
    fill(path, 5, finish=False)
    data = bytearray(journal_path(path).read_bytes())
    data[data.index(b"concept_2") + 8] ^= 1  # now concept_3, twice
    journal_path(path).write_bytes(data)
    assert [r["budget"] for r in read_table(path)][::3] == list("0134")
    fill(path)
    assert {r["concept"] for r in read_table(path)} == {f"concept_{i}" for i in range(12)}


def test_the_beginning_of_the_journal_is_damaged(path):
    fill(path, 2, finish=False)
    journal_path(path).write_bytes(b"x" + journal_path(path).read_bytes())
    with pytest.raises(ConceptLabError, match=r"lab_m.partial.jsonl was begun cannot be read; remove it"):
        opened(path).__enter__()


def test_an_interrupt_in_the_middle_of_a_line_does_not_hurt_the_next(path, monkeypatch):
    with opened(path) as store:
        store.add(Cell("one"), numbers(1))
        sync = os.fsync

        def interrupted(_):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.add(Cell("two"), numbers(2))
        monkeypatch.setattr(os, "fsync", sync)
        store.add(Cell("three"), numbers(3))  # a notebook goes on
        store.finish()
    assert [r["concept"] for r in read_table(path)][::3] == ["one", "three"]


def test_a_full_disk_keeps_what_was_finished(path, monkeypatch):
    with opened(path) as store:
        store.add(Cell("one"), numbers(1))

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ConceptLabError, match="No space left on device.*what was finished before is kept"):
            store.add(Cell("two"), numbers(2))
    monkeypatch.undo()
    with opened(path) as store:
        assert not store.missing(Cell("one"))


# ---- two writers ------------------------------------------------------------------------------------------------
def hold(path, ready, go):
    with opened(path) as store:
        store.add(Cell("first"), numbers(1))
        ready.set()
        go.wait(60)
        store.finish()


def test_a_second_writer_is_told_and_nothing_is_lost(path):
    ready, go = FORK.Event(), FORK.Event()
    other = FORK.Process(target=hold, args=(path, ready, go))
    other.start()
    assert ready.wait(60)
    with pytest.raises(ConceptLabError, match=r"lab_m.csv is being written by another process; wait for it") as error:
        opened(path).__enter__()
    assert "\n" not in str(error.value)
    with pytest.raises(ConceptLabError, match="is being written by another process"):
        merge(path, [path])
    go.set()
    other.join()
    with opened(path) as store:  # the lock is free again
        store.add(Cell("second"), numbers(2))
        store.finish()
    assert [r["concept"] for r in read_table(path)][::3] == ["first", "second"]


def one_cell(path, i):
    while True:
        try:
            with opened(path) as store:
                store.add(Cell(f"concept_{i}"), numbers(i))
                store.finish()
                return
        except ConceptLabError as error:
            if "another process" not in str(error):
                raise


def test_many_writers_one_after_the_other_lose_no_row(path):
    others = [FORK.Process(target=one_cell, args=(path, i)) for i in range(6)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert {r["concept"] for r in read_table(path)} == {f"concept_{i}" for i in range(6)}


# ---- what does not fit ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"settings": SETTINGS | {"k": 6}}, "settings: k"),
        ({"settings": SETTINGS | {"new": None}}, "settings: new"),
        ({"settings": {}}, "settings: budget, settings: grid, settings: k"),
        ({"fingerprint": "abd"}, "fingerprint"),
        ({"fingerprints": {"layer_04": "1"}}, "fingerprints: layer_04"),
        ({"experiment": "other"}, "experiment"),
        ({"model": "other"}, "model"),
    ],
)
def test_a_run_that_goes_on_otherwise_is_refused(path, changes, named):
    fill(path, 2, finish=False)
    with pytest.raises(ConceptLabError, match=rf"lab_m.partial.jsonl was begun otherwise \({named}\); finish it"):
        opened(path, **changes).__enter__()
    fill(path, 2)
    before = everything(path.parent)
    with pytest.raises(ConceptLabError, match=rf"is a finished table that was made otherwise \({named}\)"):
        opened(path, **changes).__enter__()
    assert everything(path.parent) == before
    with opened(path, **changes, replace=True) as store:
        store.add(Cell("japan"), numbers(1))
        assert read_table(path)[0]["concept"] == "concept_0", "replaced at the end, not before"
        store.finish()
    assert {r["concept"] for r in read_table(path)} == {"japan"} and not path.with_suffix("").exists()


@pytest.mark.parametrize("name", ["autointerp", "layers"])
@pytest.mark.parametrize("model", ["smollm2-135m", "gemma3-270m"])
def test_shipped_tables_that_are_older_than_fingerprints_are_read_and_not_gone_on_with(tmp_path, name, model):
    shipped = table_path(name, model)
    for suffix in (".csv", ".json"):
        (tmp_path / shipped.name).with_suffix(suffix).write_bytes(shipped.with_suffix(suffix).read_bytes())
    path = tmp_path / shipped.name
    before, found = everything(tmp_path), contents(path)
    assert found.rows and found.note["settings"] and found.finished
    store = Store(path, experiment=name, model=model, fingerprint="abc", settings=found.note["settings"])
    with pytest.raises(ConceptLabError, match="is older than fingerprints: .* of which weights it is") as error:
        store.__enter__()
    assert "--out" in str(error.value) and "--replace" in str(error.value) and "\n" not in str(error.value)
    assert everything(tmp_path) == before


def test_a_finished_table_that_came_in_between_is_not_replaced(path, tmp_path):
    fill(path, 2, finish=False)
    other = tmp_path / "other" / "lab_m.csv"
    fill(other, 7)
    for suffix in (".csv", ".json", ".records.jsonl"):
        path.with_suffix(suffix).write_bytes(other.with_suffix(suffix).read_bytes())
    with pytest.raises(ConceptLabError, match="lab_m.csv changed after the run in lab_m.partial.jsonl was begun"):
        opened(path).__enter__()
    assert len(read_table(path)) == 21


@pytest.mark.parametrize("kind", ["folder", "device", "link", "below a file", "no csv"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path, kind):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "link.csv").symlink_to(tmp_path / "file")
    places = {"folder": tmp_path / "folder.csv", "device": Path("/dev/null"), "link": tmp_path / "link.csv"}
    places |= {"below a file": tmp_path / "file" / "x.csv", "no csv": tmp_path / "x.json"}
    with pytest.raises(ConceptLabError) as error:
        opened(places[kind])
    assert places[kind].name in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / "file").read_text() == "x"


# ---- reading ----------------------------------------------------------------------------------------------------
DAMAGE = {
    "torn row": (lambda t: t[:-20], "line 7"),
    "no last line break": (lambda t: t[:-1], "ends inside a line"),
    "a row less": (lambda t: "".join(t.splitlines(True)[:-1]), "were not written together"),
    "another number": (lambda t: t.replace("1.3333", "1.3334"), "were not written together"),
    "not a number": (lambda t: t.replace("1.3333", "nan"), "value of specificity is nan"),
    "words": (lambda t: t.replace("1.3333", "high"), "value is 'high', not a number"),
    "foreign model": (lambda t: t.replace("lab,tiny,concept_1", "lab,other,concept_1"), "lab of other in a table"),
    "a further column": (lambda t: t.replace(",9,0\n", ",9,0,1\n", 1), "line 2: 13 values for 12 columns"),
    "a column less": (lambda t: t.replace("attack,", "", 1), "has not the columns"),
    "a row twice": (lambda t: t + t.splitlines(True)[-1], "a second time"),
    "seed": (lambda t: t.replace(",9,0\n", ",9,zero\n", 1), "seed is 'zero'"),
    "empty": (lambda t: "", "has not the columns"),
    "JSON": (lambda t: '{"a": 1}', "has not the columns"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_table_is_named_in_one_sentence(path, kind):
    fill(path, 2)
    change, message = DAMAGE[kind]
    path.write_text(change(path.read_text()))
    with pytest.raises(ConceptLabError, match=message) as error:
        read_table(path)
    assert "lab_m.csv" in str(error.value) and "\n" not in str(error.value)


def test_other_damage(path):
    with pytest.raises(ConceptLabError, match="make it with `conceptlab reproduce`"):
        read_table(path)
    fill(path, 2)
    text = path.read_bytes()
    path.write_bytes(text.replace(b"\n", b"\r\n"))  # as git may do
    assert len(read_table(path)) == 6
    path.write_bytes(b"\xff\xfe" + text)
    with pytest.raises(ConceptLabError, match="cannot be read"):
        read_table(path)
    path.write_bytes(text)
    records = path.with_suffix(".records.jsonl")
    records.write_text(records.read_text()[:-9])
    with pytest.raises(ConceptLabError, match="were not written together"):
        read_table(path)
    path.with_suffix(".json").write_text("[]")
    with pytest.raises(ConceptLabError, match="lab_m.json does not say where a table comes from"):
        read_table(path)


def test_the_tables_of_the_course_can_be_read():
    from conceptlab.core import data_dir

    tables = sorted((data_dir() / "results").glob("*.csv"))
    assert len(tables) >= 4
    for table in tables:
        with open(table, encoding="utf-8", newline="") as file:
            assert read_table(table) == list(csv.DictReader(file))


# ---- one table from several -------------------------------------------------------------------------------------
def test_merged_tables_hold_cells_records_and_files_of_all(tmp_path, whole):
    into, parts = tmp_path / "m" / "lab_m.csv", [tmp_path / name / "lab_m.csv" for name in "abc"]
    for i, part in enumerate(parts):
        fill(part, 4, first=4 * i)
    assert merge(into, parts) == into
    assert everything(into.parent) == whole
    minutes = contents(into).note["minutes"]
    merge(into, parts)  # the same cells a second time
    assert everything(into.parent) == whole and contents(into).note["minutes"] == minutes
    with opened(into) as store:  # the whole goes on like any other table
        assert len(store.rows) == 36


def test_killed_while_merging(tmp_path, whole):
    parts = [tmp_path / name / "lab_m.csv" for name in "ab"]
    for i, part in enumerate(parts):
        fill(part, 6, first=6 * i)
    for n in range(1, 400, 4):
        into = tmp_path / str(n) / "lab_m.csv"
        shutil.copytree(parts[0].parent, into.parent)
        code = kill_at(n, merge, into, parts[1:])
        assert len(contents(into).cells) in (6, 12)
        merge(into, parts[1:])
        assert everything(into.parent) == whole
        if code == 0:
            break
    assert code == 0 and n > 20


def test_pooled_rows_are_made_anew_or_left_out(tmp_path, capsys):
    parts = [tmp_path / f"{name}.csv" for name in ("japan", "golf")]
    for i, part in enumerate(parts):
        with opened(part) as store:
            store.add(Cell(part.stem), numbers(i))
            store.add(Cell("all"), numbers(i))
            store.finish()
    merge(tmp_path / "without.csv", parts)
    assert {r["concept"] for r in read_table(tmp_path / "without.csv")} == {"japan", "golf"}
    assert '"all") were left out' in capsys.readouterr().out

    def summarise(found):
        return {Cell("all"): {"n": Interval(len(found.cells), 0, 9, 2)}}

    merge(tmp_path / "with.csv", parts, summarise)
    assert [r["value"] for r in read_table(tmp_path / "with.csv") if r["concept"] == "all"] == ["2"]
    assert capsys.readouterr().out == ""


def older(path, concept, **settings):
    """A finished table as earlier versions wrote it: its concepts among the settings, no fingerprint, no checksum."""
    with opened(path, experiment="layers") as store:
        store.add(Cell(concept, "contrast", budget=3), numbers(1))
        store.finish()
    note = {"experiment": "layers", "model": "tiny", "commit": "abc", "seed": 0, "device": "cpu", "minutes": None}
    note |= {"versions": {"python": "3.11"}, "settings": {"concepts": [concept], "k": 5} | settings}
    path.with_suffix(".json").write_text(json.dumps(note))
    return path


def test_older_tables_are_read_and_merged_and_not_continued(tmp_path):
    parts = [older(tmp_path / f"{name}.csv", name) for name in ("japan", "golf")]
    into = merge(tmp_path / "whole.csv", parts)
    assert [r["concept"] for r in read_table(into)][::3] == ["japan", "golf"]
    note = contents(into).note
    assert note["settings"] == {"concepts": ["japan", "golf"], "k": 5} and note["commit"] == "abc"
    before = into.read_text()
    assert merge(into, parts).read_text() == before
    assert contents(into).note["minutes"] == 0
    with pytest.raises(ConceptLabError, match="differ in settings: k"):
        merge(into, [older(tmp_path / "other.csv", "rome", k=6)])
    with pytest.raises(ConceptLabError, match="older than fingerprints"):
        opened(into, experiment="layers").__enter__()


def test_pooled_rows_of_a_merged_table_have_its_seed(tmp_path):
    fill(tmp_path / "part.csv", 2, seed=4)
    into = merge(tmp_path / "m.csv", [tmp_path / "part.csv"], lambda _: {Cell("all"): numbers(1)})
    assert {r["seed"] for r in read_table(into)} == {"4"}


def alter(path, note=None, text=None):
    beside = path.with_suffix(".json")
    told = json.loads(beside.read_text()) | {"sha256": None}  # as if made by hand
    beside.write_text(json.dumps(told | (note or {})))
    if text:
        path.write_text(text(path.read_text()))


def test_parts_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path):
    into = tmp_path / "whole" / "lab_m.csv"
    fill(into, 2)
    before = everything(into.parent)

    def part(name, first=5, **changes):
        fill(tmp_path / name / "lab_m.csv", 1, first=first, **changes)
        return tmp_path / name / "lab_m.csv"

    fitting, wrong = part("fitting"), {}
    wrong["differ in settings: k"] = part("k", settings=SETTINGS | {"k": 6})
    wrong["differ in fingerprint"] = part("weights", fingerprint="x")
    wrong["differ in model"] = part("model", model="other")
    wrong["differ in experiment"] = part("experiment", experiment="other")
    wrong["differ in fingerprints: sae"] = part("sae", fingerprints={"sae": "x"})
    wrong["no finished table"] = tmp_path / "missing.csv"
    wrong["has not the columns"] = fitting.with_suffix(".json")
    alone = part("alone")
    alone.with_suffix(".json").unlink()
    wrong["with its .json"] = alone
    nan = part("nan", first=7)
    alter(nan, text=lambda t: t.replace("7.3333", "nan"))
    wrong["value of specificity is nan"] = nan
    foreign = part("foreign")
    alter(foreign, text=lambda t: t.replace("lab,tiny", "lab,huge"))
    wrong["is of the model huge"] = foreign
    column = part("column")
    alter(column, text=lambda t: t.replace(",9,0\n", ",9,0,x\n"))
    wrong["13 values"] = column
    listed = part("listed")
    alter(listed, {"settings": SETTINGS | {"concepts": ["concept_5", "golf"]}})
    wrong["lists golf, of which lab_m.csv has no row"] = listed
    count = part("count")
    alter(count, {"cells": 2})
    wrong["has 1 cells, its .json says 2"] = count
    other = part("other", first=1)
    alter(other, text=lambda t: t.replace("1.3333", "1.5"))
    wrong["other numbers for concept_1, pisces, 1"] = other
    record = tmp_path / "record" / "lab_m.csv"
    with opened(record) as store:
        store.add(Cell("concept_1", "pisces", budget=1), numbers(1), record="another")
        store.finish()
    wrong["holds other numbers for concept_1"] = record
    edit = part("edit", first=0)
    (edit.with_suffix("") / "0.edit").write_text("another")
    wrong["0.edit differs from the file of this name"] = edit
    going = tmp_path / "going" / "lab_m.csv"
    fill(going, 1, finish=False)
    wrong["no finished table .*going"] = going

    for message, path in wrong.items():
        with pytest.raises(ConceptLabError, match=message) as error:
            merge(into, [fitting, path])
        assert "\n" not in str(error.value)
        assert everything(into.parent) == before, message
    for target, parts in ((into, []), (into.with_suffix(".json"), [fitting]), (tmp_path / "whole", [fitting])):
        with pytest.raises(ConceptLabError):
            merge(target, parts)
    fill(into, 3, finish=False)
    with pytest.raises(ConceptLabError, match="is not finished"):
        merge(into, [fitting])


# ---- the console ------------------------------------------------------------------------------------------------
def test_progress_is_one_line_per_cell(path, capsys):
    cells = [Cell(f"concept_{i}") for i in range(3)]
    with opened(path) as store:
        store.add(Cell("another"), numbers(0))
        store.progress(cells)
        for i, cell in enumerate(cells):
            store.add(cell, numbers(i))
        store.progress(8)
        store.add(Cell("last"), numbers(4))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "lab: 1 of 3 cells, 0 min, about 1 min left",
        "lab: 2 of 3 cells, 0 min, about 1 min left",
        "lab: 3 of 3 cells, 0 min",
        "lab: 5 of 8 cells, 0 min, about 1 min left",
    ]


SCRIPT = """
import sys
from conceptlab.core import Cell, Interval, Store
with Store(sys.argv[1], experiment="lab", model="m") as store:
    store.progress(200)
    for i in range(200):
        store.add(Cell(str(i)), {"m": Interval(1, 0, 2, 3)})
    store.finish()
"""


def test_a_reader_that_goes_away_does_not_stop_the_experiment(path):
    command = [sys.executable, "-c", SCRIPT, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("lab: 1 of 200 cells")
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0 and len(read_table(path)) == 200


def test_without_git_the_commit_is_unknown(path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    commit.cache_clear()
    fill(path, 1)
    commit.cache_clear()
    assert contents(path).note["commit"] == "unknown"
