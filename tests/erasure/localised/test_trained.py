"""What is trained or measured by gradients: RMU, SSD, ELM, Needle, rows by attribution."""

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import load_concept
from conceptlab.edits import Dense
from conceptlab.erasure import promoting_vectors
from conceptlab.erasure.localised.elm import ElmConfig, elm_edit, novice_distribution
from conceptlab.erasure.localised.lookup import effects, turned_vectors
from conceptlab.erasure.localised.needle import NeedleConfig, needle_edit
from conceptlab.erasure.localised.rmu import RmuConfig, rmu_edit, rmu_loss
from conceptlab.erasure.localised.ssd import dampening, importances
from conceptlab.erasure.localised.training import batches, rate, trained_edit
from conceptlab.models import next_token_loss
from sentences import sentences

FORGET, KEEP = sentences(12, 0), sentences(12, 1)


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.5)


def states(lm, texts, layer):
    ids, mask = lm.tokens(texts, 16)
    mask[:, 0] = False
    return lm.capture(ids, [("resid_post", layer)])["resid_post", layer][mask]


# ---- RMU --------------------------------------------------------------------------------------------------
def test_the_loss_of_rmu_by_hand():
    x, target = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]])
    kept, before = torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 1.0]])
    assert float(rmu_loss(x, target, kept, before, 0.5)) == pytest.approx((1 + 4) / 2 + 0.5 * 4 / 2)


@pytest.mark.parametrize("direction", ["random", "own"])
def test_rmu_moves_the_state_towards_the_chosen_vector(lm, direction):
    config = RmuConfig(direction=direction, depth=1.0, steps=30, lr=0.05, n_ctx=16, batch_size=4)
    before, old = lm.fingerprint(), states(lm, FORGET, 1)
    edit = rmu_edit(lm, FORGET, KEEP, config, seed=3)
    assert lm.fingerprint() == before, "training leaves the model as it was"
    with edit.applied(lm):
        new = states(lm, FORGET, 1)
    u = torch.randn(lm.d_model, generator=torch.Generator().manual_seed(3))
    unit = u / u.norm() if direction == "random" else torch.nn.functional.normalize(old, dim=1)
    target = config.c * old.norm(dim=1).mean() * unit
    assert float((new - target).norm()) < 0.98 * float((old - target).norm())
    assert set(edit.changes) == {lm.down_proj_name(0), lm.down_proj_name(1)}
    again = rmu_edit(lm, FORGET, KEEP, config, seed=3)
    assert all(torch.equal(again.changes[n].dense(), c.dense()) for n, c in edit.changes.items())


# ---- SSD --------------------------------------------------------------------------------------------------
def test_dampening_by_hand():
    forget, keep = torch.tensor([8.0, 8.0, 1.0, 0.0]), torch.tensor([1.0, 4.0, 1.0, 0.0])
    # alpha 3: the first is selected (8 > 3) and the second is not (8 < 12); lambda 2: 2 * 1 / 8
    torch.testing.assert_close(dampening(forget, keep, 3.0, 2.0), torch.tensor([0.25, 1.0, 1.0, 1.0]))
    torch.testing.assert_close(dampening(forget, keep, 1.0, 1.0), torch.tensor([0.125, 0.5, 1.0, 1.0]))
    assert float(dampening(forget, keep, 0.5, 20.0).max()) == 1.0, "nothing grows"


def test_importances_square_the_gradient_of_each_text_and_not_that_of_their_mean(lm):
    name, rows = lm.down_proj_name(1), [lm.encode(text)[:8] for text in FORGET[:2]]
    before = lm.fingerprint()
    found = importances(lm, [name], rows)[name]
    assert lm.fingerprint() == before and not lm.parameters()[name].requires_grad
    weight = lm.parameters()[name]
    weight.requires_grad_(True)
    with torch.enable_grad():
        each = [torch.autograd.grad(next_token_loss(lm, *lm.pad([row])), weight)[0] for row in rows]
    weight.requires_grad_(False)
    torch.testing.assert_close(found, (each[0].square() + each[1].square()) / 2)
    assert not torch.allclose(found, ((each[0] + each[1]) / 2).square())


# ---- ELM --------------------------------------------------------------------------------------------------
def test_the_novice_distribution_is_one_and_moves_away_from_the_expert():
    p, novice, expert = (
        torch.randn(2, 7, generator=torch.Generator().manual_seed(i)).log_softmax(-1) for i in range(3)
    )
    q = novice_distribution(p, novice, expert, 2.0)
    torch.testing.assert_close(q.exp().sum(-1), torch.ones(2))
    torch.testing.assert_close(novice_distribution(p, novice, expert, 0.0), p)
    torch.testing.assert_close((q - q[:, :1]), (p + 2 * (novice - expert)) - (p + 2 * (novice - expert))[:, :1])


def test_elm_is_of_low_rank_and_leaves_the_model_alone(lm):
    before = lm.fingerprint()
    edit = elm_edit(lm, FORGET, KEEP, "golf", ElmConfig(steps=2, rank=2, batch_size=2, n_ctx=12, deepest=0.5))
    assert lm.fingerprint() == before and not lm.is_hooked
    assert len(edit.changes) == 3 and all("layers.0.mlp." in name for name in edit.changes)
    for change in edit.changes.values():
        assert change.left.shape[1] == 2 and float(change.dense().norm()) > 0


# ---- Needle -----------------------------------------------------------------------------------------------
def test_needle_touches_its_vectors_and_nothing_else(lm):
    vectors = promoting_vectors(lm, load_concept("golf"), 4)
    before = lm.fingerprint()
    edit = needle_edit(lm, vectors, FORGET, NeedleConfig(steps=3, batch_size=4, n_ctx=12))
    assert lm.fingerprint() == before
    used = {
        (layer, neuron) for layer in range(2) if lm.down_proj_name(layer) in edit.changes
        for neuron in (edit.changes[lm.down_proj_name(layer)].dense().abs().amax(0) > 0).nonzero()[:, 0].tolist()
    }  # fmt: skip
    assert used == {(v.layer, v.neuron) for v in vectors}, "neither gradient nor decay reaches another number"
    noise_alone = needle_edit(lm, vectors, FORGET, NeedleConfig(steps=1, lr=1e-9, batch_size=4, n_ctx=12))
    for name, change in noise_alone.changes.items():
        own = (change.dense().abs().amax(0) > 0).nonzero()[:, 0]
        norms = lm.parameters()[name][:, own].norm(dim=0)
        torch.testing.assert_close(change.dense()[:, own].norm(dim=0), norms, rtol=1e-3, atol=1e-4)


# ---- rows by attribution ----------------------------------------------------------------------------------
def test_effects_are_first_order_effects_of_silencing_a_neuron(lm):
    facts = list(load_concept("golf").dev[:2])
    found = effects(lm, facts, [0, 1], None)
    assert found.shape == (2, lm.d_mlp) and not lm.is_hooked
    layer, neuron, small = 1, int(found[1].abs().argmax()), 1e-3

    def score(scale):
        total = 0.0
        for q in facts:
            stem, answer = lm.encode(f"Question: {q.q}\nAnswer:"), lm.encode(f" {q.gold}")
            ids, mask = lm.pad([stem + answer])
            n_stem = len(stem)

            def hook(n, n_stem=n_stem):
                n = n.clone()
                n[:, 1:n_stem, neuron] *= scale
                return n

            with lm.intervene({("neurons", layer): hook}):
                logprobs = lm.logits(ids, mask).float().log_softmax(-1)
            total += sum(float(logprobs[0, i - 1, ids[0, i]]) for i in range(n_stem, ids.shape[1]))
        return total / len(facts)

    assert (score(1 + small) - score(1 - small)) / (2 * small) == pytest.approx(float(found[layer, neuron]), rel=0.05)


def test_vectors_are_turned_by_their_factor(lm):
    old = lm.value_vectors(1).clone()
    with turned_vectors(lm, [(1, 4), (1, 2)], 2.0, {}).applied(lm):
        now = lm.value_vectors(1)
        torch.testing.assert_close(now[[2, 4]], -old[[2, 4]])
        assert torch.equal(now[[0, 1, 3]], old[[0, 1, 3]])
    assert torch.equal(lm.value_vectors(1), old)


# ---- the loop ---------------------------------------------------------------------------------------------
def test_the_loop_masks_restores_and_says_when_it_diverges(lm):
    name = lm.down_proj_name(0)
    before, planned = lm.fingerprint(), batches(lm, FORGET, KEEP, 2, 4, 12, 0)
    assert planned[0].forget[0].shape[0] == 4 and planned[0].keep[0].shape[0] == 2

    def loss(step):
        return next_token_loss(lm, *planned[step].forget)

    edit = trained_edit(lm, [name], loss, 2, 1e-3, {}, mask=lambda _, g: g * (torch.arange(g.shape[1]) < 3))
    assert isinstance(edit.changes[name], Dense) and lm.fingerprint() == before
    assert float(edit.changes[name].dense()[:, 3:].abs().max()) == 0 < float(edit.changes[name].dense()[:, :3].norm())
    with pytest.raises(ConceptLabError, match="diverged at step 1; lower the rate"):
        trained_edit(lm, [name], lambda step: loss(0) * (torch.nan if step else 1.0), 2, 1e-3, {})
    assert lm.fingerprint() == before
    size = float(lm.parameters()[name].square().mean().sqrt())
    assert rate(lm, [name], 0.1) == pytest.approx(0.1 * size, rel=1e-4)
