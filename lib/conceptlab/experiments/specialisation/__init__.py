"""Do value vectors specialise? Masking with controls for every concept, then teaching through chosen vectors.

Cells: concept x method x share of the vectors masked. The vectors are ranked on dev questions and masked; what that
costs is measured on known test questions of the concept and of the others. Methods: `own` (the concept's vectors),
`equal` (equally active ones), `random`, `permuted` (ranked by questions with permuted concept labels), `masked` (ranked
by questions whose subject words were taken out) and `words` (by the concept's bare words). `clues` cells ask for facts
in wordings without any subject word, `precise` cells for every known fact of the concept, `per_layer` cells mask the
same share of every layer, `teaching` cells teach invented facts through chosen vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core import ConceptLabError, Store, table_path
from ...data import list_concepts
from ...models import LanguageModel
from ...specialisation import TeachingConfig
from .bench import Bench, SpecialisationConfig
from .masking import STAGES, mask_concept
from .pages import attempts_page, ladder_page, shares_page, taught_page, words_page
from .pooling import pool_concepts
from .teaching import TAUGHT, teach_concept, teaching_sets
from .view import MaskingTable, masking_table

__all__ = [
    "MaskingTable",
    "SpecialisationConfig",
    "attempts_page",
    "ladder_page",
    "masking_table",
    "shares_page",
    "specialisation",
    "taught_page",
    "teaching_sets",
    "words_page",
]


def specialisation(
    lm: LanguageModel,
    path: Path | None = None,
    concepts: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    config: SpecialisationConfig | None = None,
    teaching: TeachingConfig | None = None,
    seed: int = 0,
    replace: bool = False,
) -> Path:
    """Masking cells of `concepts` (default: all), then teaching cells of those among them that `TAUGHT` names.

    `methods`: of `STAGES` (default: all): the claims at one share, subject words, more questions,
    layer by layer, further shares, teaching.
    The table is written to `path` (default: its place in data/results), see `Store` for interruptions and `replace`.
    More concepts and stages go on with the same table. Raises ConceptLabError for an unknown stage.
    """
    config, teaching = config or SpecialisationConfig(), teaching or TeachingConfig()
    concepts = list_concepts() if concepts is None else list(concepts)
    if unknown := [stage for stage in methods or () if stage not in STAGES]:
        raise ConceptLabError(f"specialisation has no {unknown[0]!r}; its stages are {', '.join(STAGES)}.")
    settings: dict[str, Any] = {**vars(config), "shares": list(config.shares), "teaching": vars(teaching)}
    with Store(
        path or table_path("specialisation", lm.name), experiment="specialisation", model=lm.name,
        fingerprint=lm.fingerprint(), settings=settings, seed=seed, device=str(lm.device), replace=replace,
    ) as store:  # fmt: skip
        bench = Bench(lm, store, config)
        for stage in STAGES if methods is None else methods:
            for name in concepts:
                if stage != "teach":
                    mask_concept(bench, name, stage)
                elif name in TAUGHT:
                    teach_concept(bench, name, teaching)
        pool_concepts(store)
        return store.finish()
