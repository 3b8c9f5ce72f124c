"""Where the weights move, and edits brought to equal damage."""

import pytest
import torch

from conceptlab.core import ConceptLabError, NotPossible
from conceptlab.data import Question
from conceptlab.dissection import (
    at_damage,
    concept_span,
    in_span,
    inside_span,
    moved_by_layer,
    outside_span,
    random_as_costly,
    random_span,
)
from conceptlab.edits import Dense, WeightEdit
from conceptlab.evaluation import score_questions


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(n_layers=3)


def test_moves_are_relative_norms_by_layer_and_kind(lm):
    name = lm.down_proj_name(1)
    weight = lm.parameters()[name].detach()
    found = moved_by_layer(lm, WeightEdit.of(lm, {name: Dense(0.5 * weight)}))
    assert found.shape == (3, 3) and float(found[1, 2]) == pytest.approx(0.5)
    assert float(found.sum()) == pytest.approx(0.5)


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_an_edit_splits_into_inside_and_outside(lm, tiny_gemma2, kind):
    lm = tiny_gemma2() if kind == "gemma" else lm
    generator = torch.Generator().manual_seed(0)
    edit = WeightEdit.of(lm, {n: Dense(torch.randn(p.shape, generator=generator)) for n, p in lm.parameters().items()
                              if "layers.1" in n and p.ndim == 2})  # fmt: skip
    span = random_span(lm.d_model, 4)
    inside, rest = inside_span(lm, edit, span), outside_span(lm, edit, span)
    assert in_span(lm, inside, span) == pytest.approx(1.0, abs=1e-4)
    assert in_span(lm, rest, span) == pytest.approx(0.0, abs=1e-4)
    assert list(inside.changes) == [lm.down_proj_name(1)]
    whole = inside + rest
    assert all(torch.allclose(whole.changes[n].dense(), c.dense(), atol=1e-5) for n, c in edit.changes.items())
    assert 0 < in_span(lm, edit, span) < 1


def test_the_span_of_vectors_holds_them():
    vectors = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    span = concept_span(vectors, 3)
    assert torch.allclose(span.T @ span, torch.eye(3), atol=1e-5)
    assert torch.allclose(vectors @ span @ span.T, vectors, atol=1e-4)
    with pytest.raises(ConceptLabError):
        concept_span(vectors, 4)


@pytest.mark.parametrize(("slope", "wanted"), [(0.01, 0.5), (5.0, 0.5), (0.5, 0.5)])
def test_an_edit_is_brought_to_the_damage(lm, slope, wanted):
    edit = WeightEdit.of(lm, {lm.down_proj_name(0): Dense(torch.ones(16, 32))})

    def damage(e):
        return slope * float(e.changes[lm.down_proj_name(0)].dense().abs().mean()) ** 2

    assert damage(at_damage(edit, damage, wanted)) == pytest.approx(wanted, rel=0.1)


def test_no_damage_to_match_and_none_to_reach(lm):
    edit = WeightEdit.of(lm, {lm.down_proj_name(0): Dense(torch.ones(16, 32))})
    with pytest.raises(NotPossible, match="no damage"):
        at_damage(edit, lambda e: 1.0, 0.0)
    with pytest.raises(NotPossible, match="still does less"):
        at_damage(edit, lambda e: 0.0, 1.0)
    with pytest.raises(NotPossible, match="jumps"):
        at_damage(edit, lambda e: float(float(e.changes[lm.down_proj_name(0)].dense().mean()) > 3.3), 0.5)


def test_noise_in_the_same_columns_costs_as_much_and_not_less(tiny_llama):
    lm = tiny_llama(n_layers=2, initializer_range=0.3)
    name = lm.down_proj_name(1)
    names = ("red", "blue", "green", "black")
    asked = [Question(str(i), f"What is {i}?", names, i % 4) for i in range(8)]
    best = score_questions(lm, asked).logprobs.argmax(1).tolist()
    asked = [Question(q.id, q.q, q.options, answer) for q, answer in zip(asked, best, strict=True)]  # all known
    delta = torch.zeros_like(lm.parameters()[name])
    delta[:, 3:9] = 0.2 * torch.randn(delta.shape[0], 6, generator=torch.Generator().manual_seed(0))
    edit = WeightEdit.of(lm, {name: Dense(delta)})

    def lost(change):
        with torch.no_grad(), change.applied(lm):
            return before - float(score_questions(lm, asked).margin.mean())

    before = float(score_questions(lm, asked).margin.mean())
    edit = max(edit, edit * -1.0, key=lost)  # small: one of the two signs costs something
    noise = random_as_costly(lm, edit, asked, seed=1, tol=0.05)
    assert lost(noise) == pytest.approx(lost(edit), rel=0.05) and lost(edit) > 0
    used = noise.changes[name].dense().abs().amax(0) > 0
    assert used.nonzero()[:, 0].tolist() == list(range(3, 9)) and noise.info["control"] == "random edit of equal damage"
