"""Candidates of many concepts, kept in a file: what labels of dictionaries must cover."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from ...core import ConceptLabError, atomic_path
from ...data import Concept
from ...models import LanguageModel, fingerprint
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
    again. The file is for these weights and dictionaries, by their fingerprints. Raises ConceptLabError for one that is
    for others or does not say, and where it would lose concepts found with other settings.
    """
    recipe = {
        "weights": lm.fingerprint(), "dictionaries": _fingerprint(saes), "layers": sorted(saes),
        "widths": [saes[x].cfg.d_sae for x in sorted(saes)], **settings,
    }  # fmt: skip
    known = _read(path)
    found, before = known.get("candidates", {}), known.get("recipe", recipe)
    if others := [key for key in ("weights", "dictionaries") if before.get(key) != recipe[key]]:
        raise ConceptLabError(
            f"{path.name} lists candidates of other {' and '.join(others)} (it says "
            f"{before.get(others[0], 'nothing')}, here are {recipe[others[0]]}); write to another folder with --out, "
            "or delete it."
        )
    if before != recipe:
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
            text = json.dumps({"model": lm.name, "recipe": recipe, "candidates": dict(sorted(found.items()))}, indent=1)
            temporary.write_text(text, encoding="utf-8")
    return {concept.name: [tuple(place) for place in found[concept.name]] for concept in concepts}


def _fingerprint(saes: Dictionaries) -> str:
    """Which dictionaries these are: all their tensors, and the layers that they are of."""
    return fingerprint({f"{layer} {name}": x for layer, sae in saes.items() for name, x in sae.state_dict().items()})


def _read(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        right = isinstance(found.get("recipe"), dict) and isinstance(found.get("candidates"), dict)
        return found if right else {}
    except (OSError, ValueError, AttributeError):
        return {}
