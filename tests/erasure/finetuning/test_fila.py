"""FILA: the Fisher information row by row, the nearest weighted product, and a start that changes nothing."""

import pytest
import torch

from conceptlab.data import AnswerRow
from conceptlab.edits import applied, lora, trainable, trained_parameters
from conceptlab.erasure import MarkedRows, Material, Step, TuningConfig, diagonal_fisher, finetune, weighted_low_rank
from conceptlab.erasure.finetuning.fila import fila_starts
from conceptlab.erasure.finetuning.ihl import InvertedHinge
from conceptlab.models import next_token_loss
from untouched import assert_untouched, weights

FORGET = [AnswerRow([5, 6, 7, 8], 2), AnswerRow([9, 10, 11], 1), AnswerRow([12, 13, 14, 15, 16], 3)]
KEEP = [AnswerRow([20, 21, 22], 1), AnswerRow([23, 24, 25, 26], 2)]
CFG = TuningConfig(steps=6, batch_size=2, lr=3e-2, weights="down_proj", rank=3, alpha=6.0)


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.3)


def test_the_fisher_information_is_the_mean_of_squares_not_the_square_of_the_mean(lm):
    name, before = lm.down_proj_name(1), weights(lm)
    rows = [AnswerRow([5, 6, 7], 1), AnswerRow([8, 9, 10, 11], 1)]
    found = diagonal_fisher(lm, rows, [name])[name]
    chosen = trained_parameters(lm, "down_proj", [1])
    gradients = []
    with trainable(lm, chosen):
        for row in rows:
            (g,) = torch.autograd.grad(next_token_loss(lm, *lm.pad([row.ids])), list(chosen.values()))
            gradients.append(g)
    torch.testing.assert_close(found, (gradients[0] ** 2 + gradients[1] ** 2) / 2, rtol=1e-4, atol=1e-12)
    assert float(found.sum()) > 1.2 * float(((gradients[0] + gradients[1]) / 2).square().sum())
    assert_untouched(lm, before)


def test_the_product_is_the_nearest_one():
    generator = torch.Generator().manual_seed(0)
    W, s = torch.randn(7, 5, generator=generator), torch.rand(7, generator=generator) + 0.05
    A, B = weighted_low_rank(W, s, 2)
    assert A.shape == (2, 5) and B.shape == (7, 2)

    def error(a, b):
        return float((s[:, None] * (W - b @ a).square()).sum())

    best, tail = error(A, B), torch.linalg.svdvals(s.sqrt()[:, None] * W)[2:].square().sum()
    assert best == pytest.approx(float(tail), rel=1e-4)  # Eckart and Young
    for i in range(20):
        noise = torch.randn(7, 2, generator=torch.Generator().manual_seed(i))
        assert error(A, B + 0.01 * noise) > best and error(A + 0.01 * noise[:5].T, B) > best
    # a row that matters for nothing is not rebuilt at the cost of the others
    only = torch.tensor([1.0, 1, 0, 0, 0, 0, 0])
    A, B = weighted_low_rank(W, only, 2)
    torch.testing.assert_close((B @ A)[:2], W[:2], rtol=1e-4, atol=1e-5)


def test_fila_starts_at_the_original_and_trains_the_weighted_directions(lm):
    ids, before = torch.arange(5, 20)[None], weights(lm)
    clean = lm.logits(ids)
    starts = fila_starts(lm, Material(FORGET, KEEP), CFG)
    assert set(starts) == {lm.down_proj_name(0), lm.down_proj_name(1)}
    with lora(lm, list(starts), CFG.rank, CFG.alpha, starts=starts) as adapters:
        assert torch.equal(lm.logits(ids), clean)
        for name, a in adapters.items():
            A, B = starts[name]
            assert torch.equal(a.A, A) and torch.equal(a.B, B) and a.A.data_ptr() != A.data_ptr()
    edit = finetune(lm, InvertedHinge(), Material(FORGET, KEEP), CFG, starts=starts)
    assert_untouched(lm, before)
    assert all(change.left.shape[1] == 2 * CFG.rank for change in edit.changes.values())
    values, step = [], Step(MarkedRows.of(lm, FORGET))
    for change in (None, edit):
        with applied(change, lm):
            values.append(float(InvertedHinge()(lm, step, None)))
    assert values[1] < values[0]


def test_the_ratio_is_between_the_two_kinds_of_rows(lm):
    """Where the same rows are to be forgotten and kept, every weight of a matrix counts about alike."""
    names = list(trained_parameters(lm, "down_proj"))
    forget, keep = (diagonal_fisher(lm, rows, names) for rows in (FORGET, KEEP))
    same = fila_starts(lm, Material(FORGET, FORGET), CFG)
    other = fila_starts(lm, Material(FORGET, KEEP), CFG)
    for name in names:
        A, B = other[name]
        ratio = (forget[name] / (keep[name] + 0.1 * keep[name].mean())).sum(1)
        expected = weighted_low_rank(lm.parameters()[name].detach(), ratio, CFG.rank)
        torch.testing.assert_close(CFG.alpha / CFG.rank * B @ A, expected[1] @ expected[0], rtol=1e-3, atol=1e-5)
        assert not torch.allclose(same[name][1] @ same[name][0], B @ A, atol=1e-3)
