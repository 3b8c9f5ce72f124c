"""The table of run-time guards: weights that stay, false alarms, and questions that a silent detector lets pass."""

import torch

from conceptlab.attacks import AntidoteConfig, RelearnConfig, prune_after_relearning
from conceptlab.course.guarding import below_now, guard_grid, measured_guards, pruned_grid
from conceptlab.data import load_concept
from conceptlab.edits import Dense, WeightEdit
from conceptlab.erasure import CorruptedPrompts, Detector
from untouched import TEXTS


def detector(lm, threshold):
    zeros = torch.zeros(lm.d_model)
    return Detector(0, zeros, zeros + 1, zeros, 0.0, threshold)


def test_guards_are_silent_or_not_and_an_edit_is_no_guard(tiny_llama):
    lm = tiny_llama(d_model=32, initializer_range=0.3)
    questions = load_concept("japan").test
    name = lm.down_proj_name(1)
    edit = WeightEdit.of(lm, {name: Dense(torch.ones_like(lm.parameters()[name]))}, {})
    guards = {"silent": CorruptedPrompts(detector(lm, 1.0), 3.0), "loud": CorruptedPrompts(detector(lm, -1.0), 3.0)}
    found = measured_guards(lm, guards | {"edit": edit}, {"Japan": questions[:3], "other": questions[3:6]}, runs=1)
    assert found["silent"].silent < 1e-3 and all(float(x.abs().max()) < 1e-3 for x in found["silent"].lost.values())
    assert found["loud"].silent == 0.0, "nothing was let pass"
    assert float(found["loud"].lost["other"].abs().max()) > 0.05 and found["edit"].silent is None
    assert found["silent"].kept and found["loud"].kept and not found["edit"].kept
    grid = guard_grid(found)
    assert [c[-1] for c in grid.cells] == ["all", "all", "changed"] and grid.cells[0][3].startswith("0.00")
    assert grid.columns == ["guard", "Japan loses", "other", "alarms: other", "time", "weights left"]


def test_pruning_stands_beside_as_many_weights_at_random(tiny_llama):
    lm = tiny_llama(d_model=32, initializer_range=0.3)
    sets = {"Japan": load_concept("japan").test[:2], "China": load_concept("japan").test[2:4]}
    attack, prune = RelearnConfig(steps=1, batch_size=2, n_ctx=16), AntidoteConfig(weights="down_proj", n_ctx=16)
    found = prune_after_relearning(lm, None, TEXTS, TEXTS, below_now(lm, sets), attack, prune, (0.02, 0.3))
    grid = pruned_grid(found)
    assert grid.columns[1:] == ["Japan", "China", "Japan, random weights", "China, random weights"]
    assert [row[0] for row in grid.cells] == ["relearned", "2.00% pruned", "30.00% pruned"]
    assert grid.cells[0][3:] == ["", ""] and all("[" in x for x in grid.cells[2][1:])
    assert below_now(lm, sets)(lm)["Japan"].value == 0
