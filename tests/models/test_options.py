"""branch_logprobs against one full forward pass per branch."""

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import FEW_SHOT, general_questions, question_stem
from conceptlab.evaluation import score_questions
from conceptlab.models import branch_logprobs, branch_states, shared_prefix
from conceptlab.models.options import as_branch

TREES = [
    ("Question: who is it?\nAnswer:", [" the old man", " a dog", " one"]),
    ("Hi", [" a b c d", " x"]),
    (" The weather today in the mountains is", [" cold"]),
]


def brute_force(lm, prefix, trees):
    """Every branch in a full forward pass of its own."""
    head = lm.tokenizer(prefix).input_ids if prefix else [lm.tokenizer.bos_token_id]
    results = []
    for stem, branches in trees:
        context = head + lm.tokenizer(stem, add_special_tokens=False).input_ids
        row = []
        for branch in branches:
            target = lm.tokenizer(branch, add_special_tokens=False).input_ids
            logprobs = lm.logits(torch.tensor([context + target]))[0].float().log_softmax(-1)
            row.append(torch.stack([logprobs[len(context) - 1 + t, token] for t, token in enumerate(target)]))
        results.append(row)
    return results


def largest_difference(a, b):
    assert [[len(x) for x in row] for row in a] == [[len(x) for x in row] for row in b]
    return max(float((x - y).abs().max()) for r, s in zip(a, b, strict=True) for x, y in zip(r, s, strict=True))


@pytest.mark.parametrize("prefix", ["", "One. Two.\n"])
def test_equals_brute_force_on_a_tiny_model(tiny_llama, prefix):
    lm = tiny_llama(initializer_range=0.5)
    assert largest_difference(branch_logprobs(lm, prefix, TREES), brute_force(lm, prefix, TREES)) < 1e-4


def test_equals_brute_force_on_the_bundled_models(bundled):
    trees = [(question_stem(q), [f" {o}" for o in q.options]) for q in general_questions("dev")[:3]]
    assert largest_difference(branch_logprobs(bundled, FEW_SHOT, trees), brute_force(bundled, FEW_SHOT, trees)) < 1e-3


def test_batch_size_and_order_change_nothing(tiny_llama):
    lm = tiny_llama(initializer_range=0.5)
    alone = branch_logprobs(lm, "One.\n", TREES, batch_size=1)
    assert largest_difference(branch_logprobs(lm, "One.\n", TREES, batch_size=2), alone) < 1e-4
    assert largest_difference(branch_logprobs(lm, "One.\n", TREES[::-1], batch_size=3)[::-1], alone) < 1e-4


def test_branches_do_not_see_one_another(tiny_llama):
    lm = tiny_llama(initializer_range=0.5)
    three = branch_logprobs(lm, "", [TREES[0]])[0]
    one = branch_logprobs(lm, "", [(TREES[0][0], TREES[0][1][2:])])[0]
    assert largest_difference([three[2:]], [one]) < 1e-4


def test_batch_size_invariance_of_scores(smollm2):
    questions = general_questions("dev")[:5]
    one, four = (score_questions(smollm2, questions, batch_size=n).logprobs for n in (1, 4))
    assert (one - four).abs().max() < 1e-3


def test_a_prefix_that_grows_equals_one_that_is_run_at_once(tiny_llama):
    lm = tiny_llama(initializer_range=0.5)
    shots = shared_prefix(lm, "One. Two.\n")
    found = branch_logprobs(lm, shared_prefix(lm, "Three. Four.\n", shots), TREES)
    assert largest_difference(found, brute_force(lm, "One. Two.\nThree. Four.\n", TREES)) < 1e-4
    again = branch_logprobs(lm, shared_prefix(lm, "Three. Four.\n", shots), TREES)
    assert largest_difference(found, again) == 0, "the shared part is left as it was"


def test_no_trees_and_empty_pieces(tiny_llama):
    lm = tiny_llama()
    assert branch_logprobs(lm, "One.", []) == []
    for tree in (("", [" a"]), ("One", [" a", ""])):
        with pytest.raises(ConceptLabError, match="has no tokens; stems and branches need at least one"):
            branch_logprobs(lm, "", [tree])


def test_texts_longer_than_a_sliding_window(tiny_llama):
    lm = tiny_llama()
    lm.hf.config.sliding_window = 12
    with pytest.raises(ConceptLabError, match=r"attends to 12 tokens and a text has \d+; shorten the prefix"):
        branch_logprobs(lm, "One two three four five six seven eight nine ten.\n", TREES)


def test_a_tokenizer_without_a_start_token(tiny_llama):
    """Qwen's: the end-of-text token opens an empty prefix instead."""
    lm = tiny_llama(initializer_range=0.5)
    lm.tokenizer.bos_token = None
    assert shared_prefix(lm, "").ids == (lm.tokenizer.eos_token_id,)
    assert shared_prefix(lm, "a").ids == tuple(lm.encode("a"))


@pytest.mark.parametrize("gold", [" grass", "grass ", " grass ", "  grass", "grass\n", "\tgrass", "grass\u00a0"])
def test_spaces_at_the_edges_of_an_option_do_not_matter(tiny_llama, gold):
    """A15: gold -1.04 became -7.2 and -3.1. Options are written behind a space, as all callers do."""
    lm = tiny_llama(initializer_range=0.5)
    stem = "Question: what do cows eat?\nAnswer:"
    plain = branch_logprobs(lm, "One.\n", [(stem, [" grass", " wood"])])
    found = branch_logprobs(lm, "One.\n", [(stem, [f" {gold}", " wood  "])])
    assert [x.tolist() for x in found[0]] == [x.tolist() for x in plain[0]]
    states = [
        branch_states(lm, "", [(stem, [o])], [("resid_post", 1)])["resid_post", 1] for o in (" grass", f" {gold}")
    ]
    assert torch.equal(states[0][0], states[1][0])


def test_what_a_branch_is():
    assert as_branch("  New  York ") == " New  York", "spaces inside belong to it"
    assert as_branch("grass") == as_branch("grass\n") == "grass" and as_branch("\n\nA") == "\nA"
    assert as_branch(" ") == as_branch("") == ""


def test_special_tokens_in_a_branch_are_text(tiny_llama):
    lm = tiny_llama(initializer_range=0.5)
    found = branch_logprobs(lm, "", [("One", [" a<|im_end|>"])])[0][0]
    assert len(found) == len(lm.encode(" a<|im_end|>")) > 3
