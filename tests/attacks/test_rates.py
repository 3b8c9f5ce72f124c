"""Learning rates belong to the weights: known by their fingerprint, else measured on the original, else refused."""

import pytest
import torch

from conceptlab.attacks import Rates, borne_rate, rates, rates_of
from conceptlab.core import ConceptLabError
from conceptlab.data import Question
from conceptlab.edits import WeightEdit
from conceptlab.edits.weight_edit import Dense

TEXTS = ["The rain fell all night on the roofs.", "A train left the station in the morning."]
ASKED = [Question("a1", "What falls from clouds?", ("rain", "sand"), 0)]


class Margins:
    """Stands for `score_questions`: the margin falls by `loss` per unit that the weights have moved."""

    def __init__(self, lm, loss, start=2.0):
        self.before = lm.down_proj(0).detach().clone()
        self.loss, self.start = loss, start

    def __call__(self, lm, questions):
        moved = float((lm.down_proj(0).detach() - self.before).abs().max())
        return type("Scores", (), {"margin": torch.tensor([self.start - self.loss * moved])})


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.3)


def test_known_weights_go_by_their_fingerprint_and_not_by_their_name(lm, monkeypatch):
    wanted = Rates(1e-5, 2e-5, 3e-5, 4e-5)
    monkeypatch.setitem(rates.KNOWN, lm.fingerprint(), wanted)
    assert rates_of(lm) == wanted
    lm.name = "another name"
    assert rates_of(lm) == wanted
    edit = WeightEdit(lm.name, {lm.down_proj_name(0): Dense(torch.full((lm.d_model, lm.d_mlp), 0.01))})
    with edit.applied(lm), pytest.raises(ConceptLabError, match="No learning rate is known for the weights"):
        rates_of(lm)


def test_the_bundled_models_are_known(bundled):
    assert bundled.fingerprint() in rates.KNOWN
    assert rates_of(bundled).relearn == (3e-4 if bundled.name == "smollm2-135m" else 1e-5)


# AdamW moves a weight by about the rate in each step, so after 5 steps by 5 rates at most
@pytest.mark.parametrize(("loss", "expected"), [(0.0, 3e-4), (500.0, 1e-4), (1_700.0, 3e-5), (17_000.0, 3e-6)])
def test_a_rate_is_measured_on_the_original(lm, monkeypatch, loss, expected):
    monkeypatch.setattr(rates, "score_questions", Margins(lm, loss))
    before = {name: p.detach().clone() for name, p in lm.parameters().items()}
    assert borne_rate(lm, TEXTS, ASKED) == expected
    assert rates_of(lm, TEXTS, ASKED) == Rates(expected, 3 * expected, 3 * expected, expected)
    assert all(torch.equal(p, before[name]) for name, p in lm.parameters().items())


def test_a_rate_at_which_training_diverges_is_not_borne(lm, monkeypatch):
    monkeypatch.setattr(rates, "score_questions", Margins(lm, 0.0))
    real = rates.relearn

    def diverges(*arguments, lr, **settings):
        if lr > 2e-5:
            raise ConceptLabError("The loss is not finite.")
        return real(*arguments, lr=lr, **settings)

    monkeypatch.setattr(rates, "relearn", diverges)
    assert borne_rate(lm, TEXTS, ASKED) == 1e-5


def test_no_rate_is_borne_and_nothing_silently_falls_back(lm, monkeypatch):
    monkeypatch.setattr(rates, "score_questions", Margins(lm, 1e7))
    with pytest.raises(ConceptLabError, match="loses more than 15% .* down to 3e-06; set one with --lr"):
        rates_of(lm, TEXTS, ASKED)


def test_what_cannot_be_measured(lm, monkeypatch):
    for texts, questions in (([], ASKED), (TEXTS, []), ([], [])):
        with pytest.raises(ConceptLabError, match="No learning rate is known for the weights of tiny-llama"):
            rates_of(lm, texts, questions)
    for start in (0.0, -1.0):
        monkeypatch.setattr(rates, "score_questions", Margins(lm, 0.0, start))
        with pytest.raises(ConceptLabError, match="knows too little"):
            rates_of(lm, TEXTS, ASKED)
