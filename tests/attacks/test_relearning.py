"""Attacks: padding is skipped, the model comes back bit-exactly, shares by hand, a clear sentence for bad input."""

import math
from contextlib import contextmanager

import pytest
import torch

from conceptlab.attacks import Quantised, RelearnConfig, relearn, round_to_nearest
from conceptlab.core import ConceptLabError
from conceptlab.data import row_batches, text_rows
from conceptlab.edits import WeightEdit, trained_parameters
from conceptlab.edits.weight_edit import Dense
from conceptlab.models import next_token_loss
from untouched import TEXTS, assert_untouched, weights

FAST = RelearnConfig(steps=3, batch_size=2, n_ctx=16, lr=1e-2)


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama()


@pytest.fixture
def edit(lm):
    name = lm.down_proj_name(1)
    shape = dict(lm.hf.named_parameters())[name].shape
    return WeightEdit(lm.name, {name: Dense(torch.randn(shape, generator=torch.Generator().manual_seed(1)))})


# ---- the loss ---------------------------------------------------------------------------------------------
def test_loss_is_the_mean_over_real_tokens_of_each_row_alone(lm):
    rows = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]
    nats = []
    for row in rows:  # no padding anywhere: one row at a time, one token at a time
        logp = lm.logits(torch.tensor([row])).log_softmax(-1)[0]
        nats += [-float(logp[t, row[t + 1]]) for t in range(len(row) - 1)]
    loss = float(next_token_loss(lm, *lm.pad(rows)))
    assert len(nats) == 7 and loss == pytest.approx(sum(nats) / 7, rel=1e-5)


def test_loss_does_not_see_what_stands_in_the_padding(lm):
    ids, mask = lm.pad([[5, 6, 7, 8, 9], [10, 11]])
    other = torch.where(mask, ids, torch.full_like(ids, 999))
    assert float(next_token_loss(lm, ids, mask)) == float(next_token_loss(lm, other, mask))
    with pytest.raises(ConceptLabError, match="at least two tokens"):
        next_token_loss(lm, *lm.pad([[5], [6]]))


def test_rows_hold_every_token_of_the_texts(lm):
    rows = text_rows(lm, TEXTS, n_ctx=4)
    ids = [lm.tokenizer(t).input_ids for t in TEXTS]
    assert max(map(len, rows)) == 4 and min(map(len, rows)) >= 2
    assert sum(map(len, rows)) == sum(len(x) - (len(x) % 4 == 1) for x in ids)
    assert rows[0] == ids[0][:4]


def test_batches_use_every_row_once_before_any_again():
    rows = [[i, i] for i in range(5)]
    batches = row_batches(rows, 2, seed=3)
    seen = [row[0] for _ in range(5) for row in next(batches)]
    assert sorted(seen[:5]) == sorted(seen[5:]) == [0, 1, 2, 3, 4]
    again = row_batches(rows, 2, seed=3)
    assert [row[0] for _ in range(5) for row in next(again)] == seen


# ---- relearning -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("part", "layers"), [("down_proj", (1,)), ("mlp", None), ("attention", (0,)), ("all", None)])
def test_relearning_lowers_the_loss_and_leaves_the_model_bit_identical(lm, edit, part, layers):
    before = weights(lm)
    ids, mask = lm.pad(text_rows(lm, TEXTS, 16))
    result = relearn(
        lm, edit, TEXTS, FAST, steps=12, weights=part, layers=layers, at=(0, 6, 12),
        evaluate=lambda m: float(next_token_loss(m, ids, mask)),
    )  # fmt: skip
    assert result.steps == (0, 6, 12) and len(result.losses) == 12
    assert result.values[0] > result.values[1] > result.last
    with edit.applied(lm):
        assert result.values[0] == float(next_token_loss(lm, ids, mask))
    assert_untouched(lm, before)


def test_only_the_chosen_weights_move(lm):
    before, moved = weights(lm), []

    def look(model):
        now = dict(model.hf.named_parameters())
        moved.extend(n for n, old in before.items() if not torch.equal(now[n], old))

    relearn(lm, None, TEXTS, FAST, weights="mlp", layers=(1,), evaluate=look)
    assert sorted(moved) == [f"model.layers.1.mlp.{m}_proj.weight" for m in ("down", "gate", "up")]


def test_the_same_seed_gives_the_same_attack(lm, edit):
    a, b, c = (relearn(lm, edit, TEXTS, FAST, seed=seed) for seed in (0, 0, 1))
    assert a.losses == b.losses != c.losses
    assert a.cost.steps == 3 and a.cost.tokens == b.cost.tokens > 0 and a.cost.seconds > 0
    assert a.values == ()


def test_first_steps_equal_torch_written_out(lm):
    name = lm.down_proj_name(0)
    result = relearn(lm, None, TEXTS, FAST, steps=2, weights="down_proj", layers=(0,))
    weight = dict(lm.hf.named_parameters())[name]
    old, losses = weight.detach().clone(), []
    batches = row_batches(text_rows(lm, TEXTS, 16), 2)
    moment, square = torch.zeros_like(old), torch.zeros_like(old)
    for step in (1, 2):  # Adam by hand
        weight.requires_grad_(True)
        loss = next_token_loss(lm, *lm.pad(next(batches)))
        (grad,) = torch.autograd.grad(loss, weight)
        weight.requires_grad_(False)
        moment, square = 0.9 * moment + 0.1 * grad, 0.999 * square + 0.001 * grad**2
        weight -= 1e-2 * (moment / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
        losses.append(loss.item())
    weight.copy_(old)
    assert losses == pytest.approx(result.losses, rel=1e-5)


def test_an_exception_in_the_evaluation_restores_everything(lm, edit):
    before = weights(lm)

    def fail(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        relearn(lm, edit, TEXTS, FAST, at=(2,), evaluate=fail)
    assert_untouched(lm, before)


def test_weights_that_asked_for_gradients_do_so_again_afterwards(lm):
    name = lm.down_proj_name(0)
    weight = dict(lm.hf.named_parameters())[name]
    weight.requires_grad_(True)
    relearn(lm, None, TEXTS, FAST, weights="down_proj", layers=(1,))
    assert [n for n, p in lm.hf.named_parameters() if p.requires_grad] == [name] and weight.grad is None


def test_it_attacks_an_intervention_made_of_hooks(lm):
    class Silence:
        @contextmanager
        def applied(self, model):
            with model.intervene({("mlp_contribution", 0): lambda x: 0 * x}):
                yield model

    before = weights(lm)
    plain, silenced = (relearn(lm, x, TEXTS, FAST, layers=(1,)) for x in (None, Silence()))
    assert plain.losses != silenced.losses
    assert_untouched(lm, before)


@pytest.mark.parametrize(
    ("texts", "changes", "message"),
    [
        ([], {}, "list of texts is empty"),
        (["a"], {}, "No text is left"),
        ("one text", {}, "list of texts"),
        (TEXTS, {"lr": 0.0}, "learning rate must be a positive number"),
        (TEXTS, {"lr": math.nan}, "learning rate must be a positive number"),
        (TEXTS, {"steps": 0}, "steps >= 1"),
        (TEXTS, {"weights": "mlps"}, "Unknown weights 'mlps'"),
        (TEXTS, {"weights": "all", "layers": (0,)}, 'use weights="block"'),
        (TEXTS, {"layers": ()}, "No layer was chosen"),
        (TEXTS, {"layers": (7,)}, "layer 7 does not exist"),
        (TEXTS, {"at": (4,)}, "between 0 and 3"),
        (TEXTS, {"lr": 1e25, "weights": "all"}, "diverged"),
    ],
)
def test_bad_input_is_one_clear_sentence_and_leaves_the_model_alone(lm, edit, texts, changes, message):
    before = weights(lm)
    with pytest.raises(ConceptLabError, match=message) as caught:
        relearn(lm, edit, texts, FAST, **changes)
    assert "\n" not in str(caught.value)
    assert_untouched(lm, before)


def test_the_trained_parameters_are_those_named(lm):
    assert list(trained_parameters(lm, "down_proj", (1,))) == [lm.down_proj_name(1)]
    assert len(trained_parameters(lm, "attention")) == 8 and len(trained_parameters(lm, "block", (0,))) == 9
    assert set(trained_parameters(lm, "all")) == set(weights(lm))


# ---- quantisation -----------------------------------------------------------------------------------------
def test_rounding_by_hand():
    weight = torch.tensor([[1.0, 0.6, -0.2, 0.0], [30.0, -14.0, 4.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    rounded = round_to_nearest(weight, 2)  # levels -1, 0, 1 times the largest of each row
    assert rounded.tolist() == [[1.0, 1.0, 0.0, 0.0], [30.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    assert torch.allclose(round_to_nearest(rounded, 2), rounded)  # rounding twice changes nothing
    with pytest.raises(ConceptLabError, match="2 to 16 bits"):
        round_to_nearest(weight, 1)


def test_more_bits_round_less_and_the_error_is_at_most_half_a_step():
    weight = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    worst = []
    for bits in (3, 4, 8):
        error = (round_to_nearest(weight, bits) - weight).abs()
        step = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        assert (error <= 0.5001 * step).all()
        worst.append(float(error.max()))
    assert worst[0] > worst[1] > worst[2]


def test_quantised_composes_with_an_edit_and_restores(lm, edit):
    before = weights(lm)
    name = lm.down_proj_name(1)
    with Quantised(edit, 4).applied(lm):
        now = dict(lm.hf.named_parameters())
        assert torch.equal(now[name], round_to_nearest(before[name] + edit.changes[name].dense(), 4))
        assert torch.equal(now[lm.embedding_name()], before[lm.embedding_name()])
    assert_untouched(lm, before)
    with pytest.raises(ConceptLabError), Quantised(edit, 99).applied(lm):
        pass
    assert_untouched(lm, before)


# ---- on a real model --------------------------------------------------------------------------------------
def test_real_model_relearns_and_comes_back(smollm2):
    watched = [smollm2.down_proj_name(layer) for layer in (0, 8, 29)]
    named = dict(smollm2.hf.named_parameters())
    before = {name: named[name].clone() for name in watched}
    text = "The planet Zorvex has three green moons and a single ocean of liquid ammonia."
    result = relearn(smollm2, None, [text], steps=4, batch_size=1, lr=1e-3, weights="down_proj", layers=(8, 20))
    assert result.losses[-1] < result.losses[0] - 0.3
    assert all(torch.equal(named[name], old) for name, old in before.items())
