"""What the runs of the notebooks gave, kept in build/results.json between partial runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ..core import atomic_path, say
from .headline import Headline


@dataclass(frozen=True)
class Result:
    """The last run of one notebook."""

    question: str  # its title
    minutes: float
    headline: Headline | None
    error: str | None  # what stopped it


_RESULT = TypeAdapter(Result)


def read_results(path: Path) -> dict[str, Result]:
    """Results by notebook. What is damaged, or was written by another version, is left out with a note."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        say(f"{path.name} cannot be read ({type(error).__name__}); the site starts anew with this run.")
        return {}
    if not isinstance(kept, dict):
        say(f"{path.name} holds no results; the site starts anew with this run.")
        return {}
    found = {}
    for name, entry in kept.items():
        try:
            found[name] = _RESULT.validate_python(entry)
        except ValidationError:
            say(f"{path.name}: what it says about {name!r} was written by another version; run that notebook again.")
    return found


def update_results(path: Path, new: dict[str, Result], names: set[str]) -> dict[str, Result]:
    """Merge new results with the earlier ones of notebooks that still exist, and write them."""
    merged = {k: v for k, v in {**read_results(path), **new}.items() if k in names}
    with atomic_path(path) as temporary:
        kept = {name: asdict(result) for name, result in merged.items()}
        temporary.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    return merged
