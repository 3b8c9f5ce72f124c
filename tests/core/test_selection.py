"""The fast selection against a full sort."""

import pytest
import torch

from conceptlab.core import largest


@pytest.mark.parametrize(("n", "k"), [(4_096, 32), (1_000, 7), (97, 5), (640, 64), (8, 8), (4_096, 1), (49_152, 50)])
def test_the_largest_are_those_of_a_full_sort(n, k):
    scores = torch.randn(64, n, generator=torch.Generator().manual_seed(n))
    for smallest in (False, True):
        values, indices = largest(scores, k, smallest)
        ordered = scores.sort(descending=not smallest).values[:, :k]
        assert torch.equal(values.sort(descending=not smallest).values, ordered)
        assert torch.equal(scores.gather(1, indices), values)
        assert all(len(set(row)) == k for row in indices.tolist())


def test_the_largest_are_found_where_they_are_crowded_or_tied():
    scores = torch.zeros(3, 4_096)
    scores[0, 100:132] = torch.arange(1.0, 33.0)  # side by side
    scores[1, torch.arange(32) * 128] = torch.arange(1.0, 33.0)  # all in one group
    scores[2] = torch.arange(4_096.0).remainder(5)  # 819 times the largest value
    values, indices = largest(scores, 32)
    assert torch.equal(values.sort().values[:2], torch.arange(1.0, 33.0).expand(2, -1))
    assert bool((values[2] == 4).all()) and len(set(indices[2].tolist())) == 32


def test_infinite_and_negative_scores_keep_their_place():
    scores = -torch.rand(5, 512, generator=torch.Generator().manual_seed(0)) - 1
    scores[:, 77] = torch.inf
    scores[:, 78:] = -torch.inf
    values, indices = largest(scores, 4)
    assert torch.equal(values.sort(descending=True).values, scores.topk(4).values)
    assert bool((indices == 77).any(1).all())
