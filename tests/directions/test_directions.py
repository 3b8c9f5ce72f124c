"""Directions between kinds: what is planted is found, splits hold out, steering comes off."""

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import contrast_examples, matched_stories, trivia_contrast
from conceptlab.directions import (
    SURFACES,
    WRITTEN,
    Added,
    Multiplied,
    by_template,
    cosine_draws,
    direction_cosines,
    equal_energy_directions,
    equally_hard,
    halves,
    held_out,
    inside_template,
    item_states,
    kept_states,
    mean_difference,
    on_plane,
    random_directions,
    ridge,
    shuffled_limit,
    site_moment,
    split_auroc,
    steering_plan,
    unit,
)


@pytest.fixture(scope="module")
def stories():
    return matched_stories(12)


@pytest.fixture(scope="module")
def pair(stories):
    items = [item for item in stories if item.kind != "copy"]
    return items, torch.tensor([item.kind == "step" for item in items])


def planted(positive, strength, seed=0, d=8):
    x = torch.randn(2, len(positive), d, generator=torch.Generator().manual_seed(seed))
    x[1, :, 0] += strength * positive
    return x


# ---- states -------------------------------------------------------------------------------------------------
def test_states_of_items_that_share_a_story_are_those_of_each_alone(tiny_llama, stories):
    lm, items = tiny_llama(n_layers=3), [*stories[:6], *trivia_contrast(stories[:6])[-2:]]
    together = item_states(lm, items, contrast_examples())
    for i in (0, 2, 4, 7):
        alone = item_states(lm, [items[i]], contrast_examples())
        assert torch.allclose(together.resid[:, i], alone.resid[:, 0], atol=1e-4)
        assert together.margin[i] == pytest.approx(float(alone.margin[0]), abs=1e-4)


def test_margins_are_differences_of_log_probabilities(tiny_llama, stories):
    lm = tiny_llama(n_layers=2)
    states = item_states(lm, stories[:3])
    assert len(states) == 3 and states.of("copy").tolist() == [False, True, False]
    head, cut, question = stories[1].text.partition("\nQuestion:")
    start = [lm.tokenizer.bos_token_id]
    ids = torch.tensor([start + lm.encode(head) + lm.encode(cut + question)])
    logits = lm.logits(ids)[0, -1].log_softmax(-1)
    first = [float(logits[lm.encode(f" {o}")[0]]) for o in stories[1].options]
    gold = first.pop(stories[1].answer)
    assert float(states.margin[1]) == pytest.approx(gold - max(first), abs=1e-3)
    assert states.correct.tolist() == (states.margin > 0).tolist()


def test_states_are_kept_by_weights_and_texts(tiny_llama, stories, tmp_path, monkeypatch):
    lm, other = tiny_llama(), tiny_llama(seed=1)
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    first = kept_states(lm, stories[:3])
    (path,) = (tmp_path / "cache" / "directions").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("conceptlab.directions.states.branch_states", None)  # a second pass would fail
        again = kept_states(lm, stories[:3])
    assert torch.equal(again.resid, first.resid) and torch.equal(again.margin, first.margin)
    path.write_bytes(path.read_bytes()[:200])
    assert torch.equal(kept_states(lm, stories[:3]).resid, first.resid)
    assert not torch.equal(kept_states(other, stories[:3]).resid, first.resid)
    kept_states(lm, stories[:3], "Question: What?\nAnswer: that")
    assert len(list(path.parent.iterdir())) == 3


def test_no_items_are_refused(tiny_llama):
    with pytest.raises(ConceptLabError, match="no item"):
        item_states(tiny_llama(), [])


# ---- splits -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [halves, by_template, inside_template])
def test_every_item_is_tested_once_and_never_with_its_own_story(pair, make):
    items, _ = pair
    splits = make(items)
    assert torch.stack([s.test for s in splits]).sum(0).tolist() == [1] * len(items)
    for split in splits:
        train = {items[i].group for i in split.train.nonzero()[:, 0].tolist()}
        assert not train & {items[i].group for i in split.test.nonzero()[:, 0].tolist()}


def test_a_template_that_is_held_out_is_not_trained_on(pair):
    items, _ = pair
    for split in by_template(items):
        names = [{items[i].template for i in part.nonzero()[:, 0].tolist()} for part in split]
        assert len(names[1]) == 1 and not names[0] & names[1]
    with pytest.raises(ConceptLabError, match="two templates"):
        by_template([item for item in items if item.template == "city"])


# ---- readings -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fit", [mean_difference, ridge])
def test_a_planted_direction_is_found_in_its_layer_only(pair, fit):
    items, positive = pair
    x, splits = planted(positive, 3.0), by_template(items)
    found = split_auroc(held_out(x, positive, splits, fit), positive, splits, [i.group for i in items], 200)
    assert found[0].low < 0.5 < found[0].high and found[1].low > 0.9
    limit = shuffled_limit(x, positive, splits, 40)
    assert 0.5 < float(limit[0]) < 0.7


def test_the_mean_difference_is_the_difference_of_means(pair):
    _, positive = pair
    x = planted(positive, 1.0)
    want = x[:, positive].mean(1) - x[:, ~positive].mean(1)
    assert torch.allclose(mean_difference(x, positive), want, atol=1e-5)
    with pytest.raises(ConceptLabError, match="both kinds"):
        mean_difference(x, positive | True)


def test_far_apart_kinds_are_told_apart_by_directions_of_shuffled_labels(pair):
    items, positive = pair
    x = planted(positive, 0.0)
    x[1] += 50 * positive[:, None] * torch.ones(8)
    assert float(shuffled_limit(x, positive, halves(items)[:1], 40)[1]) > 0.95


def test_cosines_and_their_draws(pair):
    _, positive = pair
    x, z = planted(positive, 4.0), planted(positive, 4.0, seed=1)
    assert direction_cosines(mean_difference(x, positive), mean_difference(x, positive)).tolist() == pytest.approx(
        [1, 1]
    )
    draws = cosine_draws(x, positive, z, positive, 60)
    assert draws.shape == (60, 2) and float(draws[:, 1].quantile(0.1)) > 0.7 > float(draws[:, 0].median())
    shuffled = cosine_draws(x, positive, z, positive, 60, shuffle=True)
    assert abs(float(shuffled[:, 1].mean())) < 0.3


def test_the_plane_holds_the_largest_spread():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    x[:, 2] *= 20
    places, axes = on_plane(x)
    assert places.shape == (50, 2) and abs(float(axes[0, 2])) > 0.99
    assert torch.allclose(places, (x - x.mean(0)) @ axes.T, atol=1e-3)


def test_equally_hard_items_are_pairs_of_like_margin():
    margin = torch.tensor([0.0, 5.0, 1.0, 0.2, 9.0, 1.1])
    positive = torch.tensor([True, True, True, False, False, False])
    assert equally_hard(margin, positive, ["a"] * 6).tolist() == [True, False, True, True, False, True]
    assert not equally_hard(margin, positive, ["a", "a", "a", "b", "b", "b"]).any()


# ---- without a model ------------------------------------------------------------------------------------------
def test_the_surface_of_matched_stories_says_nothing_but_for_the_sentence_told(pair):
    items, positive = pair
    groups = [item.group for item in items]
    for name, features in SURFACES.items():
        for splits in (by_template(items), inside_template(items)):
            (area,) = split_auroc(held_out(features(items), positive, splits, ridge), positive, splits, groups, 200)
            if name == "said" and splits[0].train.sum() < len(items) / 2:
                assert area.low > 0.95  # within a template the wording gives it away
            elif name != "said":
                assert area.low < 0.5 < area.high + 0.05, name


# ---- steering ---------------------------------------------------------------------------------------------------
def test_steering_changes_states_as_said_and_comes_off(tiny_llama, stories):
    lm = tiny_llama(n_layers=3)
    before, vector = item_states(lm, stories[:3]), torch.randn(lm.d_model, generator=torch.Generator().manual_seed(0))
    with Added(1, vector).applied(lm):
        now = item_states(lm, stories[:3])
    assert torch.allclose(now.resid[1], before.resid[1] + vector, atol=1e-4)
    assert torch.equal(now.resid[0], before.resid[0]) and not torch.equal(now.resid[2], before.resid[2])
    assert torch.equal(item_states(lm, stories[:3]).resid, before.resid)


def test_a_direction_multiplied_by_minus_one_is_gone(tiny_llama, stories):
    lm = tiny_llama(n_layers=3)
    u = random_directions(1, lm.d_model)[0]
    before = item_states(lm, stories[:3])
    with Multiplied(u, -1.0).applied(lm):
        gone = item_states(lm, stories[:3])
    assert (before.resid @ u).abs().max() > 1e-3 and (gone.resid @ u).abs().max() < 1e-4
    with pytest.raises(ConceptLabError, match="length 1"):
        Multiplied(2 * u, -1.0)
    with pytest.raises(ConceptLabError, match="without length"):
        unit(torch.zeros(3))


def test_every_direction_of_a_plan_moves_as_far_as_the_naive_one(tiny_llama):
    lm = tiny_llama(n_layers=3)
    kept = {"naive": 3 * torch.ones(lm.d_model), "step-memory": torch.eye(lm.d_model)[0]}
    plan = steering_plan(lm, kept, 1, 10, texts=["one two three", "four five"])
    full = [float(change.vector.norm()) for (rule, _, dose), change in plan.items() if rule == "added" and dose == 1.0]
    assert len(full) == 12 and full == pytest.approx([3 * lm.d_model**0.5] * 12)
    controls = [c for (rule, name, _), c in plan.items() if rule == "multiplied" and name.startswith("random")]
    assert len(controls) == 20
    moment = site_moment(lm, ["one two three", "four five"])
    shares = [float(c.u.double() @ moment @ c.u.double()) for c in (plan["multiplied", "naive", -1.0], *controls)]
    assert shares == pytest.approx([shares[0]] * 21, rel=0.02)
    assert not any(rule == "multiplied" and "random" in name for rule, name, _ in steering_plan(lm, kept, 1, 10))


def test_directions_of_equal_energy_by_hand():
    values = torch.tensor([0.7, 0.2, 0.06, 0.04], dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))).Q
    moment = turn @ values.diag() @ turn.T
    for u in (turn[:, 1], (turn[:, 1] + turn[:, 2]) / 2**0.5):
        found = equal_energy_directions(moment, u.float(), 5).double()
        assert found.norm(dim=1).tolist() == pytest.approx([1] * 5, abs=1e-5)
        share = float(u @ moment @ u)
        assert [float(w @ moment @ w) for w in found] == pytest.approx([share] * 5, rel=0.02)
        assert (found @ found.T).fill_diagonal_(0).abs().max() < 0.9999  # so many different ones


def test_the_moment_says_which_share_a_direction_holds(tiny_llama):
    lm = tiny_llama(n_layers=2)
    moment, u = site_moment(lm, ["one two", "three four five"]), random_directions(1, lm.d_model)[0].double()
    assert float(moment.trace()) == pytest.approx(1) and torch.allclose(moment, moment.T)
    shares = []
    for text in ("one two", "three four five"):
        sites = [(site, layer) for layer in range(2) for site in WRITTEN]
        states = lm.capture(lm.tokens(text)[0], sites).values()
        shares += [float((x[0, 1:].double() @ u).square().sum() / x[0, 1:].double().square().sum()) for x in states]
    assert float(u @ moment @ u) == pytest.approx(sum(shares) / len(shares))
    with pytest.raises(ConceptLabError, match="two tokens"):
        site_moment(lm, [""])
