"""One command through the house: `erase golf` goes down once and comes back once, as docs/library.md draws it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

import conceptlab
from conceptlab import cli, data
from conceptlab.edits import Dense, WeightEdit
from conceptlab.erasure import get_method
from conceptlab.erasure import method as interface
from conceptlab.evaluation import closest
from sizes import SMALL

LIBRARY = Path(conceptlab.__file__).parent
FLOORS = ("core", "models", "data", "edits", "evaluation", "erasure", "cli")  # the rooms that this command needs
# Functions that a room hands down with a call, for the room below to call: the only way up but to return.
HANDED_DOWN = {
    "choose.<locals>.make": "erasure's, to evaluation: the edit of one setting of the search",
    "WeightEdit._begin": "edits', to models: what a change does when it is put on",
    "harmonic_mean": "evaluation's, to core: what is put together in every resample",
    "bare_or_spaced_tokens.<locals>.<genexpr>": "erasure's, to models: texts that are made as they are tokenised",
}
Crossing = tuple[str, str, str]  # from which room, into which, the function that is called there


@contextmanager
def crossings() -> Iterator[list[Crossing]]:
    """Every call from one room of the library into another while the block runs, in order."""
    found: list[Crossing] = []
    rooms: dict[object, str | None] = {}

    def room(code) -> str | None:
        if code not in rooms:
            path = Path(code.co_filename)
            inside = path.is_relative_to(LIBRARY) and code.co_name != "<module>"
            rooms[code] = path.relative_to(LIBRARY).parts[0] if inside else None
        return rooms[code]

    def seen(frame, event, _) -> None:
        if event != "call" or (into := room(frame.f_code)) is None:
            return
        caller = frame.f_back  # past what is no part of the library: decorators, context managers, this test
        while caller is not None and room(caller.f_code) is None:
            caller = caller.f_back
        if caller is not None and (own := room(caller.f_code)) != into:
            found.append((str(own), into, frame.f_code.co_qualname))

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        yield found
    finally:
        sys.setprofile(before)


def from_below(found: list[Crossing]) -> set[Crossing]:
    """Crossings that lead up and are no call of a function that was handed down."""
    return {
        (own, into, name)
        for own, into, name in found
        if FLOORS.index(into) > FLOORS.index(own) and name not in HANDED_DOWN
    }


def test_erase_goes_down_once_and_comes_back_once(tiny_llama, tmp_path, monkeypatch, capsys):
    lm = tiny_llama(initializer_range=0.5, tie_word_embeddings=True)
    lm.save(tmp_path / "model")
    golf = data.load_concept("golf")
    near = replace(golf.neighbour, test=golf.neighbour.test[:4])
    few = replace(golf, test=golf.test[:4], neighbour=near, near=())
    monkeypatch.setattr("conceptlab.data.load_concept", lambda name: (data.concepts.load_concept(name), few)[1])
    monkeypatch.setattr("conceptlab.erasure.SharedConfig", lambda: SMALL)
    monkeypatch.setattr(interface, "cache_dir", lambda: tmp_path / "cache")
    line = ["erase", "golf", "--model", str(tmp_path / "model"), "--method", "words", "--card"]
    with crossings() as found:
        assert cli.main(line) == 0, capsys.readouterr().err
    assert not from_below(found), "a room is entered from below"
    steps = ("load_concept", "load_model", "choose", "WeightEdit.applied", "scorecard", "compare")
    doors = [(into, name) for own, into, name in found if own == "cli" and name in steps]
    assert doors == [
        ("data", "load_concept"),
        ("models", "load_model"),
        ("erasure", "choose"),
        ("evaluation", "scorecard"),  # of the original
        ("edits", "WeightEdit.applied"),
        ("evaluation", "scorecard"),
        ("evaluation", "compare"),
    ]
    # below the command line nobody goes back for the model or the concept, and one search chooses the strength
    again = [name for own, _, name in found if own != "cli" and name in ("load_model", "load_concept", "choose")]
    assert not again and [own for own, _, name in found if name == "search_settings"] == ["erasure"]


def test_a_room_that_is_entered_from_below_is_seen():
    def loss(edit: object) -> float:
        get_method("words")  # called by evaluation, so it is evaluation that asks the room above it
        return 1.0

    with crossings() as found:
        closest(loss, [WeightEdit("tiny", {"weight": Dense(torch.zeros(1, 1))})], 1.0)
    assert from_below(found) == {("evaluation", "erasure", "get_method")}
