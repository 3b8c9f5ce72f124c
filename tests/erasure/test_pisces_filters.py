"""Filters with their reasons, lists by hand, attribution: on planted features whose effect is known."""

from dataclasses import replace

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import load_concept
from conceptlab.edits import LowRank, WeightEdit
from conceptlab.erasure import (
    PUBLISHED,
    Feature,
    ability_filter,
    activation_filter,
    attribute,
    directional_edit,
    filter_features,
    hand_picked,
    word_filter,
)
from conceptlab.erasure.pisces.filters import word_probability
from conceptlab.evaluation import edit_effects


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.5)


def towards(lm, words, size):
    """An edit after which the last layer writes `size` times the unembedding rows of the words."""
    d = lm.unembedding_rows()[list(lm.single_tokens(words).values())].sum(0)
    rows = lm.down_proj(1)
    change = LowRank((size * d / d.norm())[:, None].contiguous(), rows.norm(dim=1)[None].contiguous())
    return WeightEdit(lm.name, {lm.down_proj_name(1): change})


def test_published_features_can_be_picked_by_hand(lm, saes):
    assert hand_picked(lm, saes, [(0, 3), (1, 5, -1)]) == [Feature(0, 3), Feature(1, 5, -1)]
    with pytest.raises(ConceptLabError, match="index must lie in 0 to 23"):
        hand_picked(lm, saes, [(0, 24)])
    with pytest.raises(ConceptLabError, match="named twice"):
        hand_picked(lm, saes, [(0, 3), (0, 3, -1)])
    edit = PUBLISHED["gemma-2-2b-it", "harry_potter"]
    assert [(f.layer, f.index, f.sign) for f in edit.features] == [
        (1, 8965, 1), (1, 13394, -1), (4, 661, 1), (20, 11104, 1), (20, 14668, -1),
    ]  # fmt: skip
    assert (edit.tau, edit.mu, edit.ramp) == (0.4, 36, 10)


def test_a_feature_that_never_fires_is_dropped(lm, saes):
    texts = ["Gold and iron.", "The cat sat on the mat."]
    ids, mask = lm.tokens(texts)
    acts = saes[1].encode(lm.capture(ids, [("mlp_output", 1)], mask)["mlp_output", 1])
    mask[:, 0] = False
    fires = (acts[mask] > 0).any(0)
    saes[1].b_enc[int(fires.nonzero()[0])] = -1e6  # and one more falls silent
    fires[int(fires.nonzero()[0])] = False
    features = [Feature(1, i) for i in range(24)]
    found = activation_filter(lm, saes, features, texts)
    kept = {f.index for f in found.kept}
    assert int(fires.nonzero()[0]) in kept and kept <= set(fires.nonzero()[:, 0].tolist()) | kept
    assert len(found.kept) + len(found.dropped) == 24 and found.dropped
    assert all(why == "never fires on 2 texts" for _, why in found.dropped)
    silent = [i for i in range(24) if i not in kept]
    again = activation_filter(lm, saes, [Feature(1, i) for i in silent], texts)
    assert not again.kept and activation_filter(lm, saes, [], texts).kept == ()


def test_word_probability_against_a_loop(lm):
    ids, mask = lm.tokens(["Gold and iron.", "The cat sat on the mat and slept."])
    words = [torch.tensor([5, 9]), torch.tensor([11])]
    found = word_probability(lm, ids, mask, words)
    total = [0.0, 0.0]
    for row, keep in zip(ids, mask, strict=True):
        p = lm.logits(row[keep][None])[0].double().softmax(-1)
        for i, w in enumerate(words):
            total[i] += float(p[:, w].sum())
    assert found.tolist() == pytest.approx([t / int(mask.sum()) for t in total], rel=1e-4)


def test_edits_that_raise_the_concept_or_sink_look_alikes_are_dropped(lm):
    concept = load_concept("golf")
    features = [Feature(1, 0), Feature(1, 1), Feature(1, 2)]
    words, looks = concept.words, concept.lookalikes
    edits = {0: towards(lm, words, -0.05), 1: towards(lm, words, 0.05), 2: towards(lm, (*words, *looks), -0.5)}
    found = word_filter(lm, features, concept, lambda f: edits[f.index], n_prompts=3)
    assert features[0] in found.kept
    reasons = {f.index: why for f, why in found.dropped}
    assert "concept's words" in reasons[1] and "more likely" in reasons[1]
    assert 2 not in reasons or "less likely" in reasons[2] or "more likely" in reasons[2]
    sunk = towards(lm, looks, -1.0) + towards(lm, words, -1.0)
    why = word_filter(lm, features[:1], concept, lambda f: sunk, n_prompts=3).dropped[0][1]
    assert "look-alike words" in why and "less likely" in why
    still = WeightEdit(lm.name, {})
    assert word_filter(lm, features, concept, lambda f: still, n_prompts=3).kept == tuple(features)
    speechless = replace(concept, words=("supercalifragilistic",))
    with pytest.raises(ConceptLabError, match="single token"):
        word_filter(lm, features, speechless, lambda f: still)


def test_general_ability_counts_questions(lm, monkeypatch):
    from conceptlab.erasure.pisces import filters

    accuracies = iter([0.80, 0.79, 0.70])  # before, then one per feature
    monkeypatch.setattr(filters, "score_questions", lambda *_: type("S", (), {"accuracy": next(accuracies)})())
    features = [Feature(0, 1), Feature(0, 2)]
    found = ability_filter(lm, features, lambda f: WeightEdit(lm.name, {}), ())
    assert found.kept == (features[0],)
    assert found.dropped == ((features[1], "its edit costs 10.0% of general accuracy"),)


def test_the_chain_keeps_every_reason(lm, saes):
    concept = load_concept("golf")
    saes[0].b_enc[3] = -1e6
    features = [Feature(0, 3), *(Feature(1, i) for i in range(4))]
    make = lambda f: directional_edit(lm, saes, [f], 1.0)  # noqa: E731
    before = lm.down_proj(1).clone()
    found = filter_features(lm, saes, features, concept, make, n_prompts=2, n_questions=4)
    assert set(found.kept) | {f for f, _ in found.dropped} == set(features)
    assert dict((f, why) for f, why in found.dropped)[features[0]].startswith("never fires")
    assert torch.equal(lm.down_proj(1), before)


def test_attribution_adds_up(lm, saes):
    concept = load_concept("golf")
    features = [Feature(0, 3), Feature(1, 5), Feature(1, 7)]
    make = lambda chosen: directional_edit(lm, saes, chosen, 1.0)  # noqa: E731
    by_feature = attribute(lm, features, make, concept, n_questions=2)
    assert [c.part for c in by_feature] == [str(f) for f in features]
    alone = edit_effects(lm, [make([f]) for f in features], concept, 2)
    torch.testing.assert_close(torch.stack([c.alone for c in by_feature]), alone)
    whole, rest = edit_effects(lm, [make(features), make(features[1:])], concept, 2)
    torch.testing.assert_close(by_feature[0].within, whole - rest)
    by_layer = attribute(lm, features, make, concept, by="layer", n_questions=2)
    assert [c.part for c in by_layer] == ["layer 0", "layer 1"]
    torch.testing.assert_close(by_layer[0].alone, alone[0])
    assert by_layer[0].size == pytest.approx(make(features[:1]).report(lm)["norm"])
    only = attribute(lm, features[:1], make, concept, n_questions=2)[0]
    torch.testing.assert_close(only.alone, only.within)
    with pytest.raises(ConceptLabError, match='by "feature" or by "layer"'):
        attribute(lm, features, make, concept, by="word")
    with pytest.raises(ConceptLabError, match="nothing to attribute"):
        attribute(lm, [], make, concept)
