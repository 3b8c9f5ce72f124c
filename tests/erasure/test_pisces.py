"""The closed form against encode-edit-decode, what each setting selects, planted features, bad input."""

import pytest
import torch

from conceptlab.core import ConceptLabError, NotPossible
from conceptlab.data import Concept, load_concept
from conceptlab.data.concepts import TextQuery
from conceptlab.edits import LowRank, WeightEdit
from conceptlab.erasure import (
    Feature,
    causal_filter,
    concept_token_counts,
    directional_edit,
    find_features,
    neuron_signs,
    pisces_edit,
    pisces_rows,
    random_features,
)
from conceptlab.erasure.pisces.edit import activations
from dictionaries import encode_edit_decode, make_sae

FEATURES = [Feature(0, 3), Feature(0, 7, sign=-1), Feature(1, 5)]


@pytest.fixture
def tiny(tiny_llama):
    """A random model in float64 with a dictionary for each of its two layers."""
    lm = tiny_llama()
    lm.hf.double()
    return lm, {layer: make_sae(lm, layer, dtype=torch.float64) for layer in (0, 1)}


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("tau, mu", [(0.0, 1.0), (0.4, 3.0), (0.9, 0.0)])
def test_closed_form_equals_encode_edit_decode(tiny, tau, mu, signed):
    lm, saes = tiny
    sigma = {layer: torch.randint(-1, 2, (lm.d_mlp,)).double() for layer in saes} if signed else None
    edit = pisces_edit(lm, saes, FEATURES, tau, mu, sigma)
    for layer in saes:
        chosen = [f for f in FEATURES if f.layer == layer]
        want = encode_edit_decode(saes[layer], lm.down_proj(layer), chosen, tau, mu, sigma and sigma[layer])
        with edit.applied(lm):
            assert (lm.down_proj(layer) - want).abs().max() < 1e-10
        change = edit.changes[lm.down_proj_name(layer)]
        assert isinstance(change, LowRank) and change.left.shape[1] == len(chosen)


def test_activations_without_scoring_everything(tiny):
    """Exactly those of the whole dictionary, and fewer rows are encoded in full."""
    lm, _ = tiny
    sae = make_sae(lm, 0, d_sae=400, k=5, dtype=torch.float64)
    rows = torch.cat([lm.down_proj(0), torch.randn(200, 16, generator=torch.Generator().manual_seed(3)).double()])
    encoded = []
    encode = sae.encode
    sae.encode = lambda x, features: encoded.append(len(x)) or encode(x, features)
    for index in (torch.tensor([3]), torch.tensor([8, 9, 250]), torch.arange(400)):
        torch.testing.assert_close(activations(sae, rows, index), encode(rows)[:, index])
    assert 0 < encoded[0] < 0.5 * len(rows) and encoded[-1] == len(rows)
    assert float(encode(rows)[:, [8, 9, 250]].max()) > 0
    torch.testing.assert_close(activations(sae, rows, torch.tensor([3]), 100), encode(rows)[:, [3]])  # 4 are too few


def test_tau_selects_the_rows_it_says(tiny):
    lm, saes = tiny
    index = torch.tensor([3, 7])
    picked, scale = pisces_rows(saes[0], lm.down_proj(0), index, 0.5)
    size = (lm.down_proj(0) @ saes[0].W_enc[:, index]).abs()
    for k in range(2):
        assert picked[:, k].tolist() == [bool(s > 0.5 * size[:, k].max()) for s in size[:, k]]
    assert float(scale) == pytest.approx(float(size.max()))
    edit = pisces_edit(lm, saes, FEATURES[:2], 0.5, 1.0)
    touched = edit.changes[lm.down_proj_name(0)].right.abs().amax(0) > 0
    assert torch.equal(touched, picked.any(1))
    fewer, _ = pisces_rows(saes[0], lm.down_proj(0), index, 0.9)
    assert not bool((fewer & ~picked).any()) and fewer.any(0).all()  # higher tau: a subset, never empty


def test_sign_of_a_feature_and_of_a_neuron_turn_the_target(tiny):
    lm, saes = tiny
    name, zero = lm.down_proj_name(0), pisces_edit(lm, saes, [Feature(0, 3)], 0.2, 0.0)
    remove = zero.changes[name].dense()  # takes out what is there; the rest is the target value
    plus, minus = (pisces_edit(lm, saes, [Feature(0, 3, s)], 0.2, 2.0).changes[name].dense() - remove for s in (1, -1))
    assert torch.allclose(plus, -minus) and plus.norm() > 0
    turned = pisces_edit(lm, saes, [Feature(0, 3)], 0.2, 2.0, {0: -torch.ones(lm.d_mlp)}).changes[name].dense()
    assert torch.allclose(turned - remove, minus)
    unseen = pisces_edit(lm, saes, [Feature(0, 3)], 0.2, 2.0, {0: torch.zeros(lm.d_mlp)}).changes[name].dense()
    assert torch.allclose(unseen, remove)
    direction = saes[0].W_dec[3]
    assert float((plus.T @ direction).max()) < 1e-12  # pushed against +d in every changed row


def test_edit_adds_up_over_features_of_different_layers(tiny):
    lm, saes = tiny
    both = pisces_edit(lm, saes, [Feature(0, 3), Feature(1, 5)], 0.3, 1.0)
    parts = pisces_edit(lm, saes, [Feature(0, 3)], 0.3, 1.0) + pisces_edit(lm, saes, [Feature(1, 5)], 0.3, 1.0)
    for name in both.changes:
        assert torch.allclose(both.changes[name].dense(), parts.changes[name].dense())


@pytest.mark.parametrize("c", [0.0, 1.0, 2.0])
def test_directional_edit_removes_c_times_the_projection(tiny, c):
    lm, saes = tiny
    rows, d = lm.down_proj(0).clone(), saes[0].W_dec[3]
    edit = directional_edit(lm, saes, [Feature(0, 3)], c)
    with edit.applied(lm):
        assert torch.allclose(lm.down_proj(0), rows - c * torch.outer(rows @ d, d))
        assert torch.allclose(lm.down_proj(0) @ d, (1 - c) * (rows @ d))
    several = directional_edit(lm, saes, [Feature(0, 3), Feature(0, 7)], c)
    with several.applied(lm):
        span = saes[0].W_dec[[3, 7]]
        assert torch.allclose(lm.down_proj(0) @ span.T, (1 - c) * (rows @ span.T))
        outside = torch.linalg.svd(span)[2][2:]
        assert torch.allclose(lm.down_proj(0) @ outside.T, rows @ outside.T)


def test_edits_revert_bit_exactly_and_save(tiny_llama, tmp_path):
    lm = tiny_llama()
    saes = {layer: make_sae(lm, layer) for layer in (0, 1)}
    before = {n: p.clone() for n, p in lm.hf.named_parameters()}
    for edit in (pisces_edit(lm, saes, FEATURES, 0.3, 2.0), directional_edit(lm, saes, FEATURES)):
        with pytest.raises(KeyError), edit.applied(lm):
            assert not torch.equal(lm.down_proj(0), before[lm.down_proj_name(0)].T)
            raise KeyError
        assert all(torch.equal(p, before[n]) for n, p in lm.hf.named_parameters())
        edit.save(tmp_path / "edit.safetensors")
        loaded = WeightEdit.load(tmp_path / "edit.safetensors")
        name = lm.down_proj_name(0)
        assert torch.equal(loaded.changes[name].dense(), edit.changes[name].dense())
        assert loaded.info["features"] == [[0, 3, 1], [0, 7, -1], [1, 5, 1]]


def toy_concept():
    """Texts about uranium, a neighbour about Rome; two words that are single tokens, one that is not."""
    neighbour = Concept("rome", "Rome", ("Rome",), (), TextQuery(frozenset({"Ancient Rome", "Julius Caesar"})), (), ())
    query = TextQuery(frozenset({"Uranium", "Gold", "Iron"}))
    words = (" gold", "iron", "supercalifragilistic")
    return Concept("metals", "Metals", words, (), query, (), (), neighbour)


def test_output_side_counts_find_both_signs(tiny_llama):
    lm, concept = tiny_llama(), toy_concept()
    sae = make_sae(lm, 1)
    gold, iron = lm.single_token("gold"), lm.single_token("iron")
    readers = (lm.unembedding_rows() * lm.final_gain())[[gold, iron]].sum(0)
    sae.W_dec[4], sae.W_dec[9] = readers / readers.norm(), -readers / readers.norm()
    counts, ids = concept_token_counts(lm, sae, concept, k=400)
    assert counts[4].tolist() == [2, 0] and counts[9].tolist() == [0, 2] and ids.shape == (24, 2, 400)
    with pytest.raises(ConceptLabError, match="single token"):
        concept_token_counts(lm, sae, Concept("x", "X", ("supercalifragilistic",), (), concept.query, (), ()))


def test_a_planted_feature_is_found_first(tiny_llama):
    lm, concept = tiny_llama(d_model=32), toy_concept()
    layer = 1
    sae = make_sae(lm, layer, k=4)
    metals = lm.tokens([a.text for a in concept.articles()], 32)
    others = lm.tokens([a.text for a in concept.neighbour.articles()], 32)
    x, y = (lm.capture(i, [("mlp_output", layer)], m)["mlp_output", layer][m] for i, m in (metals, others))
    direction = x.mean(0) - y.mean(0)
    direction = direction / direction.norm()
    centre = (x.mean(0) + y.mean(0)) @ direction / 2
    sae.W_enc[:, 11], sae.W_dec[11] = 100 * direction, direction
    sae.b_enc[11] = float(-100 * (centre - sae.b_dec @ direction))
    found = find_features(lm, {layer: sae}, concept, n=5, n_texts=3, n_ctx=32, min_tokens=99)
    assert (found[0].layer, found[0].index, found[0].sign) == (layer, 11, 1)
    assert found[0].auroc > 0.7 and found[0].contrast > 0 and found[0].mean_concept > found[0].mean_neighbour
    sae.b_enc[11] = -1e6  # a feature that never fires does not pass the activation filter
    found = find_features(lm, {layer: sae}, concept, n=24, n_texts=3, n_ctx=32, min_auroc=0.0, min_tokens=0)
    assert 11 not in [f.index for f in found]


def test_neuron_signs_against_a_loop(tiny_llama):
    lm = tiny_llama()
    text = "Gold and iron and gold."
    found = neuron_signs(lm, [0, 1], [text, "iron"], ["gold", "iron"])
    ids, _ = lm.tokens(text)
    at = [i for i, t in enumerate(ids[0].tolist()) if t in lm.single_tokens(["gold", "iron"]).values()]
    assert len(at) == 2  # " iron", " gold"; the first word has no leading space
    neurons = lm.capture(ids, [("neurons", 1)])["neurons", 1][0, at]
    assert torch.equal(found[1], neurons.sign().sum(0).sign())


@pytest.mark.parametrize(
    ("texts", "words", "message"),
    [
        (["Gold and iron."], ["pneumonoultramicroscopic", "Zxqvy Wkjhp"], "is a single token of tiny-llama"),
        (["Gold and iron."], [], "is a single token"),
        (["Rain and snow."], ["gold", "iron"], "stands in the 1 texts"),
        ([], ["gold"], "stands in the 0 texts"),
        (["Gold."], ["gold"], "stands in the 1 texts"),  # without a space in front it is another token
    ],
)
def test_signs_of_words_that_are_no_token_or_never_seen(tiny_llama, texts, words, message):
    with pytest.raises(NotPossible, match=message) as caught:
        neuron_signs(tiny_llama(), [0, 1], texts, words)
    assert "\n" not in str(caught.value)


def test_random_features_are_others_of_the_same_layers(tiny):
    _, saes = tiny
    drawn = random_features(saes, FEATURES, seed=1)
    assert [(f.layer, f.sign) for f in drawn] == [(f.layer, f.sign) for f in FEATURES]
    assert not {(f.layer, f.index) for f in drawn} & {(f.layer, f.index) for f in FEATURES}
    assert drawn == random_features(saes, FEATURES, seed=1) and len({(f.layer, f.index) for f in drawn}) == 3


def test_bad_input(tiny, tiny_llama):
    lm, saes = tiny
    with pytest.raises(ConceptLabError, match="No features were given"):
        pisces_edit(lm, saes, [], 0.5, 1.0)
    with pytest.raises(ConceptLabError, match="has no dictionary; those given are of layers"):
        directional_edit(lm, {0: saes[0]}, FEATURES)
    with pytest.raises(ConceptLabError, match="index must lie in 0 to 23"):
        directional_edit(lm, saes, [Feature(0, 24)])
    with pytest.raises(ConceptLabError, match="sign be 1 or -1"):
        directional_edit(lm, saes, [Feature(0, 2, sign=0)])
    with pytest.raises(ConceptLabError, match="tau is a share"):
        pisces_edit(lm, saes, FEATURES, 1.5, 1.0)
    with pytest.raises(ConceptLabError, match="reads layer 1"):
        pisces_edit(lm, {0: saes[1]}, [Feature(0, 2)], 0.5, 1.0)
    wide = tiny_llama(d_model=32)
    with pytest.raises(ConceptLabError, match="width 32"):
        pisces_edit(wide, saes, FEATURES, 0.5, 1.0)
    with pytest.raises(ConceptLabError, match="No dictionary was given"):
        find_features(lm, {}, load_concept("japan"))
    lonely = Concept("x", "X", ("gold",), (), TextQuery(frozenset()), (), ())
    with pytest.raises(ConceptLabError, match="no neighbour"):
        find_features(lm, saes, lonely)


def test_gemma_is_edited_before_its_norm(gemma3):
    """The edit lives in the space of `mlp_output`; only the projection on the vocabulary knows the norm's gain."""
    sae = make_sae(gemma3, 5, d_sae=32)
    feature = Feature(5, 3)
    ids, mask = gemma3.tokens("Gold is a chemical element.")
    site = ("mlp_output", 5)
    before = gemma3.capture(ids, [site], mask)[site][0]
    with directional_edit(gemma3, {5: sae}, [feature], 1.0).applied(gemma3):
        after = gemma3.capture(ids, [site], mask)[site][0]
    d = sae.W_dec[3]
    assert (after @ d).abs().max() < 1e-3 * (before @ d).abs().max()
    want = before - torch.outer(before @ d, d)
    assert (after - want).abs().max() < 1e-4 * before.abs().max()
    gain = gemma3.post_mlp_gain(5)
    assert torch.allclose(sae.residual_directions(gemma3)[3], d * gain) and gain.std() > 0.1


def test_causal_filter_by_hand():
    features = [Feature(0, i) for i in range(5)]
    effects = torch.tensor(
        [
            [-1.0, -0.1, 0.0],  # good
            [-0.01, 0.0, 0.0],  # does nothing
            [-1.0, -0.1, -0.6],  # general questions fall too
            [-2.0, -0.9, 0.3],  # good and stronger
            [0.5, 0.0, 0.0],  # helps the target
        ]
    )
    assert [f.index for f in causal_filter(features, effects)] == [3, 0]
    with pytest.raises(ConceptLabError, match="as many rows"):
        causal_filter(features[:2], effects)
