"""Candidates of many concepts, kept in a file: what labels of dictionaries must cover."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from ...core import ConceptLabError, atomic_path
from ...data import Concept
from ...models import LanguageModel
from .features import Dictionaries, Feature, by_layer


def candidates(
    lm: LanguageModel,
    saes: Dictionaries,
    concepts: Sequence[Concept],
    path: Path,
    find: Callable[[Concept], Sequence[Feature]],
    settings: Mapping[str, float | int | str],
    progress: bool = True,
) -> dict[str, list[tuple[int, int]]]:
    """Concept -> `(layer, index)` of what `find` proposes for it, best first; `settings` say how it does.

    Written to `path` (JSON) after every concept; those that are there, found with the same settings, are not searched
    again. Raises ConceptLabError where the file would lose concepts found with other settings.
    """
    recipe = {"model": lm.name, "layers": sorted(saes), "widths": [saes[x].cfg.d_sae for x in sorted(saes)], **settings}
    known = _read(path)
    found = known.get("candidates", {})
    if known.get("recipe") != recipe:
        if lost := sorted({*found} - {concept.name for concept in concepts}):
            raise ConceptLabError(
                f"{path.name} lists candidates that were found with other settings, also of concepts not asked "
                f"for ({', '.join(lost)}); write to another folder with --out, or ask for all of them."
            )
        found = {}
    missing = [concept for concept in concepts if concept.name not in found]
    for concept in tqdm(missing, unit="concept", desc="candidates", disable=not progress or not missing):
        features = find(concept)
        if features:
            by_layer(lm, saes, features)  # raises for a feature that no dictionary has
        found[concept.name] = [[f.layer, f.index] for f in features]
        with atomic_path(path) as temporary:
            text = json.dumps({"recipe": recipe, "candidates": dict(sorted(found.items()))}, indent=1)
            temporary.write_text(text, encoding="utf-8")
    return {concept.name: [tuple(place) for place in found[concept.name]] for concept in concepts}


def _read(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if {"recipe", "candidates"} <= found.keys() and isinstance(found["candidates"], dict) else {}
    except (OSError, ValueError, AttributeError):
        return {}
