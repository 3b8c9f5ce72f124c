"""What did unlearning change? Edits of several methods and their controls, dissected concept by concept.

Cells: concept x edit x `protocol/direction/part` x layers ("25-29"). Protocols: `gold` (examples in front, the right
answer) and `own` (no examples, the original's own greedy answer: the paper's). Directions: `back` puts the original's
part into the edited model, `into` the edited model's part into the original. The metrics are shares of the distance
from the original that are taken back; records hold the distances of every question. `gold/damage` and `own/damage`
cells hold the distances of the edits themselves, `moves` where the weights moved, `span` what lies in the concept's own
directions, `scale` the edit weaker and stronger, `collateral` what other concepts lose.

Edits: fine-tuning with fixed recipes on all block weights, brought to the damage of gradient difference; PISCES as the
lab's table chose it; and random edits: of equal norm, of equal damage (on right answers), and of equal distance on the
original's own answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ...core import ConceptLabError, NotPossible, Store, say, table_path
from ...models import LanguageModel
from .bench import Bench, DissectionConfig
from .cells import dissect
from .edits import CONTROLS, EDITS, Edits, live_recipe
from .pooling import pool_dissections
from .reading import DissectionTable

__all__ = ["CONTROLS", "DISSECTED", "EDITS", "DissectionConfig", "DissectionTable", "dissection", "live_recipe"]

DISSECTED = ("japan", "golf", "chemical_elements", "ancient_rome")


def dissection(
    lm: LanguageModel,
    path: Path | None = None,
    concepts: Sequence[str] = DISSECTED,
    methods: Sequence[str] | None = None,
    config: DissectionConfig | None = None,
    seed: int = 0,
    replace: bool = False,
) -> Path:
    """Dissect the edits `methods` (of `EDITS`, default: all) of some concepts.

    The table is written to `path` (default: its place in data/results), see `Store` for interruptions and `replace`.
    More concepts, edits and seeds go on with the same table. `seed`: order of training rows, draws of random edits. An
    edit that cannot be made is left out with a note. Raises ConceptLabError for an unknown edit.
    """
    config = config or DissectionConfig()
    if unknown := [name for name in methods or () if name not in EDITS]:
        raise ConceptLabError(f"dissection has no edit {unknown[0]!r}; there are {', '.join(EDITS)}.")
    with Store(
        path or table_path("dissection", lm.name), experiment="dissection", model=lm.name,
        fingerprint=lm.fingerprint(), settings=asdict(config), seed=seed, device=str(lm.device), replace=replace,
    ) as store:  # fmt: skip
        for name in concepts:
            try:
                bench = Bench(lm, store, config, name)
                edits = Edits(bench)
            except NotPossible as reason:
                say(f"{name}: {reason}")
                continue
            for method in EDITS if methods is None else methods:
                dissect(bench, edits, method)
        pool_dissections(store)
        return store.finish()
