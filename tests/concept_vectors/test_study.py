"""What coherence is worth, where it peaks, and the causal study: on planted data and a tiny model."""

import pytest
import torch

from conceptlab.concept_vectors import (
    ConceptVector,
    NoiseStudy,
    Replay,
    answer_sizes,
    build_atlas,
    control_directions,
    dose_effects,
    natural_activation,
    nearest_in_size,
    noise_study,
    promoted_lists,
    readable_layers,
    scaled_margins,
    search,
    share_above,
    strength_grid,
    swap_edit,
)
from conceptlab.core import ConceptLabError, Interval
from conceptlab.data import FEW_SHOT, general_questions, question_stem


@pytest.fixture
def tiny(tiny_llama):
    return tiny_llama(d_model=32, n_layers=4)


def shares(*values):
    return [Interval(v, v, v, 10) for v in values]


def test_controls_keep_what_they_say():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3000, 6, generator=generator) * torch.tensor([5.0, 1, 1, 1, 1, 0.1])
    found = control_directions(values, n=2000, seed=3)
    assert list(found) == ["random", "shuffled coordinates", "same covariance"]
    assert all(x.shape == (2000, 6) for x in found.values())
    shuffled = found["shuffled coordinates"]
    norms = values.norm(dim=1).sort().values
    assert torch.isin((shuffled.norm(dim=1) * 1e4).round(), (norms * 1e4).round()).float().mean() > 0.9
    assert shuffled.std(0).max() < 2 * shuffled.std(0).min(), "no coordinate is special any more"
    torch.testing.assert_close(found["same covariance"].T.cov(), values.T.cov(), rtol=0.2, atol=0.3)
    again = control_directions(values, n=2000, seed=3)
    assert all(torch.equal(found[kind], again[kind]) for kind in found)


def test_lists_come_end_after_end(tiny):
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    both, turned = promoted_lists(tiny, x, k=4), promoted_lists(tiny, -x, k=4)
    assert both.shape == (6, 4)
    assert torch.equal(both[0::2], turned[1::2]) and torch.equal(both[1::2], turned[0::2])


def test_a_share_is_in_per_cent_and_sampled_evenly():
    scores = torch.arange(100.0)
    assert share_above(scores, 89.5).value == pytest.approx(10)
    assert share_above(scores.view(50, 2), 89.5, at_most=50).value == pytest.approx(10)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1, 1, 4, 9, 5, 1), range(3, 5)),
        ((9, 1, 9), range(0, 1)),
        ((5, 6, 5), range(0, 3)),
        ((1, 2, 4), range(1, 3)),
    ],
)
def test_readable_layers_are_the_run_around_the_peak(values, expected):
    assert readable_layers(shares(*values)) == expected


def test_pooling_averages_the_questions_that_all_concepts_share():
    one, two = torch.tensor([1.0, 3.0]), torch.tensor([3.0, 5.0])
    table = {("concept", "concept", 1): [one, two], ("concept", "unrelated", 1): [one, two]}
    table[("matched", "concept", 1)] = [one - 1, two - 1]
    study = NoiseStudy(10.0, (1,), ("a", "b"), table)
    assert study.pooled("concept", "concept", 1).tolist() == [1, 3, 3, 5]
    assert study.pooled("concept", "unrelated", 1).tolist() == [2, 4]
    assert study.mean("concept", "unrelated", 1).value == 3
    assert study.gap(1)[:3] == pytest.approx((1, 1, 1))


def test_the_study_asks_what_it_says_and_leaves_the_model_alone(tiny):
    before = {name: p.detach().clone() for name, p in tiny.hf.named_parameters()}
    questions = general_questions("dev")[:3]
    own, unrelated = {"a": Replay(tiny, questions, [2, 3])}, Replay(tiny, questions[:2], [2, 3])
    vectors = [ConceptVector(3, j, 1, 0.0) for j in range(3)]
    chosen = {"a": {"concept": vectors, "matched": vectors[::-1], "words": vectors, "random": vectors}}
    study = noise_study(tiny, own, unrelated, chosen, 5.0, sizes=(1, 3), draws=2)
    assert study.sizes == (1, 3) and study.concepts == ("a",)
    assert all((kind, "unrelated", 1) not in study.shifts for kind in ("random", "words"))
    assert study.pooled("concept", "concept", 3).shape == (3,)
    assert study.pooled("concept", "unrelated", 3).shape == (2,)
    assert 0 < study.mean("concept", "concept", 3).value <= 100
    margins = scaled_margins(tiny, own, chosen, 1.0, (1, 3))
    assert all(bool((x["a"].abs() < 1e-5).all()) for sizes in margins.values() for x in sizes.values()), "times 1"
    grid = strength_grid(tiny, own, unrelated, chosen, (0.0, 30.0))
    assert grid[0.0] == pytest.approx((0, 0), abs=1e-3) and grid[30.0][0] > 0
    with pytest.raises(ConceptLabError, match="one concept at least"):
        strength_grid(tiny, {}, unrelated, chosen, (1.0,))
    assert all(torch.equal(p, before[name]) for name, p in tiny.hf.named_parameters())


def test_sizes_at_answers_are_those_where_options_are_predicted(tiny):
    q = general_questions("dev")[0]
    stem, squares = FEW_SHOT + question_stem(q, FEW_SHOT), []
    for option in q.options:
        ids, _ = tiny.tokens([f"{stem} {option}"])
        start = tiny.tokens([stem])[0].shape[1]
        squares.append(tiny.capture(ids, [("neurons", 2)])["neurons", 2][0, start - 1 : -1].square())
    expected = torch.cat(squares).mean(0).sqrt() * tiny.value_vectors(2).norm(dim=1)
    size = answer_sizes(tiny, [q], [2])
    torch.testing.assert_close(size[2], expected, rtol=1e-3, atol=1e-5)
    like = [ConceptVector(2, 5, 1, 0.0), ConceptVector(2, 6, 1, 0.0)]
    found = nearest_in_size(like, size, avoid=[ConceptVector(2, 7, 1, 0.0)])
    assert len({v.neuron for v in found} | {5, 6, 7}) == 5
    ratio = (size[2] / size[2][5]).log().abs()
    assert found[0].neuron == min(set(range(tiny.d_mlp)) - {5, 6, 7}, key=lambda j: float(ratio[j]))


def test_effects_are_of_the_edit_that_is_named_and_a_swap_keeps_the_length(tiny):
    a, b = ConceptVector(3, 0, 1, 0.0), ConceptVector(3, 1, 1, 0.0)
    lengths = tiny.value_vectors(3).norm(dim=1)
    directions = torch.nn.functional.normalize(tiny.value_vectors(3), dim=1)
    with swap_edit(tiny, [a], [b]).applied(tiny):
        swapped = tiny.value_vectors(3)
        torch.testing.assert_close(swapped.norm(dim=1), lengths)
        torch.testing.assert_close(swapped[0], directions[1] * lengths[0])
        torch.testing.assert_close(swapped[1], directions[1] * lengths[1])
    own = {"x": Replay(tiny, general_questions("dev")[:3], [3])}
    chosen = {"x": {"concept": [a], "matched": [b]}}
    edits = {"swap": lambda v, w: swap_edit(tiny, v, w), "none": lambda v, _: swap_edit(tiny, v, v)}
    found = dose_effects(tiny, own, chosen, edits)
    assert found["swap"]["concept"][0].max() > 0 and found["swap"]["matched"][1].shape == (3,)
    assert all(float(x.abs().max()) < 1e-3 for pair in found["none"].values() for x in pair)


def test_a_natural_activation_has_the_sign_of_the_end_and_no_first_position(tiny):
    texts = ["one two three four", "five six"]
    plus, minus = (natural_activation(tiny, ConceptVector(1, 2, sign, 0.0), texts) for sign in (1, -1))
    ids, mask = tiny.tokens(texts)
    assert len(plus) == int(mask.sum()) - 2
    torch.testing.assert_close(plus, -minus)


def test_a_search_of_some_layers_is_the_search_of_all_with_the_others_left_out(tiny):
    word = next(w for w in (t.strip() for t in tiny.words(range(tiny.d_vocab))) if w and tiny.single_tokens([w]))
    atlas = build_atlas(tiny, k=5)
    every = search(tiny, [word], 10_000, atlas)
    some = search(tiny, [word], 30, atlas, [2, 0])
    assert len(some) == 30 and {v.layer for v in some} <= {0, 2}
    ranked = [[(v.name, round(v.score, 4)) for v in found if v.score > 1e-4] for found in (some, every)]
    assert ranked[0] == [x for x in ranked[1] if x[0].startswith(("L0", "L2"))][:30]
    assert torch.equal(atlas.only([2]).tokens.top_ids, atlas.tokens.top_ids[2 * tiny.d_mlp : 3 * tiny.d_mlp])
    with pytest.raises(ConceptLabError, match="None of the layers"):
        search(tiny, [word], 1, atlas, [77])
