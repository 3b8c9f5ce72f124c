"""Means over texts against a loop without batches, padding or sorting."""

import inspect

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import text_means, text_passes

TEXTS = [f"{'A long sentence about nothing. ' * (7 * i % 5)}Text {i}." for i in range(23)] + ["x"]
SITES = [("mlp_output", 0), ("neurons", 1), ("resid_post", 1)]


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama()


def slowly(lm, texts, site, n_ctx, encode=lambda x: x):
    means = []
    for text in texts:
        ids, _ = lm.tokens([text], n_ctx)
        acts = encode(lm.capture(ids, [site])[site].float())[0, 1:]
        means.append(acts.sum(0) / max(1, len(acts)))
    return torch.stack(means)


@pytest.mark.parametrize("batch_size", [1, 5, 16, 100])
def test_means_in_the_order_of_the_texts(lm, batch_size):
    found = text_means(lm, TEXTS, SITES, n_ctx=20, batch_size=batch_size)
    assert list(found) == SITES
    for site in SITES:
        assert torch.allclose(found[site], slowly(lm, TEXTS, site, 20), atol=1e-6)
    assert len(lm.tokens(["x"])[0][0]) == 1 and not found[SITES[0]][-1].any(), "a text of one token: 0, not nan"


def test_an_encoder_comes_before_the_mean(lm):
    matrix = torch.randn(16, 40, generator=torch.Generator().manual_seed(0))
    site = ("mlp_output", 1)

    def encode(x):
        return (x @ matrix - 0.001).relu() + 1.0  # not 0 at padding and first positions

    found = text_means(lm, TEXTS[:9], [site], {site: encode}, n_ctx=24, batch_size=4)[site]
    assert found.shape == (9, 40) and torch.allclose(found, slowly(lm, TEXTS[:9], site, 24, encode), atol=1e-5)


def test_passes_see_every_token_but_the_first_once(lm):
    seen = {}
    for batch in text_passes(lm, TEXTS, SITES[:1], n_ctx=20, batch_size=7):
        assert batch.found[SITES[0]].shape == (*batch.ids.shape, 16) and not batch.keep[:, 0].any()
        for i, ids, keep in zip(batch.which, batch.ids, batch.keep, strict=True):
            seen[i] = ids[keep].tolist()
    assert seen == {i: lm.tokenizer(text).input_ids[1:20] for i, text in enumerate(TEXTS)}


@pytest.mark.parametrize(
    ("texts", "n_ctx", "message"),
    [("one", 8, "put it into a list"), ([], 8, "is empty"), (["a"], 1, "n_ctx is 1")],
)
def test_texts_that_make_no_sense(lm, texts, n_ctx, message):
    with pytest.raises(ConceptLabError, match=message):
        inspect.unwrap(text_means)(lm, texts, SITES, n_ctx=n_ctx)
