"""Attacks inside the network: candidate sets by brute force, patching, probes on planted data, hidden knowledge."""

import pytest
import torch

from conceptlab.attacks import (
    CandidateConfig,
    HiddenKnowledge,
    PatchConfig,
    ProbeConfig,
    best_layer,
    candidate_sets,
    hidden_knowledge,
    pair_ranks,
    patch,
    probe,
)
from conceptlab.attacks.hidden_knowledge import external_scores
from conceptlab.attacks.logit_lens import ordered_candidates, probability_deltas
from conceptlab.attacks.probing import cross_validated_probe, option_features, ridge_probe
from conceptlab.core import ConceptLabError
from conceptlab.data import FEW_SHOT, Question, question_stem
from conceptlab.edits import WeightEdit
from conceptlab.edits.weight_edit import Dense
from conceptlab.evaluation import score_questions
from conceptlab.models import branch_states

WORDS = ["copper", "helium", "silver", "iron", "gold", "neon", "zinc", "lead", "tin", "carbon", "sulfur", "argon"]
QUESTIONS = tuple(
    Question(f"q{i}", f"Which element is number {i}?", tuple(WORDS[(i + j) % 12] for j in range(4)), i % 4)
    for i in range(12)
)


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.3)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def edit(lm):
    return WeightEdit(lm.name, {lm.down_proj_name(1): Dense(normal(16, 32))})


# ---- states of branches -----------------------------------------------------------------------------------
def test_states_of_branches_equal_those_of_full_rows(lm):
    trees = [("\n\nQuestion: What is tin?\nAnswer:", [" metal", " a rare gas"]), ("\n\nSo:", [" one", " two"])]
    site = ("resid_post", 1)
    found = branch_states(lm, FEW_SHOT, trees, [site, ("mlp_output", 0)], batch_size=2)
    for tree, states in zip(trees, found[site], strict=True):
        for branch, state in zip(tree[1], states, strict=True):
            ids = [i for t in (FEW_SHOT, tree[0], branch) for i in lm.tokenizer(t, add_special_tokens=False).input_ids]
            full = lm.capture(torch.tensor([ids]), [site])[site][0, -1]
            torch.testing.assert_close(state, full, rtol=1e-3, atol=1e-4)
    assert found["mlp_output", 0][1].shape == (2, 16)


# ---- candidate sets ---------------------------------------------------------------------------------------
def test_candidates_in_order_of_their_best_rank():
    scores = torch.tensor([[9.0, 8, 7, 1, 2], [1, 2, 3, 9, 8]])  # the later reading comes first among equals
    assert ordered_candidates(scores, 5) == [3, 0, 4, 1, 2]
    assert ordered_candidates(scores, 2) == [3, 0]


def test_candidates_by_brute_force():
    scores = normal(6, 40)
    ranks = scores.argsort(1, descending=True).argsort(1)  # [readings, tokens]
    best = [
        (int(ranks[:, t].min()), -int(torch.where(ranks[:, t] == ranks[:, t].min())[0].max()), t) for t in range(40)
    ]
    truth = [t for *_, t in sorted(best)]
    assert [ordered_candidates(scores, B) for B in (1, 7, 40)] == [truth[:1], truth[:7], truth]


def test_probability_deltas_by_hand():
    logits = torch.log(torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.6, 0.3]]))
    torch.testing.assert_close(probability_deltas(logits), torch.tensor([[0.1, -0.3, 0.2], [-0.1, 0.3, -0.2]]))
    with pytest.raises(ConceptLabError, match="at least two"):
        probability_deltas(logits[:1])


@pytest.mark.parametrize("kind", ["logit_lens", "probability_delta"])
def test_hits_by_brute_force_through_the_model(lm, edit, kind):
    result = candidate_sets(lm, edit, QUESTIONS, CandidateConfig(kind, (1, 50, 2_000, 49_152), batch_size=5))
    hits = torch.stack([v.values for v in result.values])
    assert hits.shape == (4, 12) and (hits.diff(dim=0) >= 0).all() and hits[-1].all()  # every token is a candidate
    q, B = QUESTIONS[3], 2_000
    ids, _ = lm.tokens(FEW_SHOT + question_stem(q))
    with edit.applied(lm):
        states = lm.capture(ids, [("resid_post", layer) for layer in (0, 1)])
        logits = torch.stack([lm.head(lm.hf.model.norm(s[0, -1])) for s in states.values()])
    readings = logits if kind == "logit_lens" else probability_deltas(logits)
    wanted = lm.tokenizer(f" {q.gold}", add_special_tokens=False).input_ids[0]
    assert bool(result.values[2].values[3]) == (wanted in ordered_candidates(readings, B))
    if kind == "logit_lens":
        assert torch.equal(logits[-1], lm.logits(ids)[0, -1]) is False  # the edit is gone outside
        with edit.applied(lm):
            torch.testing.assert_close(logits[-1], lm.logits(ids)[0, -1])


def test_the_control_asks_for_another_answer(lm):
    same = [Question("a", "x?", ("tin", "iron"), 0), Question("b", "y?", ("iron", "tin"), 1)]
    with pytest.raises(ConceptLabError, match="two questions whose answers begin with different tokens"):
        candidate_sets(lm, None, same)
    result = candidate_sets(lm, None, QUESTIONS[:2], CandidateConfig(budgets=(3_000,)))
    # two questions: each one's control is the other one's answer among its own candidates
    single = [
        candidate_sets(lm, None, [QUESTIONS[i], QUESTIONS[1 - i]], CandidateConfig(budgets=(3_000,))) for i in (0, 1)
    ]
    assert result.controls[0].values.tolist() == [float(s.controls[0].values[0]) for s in single]
    assert "Answer:" in result.transcript[0].prompt and result.cost.tokens > 50


def test_candidate_sets_refuse_nonsense(lm):
    for cfg, message in ((CandidateConfig("guess"), "Unknown kind"), (CandidateConfig(budgets=(0,)), "at least 1")):
        with pytest.raises(ConceptLabError, match=message):
            candidate_sets(lm, None, QUESTIONS, cfg)


# ---- patching ---------------------------------------------------------------------------------------------
def test_patching_behind_the_edit_gives_the_original_back(lm, edit):
    score = lambda m: score_questions(m, QUESTIONS)  # noqa: E731
    clean = score(lm)
    with edit.applied(lm):
        erased = score(lm)
    assert float((clean.logprobs - erased.logprobs).abs().max()) > 0.1
    after = patch(lm, edit, score, PatchConfig("resid_post"))
    assert after.steps == (0, 1)
    torch.testing.assert_close(after.values[0].logprobs, erased.logprobs)  # the edit lies behind layer 0
    torch.testing.assert_close(after.values[1].logprobs, clean.logprobs)
    torch.testing.assert_close(patch(lm, edit, score, PatchConfig("mlp_contribution")).last.logprobs, clean.logprobs)
    wide = patch(lm, edit, score, PatchConfig("attn_contribution", width=2))
    assert wide.steps == (0,)
    torch.testing.assert_close(
        wide.last.logprobs, patch(lm, edit, score, PatchConfig("attn_contribution", (1,))).last.logprobs
    )


def test_patching_needs_the_same_passes(lm, edit):
    calls = iter(range(10))
    with pytest.raises(ConceptLabError, match="same forward passes"):
        patch(lm, edit, lambda m: score_questions(m, QUESTIONS[: 4 + 4 * next(calls)]))
    with pytest.raises(ConceptLabError, match="got None, 0, 8"):
        patch(lm, edit, lambda m: 0, PatchConfig(width=0))
    with pytest.raises(ConceptLabError, match="a width and a chunk of at least 1"):
        patch(lm, edit, lambda m: 0, PatchConfig(layers=()))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in lm.hf.modules())


# ---- probes -----------------------------------------------------------------------------------------------
def test_ridge_equals_gradient_descent_on_its_objective():
    X, labels = normal(10, 4, 6).double(), torch.arange(10) % 4
    w = ridge_probe(X, labels, 0.3).requires_grad_(True)
    y = torch.nn.functional.one_hot(labels, 4).double() - 0.25
    penalty = 0.3 * float((X**2).sum()) / 6
    ((X @ w - y).square().sum() + penalty * w.square().sum()).backward()
    assert float(w.grad.abs().max()) < 1e-8
    several = torch.stack([labels, labels.flip(0)])
    alone = torch.stack([ridge_probe(X, row, 0.3) for row in several])
    torch.testing.assert_close(ridge_probe(X, several, 0.3), alone)


def test_a_probe_finds_a_planted_direction_and_shuffled_labels_do_not():
    labels = torch.randint(4, (80,), generator=torch.Generator().manual_seed(1))
    X = normal(80, 4, 20).double()
    X[torch.arange(80), labels, 7] += 3.0
    w, error, ridge = cross_validated_probe(X[:60], labels[:60], ProbeConfig())
    assert int(w.abs().argmax()) == 7 and error < 0.2
    assert float(((X[60:] @ w).argmax(1) == labels[60:]).float().mean()) > 0.8
    shuffled = labels[torch.randperm(80, generator=torch.Generator().manual_seed(2))]
    assert cross_validated_probe(X[:60], shuffled[:60], ProbeConfig())[1] > 0.5


def test_features_are_centred_and_do_not_depend_on_the_order_of_options(lm):
    turned = tuple(Question(q.id, q.q, q.options[::-1], 3 - q.answer) for q in QUESTIONS)
    a, b = (option_features(lm, part, (1,))[1] for part in (QUESTIONS, turned))
    assert float(a.mean(1).abs().max()) < 1e-6
    torch.testing.assert_close(a, b.flip(1), rtol=1e-3, atol=1e-4)


def test_probe_on_a_model(lm, edit):
    facts = tuple(Question(f"f{i}", f"Is {i} odd?", ("left", "right", "up", "down"), i % 4) for i in range(10))
    result = probe(lm, edit, facts + QUESTIONS, QUESTIONS[:4], ProbeConfig(layers=(0, -1)))
    assert result.steps == (0, 1) and len(result.losses) == len(result.controls) == 2
    assert result.values[0].answers.tolist() == [0, 1, 2, 3]
    assert len(result.controls[0].values) == 4 and bool((result.controls[0].values * 20 % 1 == 0).all())
    assert best_layer(result) == int(torch.tensor(result.losses).argmin())
    again = probe(lm, edit, facts, QUESTIONS[:4], ProbeConfig(layers=(0, -1)))
    # facts that hold a tested answer are not trained on: all of QUESTIONS whose gold is tested are gone
    kept = [q for q in QUESTIONS if q.gold not in {x.gold for x in QUESTIONS[:4]}]
    assert kept and not torch.equal(again.last.logprobs, result.last.logprobs)
    for wrong in (dict(folds=1), dict(ridges=()), dict(layers=()), dict(shuffles=0)):
        with pytest.raises(ConceptLabError, match="at least one layer, one penalty, two folds and one shuffle"):
            ProbeConfig(**wrong)
    with pytest.raises(ConceptLabError, match="at least 5 facts"):
        probe(lm, None, QUESTIONS[:4], QUESTIONS)


# ---- hidden knowledge -------------------------------------------------------------------------------------
def test_pair_ranks_by_brute_force():
    scores, answers = normal(30, 5), torch.arange(30) % 5
    scores[3, 2] = scores[3, int(answers[3])]  # a tie
    truth = []
    for row, a in zip(scores.tolist(), answers.tolist(), strict=True):
        pairs = [(row[a] > x) + (row[a] == x) / 2 for i, x in enumerate(row) if i != a]
        truth.append(sum(pairs) / 4)
    torch.testing.assert_close(pair_ranks(scores, answers), torch.tensor(truth))


def test_hidden_knowledge_on_a_model(lm):
    facts = tuple(Question(f"f{i}", f"Is {i} odd?", ("left", "right", "up", "down"), i % 4) for i in range(10))
    result = hidden_knowledge(lm, None, facts, QUESTIONS)
    found = result.last
    assert isinstance(found, HiddenKnowledge) and found.layer in result.steps
    assert set(found.external) == {"logprob", "per_token", "verdict"}
    own = score_questions(lm, QUESTIONS)
    torch.testing.assert_close(found.external["per_token"], pair_ranks(own.logprobs, own.answers))
    gap = found.gap("per_token")
    assert gap.value == pytest.approx(float((found.internal - found.external["per_token"]).mean()), abs=1e-6)
    with pytest.raises(ConceptLabError, match="Unknown scorer"):
        found.gap("vibes")


def test_the_verdict_is_yes_minus_no_after_the_answer(lm):
    q = QUESTIONS[0]
    table = external_scores(lm, [q])["verdict"]
    text = f'{FEW_SHOT}{question_stem(q)} {q.options[2]}\nIs that answer right, "Yes" or "No"?\nVerdict:'
    logits = lm.logits(lm.tokens(text)[0])[0, -1]
    yes, no = (lm.single_token(w) for w in ("Yes", "No"))
    assert float(table[0, 2]) == pytest.approx(float(logits[yes] - logits[no]), abs=1e-3)
