"""Five forms of a fact: brute force on a tiny model, no bias of position, and what the concept files must hold."""

import re
from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import Question, general_questions, list_concepts, load_concept
from conceptlab.evaluation import FORMS, forms, has_form, score_form, score_forms, score_questions
from conceptlab.evaluation.forms import (
    CHOICE_FEW_SHOT,
    CLOZE_FEW_SHOT,
    CLUE_FEW_SHOT,
    TRUE_FALSE_FEW_SHOT,
    choice_stem,
    cloze_tree,
)

QUESTIONS = [
    Question("a", "What falls in winter?", ("snow", "sand", "gold"), 0, "In winter there falls {}.", "What is cold?"),
    Question("b", "Who barks?", ("a fish", "the dog", "a very old cat"), 1, "The animal that barks is {}.", "Woof?"),
]


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.5)


def logprob(lm, context, continuation):
    """Log-probabilities of a continuation's tokens, by one full forward pass."""
    head = lm.tokenizer(context).input_ids
    target = lm.tokenizer(continuation, add_special_tokens=False).input_ids
    table = lm.logits(torch.tensor([head + target]))[0].float().log_softmax(-1)
    return torch.stack([table[len(head) - 1 + t, token] for t, token in enumerate(target)])


def test_question_and_clue(lm):
    assert torch.equal(score_form(lm, QUESTIONS, "question").logprobs, score_questions(lm, QUESTIONS).logprobs)
    asked = [replace(q, q=q.clue) for q in QUESTIONS]
    want = score_questions(lm, asked, CLUE_FEW_SHOT).logprobs
    assert torch.equal(score_form(lm, QUESTIONS, "clue").logprobs, want)


def test_cloze_by_brute_force(lm):
    found = score_form(lm, QUESTIONS, "cloze").logprobs
    for i, q in enumerate(QUESTIONS):
        for j, option in enumerate(q.options):
            want = logprob(lm, f"{CLOZE_FEW_SHOT}\n\nFact: {q.claim[:-4]}", f" {option}").mean()
            assert float(found[i, j]) == pytest.approx(float(want), abs=1e-4)


def test_a_gap_at_the_beginning_or_after_a_quotation_mark():
    q = Question("a", "?", ("Rome", "Oslo"), 0, "{} is a city.")
    assert cloze_tree(q) == ("\n\nFact:", [" Rome", " Oslo"])
    assert cloze_tree(replace(q, claim='It is called "{}".')) == ('\n\nFact: It is called "', ["Rome", "Oslo"])


def test_true_false_by_brute_force(lm):
    found = score_form(lm, QUESTIONS, "true_false").logprobs
    for i, q in enumerate(QUESTIONS):
        for j, option in enumerate(q.options):
            stem = f"{TRUE_FALSE_FEW_SHOT}\n\nStatement: {q.claim.replace('{}', option)}\nTrue or false? Answer:"
            want = logprob(lm, stem, " true").sum() - logprob(lm, stem, " false").sum()
            assert float(found[i, j]) == pytest.approx(float(want), abs=1e-4)


def test_choice_by_brute_force(lm):
    q = QUESTIONS[0]
    found = score_form(lm, [q], "choice").logprobs[0]
    for o, option in enumerate(q.options):
        scores = []
        for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            shown = [q.options[i] for i in order]
            letter = "ABC"[shown.index(option)]
            scores.append(logprob(lm, CHOICE_FEW_SHOT + choice_stem(q.q, shown), f" {letter}").sum())
        assert float(found[o]) == pytest.approx(float(torch.stack(scores).mean()), abs=1e-4)


def test_a_liking_for_a_letter_cancels(lm, monkeypatch):
    """A model that looks only at the letter, whatever stands behind it, favours no option."""
    liking = {" A": -0.1, " B": -3.0, " C": -2.0}
    monkeypatch.setattr(
        forms, "branch_logprobs", lambda _lm, _p, trees, _b: [[torch.tensor([liking[x]]) for x in t[1]] for t in trees]
    )
    found = score_form(lm, QUESTIONS, "choice").logprobs
    torch.testing.assert_close(found, torch.full((2, 3), -1.7))


def test_choice_finds_the_option_wherever_it_stands(lm, monkeypatch):
    """A model that knows: the letter of the right option has log-probability 0 in each rotation."""

    def knows(_lm, _prefix, trees, _size):
        rows = []
        for stem, letters in trees:
            right = next(line[0] for line in stem.split("\n") if re.fullmatch(r"[ABC]\. (snow|the dog)", line))
            rows.append([torch.tensor([0.0 if letter.strip() == right else -9.0]) for letter in letters])
        return rows

    monkeypatch.setattr(forms, "branch_logprobs", knows)
    found = score_form(lm, QUESTIONS, "choice")
    assert found.correct.tolist() == [True, True] and found.margin.tolist() == [9.0, 9.0]


def test_forms_that_a_question_lacks(lm):
    plain = Question("c", "Who?", ("a", "b", "c"), 0)
    assert [form for form in FORMS if has_form(plain, form)] == ["question", "choice"]
    found = score_forms(lm, [*QUESTIONS, plain])
    assert {form: len(s.answers) for form, s in found.items()} == dict(zip(FORMS, (3, 2, 3, 2, 2), strict=True))
    assert set(score_forms(lm, [plain])) == {"question", "choice"}
    with pytest.raises(ConceptLabError, match="Question c has no clue"):
        score_form(lm, [plain], "clue")
    with pytest.raises(ConceptLabError, match="Question c has no claim"):
        score_form(lm, [plain], "true_false")
    with pytest.raises(ConceptLabError, match="Unknown form 'riddle'"):
        score_form(lm, [plain], "riddle")
    with pytest.raises(ConceptLabError, match="There is no question"):
        score_form(lm, [], "choice")
    with pytest.raises(ConceptLabError, match="same number of options"):
        score_form(lm, [plain, replace(plain, options=("a", "b"))], "choice")


# ---- the concept files -------------------------------------------------------------------------------------
@lru_cache(1)
def all_questions():
    concepts = [load_concept(name) for name in list_concepts()]
    both = [c for concept in concepts for c in (concept, concept.neighbour)]
    return [q for c in both for q in (*c.dev, *c.test)] + [q for s in ("dev", "test") for q in general_questions(s)]


def test_claims_have_one_gap_and_clues_do_not_hold_the_answer():
    general = {q.id for split in ("dev", "test") for q in general_questions(split)}
    for q in all_questions():
        assert bool(q.claim) == bool(q.clue) == (q.id not in general), q.id
        if q.claim:
            assert q.claim.count("{}") == 1 and q.claim.endswith("{}."), q.id
            inside = re.search(rf"(?<!\w){re.escape(q.gold)}(?!\w)", q.clue, re.I)
            assert inside is None and q.clue.endswith("?"), q.id


def test_a_claim_with_two_gaps_is_refused(tmp_path):
    import yaml

    from conceptlab.core import data_dir

    raw = yaml.safe_load((data_dir() / "concepts" / "golf.yaml").read_text())
    raw["questions"]["dev"][0]["claim"] = "{} is {}."
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ConceptLabError, match="needs exactly one {} for the answer"):
        load_concept(tmp_path / "mine.yaml")


def test_the_examples_teach_no_answer():
    asked = all_questions()
    golds = {q.gold.lower() for q in asked}
    assert not golds & {"grass", "dry", "warsaw", "charles dickens"}
    for text in (CLUE_FEW_SHOT, CLOZE_FEW_SHOT, CHOICE_FEW_SHOT, TRUE_FALSE_FEW_SHOT):
        blocks = text.split("\n\n")
        assert len(blocks) == 4
    assert [block.rsplit(" ", 1)[1] for block in CHOICE_FEW_SHOT.split("\n\n")] == list("ABCD")
    assert TRUE_FALSE_FEW_SHOT.count("Answer: true") == TRUE_FALSE_FEW_SHOT.count("Answer: false") == 2


@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
def test_pieces_meet_at_token_boundaries(name):
    from transformers import AutoTokenizer

    from conceptlab.models import packaged_checkpoint

    tokenizer = AutoTokenizer.from_pretrained(packaged_checkpoint(name))

    def ids(text, **kwargs):
        return tokenizer(text, **kwargs).input_ids

    for q in [q for q in all_questions() if q.claim][::20]:
        stem, options = cloze_tree(q)
        pieces = [
            (CLOZE_FEW_SHOT, stem, options[q.answer]),
            (CHOICE_FEW_SHOT, choice_stem(q.q, q.options), " A"),
            (CLUE_FEW_SHOT, f"\n\nQuestion: {q.clue}\nAnswer:", f" {q.gold}"),
            (TRUE_FALSE_FEW_SHOT, f"\n\nStatement: {q.claim}\nTrue or false? Answer:", " true"),
        ]
        for few_shot, stem, branch in pieces:
            apart = ids(few_shot) + ids(stem, add_special_tokens=False) + ids(branch, add_special_tokens=False)
            assert apart == ids(few_shot + stem + branch), q.id
