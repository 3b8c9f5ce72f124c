"""Recovery beside the clamp: what is held stays, what was hidden comes back, nothing is left on the model."""

import pytest
import torch

from conceptlab.attacks import ClampedConfig, Detour, clamped, held_directions, teach
from conceptlab.core import ConceptLabError, NotPossible
from conceptlab.data import Question, fact_texts
from conceptlab.edits import Dense, LowRank, WeightEdit
from conceptlab.evaluation import score_questions
from conceptlab.models import next_token_loss
from dictionaries import make_sae
from untouched import assert_untouched, weights

WORDS = ["copper", "helium", "silver", "iron", "gold", "neon", "zinc", "lead"]
FACTS = tuple(
    Question(f"q{i}", f"Which element is number {i}?", tuple(WORDS[(i + j) % 8] for j in range(4)), 0) for i in range(4)
)
TESTED = (Question("t", "Which element is number 9?", ("argon", "radon", "tin", "boron"), 0),)
CFG = ClampedConfig(steps=25, batch_size=4, n_ctx=24, lr=3e-2)


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(d_model=32, initializer_range=0.3)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_what_is_added_is_orthogonal_to_what_is_held():
    Q = torch.linalg.qr(normal(16, 3))[0]
    found = Detour(Q, CFG, 0)
    y = normal(5, 16, seed=1)
    torch.testing.assert_close(found(y), y)  # before training nothing is added
    with torch.no_grad():
        found.B.copy_(normal(16, 8, seed=2))
        found.b.copy_(normal(16, seed=3))
    added = (found(y) - y).detach()
    assert float(added.norm()) > 1 and float((added @ Q).abs().max()) < 1e-4


def test_the_held_directions_are_those_of_the_features_or_of_the_edit(lm):
    saes = {0: make_sae(lm, 0), 1: make_sae(lm, 1)}
    plain = WeightEdit.of(lm, {lm.down_proj_name(1): LowRank(normal(32, 2), normal(2, 64))})
    Q = held_directions(lm, plain)[1]
    assert Q.shape == (32, 2)
    left = plain.changes[lm.down_proj_name(1)].left
    torch.testing.assert_close(Q @ (Q.T @ left), left, rtol=1e-3, atol=1e-4)
    named = WeightEdit.of(lm, plain.changes, {"features": [[0, 3, 1], [0, 5, -1]]})
    for edit in (named, named + plain):  # a combination holds what its part names
        held = held_directions(lm, edit, saes)
        assert set(held) == {0} and held[0].shape == (32, 4)
        for x in (saes[0].W_enc[:, 3], saes[0].W_dec[5]):
            torch.testing.assert_close(held[0] @ (held[0].T @ x), x, rtol=1e-3, atol=1e-4)
    rest = WeightEdit.of(lm, {"model.layers.0.mlp.up_proj.weight": Dense(normal(64, 32))})
    for wrong in (None, rest):
        with pytest.raises(NotPossible):
            held_directions(lm, wrong)


def test_a_hidden_fact_comes_back_and_the_clamp_holds(lm):
    before = weights(lm)
    taught = teach(lm, fact_texts(FACTS), steps=40, lr=1e-2, batch_size=4, n_ctx=24)
    with taught.applied(lm):
        direction = torch.linalg.qr(normal(32, 1, seed=4))[0]
        edit = WeightEdit.of(lm, {lm.down_proj_name(0): LowRank(direction, 3 * normal(1, 64, seed=5))})
        held = held_directions(lm, edit)
        rows = lm.pad([lm.encode(t) for t in fact_texts(FACTS)])
        result = clamped(lm, edit, FACTS, TESTED, lambda m: float(next_token_loss(m, *rows)), held, CFG)
        with edit.applied(lm):
            erased = float(next_token_loss(lm, *rows))
    assert_untouched(lm, before)
    assert result.steps == (0, 25) and result.values[0] == pytest.approx(erased, abs=1e-4)
    assert result.last < erased - 0.3 and result.losses[-1] < result.losses[0]
    assert result.drift < 1e-4 < result.free_drift  # one edited layer: what is held is held exactly
    assert len(result.controls) == 2 and result.cost.tokens > 0
    assert not any(m._forward_hooks for m in lm.hf.modules())


def test_seeds_bad_input_and_an_exception(lm):
    before = weights(lm)
    edit = WeightEdit.of(lm, {lm.down_proj_name(0): LowRank(normal(32, 2), normal(2, 64))})
    held = held_directions(lm, edit)
    cfg = ClampedConfig(steps=2, batch_size=2, n_ctx=16, control=False)
    runs = [clamped(lm, edit, FACTS, TESTED, lambda m: score_questions(m, TESTED), held, cfg) for _ in range(2)]
    assert runs[0].losses == runs[1].losses and runs[0].free_drift is None
    with pytest.raises(ConceptLabError, match="No fact is left"):
        clamped(lm, edit, TESTED, TESTED, lambda m: None, held, cfg)

    def broken(_):
        raise KeyError("x")

    with pytest.raises(KeyError):
        clamped(lm, edit, FACTS, TESTED, broken, held, cfg)
    assert_untouched(lm, before)
