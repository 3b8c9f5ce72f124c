"""Sliced adapters: deletion is exact to the bit; how many deletions a system absorbs, against the closed form."""

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import load_fiction
from conceptlab.edits import Intervention
from conceptlab.erasure import (
    SliceConfig,
    deletions_until_retraining,
    layer_groups,
    rotations,
    train_sliced,
)
from conceptlab.models import next_token_loss
from untouched import assert_untouched, weights

CFG = SliceConfig(rank=2, steps=6, batch_size=3, n_ctx=16, lr=2e-2)


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(n_layers=3, initializer_range=0.3)


@pytest.fixture(scope="module")
def slices():
    fiction = load_fiction()
    return [fiction.lessons(fiction.questions[3 * i : 3 * i + 3]) for i in range(3)]


def bits(copy):
    return [{n: (c.left, c.right) for n, c in part.changes.items()} for part in copy.parts]


def same(a, b):
    return len(a) == len(b) and all(
        x.keys() == y.keys() and all(torch.equal(p, q) for n in x for p, q in zip(x[n], y[n], strict=True))
        for x, y in zip(a, b, strict=True)
    )


def loss(lm, texts):
    return float(next_token_loss(lm, *lm.pad([lm.encode(t)[:16] for t in texts])))


def test_after_a_deletion_every_bit_is_that_of_a_copy_never_shown_the_slice(lm, slices):
    before = weights(lm)
    whole = train_sliced(lm, slices, CFG)
    poisoned = train_sliced(lm, [slices[0], ["Something else altogether, with other words."], slices[2]], CFG)
    for j in range(3):
        never_shown = train_sliced(lm, slices, CFG, order=tuple(range(j)), n_groups=3) if j else None
        left = whole.without({j})
        assert left.order == tuple(range(j)) and (j == 0 or same(bits(left), bits(never_shown)))
    assert same(bits(whole.without({1})), bits(poisoned.without({1})))  # nothing of the slice itself is left
    assert not same(bits(whole), bits(poisoned)), "the slice made no difference, so nothing was tested"
    assert isinstance(whole, Intervention) and whole.without({0}).edit is None
    assert_untouched(lm, before)


def test_the_copy_has_learned_and_a_deletion_forgets(lm, slices):
    whole = train_sliced(lm, slices, CFG)
    told = [t for s in slices for t in s]
    plain = loss(lm, told)
    with whole.applied(lm):
        assert loss(lm, told) < plain - 0.3
    with whole.without({0}).applied(lm):
        assert loss(lm, told) == plain


def test_the_groups_run_from_the_top_and_hold_every_layer_once():
    assert layer_groups(6, 3) == [[4, 5], [2, 3], [0, 1]]
    found = layer_groups(30, 4)
    assert sorted(x for group in found for x in group) == list(range(30)) and {len(g) for g in found} == {7, 8}
    with pytest.raises(ConceptLabError, match="1 to 2 groups"):
        layer_groups(2, 3)


def test_copies_of_other_orders_keep_other_slices(lm, slices):
    copies = [train_sliced(lm, slices, CFG, order) for order in rotations(3, 3)]
    assert sorted(copy.without({0}).order for copy in copies) == [(), (1, 2), (2,)]
    with pytest.raises(ConceptLabError, match="each of at most 3 slices once"):
        train_sliced(lm, slices, CFG, (0, 0))


def test_deletions_against_the_closed_form():
    """One shard, B rotations of L slices: the largest of B places out of L, B (L + 1) / (B + 1) on average."""
    for n_slices, n_orders in ((6, 1), (6, 2), (6, 3), (6, 6), (10, 4)):
        found = deletions_until_retraining(n_slices, n_orders, n_runs=4_000)
        want = n_orders * (n_slices + 1) / (n_orders + 1)
        assert found.until.value == pytest.approx(want, rel=0.03), (n_slices, n_orders)
        assert found.until.low - 0.1 < want < found.until.high + 0.1
    assert deletions_until_retraining(1).until.value == 1
    sisa, s3t = deletions_until_retraining(4, 1, 2), deletions_until_retraining(4, 3, 2)
    assert s3t.until.low > sisa.until.high
    assert bool((s3t.served >= sisa.served - 1e-6).all()) and s3t.served[-1] == 0 and len(s3t.served) == 8
    assert torch.equal(deletions_until_retraining(4, 2, seed=3).counts, deletions_until_retraining(4, 2, seed=3).counts)
    with pytest.raises(ConceptLabError, match="1 to 4 rotations"):
        deletions_until_retraining(4, 5)
    with pytest.raises(ConceptLabError, match="at least 1"):
        deletions_until_retraining(0)


def test_what_is_served_by_hand():
    """Two slices, one order: after a first deletion of the second slice half is served, of the first nothing."""
    found = deletions_until_retraining(2, 1, n_runs=4_000)
    assert found.served.tolist() == pytest.approx([0.25, 0.0], abs=0.02)
