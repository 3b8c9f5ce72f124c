"""Methods on invented facts: the exact twin as the zero of efficacy."""

from dataclasses import dataclass

import pytest
import torch

from conceptlab.attacks import Rates, RelearnConfig
from conceptlab.core import NotPossible
from conceptlab.edits import WeightEdit
from conceptlab.erasure import Method
from conceptlab.erasure import method as interface
from conceptlab.experiments import on_fiction
from conceptlab.experiments.fiction import taught_copy
from sizes import SMALL
from untouched import assert_untouched, weights


@dataclass(frozen=True)
class BackConfig:
    """How much of the teaching is taken back."""

    share: float = 1.0


def test_taking_the_teaching_back_is_the_twin_and_more_is_too_much(tiny_llama, tmp_path, monkeypatch):
    monkeypatch.setattr(interface, "cache_dir", lambda: tmp_path)
    lm = tiny_llama(d_model=32, initializer_range=0.3)
    before = weights(lm)
    taught = taught_copy(lm, RelearnConfig(steps=30, batch_size=16, n_ctx=32), Rates(teach=1e-2))

    def back(lm, concept, config, shared):
        if not config.share:
            raise NotPossible("nothing to take back.")
        return WeightEdit.of(lm, {n: c.scaled(-config.share) for n, c in taught.changes.items()})

    known = {f"back{x:g}": Method(f"back{x:g}", "vectors", "a test", BackConfig(x), back) for x in (0.0, 0.5, 1.0, 1.5)}
    monkeypatch.setattr(interface, "_METHODS", known)
    found = on_fiction(lm, list(known), taught, {}, SMALL)
    assert_untouched(lm, before)
    assert set(found) == {"back0.5", "back1", "back1.5"}
    exact, half = found["back1"], found["back0.5"]
    # on the facts that were shown: what a model of this size learns it does not carry over to others
    assert exact.shown.gap.value > 0.5, "the facts were not learned"
    assert exact.shown.removed.value == pytest.approx(1, abs=0.01)
    for scores in (exact.shown, exact.held_out):
        assert scores.below.value == pytest.approx(0, abs=0.01)
        assert scores.removed.measurable == (scores.gap.low > 0), "there is no share of a gap that may be none"
    assert exact.depth.score.value == pytest.approx(1, abs=0.01)
    assert 0 < half.shown.removed.value < 1 and half.shown.below.value < 0
    assert half.depth.score.value < 1 and len(half.depth.scores) == 16
    assert exact.shown.accuracy_before.value >= exact.shown.accuracy_never.value
    assert torch.equal(exact.fitted.intervention.changes[lm.down_proj_name(0)].dense(), -taught.changes[
        lm.down_proj_name(0)].dense())  # fmt: skip
