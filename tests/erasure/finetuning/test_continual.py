"""Requests one after the other: each keeps to its bound, the ones before stay forgotten, the penalty is by layers."""

import pytest
import torch

from conceptlab.data import AnswerRow
from conceptlab.edits import applied, lora, trained_parameters
from conceptlab.erasure import BoundedAscent, Loss, MarkedRows, Material, Step, TuningConfig, forget_in_turn
from conceptlab.erasure.finetuning.terms import cross_entropy
from untouched import assert_untouched, weights

REQUESTS = [[5, 6, 7, 8, 9], [15, 16, 17, 18, 19], [25, 26, 27, 28, 29]]
KEEP = [AnswerRow([40, 41, 42, 43], 1)]
CFG = TuningConfig(steps=6, batch_size=1, lr=3e-2, rank=2, alpha=2.0)


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.3)


def nats(lm, edit=None):
    with torch.no_grad(), applied(edit, lm):
        return [float(cross_entropy(lm, MarkedRows.of(lm, [AnswerRow(r, 1)]))) for r in REQUESTS]


def test_requests_add_up_and_earlier_ones_stay_forgotten(lm):
    before, plain = weights(lm), nats(lm)
    loss = Loss(BoundedAscent(bound=max(plain) + 2, sparsity=0.0))
    edits = forget_in_turn(lm, loss, [Material([AnswerRow(r, 1)], KEEP) for r in REQUESTS], CFG)
    assert_untouched(lm, before)
    assert len(edits) == 3 and {e.fingerprint for e in edits} == {lm.fingerprint()}
    for done, edit in enumerate(edits):
        now = nats(lm, edit)
        assert all(now[i] > plain[i] + 0.3 for i in range(done + 1)), (done, now, plain)


def test_a_request_that_is_forgotten_far_enough_pushes_no_more(lm):
    plain = nats(lm)[0]
    step = Step(MarkedRows.of(lm, [AnswerRow(REQUESTS[0], 1)]))
    for bound, value in ((plain + 1, 1.0), (plain - 1, 0.0)):
        assert float(BoundedAscent(bound)(lm, step, None)) == pytest.approx(value, abs=1e-4)
    edits = forget_in_turn(lm, BoundedAscent(plain - 1, 0.0), [Material([AnswerRow(REQUESTS[0], 1)])], CFG)
    assert edits[0].report(lm)["norm"] == pytest.approx(0, abs=1e-6)


def test_the_penalty_is_the_norm_of_each_layers_adapters_not_squared(lm):
    names = list(trained_parameters(lm, "mlp"))
    with lora(lm, names, 2) as adapters:
        squares = [0.0, 0.0]
        for name, a in adapters.items():
            squares[int(".layers.1." in name)] += float(a.A.square().sum() + a.B.square().sum())
        found = BoundedAscent(sparsity=0.5).penalty(adapters)
    assert float(found) == pytest.approx(0.5 * (squares[0] ** 0.5 + squares[1] ** 0.5), rel=1e-5)
    assert BoundedAscent().penalty({}) is None


def test_a_heavy_penalty_takes_the_adapters_down(lm):
    norms = []
    for sparsity in (0.0, 10.0):
        material = [Material([AnswerRow(REQUESTS[0], 1)], KEEP)]
        (edit,) = forget_in_turn(lm, Loss(BoundedAscent(100.0, sparsity)), material, CFG)
        norms.append(sum(float(c.right.square().sum()) for c in edit.changes.values()))
    assert norms[1] < 0.8 * norms[0]
