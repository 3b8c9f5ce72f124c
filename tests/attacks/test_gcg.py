"""GCG and soft prompts: gradients against autograd, a step against brute force, cached against full rows."""

import pytest
import torch

from conceptlab.attacks import (
    GCGConfig,
    SoftPrompt,
    SoftPromptConfig,
    SuffixObjective,
    gcg,
    gcg_step,
    soft_prompt,
    suffix_tokens,
)
from conceptlab.attacks.gcg import with_suffix
from conceptlab.attacks.soft_prompt import _stand_ins
from conceptlab.core import ConceptLabError
from conceptlab.data import FEW_SHOT, Question
from conceptlab.edits import WeightEdit
from conceptlab.edits.weight_edit import Dense
from conceptlab.evaluation import gold_logprobs, score_questions

FACTS = (
    Question("a", "What is brass made of?", ("copper and zinc", "sand"), 0),
    Question("b", "Which gas is light?", ("argon", "helium"), 1),
)
HELD_OUT = (
    Question("c", "What is tin?", ("metal", "stone"), 0),
    Question("d", "What flows in wires?", ("water", "electric current"), 1),
)


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.3)


@pytest.fixture
def allowed(lm):
    return suffix_tokens(lm, FACTS + HELD_OUT)


def weights(lm):
    return {name: p.detach().clone() for name, p in lm.hf.named_parameters()}


def test_the_objective_is_what_the_scorecard_reads(lm, allowed):
    """Loss with prefix cache and token ids = minus the mean gold log-probability of the questions with that text."""
    suffixes = allowed[torch.tensor([[5, 900, 17], [33, 2, 1200]])]
    losses = SuffixObjective(lm, FACTS).losses(suffixes, batch_size=1)
    for suffix, loss in zip(suffixes, losses, strict=True):
        text = lm.tokenizer.decode(suffix.tolist())
        assert float(loss) == pytest.approx(-float(gold_logprobs(lm, with_suffix(FACTS, text)).mean()), abs=1e-3)


def test_the_gradient_is_that_of_the_one_hot_vectors(lm, allowed):
    objective, suffix = SuffixObjective(lm, FACTS), allowed[:4]
    one_hot = torch.nn.functional.one_hot(suffix, lm.d_vocab).float().requires_grad_(True)
    loss = objective((one_hot @ lm.hf.get_input_embeddings().weight)[None])[0]
    (truth,) = torch.autograd.grad(loss, one_hot)
    torch.testing.assert_close(objective.gradient(suffix, allowed), truth[:, allowed], rtol=1e-4, atol=1e-6)


def test_repeating_the_objective_does_not_grow_its_cache(lm, allowed):
    objective = SuffixObjective(lm, FACTS)
    first, second = (objective.losses(allowed[None, :5]) for _ in range(2))
    assert torch.equal(first, second)
    assert objective.cost(5) == sum(5 + len(tail) - 1 for _, tail, _ in objective.parts)


def test_a_step_takes_the_best_replacement_of_all(lm, allowed):
    """With few allowed tokens and many draws every single replacement is tried: compare with the exhaustive search."""
    few, objective = allowed[:6], SuffixObjective(lm, FACTS)
    suffix = few[:3]
    every = torch.stack([torch.cat([suffix[:i], t[None], suffix[i + 1 :]]) for i in range(3) for t in few])
    losses = objective.losses(every)
    cfg = GCGConfig(n_tokens=3, top_k=6, search_width=400)
    found, loss = gcg_step(objective, suffix, few, cfg, torch.Generator().manual_seed(0))
    assert loss == pytest.approx(float(losses.min()), abs=1e-5)
    assert torch.equal(found, every[losses.argmin()])


def test_suffix_tokens_survive_as_text_and_hold_no_option(lm, allowed):
    assert len(allowed) > 5_000
    picks = allowed[torch.randint(len(allowed), (50, 6), generator=torch.Generator().manual_seed(0))]
    for row in picks.tolist():
        assert lm.tokenizer(lm.tokenizer.decode(row), add_special_tokens=False).input_ids == row
    words = {lm.tokenizer.decode([i]).strip().lower() for i in allowed.tolist()}
    assert not words & {"copper", "zinc", "and", "metal", "helium", "electric", "current", "sand"}


def test_gcg_lowers_its_loss_and_leaves_the_model_alone(lm):
    before = weights(lm)
    edit = WeightEdit(lm.name, {lm.down_proj_name(1): Dense(torch.full((16, 32), 0.1))})
    cfg = GCGConfig(steps=4, n_tokens=3, top_k=16, search_width=12, batch_size=5, at=(0, 2, 4))
    result = gcg(lm, edit, FACTS, HELD_OUT, cfg)
    assert result.steps == (0, 2, 4) and len(result.losses) == 4 and result.cost.tokens > 0
    with edit.applied(lm):
        start = SuffixObjective(lm, FACTS).losses(torch.tensor([lm.tokenizer(result.labels[0]).input_ids]))
        again = score_questions(lm, with_suffix(HELD_OUT, result.labels[-1]))
        best = SuffixObjective(lm, FACTS).losses(torch.tensor([lm.tokenizer(result.labels[-1]).input_ids]))
    assert min(result.losses) < float(start)
    assert float(best) == pytest.approx(min(result.losses), abs=1e-4)
    assert torch.equal(again.logprobs, result.last.logprobs)
    assert result.labels[-1] in result.transcript[0].prompt
    assert all(torch.equal(now, before[n]) for n, now in weights(lm).items())
    same = gcg(lm, edit, FACTS, HELD_OUT, cfg)
    assert same.labels == result.labels and same.losses == result.losses


def test_facts_that_hold_a_tested_answer_are_left_out(lm):
    told = Question("e", "Is tin a metal?", ("yes", "no"), 0)  # the answer of c
    cfg = GCGConfig(steps=1, n_tokens=2, search_width=2)
    assert gcg(lm, None, (*FACTS, told), HELD_OUT, cfg).losses == gcg(lm, None, FACTS, HELD_OUT, cfg).losses
    with pytest.raises(ConceptLabError, match="at least one question"):
        gcg(lm, None, [told], HELD_OUT, cfg)
    with pytest.raises(ConceptLabError, match="checkpoints within its steps"):
        gcg(lm, None, FACTS, HELD_OUT, GCGConfig(steps=2, at=(3,)))


# ---- soft prompt ------------------------------------------------------------------------------------------
def test_a_soft_prompt_of_word_embeddings_reads_like_the_words(lm, allowed):
    ids = tuple(allowed[torch.tensor([10, 400])].tolist())
    others = lm.hf.get_input_embeddings()(allowed[torch.tensor([77, 1500])])
    stand_in, words = (lm.tokenizer.decode(list(x)) for x in (ids, allowed[torch.tensor([77, 1500])].tolist()))
    with SoftPrompt(ids, others).applied(lm):
        replaced = score_questions(lm, with_suffix(HELD_OUT, stand_in))
    plain = score_questions(lm, with_suffix(HELD_OUT, words))
    torch.testing.assert_close(replaced.logprobs, plain.logprobs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain.logprobs, score_questions(lm, with_suffix(HELD_OUT, stand_in)).logprobs, atol=1e-3)


def test_soft_prompts_lower_the_loss_and_leave_the_model_alone(lm):
    before = weights(lm)
    result = soft_prompt(lm, None, FACTS, HELD_OUT, SoftPromptConfig(steps=8, n_tokens=2, lr=0.3))
    assert result.steps == (0, 8) and result.losses[-1] < result.losses[0]
    assert not torch.equal(result.values[0].logprobs, result.last.logprobs)
    assert all(torch.equal(now, before[n]) for n, now in weights(lm).items())
    assert not any(p.requires_grad or p.grad is not None for p in lm.hf.parameters())
    with pytest.raises(ConceptLabError, match="needs an embedding and lr > 0"):
        soft_prompt(lm, None, FACTS, HELD_OUT, SoftPromptConfig(n_tokens=0))


def test_stand_ins_are_words_that_nothing_else_uses(lm):
    ids = _stand_ins(lm, FACTS + HELD_OUT, FEW_SHOT, SoftPromptConfig(n_tokens=5))
    text = " ".join([FEW_SHOT, *(q.q + " " + " ".join(q.options) for q in FACTS + HELD_OUT)])
    assert len(set(ids)) == 5 and not set(ids) & set(lm.tokenizer(text).input_ids)
