"""Answers of an endpoint on disk: one JSON file per question, read only where it is whole and to the question."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from ..core import ConceptLabError, atomic_path
from .request import usage_numbers
from .secrets import Redactor


class Transcripts:
    """A folder of answers, keyed by the server's address, the model, the messages and the settings."""

    def __init__(self, folder: Path, redact: Redactor):
        self.folder, self._redact = folder, redact

    def path(self, place: str, request: dict) -> Path:
        """The file of one question."""
        digest = hashlib.sha256(json.dumps([place, request], sort_keys=True).encode()).hexdigest()
        return self.folder / f"{digest[:32]}.json"

    def find(self, place: str, request: dict, check: Callable[[str], object] | None = None) -> str | None:
        """The answer that is known; None where there is none, the file is damaged, or `check` refuses it."""
        try:
            kept = json.loads(self.path(place, request).read_text(encoding="utf-8"))
            answer = kept["answer"]
            if kept["request"] != self._shown(request) or not isinstance(answer, str) or not answer:
                return None
            if check:
                check(answer)
        except (OSError, ValueError, LookupError, TypeError, RecursionError, ConceptLabError):
            return None
        return self._redact(answer)

    def keep(self, place: str, request: dict, answer: str, usage: dict) -> None:
        """Write an answer down, without secrets."""
        kept = {"request": self._shown(request), "answer": self._redact(answer), "usage": usage_numbers(usage)}
        with atomic_path(self.path(place, request)) as temporary:
            temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")

    def _shown(self, request: dict) -> dict:
        messages = [{name: self._redact(text) for name, text in said.items()} for said in request["messages"]]
        return request | {"messages": messages}
