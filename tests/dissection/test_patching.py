"""Patching: everything gives exactly 1, nothing exactly 0, and each part is what it says."""

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import Question
from conceptlab.dissection import DISTANCES, TISSUES, Dissection, forced_gold, layer_windows, share_taken_back, traced
from conceptlab.edits import Dense, WeightEdit

QUESTIONS = [
    Question(str(i), f"What is {word}?", (word, "dirt"), 0)
    for i, word in enumerate(["a river", "gold", "the sun", "bread", "a key"])
]


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(n_layers=4)


def edit_of(lm, which=lambda name: True, size=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    named = {n: p for n, p in lm.parameters().items() if "layers" in n and p.ndim == 2 and which(n)}
    noise = {n: Dense(size * p.std() * torch.randn(p.shape, generator=generator)) for n, p in named.items()}
    return WeightEdit.of(lm, noise)


@pytest.fixture
def dissected(lm):
    return Dissection(lm, edit_of(lm), forced_gold(lm, QUESTIONS))


def share(d, found, measure="mse"):
    return share_taken_back(d.whole, d.lost, found, measure).value


def same(a, b):
    return all(torch.equal(getattr(a, m), getattr(b, m)) for m in DISTANCES)


def test_everything_is_exactly_one_and_nothing_exactly_zero(lm, dissected):
    d, last = dissected, lm.n_layers - 1
    for measure in ("mse", "centred", "kl"):
        assert share(d, d.everything_back(), measure) == 1.0
        assert share(d, d.nothing_back(), measure) == 0.0
    assert same(d.back("weights", 0, last), d.whole)  # the edit is of blocks alone
    assert same(d.into("weights", 0, last), d.lost)


def test_distances_of_the_original_are_zero_and_the_model_is_left_as_it_was(lm, dissected):
    before = lm.fingerprint()
    for part in TISSUES:
        dissected.back(part, 1, 2), dissected.into(part, 1, 2)
    assert lm.fingerprint() == before and not len(lm.changes) and not lm.is_hooked
    assert not any(bool(getattr(dissected.whole, m).any()) for m in ("mse", "centred", "kl"))


def test_values_are_all_of_an_edit_of_value_vectors(lm):
    d = Dissection(lm, edit_of(lm, lambda n: "down_proj" in n), forced_gold(lm, QUESTIONS))
    assert same(d.back("values", 0, 3), d.whole) and same(d.into("values", 0, 3), d.lost)
    early = Dissection(lm, edit_of(lm, lambda n: "layers.1.mlp.down_proj" in n), forced_gold(lm, QUESTIONS))
    assert same(early.back("values", 1, 1), early.whole) and same(early.back("values", 2, 3), early.lost)
    assert not same(early.back("both", 2, 3), early.lost)  # never edited there, and yet the output changes


def test_coefficients_by_hand(lm):
    """The edited model with the original's neurons in layer 2, by plain hooks."""
    edit, forced = edit_of(lm), forced_gold(lm, QUESTIONS)
    d = Dissection(lm, edit, forced)
    kept = traced(lm, forced).states["neurons", 2]
    with edit.applied(lm), lm.intervene({("neurons", 2): lambda _x: kept}):
        by_hand = traced(lm, forced).logits
    assert torch.allclose(((by_hand - d.original.logits) ** 2).mean(-1).split(forced.lengths)[0].mean(),
                          d.back("coefficients", 2, 2).mse[0], rtol=1e-4)  # fmt: skip


def test_both_in_all_layers_leaves_the_value_vectors(lm):
    d = Dissection(lm, edit_of(lm, lambda n: "down_proj" not in n), forced_gold(lm, QUESTIONS))
    assert share(d, d.back("both", 0, 3)) > 0.99999  # nothing but coefficients and attention differed
    assert same(d.back("values", 0, 3), d.lost)


def test_many_windows_at_once_are_the_same(dissected):
    windows = [(0, 1), (2, 3), (0, 3)]
    for part in TISSUES:
        at_once = dissected.all_back(part, windows)
        assert all(same(x, dissected.back(part, *w)) for x, w in zip(at_once, windows, strict=True))


def test_windows():
    assert layer_windows(30, 5, 5) == [(i, i + 4) for i in range(0, 30, 5)]
    assert layer_windows(18, 3, 3)[-1] == (15, 17)
    assert layer_windows(10, 4, 4) == [(0, 3), (4, 7), (6, 9)]
    for bad in ((4, 5, 1), (4, 0, 1), (4, 2, 0)):
        with pytest.raises(ConceptLabError):
            layer_windows(*bad)


def test_bad_parts_and_windows_are_refused(dissected):
    with pytest.raises(ConceptLabError, match="Unknown part"):
        dissected.back("neurones", 0, 1)
    with pytest.raises(ConceptLabError, match="ends where it begins"):
        dissected.into("values", 2, 1)
    with pytest.raises(ConceptLabError, match="does not exist"):
        dissected.back("values", 0, 9)
