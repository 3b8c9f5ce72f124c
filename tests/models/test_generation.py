"""Greedy continuations: of texts and of rows, in batches."""

import pytest
import torch

from conceptlab.models import greedy

PROMPTS = ["The king", "One two three four", "A"]


def one_by_one(lm, ids, n):
    """The most likely next token, n times, by a whole forward pass each."""
    start = len(ids)
    for _ in range(n):
        ids = [*ids, int(lm.logits(torch.tensor([ids]))[0, -1].argmax())]
    row = ids[start:]
    return row[: row.index(2)] if 2 in row else row


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_texts_and_rows_in_batches(tiny_llama, batch_size):
    lm = tiny_llama(initializer_range=0.5)
    expected = [one_by_one(lm, lm.encode(p), 5) for p in PROMPTS]
    assert greedy(lm, PROMPTS, 5, batch_size) == expected
    assert greedy(lm, [lm.encode(p) for p in PROMPTS], 5, batch_size) == expected


def test_a_text_gets_its_start_token(gemma3):
    text = "The capital of Japan is the city of"
    assert greedy(gemma3, [text], 3) == greedy(gemma3, [[2, *gemma3.encode(text)]], 3)


def test_a_tokenizer_without_an_end(tiny_llama):
    lm = tiny_llama(initializer_range=0.5)
    before = greedy(lm, PROMPTS, 5)
    lm.tokenizer.eos_token = None
    assert [row[: len(b)] for row, b in zip(greedy(lm, PROMPTS, 5), before, strict=True)] == before


def test_up_to_the_last_place_of_the_context(tiny_llama):
    lm = tiny_llama(max_position_embeddings=8, initializer_range=0.5)
    assert greedy(lm, [[5, 6, 7]], 5) == [one_by_one(lm, [5, 6, 7], 5)]
