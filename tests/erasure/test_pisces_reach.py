"""Where an edit would write: against the edited model itself, and with a planted neuron."""

from dataclasses import replace

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import load_concept
from conceptlab.data.concepts import TextQuery
from conceptlab.erasure import Feature, edit_reach, gather_evidence, pisces_edit, reaching_features


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.5)


@pytest.fixture
def evidence(lm):
    return gather_evidence(lm, [0, 1], load_concept("golf"), n_texts=3, n_questions=3, n_ctx=16)


def test_evidence_has_no_first_positions_and_the_concept_first(lm, evidence):
    concept = load_concept("golf")
    assert evidence.own == 2 and len(evidence.neurons[1]) == 6
    texts = [f"Question: {q.q}\nAnswer: {q.gold}" for q in concept.dev[:3]]
    ids, mask = lm.tokens(texts, 16)
    assert evidence.neurons[0][1].shape == (int(mask.sum()) - 3, lm.d_mlp)
    assert len(evidence.is_word) == len(evidence.neurons[0][0]) and bool(evidence.is_word.any())
    assert set(evidence.signs) == {0, 1} and bool((evidence.signs[0].abs() <= 1).all())


def test_reach_is_what_the_edit_writes(lm, saes, evidence):
    tau, mu, layer = 0.3, 2.0, 1
    reach = edit_reach(lm, saes[layer], evidence, tau)
    f = Feature(layer, 3)
    before = lm.down_proj(layer).clone()
    scale = (before @ saes[layer].W_enc[:, 3]).abs().max()
    edits = [pisces_edit(lm, saes, [f], tau, m, evidence.signs) for m in (mu, 0.0)]  # mu 0 only removes
    change = (edits[0].changes[lm.down_proj_name(layer)].dense() - edits[1].changes[lm.down_proj_name(layer)].dense()).T
    written = [(n @ change).norm(dim=1).square().mean().sqrt() for n in evidence.neurons[layer]]
    unit = mu * scale * saes[layer].W_dec[3].norm()
    assert float(reach.own[3]) == pytest.approx(float(min(written[:2]) / unit), rel=1e-4)
    assert float(reach.other[3]) == pytest.approx(float(max(written[2:]) / unit), rel=1e-4)
    assert int(reach.rows[3]) == int((change.abs().amax(1) > 0).sum())


def test_features_come_in_the_order_of_their_reach(lm, saes, evidence):
    found = reaching_features(lm, saes, evidence, n=6, tau=0.3, min_share=0.0)
    ratios = [float(edit_reach(lm, saes[f.layer], evidence, 0.3).ratio[f.index]) for f in found]
    assert len(found) == 6 and ratios == sorted(ratios, reverse=True)
    assert all(f.mean_concept > 0 and f.sign == 1 for f in found)
    with pytest.raises(ConceptLabError, match="No feature fires"):
        reaching_features(lm, saes, evidence, min_share=1e9)


def test_the_model_is_left_alone(lm):
    before = {n: p.detach().clone() for n, p in lm.hf.named_parameters()}
    gather_evidence(lm, [1], load_concept("golf"), n_texts=2, n_questions=0, n_ctx=8)
    assert all(torch.equal(p, before[n]) for n, p in lm.hf.named_parameters())


def test_figures_hold_what_they_are_given():
    import numpy as np

    from conceptlab.course.plots import pisces as plots

    fig = plots.plot_reach(np.array([1.0, 3.0]), np.array([0.0, -2.0]), ["a", "b"], [False, True], "t")
    assert [len(line.get_xdata()) for line in fig.axes[0].lines[:2]] == [1, 1]  # kept, dropped
    points = {"pisces": np.array([[0.2, 0.9], [0.4, 1.0]]), "random_norm": np.zeros((1, 2))}
    fig = plots.plot_plane(points, "t", live=(0.5, 0.5))
    mean = fig.axes[0].lines[1]
    assert (float(mean.get_xdata()[0]), float(mean.get_ydata()[0])) == pytest.approx((0.3, 0.95))
    assert len(fig.axes[0].lines) == 5 and not list(plots.plot_plane({}, "t").axes[0].lines)
    bars = {m: np.array([[0.5, 0.4, 0.7], [0.1, 0.0, 0.3]]) for m in ("pisces", "zeroed_vectors")}
    assert len(plots.plot_card(["efficacy", "overall"], bars, "t").axes[0].patches) == 4


def test_concepts_without_evidence_are_told(lm):
    golf = load_concept("golf")
    silent = replace(golf, neighbour=replace(golf.neighbour, query=TextQuery(frozenset()), written=()))
    with pytest.raises(ConceptLabError, match="golf and its neighbour need texts"):
        gather_evidence(lm, [1], silent, n_texts=2, n_questions=1)
    with pytest.raises(ConceptLabError, match="No word of golf that is one token occurs in its texts"):
        gather_evidence(lm, [1], replace(golf, words=()), n_texts=2, n_questions=1)
