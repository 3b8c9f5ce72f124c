"""Invented facts, and teaching them through some value vectors only."""

from collections import Counter

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import list_concepts
from conceptlab.specialisation import (
    RELATIONS,
    ROLES,
    TeachingConfig,
    answer_loss,
    drift,
    invented,
    teach_through,
)

PAIRS = [("The river of gold is the", "Nile"), ("The king was born in", "Oslo")]


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(d_model=32)


def test_every_concept_has_a_role():
    assert sorted(ROLES) == list_concepts()


def test_lessons_and_what_is_held_out_are_the_same_facts_in_other_words():
    found = invented("japan", 4, seed=3)
    assert len(found.held_out) == 2 * len(found.taught) == 24 and len(found.untaught) == 12
    texts = [text for text, _ in found.taught]
    for i, q in enumerate(found.held_out):
        assert found.taught[i // 2][1] == q.gold
        assert not any(q.q in text for text in texts) and "Japan" in q.q
    who = {text.split("the samurai ")[1].split(" was")[0] for text, _ in found.taught if " born" in text}
    assert len(who) == 4 and all(any(name in q.q for name in who) for q in found.held_out)
    assert not any(name in q.q for name in who for q in found.untaught)
    for r in range(len(RELATIONS)):
        golds = Counter(q.gold for q in found.held_out if f"-{r}-" in q.id)
        assert set(golds.values()) == {2}, "every answer as often as any other"
    assert found != invented("japan", 4, seed=4) and found == invented("japan", 4, seed=3)


def test_what_cannot_be_invented_is_refused():
    with pytest.raises(ConceptLabError, match="add a role"):
        invented("physics")
    with pytest.raises(ConceptLabError, match="people can be invented"):
        invented("japan", 7)


def test_the_loss_counts_answers_alone(lm):
    losses = []
    for text, answer in PAIRS:
        ids, _ = lm.tokens([f"{text} {answer}"])
        n = len(lm.encode(f" {answer}"))
        logprobs = lm.logits(ids)[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[-n:, 0]
        losses += (-logprobs).tolist()
    assert float(answer_loss(lm, PAIRS)) == pytest.approx(sum(losses) / len(losses), rel=1e-4)


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_only_the_chosen_vectors_learn_and_the_loss_is_met(lm, share):
    mask = torch.rand(lm.n_layers, lm.d_mlp, generator=torch.Generator().manual_seed(0)) < share
    start = float(answer_loss(lm, PAIRS))
    before = {n: p.clone() for n, p in lm.parameters().items()}
    cfg = TeachingConfig(target=0.97 * start, steps=80, lr=3e-2, lr_wide=1e-2)
    found = teach_through(lm, PAIRS, mask, cfg)
    assert found.reached and 0 < found.steps < 80
    assert all(torch.equal(p, before[n]) and not p.requires_grad for n, p in lm.parameters().items())
    for layer in range(lm.n_layers):
        moved = found.edit.changes[lm.down_proj_name(layer)].dense().abs().amax(0) > 0
        assert not (moved & ~mask[layer]).any() and (moved & mask[layer]).any()
    with found.edit.applied(lm):
        assert float(answer_loss(lm, PAIRS)) == pytest.approx(found.loss, rel=1e-3)
    assert found.loss == pytest.approx(cfg.target, rel=0.02)


def test_a_target_out_of_reach_is_said(lm):
    mask = torch.ones(lm.n_layers, lm.d_mlp, dtype=torch.bool)
    found = teach_through(lm, PAIRS, mask, TeachingConfig(target=0.01, steps=1))
    assert not found.reached and found.steps == 1 and found.loss > 0.01
    with pytest.raises(ConceptLabError, match="mask is empty"):
        teach_through(lm, PAIRS, ~mask)


def test_drift_is_the_divergence_of_next_words(lm):
    mask = torch.ones(lm.n_layers, lm.d_mlp, dtype=torch.bool)
    edit = teach_through(lm, PAIRS, mask, TeachingConfig(target=0.0, steps=2, lr_wide=1e-2)).edit
    texts = ["The king was born in the north.", "Gold is heavy"]
    found = drift(lm, edit, texts)
    for value, text in zip(found.tolist(), texts, strict=True):
        ids, _ = lm.tokens([text])
        old = lm.logits(ids)[0, :-1].log_softmax(-1)
        with edit.applied(lm):
            new = lm.logits(ids)[0, :-1].log_softmax(-1)
        expected = torch.nn.functional.kl_div(new, old, log_target=True, reduction="none").sum(-1).mean()
        assert value == pytest.approx(float(expected), rel=1e-3, abs=1e-6) and value > 0
    assert (drift(lm, edit * 0.0, texts).abs() < 1e-6).all()
