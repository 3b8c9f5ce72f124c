"""Questions with their answers as rows of tokens."""

import pytest

from conceptlab.core import ConceptLabError
from conceptlab.data import FEW_SHOT, answer_rows, load_concept, question_stem


def test_a_row_is_the_scored_form_and_knows_where_the_answer_begins(tiny_llama):
    lm = tiny_llama()
    q = load_concept("golf").dev[0]
    (row,) = answer_rows(lm, [(q.q, q.gold)])
    assert row.ids == lm.encode(question_stem(q, "")) + lm.encode(f" {q.gold}")
    assert lm.decode(row.ids[row.start :]) == f" {q.gold}" and question_stem(q, FEW_SHOT).strip() in lm.decode(row.ids)


def test_a_question_that_is_too_long_loses_its_beginning(tiny_llama):
    lm = tiny_llama()
    (row,) = answer_rows(lm, [("What is green and played by four? " * 9, "golf, they say")], 16)
    assert len(row.ids) == 16 and lm.decode(row.ids[row.start :]) == " golf, they say"
    assert lm.decode(row.ids[: row.start]).endswith("\nAnswer:")
    for answer in ("word " * 30, " "):
        with pytest.raises(ConceptLabError, match="take another n_ctx or answer"):
            answer_rows(lm, [("What?", answer)], 16)
