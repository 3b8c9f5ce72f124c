"""Packed rows give what rows of their own give, and say what they cannot hold."""

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.models import pack, packed_hidden

PREFIX, ROWS = [5, 6, 7], [[8, 9, 10, 11], [12], [13, 14]]


@pytest.mark.parametrize("prefix", [PREFIX, []])
def test_every_row_reads_as_if_it_were_alone(tiny_llama, prefix):
    lm = tiny_llama()
    packed = pack(lm, prefix, ROWS)
    found = packed_hidden(lm, packed)[0]
    for start, row in zip(packed.starts, ROWS, strict=True):
        alone = lm.final_hidden(torch.tensor([prefix + row]))[0, len(prefix) :]
        assert torch.allclose(found[start : start + len(row)], alone, atol=1e-5)


def test_the_first_rows_are_a_packed_row_of_their_own(tiny_llama):
    lm = tiny_llama()
    packed = pack(lm, PREFIX, ROWS)
    cut = packed.only(2)
    assert len(cut) == 3 + 4 + 1 and cut.starts == packed.starts[:2]
    assert torch.allclose(packed_hidden(lm, cut), packed_hidden(lm, packed)[:, : len(cut)], atol=1e-6)
    assert len(packed.only(9)) == len(packed)


def test_bad_rows_are_refused(tiny_llama):
    lm = tiny_llama(max_position_embeddings=8)
    for rows in ([], [[1], []], [[10**6]], [list(range(9))]):
        with pytest.raises(ConceptLabError):
            pack(lm, PREFIX, rows)


def test_a_row_longer_than_a_sliding_window_is_refused(tiny_gemma2):
    lm = tiny_gemma2(sliding_window=4)
    pack(lm, [], [[1, 2, 3, 4], [5, 6]])
    with pytest.raises(ConceptLabError, match="attends to 4 tokens"):
        pack(lm, PREFIX, ROWS)
