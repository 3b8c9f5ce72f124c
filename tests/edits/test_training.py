"""Float32 master weights: what moves in half precision, against float32; in float32 nothing differs from torch."""

import pytest
import torch

from conceptlab.attacks import RelearnConfig, SoftPromptConfig, relearn, soft_prompt, teach
from conceptlab.core import ConceptLabError
from conceptlab.data import load_concept, row_batches, text_rows
from conceptlab.edits import Trainer, lora, trainable, trained_parameters
from conceptlab.edits.training import rounded_at_random
from conceptlab.erasure import GradientAscent, Loss, NegativePreference, TuningConfig, finetune_texts
from conceptlab.models import next_token_loss
from untouched import TEXTS, assert_untouched, weights

CFG = RelearnConfig(steps=8, batch_size=3, n_ctx=16, lr=1e-5)
HALF = [torch.bfloat16, torch.float16]


def model(tiny_llama, dtype=torch.bfloat16):
    lm = tiny_llama(d_model=64, initializer_range=0.2)
    lm.hf.to(dtype)
    return lm


def plain_torch(lm, lr=1e-5, steps=8):
    """The training of `relearn` written out, with steps on the weights themselves."""
    chosen, losses = trained_parameters(lm), []
    with trainable(lm, chosen):
        optimiser = torch.optim.AdamW(list(chosen.values()), lr=lr, weight_decay=0.0)
        batches = row_batches(text_rows(lm, TEXTS, 16), 3, 0)
        before = {n: p.detach().clone() for n, p in chosen.items()}
        for _ in range(steps):
            loss = next_token_loss(lm, *lm.pad(next(batches)))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        after = {n: p.detach().clone() for n, p in chosen.items()}
    moved = sum(int((after[n] != x).sum()) for n, x in before.items()) / sum(x.numel() for x in before.values())
    return losses, after, moved


def test_in_float32_it_is_torch_to_the_bit(tiny_llama):
    lm = model(tiny_llama, torch.float32)
    before, found = weights(lm), {}
    plain, after, moved = plain_torch(lm, lr=1e-3)

    def look(m):
        found.update({n: m.parameters()[n].detach().clone() for n in after})

    result = relearn(lm, None, TEXTS, CFG, lr=1e-3, evaluate=look)
    assert list(result.losses) == plain and result.moved is None and moved > 0.99
    assert all(torch.equal(found[n], x) for n, x in after.items())
    assert_untouched(lm, before)


@pytest.mark.parametrize("dtype", HALF)
def test_in_half_precision_the_masters_move_and_the_loss_is_that_of_float32(tiny_llama, dtype):
    """A10: at lr 1e-5, 8 steps on the bfloat16 weights themselves moved 1.7 % of them, in float32 99.99 %."""
    exact = model(tiny_llama, dtype)  # the same numbers, then in float32
    exact.hf.float()
    lm = model(tiny_llama, dtype)
    before = weights(lm)
    full, half = (relearn(m, None, TEXTS, CFG) for m in (exact, lm))
    masters, stored = half.moved
    assert masters > 0.99 and 0 < stored < masters
    # within the distance of neighbouring numbers of the dtype, at about 12 nats
    torch.testing.assert_close(
        torch.tensor(half.losses), torch.tensor(full.losses), rtol=torch.finfo(dtype).eps, atol=0
    )
    assert relearn(lm, None, TEXTS, CFG).losses == half.losses != relearn(lm, None, TEXTS, CFG, seed=1).losses
    assert_untouched(lm, before)


def test_small_steps_add_up_in_bfloat16_as_they_do_in_float32(tiny_llama):
    """60 steps of 3e-5: the fall of the loss, which steps on the weights themselves mostly lose."""
    exact = model(tiny_llama)
    exact.hf.float()
    falls = {}
    for name, lm in (("float32", exact), ("masters", model(tiny_llama))):
        losses = relearn(lm, None, TEXTS, CFG, steps=60, lr=3e-5).losses
        falls[name] = losses[0] - sum(losses[-6:]) / 6
    losses, _, _ = plain_torch(model(tiny_llama), lr=3e-5, steps=60)  # as it was
    falls["weights"] = losses[0] - sum(losses[-6:]) / 6
    assert falls["masters"] == pytest.approx(falls["float32"], rel=0.1)
    assert falls["weights"] < 0.8 * falls["float32"]


def test_the_weights_are_the_masters_rounded(tiny_llama):
    lm = model(tiny_llama)
    chosen = trained_parameters(lm, "down_proj")
    with trainable(lm, chosen):
        trainer = Trainer(list(chosen.values()), 1e-3)
        assert trainer.moved() == (0, 0)
        for _ in range(3):
            trainer.step(next_token_loss(lm, *lm.pad([[5, 6, 7, 8]])))
            for p, master in zip(trainer.parameters, trainer.masters, strict=True):
                assert master.dtype == torch.float32 and p.dtype == torch.bfloat16 and p.grad is None
                gap = p.detach().float() - master
                assert float((gap.abs() / master.abs()).max()) <= 2**-7 and float(gap.mean().abs()) < 1e-4
        state = trainer.optimiser.state[trainer.masters[0]]
        assert state["exp_avg"].dtype == torch.float32


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("sign", [1, -1])
def test_rounding_at_random_takes_the_neighbours_and_keeps_the_mean(dtype, sign):
    step = torch.finfo(dtype).eps  # distance of neighbours between 1 and 2
    generator = torch.Generator().manual_seed(0)
    for share in (0.0, 0.1, 0.5, 0.75):
        x = torch.full((20_000,), sign * (1 + 3 * step + share * step))
        found = rounded_at_random(x, dtype, generator).float()
        up = (found.abs() == 1 + 4 * step).float().mean()
        assert set(found.abs().tolist()) <= {1 + 3 * step, 1 + 4 * step}
        assert float(up) == pytest.approx(share, abs=0.015)  # 4 standard errors at a half
    same = torch.tensor([0.0, -0.0, 1.5, -3.0, 2.0**-12])
    assert torch.equal(rounded_at_random(same, dtype, generator).float(), same)
    tiny = torch.tensor([3e-6, -5e-5])  # fewer digits in float16
    torch.testing.assert_close(rounded_at_random(tiny, dtype, generator).float(), tiny, rtol=2**-7, atol=1e-7)


@pytest.mark.parametrize("dtype", HALF)
def test_lora_is_kept_in_float32(tiny_llama, dtype):
    lm = model(tiny_llama, dtype)
    before, ids = weights(lm), torch.arange(5, 25)[None]
    clean = lm.logits(ids)
    with lora(lm, list(trained_parameters(lm)), 4) as adapters:
        assert {p.dtype for a in adapters.values() for p in (a.A, a.B)} == {torch.float32}
        assert torch.equal(lm.logits(ids), clean) and lm.logits(ids).dtype == dtype
    exact = model(tiny_llama, dtype)
    exact.hf.float()
    a, b = (relearn(m, None, TEXTS, CFG, rank=4, lr=1e-3, steps=12).losses for m in (lm, exact))
    torch.testing.assert_close(torch.tensor(a), torch.tensor(b), rtol=0, atol=0.03)
    assert a[-1] < a[0] - 0.05
    assert_untouched(lm, before)


@pytest.mark.parametrize("term", [NegativePreference(), GradientAscent()], ids=["npo", "gradient ascent"])
def test_erasers_and_teaching_move_what_is_left_after_rounding(tiny_llama, term):
    lm = model(tiny_llama)
    before = weights(lm)
    cfg = TuningConfig(steps=8, batch_size=2, n_ctx=16, lr=1e-4)
    edit = finetune_texts(lm, Loss(term), TEXTS[:2], TEXTS[2:], cfg)
    n = sum(c.dense().numel() for c in edit.changes.values())
    moved = sum(int((c.dense() != 0).sum()) for c in edit.changes.values()) / n
    assert edit.info["moved"] == pytest.approx(moved) and moved > 0.02
    taught = teach(lm, TEXTS, steps=4, lr=1e-3, batch_size=3, n_ctx=16)
    rows = lm.pad(text_rows(lm, TEXTS, 16))
    plain = float(next_token_loss(lm, *rows))
    with taught.applied(lm):
        assert float(next_token_loss(lm, *rows)) < plain - 0.05
    assert_untouched(lm, before)


def test_soft_prompts_are_optimised_in_float32(tiny_llama):
    questions = load_concept("golf").dev
    lm = model(tiny_llama)
    exact = model(tiny_llama)
    exact.hf.float()
    cfg = SoftPromptConfig(steps=4, n_tokens=2, lr=1e-4)  # far below half a step of bfloat16
    a, b = (soft_prompt(m, None, questions[:2], questions[2:4], cfg, "").losses for m in (lm, exact))
    torch.testing.assert_close(torch.tensor(a), torch.tensor(b), rtol=0, atol=0.05)


def test_a_training_that_does_not_fit_is_refused_before_the_first_step(tiny_llama, monkeypatch):
    from conceptlab.models import compute

    lm = model(tiny_llama)
    before = weights(lm)
    monkeypatch.setattr(compute, "memory_free", lambda device: 10_000)
    for train in (lambda: relearn(lm, None, TEXTS, CFG), lambda: finetune_texts(lm, GradientAscent(), TEXTS, [])):
        with pytest.raises(
            ConceptLabError, match=r"Training [\d,]+ weights needs 0.0 GB of gradients, .*cpu has 0.0 GB"
        ):
            train()
        assert_untouched(lm, before)
