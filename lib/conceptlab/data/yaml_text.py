"""YAML read as text as written: UTF-8, strings only, every value's line known, nothing that can grow or nest deeply."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import yaml

from ..core import ConceptLabError

MAX_BYTES = 4_000_000  # the largest of our own files has 0.2 MB
MAX_DEPTH = 20  # collections within collections; our own files have 6

Lines = dict[int, dict]  # id of a mapping or list -> {key or index: line, counted from 1}


class YamlText:
    """What a YAML file holds: mappings, lists and texts (`No`, `on`, `null`, `007` are texts), and where it stands.

    Read from libyaml's events without recursion, so that a file of 100,000 brackets is refused at the 20th; aliases,
    anchors and tags are refused, which no file of data needs and by which a small file may grow without bound.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lines: Lines = {}
        self._last = 1
        text = read_utf8(path)
        try:
            self.content = self._compose(text)
        except yaml.reader.ReaderError as error:
            line = text[: error.position].count("\n") + 1
            raise ConceptLabError(f"{path.name} is not valid YAML: line {line}: a control character.") from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else self._last
            raise ConceptLabError(f"{path.name} is not valid YAML: line {line}: {error.problem}.") from None

    def line(self, place: tuple) -> int:
        """The line of the value at `place`, a path of keys and indices; of the deepest part of it that exists."""
        node, line = self.content, 1
        for key in place:
            lines = self._lines.get(id(node), {})
            if key not in lines:
                break
            line, node = lines[key], node[key]
        return line

    def _compose(self, text: str):
        stack: list = []  # the collections that are open
        keys: list = []  # of each of them, the key that waits for its value; None in lists and between pairs
        root: list = []
        for event in yaml.parse(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader)):
            assert event.start_mark is not None  # what is parsed stands somewhere
            self._last = event.start_mark.line + 1
            node: str | dict | list
            if isinstance(event, yaml.ScalarEvent):
                self._refuse_marks(event)
                node = event.value
            elif isinstance(event, yaml.CollectionStartEvent):
                self._refuse_marks(event)
                if len(stack) == MAX_DEPTH:
                    self._refuse(f"is nested deeper than {MAX_DEPTH} lists and mappings; write it flatter")
                node = {} if isinstance(event, yaml.MappingStartEvent) else []
            elif isinstance(event, yaml.CollectionEndEvent):
                stack.pop(), keys.pop()
                continue
            elif isinstance(event, yaml.AliasEvent):
                self._refuse(f"uses the alias *{event.anchor}; write the value out")
            else:
                if isinstance(event, yaml.DocumentStartEvent) and root:
                    self._refuse("begins a second document; one file holds one")
                continue
            if self._attach(node, stack, keys, root):
                continue
            if not isinstance(node, str):
                stack.append(node)
                keys.append(None)
                self._lines[id(node)] = {}
        return root[0] if root else ""

    def _attach(self, node, stack: list, keys: list, root: list) -> bool:
        """Put a node where it belongs; True when it was the key of a pair, whose value comes next."""
        if not stack:
            root.append(node)
            return False
        parent, lines = stack[-1], self._lines[id(stack[-1])]
        if isinstance(parent, list):
            lines[len(parent)] = self._last
            parent.append(node)
        elif keys[-1] is None:
            if not isinstance(node, str):
                self._refuse("has a list or mapping as a key; a key is a text")
            if node in parent:
                self._refuse(f"repeats the key {node[:40]!r}, first given in line {lines[node]}; keep one of the two")
            keys[-1], lines[node] = node, self._last
            parent[node] = None
            return True
        else:
            parent[keys[-1]], keys[-1] = node, None
        return False

    def _refuse_marks(self, event) -> None:
        if event.anchor is not None:
            self._refuse(f"sets the anchor &{event.anchor}; write the value out where it is needed")
        if event.tag is not None:
            self._refuse(f"uses the tag {event.tag[:40]}; values are read as text, leave it out")

    def _refuse(self, what: str) -> NoReturn:
        raise ConceptLabError(f"{self.path.name}, line {self._last}: {what}.")


def read_utf8(path: Path, limit: int = MAX_BYTES) -> str:
    """The text of a UTF-8 file, whatever the locale. Raises ConceptLabError that names the file and what is wrong."""
    if not path.is_file():
        raise ConceptLabError(f"{path} is {'a folder or a device' if path.exists() else 'not there'}; give a file.")
    try:
        if path.stat().st_size > limit:
            raise ConceptLabError(f"{path.name} has {path.stat().st_size:,} bytes; at most {limit:,} are read.")
        raw = path.read_bytes()
    except OSError as error:
        raise ConceptLabError(f"{path} cannot be read ({error.strerror}).") from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw:
        raise ConceptLabError(f"{path.name} is not UTF-8 text (it looks like UTF-16 or binary); save it as UTF-8.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConceptLabError(f"{path.name}, line {line}: is not UTF-8 text; save the file as UTF-8.") from None
