"""Each loss against what mathematics says of it, and each fault of a released code that ours must not have."""

import itertools
import math

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import AnswerRow
from conceptlab.erasure import (
    DIVERGENCES,
    InvertedHinge,
    LossAdjustment,
    MarkedRows,
    SimpleNegativePreference,
    Step,
    dpo_loss,
    flat_loss,
    inverted_hinge,
    npo_loss,
    simnpo_loss,
)
from conceptlab.erasure.finetuning.dpo import DirectPreference
from conceptlab.erasure.finetuning.flat import answer_probability
from conceptlab.erasure.finetuning.refusal import OtherAnswer
from conceptlab.erasure.finetuning.terms import cross_entropy, row_logprobs


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.3)


def marked(lm, *rows):
    return MarkedRows.of(lm, [AnswerRow(ids, start) for ids, start in rows])


def padded(rows, n):
    """The same rows in a batch that is `n` tokens longer."""
    return MarkedRows(*(torch.nn.functional.pad(x, (0, n)) for x in (rows.ids, rows.mask, rows.scored)))


# ---- NPO --------------------------------------------------------------------------------------------------
def test_npo_by_hand():
    loss = npo_loss(torch.tensor([-1.0, -4.0]), torch.tensor([-2.0, -2.0]), 0.5)
    truth = sum(2 / 0.5 * math.log(1 + math.exp(0.5 * (p - r))) for p, r in ((-1, -2), (-4, -2))) / 2
    assert float(loss) == pytest.approx(truth, rel=1e-6)


def test_npo_tends_to_gradient_ascent_as_beta_goes_to_zero():
    """Up to the constant `(2 / beta) log 2` the loss is the mean log-ratio, its gradient that of gradient ascent."""
    p = torch.tensor([-30.0, -55.0, -41.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-28.0, -40.0, -45.0], dtype=torch.float64)
    ascent = torch.autograd.grad(p.mean(), p)[0]
    off = []
    for beta in (1e-1, 1e-2, 1e-3):
        loss = npo_loss(p, reference, beta)
        off.append(float((torch.autograd.grad(loss, p)[0] - ascent).abs().max()))
    assert off[0] > 5 * off[1] > 25 * off[2] and off[2] < 5e-3
    constant = 2 / 1e-3 * math.log(2)
    found = float(npo_loss(p.detach(), reference, 1e-3)) - constant
    assert found == pytest.approx(float((p.detach() - reference).mean()), abs=0.05)


def test_npo_lets_go_of_what_is_forgotten():
    p = torch.tensor([-200.0], requires_grad=True)
    npo_loss(p, torch.tensor([-30.0]), 0.1).backward()
    assert 0 < float(p.grad) < 1e-6
    start = torch.tensor([-30.0, -50.0], requires_grad=True)
    npo_loss(start, start.detach(), 0.1).backward()
    torch.testing.assert_close(start.grad, torch.full((2,), 0.5))  # at the original: gradient ascent on the mean


# ---- SimNPO -----------------------------------------------------------------------------------------------
def test_simnpo_does_not_mind_the_length():
    """Ten times the tokens at the same nats a token: the same loss, and a gradient a tenth as large per nat."""
    found = []
    for n in (6, 60):
        p = torch.tensor([-3.5 * n], dtype=torch.float64, requires_grad=True)
        loss = simnpo_loss(p, torch.tensor([n]), 0.5, 1.75)
        found.append((float(loss), n * float(torch.autograd.grad(loss, p)[0])))
    assert found[0] == pytest.approx(found[1])
    assert found[0][1] == pytest.approx(1.0)  # 2 sigmoid(0): half of the row's largest weight


def test_simnpo_counts_predicted_tokens_not_labels(lm):
    """The released code divides by the labels before the shift: one too many on whole texts."""
    rows = marked(lm, ([5, 6, 7, 8], 1), ([9, 10], 1))
    assert rows.lengths.tolist() == [3, 1]
    nats = -row_logprobs(lm, rows) / torch.tensor([3, 1])
    truth = -(2 / 0.5) * torch.nn.functional.logsigmoid(0.5 * nats - 1.75).mean()
    assert float(SimpleNegativePreference()(lm, Step(rows), None)) == pytest.approx(float(truth), rel=1e-5)


def test_simnpo_is_saturated_at_the_papers_setting_on_text_that_is_not_known_by_heart():
    weight = {}
    for beta, gamma in ((2.5, 0.0), (0.5, 1.75)):
        p = torch.tensor([-3.5 * 20], dtype=torch.float64, requires_grad=True)
        weight[beta] = 20 * float(torch.autograd.grad(simnpo_loss(p, torch.tensor([20]), beta, gamma), p)[0])
    assert weight[2.5] == pytest.approx(2 / (1 + math.exp(8.75)), rel=1e-6) and weight[2.5] < 4e-4
    assert weight[0.5] == pytest.approx(1)


# ---- DPO and refusals -------------------------------------------------------------------------------------
def test_dpo_is_at_zero_at_the_original_whatever_the_lengths(lm):
    """A code that forgets the original's ratios punishes the longer answer here."""
    step = Step(marked(lm, ([5, 6, 7], 2), ([5, 8], 1)), marked(lm, ([5, 6, 9, 10, 11, 12], 2), ([5, 13, 14, 15], 1)))
    term = DirectPreference(beta=0.3)
    reference = term.reference(lm, step, False)
    assert float(term(lm, step, reference)) == pytest.approx(2 / 0.3 * math.log(2), rel=1e-5)
    ratios = torch.zeros(2, 3, requires_grad=True)
    dpo_loss(*ratios, 0.3).backward()
    torch.testing.assert_close(ratios.grad, torch.tensor([[-1 / 3] * 3, [1 / 3] * 3]))


def test_dpo_by_hand_and_its_likeness_to_npo():
    up, down = torch.tensor([1.0, -2.0]), torch.tensor([0.5, -5.0])
    truth = sum(2 / 0.2 * math.log(1 + math.exp(-0.2 * (a - b))) for a, b in ((1.0, 0.5), (-2.0, -5.0))) / 2
    assert float(dpo_loss(up, down, 0.2)) == pytest.approx(truth, rel=1e-6)
    # without a preferred answer DPO is NPO
    assert float(dpo_loss(torch.zeros(2), down, 0.2)) == pytest.approx(float(npo_loss(down, torch.zeros(2), 0.2)))


def test_refusals_are_read_on_their_own_tokens(lm):
    step = Step(marked(lm, ([5, 6, 7], 2)), marked(lm, ([5, 6, 8, 9], 2)))
    truth = -lm.logits(torch.tensor([[5, 6, 8, 9]]))[0].log_softmax(-1)[[1, 2], [8, 9]].mean()
    assert float(OtherAnswer()(lm, step, None)) == pytest.approx(float(truth), rel=1e-4)


# ---- IHL --------------------------------------------------------------------------------------------------
def test_the_hinge_lies_between_zero_and_two():
    logits = 30 * torch.randn(400, 7, generator=torch.Generator().manual_seed(0))
    found = inverted_hinge(logits, torch.arange(400) % 7)
    assert float(found.min()) >= 0 and float(found.max()) <= 2
    certain = torch.tensor([[50.0, 0, 0], [0, 50.0, 0], [0.0, 0, 0]])
    torch.testing.assert_close(inverted_hinge(certain, torch.tensor([0, 0, 0])), torch.tensor([2.0, 0, 1]))


def test_the_hinges_rival_is_the_best_other_token_and_gets_what_the_true_one_loses():
    logits = torch.tensor([[2.0, 1.5, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    p = logits.detach().softmax(-1)[0]
    loss = inverted_hinge(logits, torch.tensor([0]))
    assert float(loss) == pytest.approx(float(1 + p[0] - p[1]))
    gradient = torch.autograd.grad(loss.sum(), logits)[0][0]
    onehot = torch.eye(4, dtype=torch.float64)
    truth = p[0] * (onehot[0] - p) - p[1] * (onehot[1] - p)  # by the softmax' Jacobian
    torch.testing.assert_close(gradient, truth)
    assert gradient[0] > 0 > gradient[1]


def test_the_hinge_does_nothing_where_the_true_token_is_unlikely_already():
    likely, unlikely = (torch.zeros(1, 50).index_fill(1, torch.tensor([0]), x) for x in (4.0, -12.0))
    sizes = []
    for logits in (likely, unlikely):
        logits.requires_grad_(True)
        sizes.append(float(torch.autograd.grad(inverted_hinge(logits, torch.tensor([0])).sum(), logits)[0][0, 0].abs()))
    assert sizes[1] < 1e-4 * sizes[0]


# ---- FLAT -------------------------------------------------------------------------------------------------
# f itself, from its definition; DIVERGENCES holds only what is made of it
F = {
    "total_variation": lambda u: (u - 1).abs() / 2,
    "kl": lambda u: u * u.log(),
    "pearson": lambda u: (u - 1).square(),
    "jensen_shannon": lambda u: u * u.log() - (1 + u) * ((1 + u) / 2).log(),
}


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_conjugates_are_those_of_f(name):
    """`f*(t) = sup_u u t - f(u)`, on a fine grid of u."""
    g, conjugate = DIVERGENCES[name]
    u = torch.logspace(-6, 4, 200_001, dtype=torch.float64)
    for v in torch.tensor([0.01, 0.2, 0.5, 0.9], dtype=torch.float64):
        sup = (u * g(v) - F[name](u)).max()
        assert float(conjugate(v)) == pytest.approx(float(sup), abs=2e-4), (name, float(v))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_variational_form_never_exceeds_the_divergence(name):
    """For any scores v: `E_P[g(v)] - E_Q[f*(g(v))] <= D_f(P || Q)`, and the best v reaches it."""
    g, conjugate = DIVERGENCES[name]
    P, Q = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64), torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    truth = float((Q * F[name](P / Q)).sum())
    v = torch.linspace(-12, 12, 2401, dtype=torch.float64)
    best = sum(float((p * g(v) - q * conjugate(v)).max()) for p, q in zip(P, Q, strict=True))
    assert best <= truth + 1e-9 and best == pytest.approx(truth, abs=1e-4)


@pytest.mark.parametrize(("name", "values"), [
    ("total_variation", (0.0, math.tanh(1) / 2)), ("kl", (math.exp(-1), 1.0)), ("pearson", (0.0, 1.25)),
    ("jensen_shannon", (math.log(2) - math.log(2), 1 + math.log(1 + math.exp(-1)) - math.log(2))),
])  # fmt: skip
def test_flats_values(name, values):
    """A refusal of probability 0 beside an answer of 0 and of 1, less what the refusal alone gives."""
    g, _ = DIVERGENCES[name]
    zero, one = torch.zeros(1), torch.ones(1)
    alone = float(-g(zero))
    found = [float(flat_loss(zero, x, name)) - alone for x in (zero, one)]
    assert found == pytest.approx(list(values), abs=1e-6)
    for a, b in itertools.pairwise((0.0, 0.3, 1.0)):  # the likelier the answer, the higher; the refusal the lower
        assert flat_loss(zero, one * a, name) < flat_loss(zero, one * b, name)
        assert flat_loss(one * a, zero, name) > flat_loss(one * b, zero, name)


def test_flats_probabilities_do_not_mind_padding_or_the_question(lm):
    """The released code divides by the padded row's length: the same answer seems rarer beside a longer row."""
    rows = marked(lm, ([5, 6, 7, 8], 2), ([9, 10, 11], 2))
    truth = lm.logits(torch.tensor([[5, 6, 7, 8]]))[0].softmax(-1)[[1, 2], [7, 8]].mean()
    found = answer_probability(lm, rows)
    assert float(found[0]) == pytest.approx(float(truth), rel=1e-3)
    torch.testing.assert_close(answer_probability(lm, padded(rows, 20)), found, rtol=1e-4, atol=0)
    with pytest.raises(ConceptLabError, match="Unknown divergence 'love'; choose one of total_variation, "):
        LossAdjustment("love")


# ---- all of them ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("term", [cross_entropy, row_logprobs, answer_probability], ids=lambda f: f.__name__)
def test_padding_changes_no_term(lm, term):
    rows = marked(lm, ([5, 6, 7, 8], 1), ([9, 10, 11], 2))
    torch.testing.assert_close(term(lm, padded(rows, 9)), term(lm, rows), rtol=1e-4, atol=0)
    hinge = [float(InvertedHinge()(lm, Step(x), None)) for x in (rows, padded(rows, 9))]
    assert hinge[0] == pytest.approx(hinge[1], rel=1e-5)
