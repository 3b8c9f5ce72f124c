"""One fact in five forms: does a model know it, or only this wording of it?

    question     "Who wrote Oliver Twist?"                       the right option has the highest log-probability
    cloze        "The novel Oliver Twist was written by"         likewise, as the end of a statement
    choice       the question with lettered options              the right letter has the highest log-probability
    true_false   the statement filled with each option           the right one is called true most readily
    clue         an indirect question with the same answer       like question

Each form has few-shot examples of its own, all on the same four facts, which no concept asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ConceptLabError
from ..data import FEW_SHOT, FORMS, LETTERS, Question, choice_stem, few_shot_prompt, has_form
from ..models import LanguageModel, branch_logprobs
from .questions import QuestionScores, check_questions, finite_scores, score_questions

CLUE_FEW_SHOT = few_shot_prompt(
    [
        ("What green plant fills the stomach of an animal that moos?", "grass"),
        ("What is a towel when nobody has used it yet?", "dry"),
        ("Which city on the Vistula saw Chopin grow up?", "Warsaw"),
        ("Which writer made a hungry orphan ask for more?", "Charles Dickens"),
    ]
)


CLOZE_FEW_SHOT = "\n\n".join(
    (
        "Fact: What cows eat is grass.",
        "Fact: The opposite of wet is dry.",
        "Fact: The capital of Poland is Warsaw.",
        "Fact: The novel Oliver Twist was written by Charles Dickens.",
    )
)


# As many true ones as false ones, so that neither answer is the usual one.
TRUE_FALSE_FEW_SHOT = "\n\n".join(
    f"Statement: {statement}\nTrue or false? Answer: {answer}"
    for statement, answer in (
        ("What cows eat is grass.", "true"),
        ("The opposite of wet is loud.", "false"),
        ("The capital of Poland is Warsaw.", "true"),
        ("The novel Oliver Twist was written by Leo Tolstoy.", "false"),
    )
)


def _choice_examples() -> str:
    """Each letter is right once."""
    examples = (
        ("What do cows eat?", ("grass", "sand", "glue", "wool"), "A"),
        ("What is the opposite of wet?", ("loud", "dry", "round", "late"), "B"),
        ("What is the capital of Poland?", ("Oslo", "Kabul", "Warsaw", "Lima"), "C"),
        ("Who wrote the novel Oliver Twist?", ("Leo Tolstoy", "Jane Austen", "Mark Twain", "Charles Dickens"), "D"),
    )
    return "\n\n".join(f"{choice_stem(q, options, lead='')} {letter}" for q, options, letter in examples)


CHOICE_FEW_SHOT = _choice_examples()


def score_form(lm: LanguageModel, questions: Sequence[Question], form: str, batch_size: int = 16) -> QuestionScores:
    """Score every option of every question in one of FORMS; chance is one over the number of options.

    The scores of an option: its mean log-probability per token (question, cloze, clue), the log-probability of its
    letter, averaged over all rotations of the options (choice), or log P(true) - log P(false) of the statement that
    it makes (true_false). The answer they favour, margins and intervals mean the same in each form.
    Raises ConceptLabError when the list is empty, numbers of options differ, a question lacks the form, or has more
    options than there are letters.
    """
    check_questions(questions)
    for q in questions:
        if not has_form(q, form):
            raise ConceptLabError(
                f"Question {q.id} has no {'clue' if form == 'clue' else 'claim'}, so it cannot be asked as {form}; "
                "leave it out (has_form) or add one to the concept's file."
            )
    if form == "choice" and len(questions[0].options) > len(LETTERS):
        raise ConceptLabError(
            f"The choice form has letters for {len(LETTERS)} options; question {questions[0].id} has "
            f"{len(questions[0].options)}: ask it in another form, or with fewer options."
        )
    return QuestionScores(
        finite_scores(_TABLES[form](lm, questions, batch_size)), torch.tensor([q.answer for q in questions])
    )


def score_forms(
    lm: LanguageModel, questions: Sequence[Question], forms: Sequence[str] = FORMS, batch_size: int = 16
) -> dict[str, QuestionScores]:
    """`score_form` for several forms, each over the questions that have it; a form that none has is left out."""
    asked = {form: [q for q in questions if has_form(q, form)] for form in forms}
    return {form: score_form(lm, chosen, form, batch_size) for form, chosen in asked.items() if chosen}


# ---- one table of scores [n, options] per form ------------------------------------------------------------
def _question_table(lm: LanguageModel, questions: Sequence[Question], batch_size: int) -> Float[Tensor, "n options"]:
    return score_questions(lm, questions, FEW_SHOT, batch_size).logprobs


def _clue_table(lm: LanguageModel, questions: Sequence[Question], batch_size: int) -> Float[Tensor, "n options"]:
    asked = [Question(q.id, q.clue, q.options, q.answer) for q in questions]
    return score_questions(lm, asked, CLUE_FEW_SHOT, batch_size).logprobs


def cloze_tree(question: Question) -> tuple[str, list[str]]:
    """The claim up to the gap, and the options as they continue it (the space before the gap belongs to them)."""
    before = question.claim.split("{}")[0]
    stem = before.rstrip(" ")
    space = " " if stem != before or not stem else ""
    return f"\n\nFact:{' ' if stem else ''}{stem}", [f"{space}{option}" for option in question.options]


def _cloze_table(lm: LanguageModel, questions: Sequence[Question], batch_size: int) -> Float[Tensor, "n options"]:
    found = branch_logprobs(lm, CLOZE_FEW_SHOT, [cloze_tree(q) for q in questions], batch_size)
    return torch.tensor([[float(branch.mean()) for branch in branches] for branches in found])


def _choice_table(lm: LanguageModel, questions: Sequence[Question], batch_size: int) -> Float[Tensor, "n options"]:
    n, k = len(questions), len(questions[0].options)
    letters = [f" {letter}" for letter in LETTERS[:k]]
    # rotation r shows option (i + r) % k behind letter i: over all r every option stands once behind every letter
    trees = [
        (choice_stem(q.q, [q.options[(i + r) % k] for i in range(k)]), letters) for q in questions for r in range(k)
    ]
    found = branch_logprobs(lm, CHOICE_FEW_SHOT, trees, batch_size)
    table = torch.tensor([[float(branch.sum()) for branch in branches] for branches in found]).view(n, k, k)
    return torch.stack([torch.stack([table[:, r, (o - r) % k] for r in range(k)]).mean(0) for o in range(k)], 1)


def _true_false_table(lm: LanguageModel, questions: Sequence[Question], batch_size: int) -> Float[Tensor, "n options"]:
    trees = [
        (f"\n\nStatement: {q.claim.replace('{}', option)}\nTrue or false? Answer:", [" true", " false"])
        for q in questions
        for option in q.options
    ]
    found = branch_logprobs(lm, TRUE_FALSE_FEW_SHOT, trees, batch_size)
    odds = torch.tensor([float(true.sum() - false.sum()) for true, false in found])
    return odds.view(len(questions), -1)


_TABLES: dict[str, Callable[..., Tensor]] = {
    "question": _question_table,
    "cloze": _cloze_table,
    "choice": _choice_table,
    "true_false": _true_false_table,
    "clue": _clue_table,
}
