"""The closed forms: keys, the solve, null spaces, remaps, rank-one edits, the distilled clamp, reversed vectors."""

from dataclasses import replace

import pytest
import torch

from conceptlab.core import NotPossible
from conceptlab.data import load_concept
from conceptlab.edits import WeightEdit
from conceptlab.erasure.localised.distil import clamp_additions, distilled
from conceptlab.erasure.localised.keys import Keys, early_layers, gather_keys, mean_states, subject_ends
from conceptlab.erasure.localised.memit import REFUSAL, RankOneConfig, refusal_shift
from conceptlab.erasure.localised.read_side import read_side_edit
from conceptlab.erasure.localised.remap import RemapConfig, remap_edit
from conceptlab.erasure.localised.snmf import semi_nmf, snmf_edit
from conceptlab.erasure.localised.solve import inverse_moment, key_update, null_space
from conceptlab.erasure.localised.tars import reversed_vectors
from dictionaries import make_sae


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.5)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- keys -------------------------------------------------------------------------------------------------
def test_keys_are_read_where_a_word_ends_also_of_several_tokens(lm):
    words = ("golf", "Augusta National")
    texts = ["They play golf at Augusta National today.", "Nothing of it.", "To golf"]
    ids, mask = lm.tokens(texts)
    at, which = subject_ends(lm, ids, words)
    found = {(row, lm.decode(ids[row, : place + 1]).split()[-1]) for row, place in (at & mask).nonzero().tolist()}
    assert found == {(0, "golf"), (0, "National"), (2, "golf")}
    assert set(which[at].tolist()) == {0, 1} and int((which == 1).sum()) == 1


def test_keys_are_means_per_word_and_the_first_position_is_left_out(lm):
    texts, keep = ["We like golf and golf.", " golf"], ["The sea is wide.", "Rivers run to it."]
    found = gather_keys(lm, texts, keep, ("golf", "tennis"), (0, 1))
    ids, mask = lm.tokens(texts[:1])
    at, _ = subject_ends(lm, ids, ("golf",))
    neurons = lm.capture(ids, [("neurons", 1)], mask)["neurons", 1][at]
    assert found[1].own.shape == (1, lm.d_mlp), "tennis does not occur, and the golf at the start does not count"
    torch.testing.assert_close(found[1].own[0], neurons.mean(0))
    assert len(found[1].kept) == sum(len(lm.encode(t)) - 1 + len(lm.start_ids) for t in keep)
    own, other = mean_states(lm, texts, keep, ("golf",), "neurons")
    torch.testing.assert_close(own[1], neurons.mean(0))
    torch.testing.assert_close(other[1], found[1].kept.mean(0))
    with pytest.raises(NotPossible, match="stands in the texts to forget"):
        gather_keys(lm, texts, keep, ("cricket",), (0,))
    with pytest.raises(NotPossible, match="stands in the texts to forget"):
        mean_states(lm, texts, keep, ("cricket",))


def test_the_early_layers_of_the_bundled_models():
    assert early_layers(30) == (3, 5, 7) and early_layers(18) == (2, 3, 4) and early_layers(2) == (0,)


# ---- the solve --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("metric", ["moment", "null space"])
def test_a_rank_one_edit_sends_the_key_exactly_to_its_value(metric):
    kept, K, R = normal(20, 32, seed=1).double(), normal(1, 32, seed=2), normal(1, 8, seed=3)
    moment = kept.T @ kept / 20
    M = inverse_moment(moment) if metric == "moment" else null_space(moment)
    change = key_update(K, R, M)
    assert change.left.shape[1] == 1
    torch.testing.assert_close(K @ change.dense().T, R, rtol=1e-4, atol=1e-5)
    expected = torch.outer(R[0], (M.float() @ K[0]) / (K[0] @ M.float() @ K[0]))  # ROME's closed form
    torch.testing.assert_close(change.dense(), expected, rtol=1e-3, atol=1e-5)


def test_several_keys_reach_their_values_and_a_ridge_stops_short_of_them():
    K, R = normal(5, 32, seed=2), normal(5, 8, seed=3)
    exact = key_update(K, R, torch.eye(32))
    torch.testing.assert_close(K @ exact.dense().T, R, rtol=1e-4, atol=1e-5)
    assert float(key_update(K, R, torch.eye(32), 1.0).dense().norm()) < float(exact.dense().norm())
    small = 1e-6 * torch.eye(32)  # the ridge is relative, so that the scale of the metric does not matter
    torch.testing.assert_close(
        key_update(K, R, small, 1.0).dense(), key_update(K, R, torch.eye(32), 1.0).dense(), rtol=1e-3, atol=1e-6
    )


def test_a_change_in_the_null_space_alters_no_protected_key():
    kept, K, R = normal(20, 32, seed=1).double(), normal(4, 32, seed=2), normal(4, 8, seed=3)
    P = null_space(kept.T @ kept / 20)
    change = key_update(K, R, P).dense()
    kept = kept.float()
    assert float((kept @ change.T).abs().max()) < 1e-5 * float((kept @ normal(8, 32, seed=5).T).abs().max())
    torch.testing.assert_close(K @ change.T, R, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(P @ P, P)
    assert round(float(P.trace())) == 12
    with pytest.raises(NotPossible, match="span everything"):
        null_space(torch.eye(32))
    assert round(float(null_space(torch.eye(32), 0.25).trace())) == 8, "a leak lets directions in by their share"
    with pytest.raises(NotPossible, match="lie among those to keep"):
        key_update(kept[:3], R[:3], P)


# ---- remap ------------------------------------------------------------------------------------------------
def test_a_remap_sends_keys_to_the_mean_and_spares_the_others(lm):
    keys = {0: Keys(normal(3, lm.d_mlp, seed=1), normal(20, lm.d_mlp, seed=2))}
    projections = {0: null_space(keys[0].moment)}
    edit = remap_edit(lm, keys, RemapConfig(1.0, ridge=0.0), projections)
    mean = keys[0].kept.mean(0) @ lm.down_proj(0)
    before = lm.fingerprint()
    kept = keys[0].kept @ lm.down_proj(0)
    with edit.applied(lm):
        now = keys[0].own @ lm.down_proj(0)
        torch.testing.assert_close(now, mean.expand_as(now), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(keys[0].kept @ lm.down_proj(0), kept, rtol=1e-3, atol=1e-3)
    assert lm.fingerprint() == before
    null = remap_edit(lm, keys, RemapConfig(1.0, ridge=0.0, targets="random"), projections)
    moved = [keys[0].own @ e.changes[lm.down_proj_name(0)].dense().T for e in (edit, null)]
    torch.testing.assert_close(moved[0].norm(dim=1), moved[1].norm(dim=1), rtol=1e-3, atol=1e-3)
    assert float(torch.nn.functional.cosine_similarity(*moved).abs().max()) < 0.9


# ---- rank one to a refusal --------------------------------------------------------------------------------
def test_the_shift_makes_the_refusal_likelier_and_leaves_the_model_alone(lm):
    concept = load_concept("golf")
    facts = [q for q in concept.dev if "golf" in q.q][:3]
    before = lm.fingerprint()
    config = RankOneConfig(steps=8, n_facts=3, decay=0.0)
    shift = refusal_shift(lm, 0, facts, ("golf",), config)  # behind the last layer no token would see it
    assert lm.fingerprint() == before and not lm.is_hooked
    stems = [[*lm.start_ids, *lm.encode(f"Question: {q.q}\nAnswer:")] for q in facts]
    refusal = lm.encode(f" {REFUSAL}")

    def refuses(change):
        total = 0.0
        for stem in stems:
            ids, mask = lm.pad([stem + refusal])
            at = subject_ends(lm, ids, ("golf",))[0]
            with lm.intervene({("mlp_output", 0): lambda x, at=at: x + at[..., None] * change}):
                logprobs = lm.logits(ids, mask).log_softmax(-1)[0]
            total += sum(float(logprobs[len(stem) + i - 1, token]) for i, token in enumerate(refusal))
        return total

    assert refuses(shift) > refuses(torch.zeros_like(shift))
    with pytest.raises(NotPossible, match="names the concept by one of its words"):
        refusal_shift(lm, 0, facts, ("cricket",), config)


# ---- distilled clamp --------------------------------------------------------------------------------------
def test_the_distilled_weights_do_what_the_hook_does(lm):
    own, other = normal(10, lm.d_mlp, seed=1), normal(12, lm.d_mlp, seed=2)  # fewer keys than neurons: no trade
    sae = make_sae(lm, 0)
    outputs = own @ lm.down_proj(0)
    index = sae.encode(outputs).sum(0).argsort(descending=True)[:2].tolist()
    largest = sae.strengths(outputs, torch.tensor(index)).amax(0)
    added = clamp_additions(sae, outputs, index, 2.0, largest)
    fires = sae.encode(outputs)[:, index] > 0
    assert bool(fires.any()) and float(added[~fires.any(1)].abs().sum()) == 0, "where nothing fires, nothing is added"
    D = distilled(own, added, other, 1.0, 1e-7)
    torch.testing.assert_close(own @ D.T, added, rtol=1e-2, atol=1e-3 * float(added.abs().max()))
    assert float((other @ D.T).abs().max()) < 1e-3 * float(added.abs().max())
    loose = distilled(own, added, other, 0.0, 1e-7)
    assert float((other @ loose.T).norm()) > float((other @ D.T).norm())


# ---- vectors and the read side ----------------------------------------------------------------------------
def test_the_most_aligned_vectors_are_reversed_and_no_others(lm):
    directions = torch.nn.functional.normalize(normal(2, lm.d_model), dim=1)
    with reversed_vectors(lm, directions, 5).applied(lm):
        after = [lm.value_vectors(x).clone() for x in (0, 1)]
    before = [lm.value_vectors(x) for x in (0, 1)]
    pairs = zip(before, directions, strict=True)
    cosines = torch.stack([torch.nn.functional.cosine_similarity(v, d[None]) for v, d in pairs])
    chosen = cosines.abs().flatten().topk(5).indices.tolist()
    for i in range(2 * lm.d_mlp):
        layer, neuron = i // lm.d_mlp, i % lm.d_mlp
        old, new = before[layer][neuron], after[layer][neuron]
        if i in chosen:
            torch.testing.assert_close(new.norm(), old.norm(), rtol=1e-4, atol=1e-5)
            expected = -cosines[layer, neuron].sign() * directions[layer]
            torch.testing.assert_close(new / new.norm(), expected, rtol=1e-3, atol=1e-4)
        else:
            assert torch.equal(old, new)


def test_later_layers_no_longer_read_what_was_written(lm):
    d = torch.nn.functional.normalize(normal(2, lm.d_model), dim=1)
    edit = read_side_edit(lm, {0: d}, 1.0)
    assert all("layers.1." in name and ("gate" in name or "up" in name) for name in edit.changes)
    assert len(edit.changes) == 2
    seen = d * lm.pre_mlp_gain(1)
    with edit.applied(lm):
        for name in edit.changes:
            assert float((lm.parameters()[name] @ seen.T).abs().max()) < 1e-4
    with (edit * 2.0).applied(lm):
        turned = {name: lm.parameters()[name] @ seen.T for name in edit.changes}
    for name, now in turned.items():
        torch.testing.assert_close(now, -(lm.parameters()[name] @ seen.T), rtol=1e-3, atol=1e-3)
    nothing = read_side_edit(lm, {0: d}, 0.0)
    assert all(float(c.dense().abs().max()) == 0 for c in nothing.changes.values())


# ---- factors ----------------------------------------------------------------------------------------------
def test_factors_are_nonnegative_find_planted_ones_and_depend_on_the_seed():
    Z, Y = torch.nn.functional.normalize(normal(3, 20), dim=1), normal(200, 3, seed=1).clamp_min(0)
    A = Y @ Z
    errors = []
    for iterations in (1, 5, 60):
        found, factors = semi_nmf(A, 3, iterations, seed=0)
        assert float(found.min()) >= 0
        torch.testing.assert_close(factors.norm(dim=1), torch.ones(3))
        errors.append(float((A - found @ factors).norm() / A.norm()))
    assert errors[0] >= errors[1] >= errors[2] and errors[2] < 0.2, errors
    assert not torch.equal(semi_nmf(A, 3, 5, 0)[1], semi_nmf(A, 3, 5, 1)[1])
    assert torch.equal(semi_nmf(A, 3, 5, 1)[1], semi_nmf(A, 3, 5, 1)[1])


def test_the_edit_of_a_factor_goes_through_its_neurons_against_what_it_writes(lm):
    z = torch.zeros(lm.d_mlp)
    z[[2, 5, 9]] = torch.tensor([1.0, -0.8, 0.1])
    edit = snmf_edit(lm, [(3.0, 1, z)], 2.0, 0.3)
    change = edit.changes[lm.down_proj_name(1)].dense()
    assert (change.abs().amax(0) > 0).nonzero()[:, 0].tolist() == [2, 5], "0.1 is below tau"
    written = z @ lm.down_proj(1)
    assert float((z @ change.T) @ written) < 0
    assert isinstance(edit * 0.5, WeightEdit) and replace(RemapConfig(), strength=0.0).strength == 0.0
