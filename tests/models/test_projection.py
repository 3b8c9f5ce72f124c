"""Vocabulary projection: against TransformerLens, against brute force, and what goes wrong."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from conceptlab.core import ConceptLabError
from conceptlab.models import TopTokens, logit_effect, project, projection


@pytest.fixture
def tiny(tiny_llama):
    lm = tiny_llama()
    with torch.no_grad():
        lm.hf.get_decoder().norm.weight.copy_(torch.linspace(0.5, 2.0, lm.d_model))  # a gain that matters
    return lm


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def random_vectors(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_equals_brute_force(tiny):
    vectors = random_vectors(5, tiny.d_model)
    found = project(tiny, vectors, k=7)
    for i, vector in enumerate(vectors):
        logits = (vector * tiny.final_gain() * tiny.unembedding_rows()).double().sum(1).float()  # no matrix product
        order = logits.argsort(descending=True)
        torch.testing.assert_close(found.top_values[i], logits[order[:7]])
        torch.testing.assert_close(found.bottom_values[i], logits[order.flip(0)[:7]])
        torch.testing.assert_close(logits[found.top_ids[i]], found.top_values[i])
        torch.testing.assert_close(logits[found.bottom_ids[i]], found.bottom_values[i])


def test_negating_swaps_the_ends_and_scaling_changes_nothing(tiny):
    vectors = random_vectors(4, tiny.d_model)
    plus, minus = project(tiny, vectors, k=5), project(tiny, -3 * vectors, k=5)
    assert torch.equal(plus.top_ids, minus.bottom_ids) and torch.equal(plus.bottom_ids, minus.top_ids)
    torch.testing.assert_close(minus.top_values, -3 * plus.bottom_values)
    assert torch.equal(plus.signed_ids()[:, 1], plus.bottom_ids)


def test_chunks_do_not_matter(tiny, monkeypatch):
    vectors = random_vectors(23, tiny.d_model)
    whole = project(tiny, vectors, k=5)
    monkeypatch.setattr(projection, "_CHUNK", 4)
    parts = project(tiny, vectors, k=5)
    assert torch.equal(whole.top_ids, parts.top_ids) and torch.equal(whole.bottom_ids, parts.bottom_ids)


def test_planted_direction(tiny):
    """The direction that is one token's own (folded) row promotes that token most, and its negative suppresses it."""
    rows = tiny.unembedding_rows()
    token = int(rows.norm(dim=1).argmax())  # the longest row: no other has a larger product with it
    vectors = torch.stack([rows[token], -rows[token]]) / tiny.final_gain()
    found = project(tiny, vectors, k=1)
    assert found.top_ids[0, 0] == token and found.bottom_ids[1, 0] == token


def test_vocabulary_subset_keeps_the_names_of_tokens(tiny):
    vectors, ids = random_vectors(3, tiny.d_model), torch.tensor([40_000, 17, 5, 300, 1_234])
    found, effects = project(tiny, vectors, k=2, vocab_ids=ids), logit_effect(tiny, vectors, ids)
    assert torch.equal(found.top_ids, ids[effects.topk(2).indices])
    assert torch.equal(found.bottom_ids, ids[effects.topk(2, largest=False).indices])
    torch.testing.assert_close(found.top_values, effects.topk(2).values)


def test_cache_hit_and_what_makes_a_new_entry(tiny, own_cache, monkeypatch):
    vectors = random_vectors(1_001, tiny.d_model)
    first = project(tiny, vectors, k=3)
    assert len(list(own_cache.rglob("*.safetensors"))) == 1
    real = projection._project
    monkeypatch.setattr(projection, "_project", lambda *_: pytest.fail("computed again although it was cached"))
    again = project(tiny, vectors, k=3)
    assert torch.equal(first.top_ids, again.top_ids) and torch.equal(first.bottom_values, again.bottom_values)
    monkeypatch.setattr(projection, "_project", real)
    changed = vectors.clone()
    changed[500, 3] += 1
    project(tiny, changed, k=3)
    project(tiny, vectors, k=4)
    project(tiny, vectors, k=3, vocab_ids=torch.arange(100))
    with torch.no_grad():
        tiny.unembedding_rows()[7, 0] += 1
    project(tiny, vectors, k=3)
    assert len(list(own_cache.rglob("*.safetensors"))) == 5


@pytest.mark.parametrize("harm", ["cut", "empty", "another", "wrong shape", "nan", "ids"])
def test_a_damaged_cache_is_computed_anew(tiny, own_cache, harm):
    vectors = random_vectors(1_001, tiny.d_model)
    first = project(tiny, vectors, k=3)
    (path,) = own_cache.rglob("*.safetensors")
    good = {name: tensor.clone() for name, tensor in load_file(path).items()}
    whole = path.read_bytes()
    if harm in ("cut", "empty"):
        path.write_bytes(whole[: len(whole) // 2] if harm == "cut" else b"")
    elif harm == "another":
        save_file({"weight": torch.ones(3)}, path)
    elif harm == "wrong shape":
        save_file({name: tensor[:5].contiguous() for name, tensor in good.items()}, path)
    else:
        field, value = ("top_values", torch.nan) if harm == "nan" else ("bottom_ids", tiny.d_vocab)
        good[field][7, 1] = value
        save_file(good, path)
    again = project(tiny, vectors, k=3)
    assert all(torch.equal(getattr(first, f), getattr(again, f)) for f in TopTokens.__dataclass_fields__)
    assert path.read_bytes() == whole, "and written again"


def test_the_cache_goes_by_the_weights_and_not_by_the_name(tiny, tiny_llama, own_cache, monkeypatch):
    monkeypatch.undo()  # the tokenizer lies in the usual cache
    other = tiny_llama(seed=1)
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(own_cache))
    vectors = random_vectors(1_001, tiny.d_model)
    project(tiny, vectors, k=3)
    assert other.name == tiny.name
    project(other, vectors, k=3)
    tiny.name = "renamed"
    project(tiny, vectors, k=3)
    assert len(list(own_cache.rglob("*.safetensors"))) == 2


def test_small_results_and_cache_off_write_nothing(tiny, own_cache):
    project(tiny, random_vectors(1_000, tiny.d_model), k=3)
    project(tiny, random_vectors(1_001, tiny.d_model), k=3, cache=False)
    assert not list(own_cache.rglob("*.safetensors"))


@pytest.mark.parametrize("k", [0, -1, 49_153])
def test_bad_k(tiny, k):
    with pytest.raises(ConceptLabError, match="k must lie in 1 to 49152"):
        project(tiny, random_vectors(2, tiny.d_model), k=k)


def test_k_larger_than_the_subset(tiny):
    with pytest.raises(ConceptLabError, match="k must lie in 1 to 3"):
        project(tiny, random_vectors(2, tiny.d_model), k=4, vocab_ids=torch.tensor([1, 2, 3]))


@pytest.mark.parametrize("bad", [-1, 49_152])
def test_ids_out_of_range(tiny, bad):
    with pytest.raises(ConceptLabError, match="vocab_ids must lie in 0 to 49151"):
        project(tiny, random_vectors(2, tiny.d_model), k=1, vocab_ids=torch.tensor([3, bad]))


def test_empty_subset(tiny):
    with pytest.raises(ConceptLabError, match="at least one token"):
        project(tiny, random_vectors(2, tiny.d_model), k=1, vocab_ids=torch.tensor([], dtype=torch.long))


def test_memory_stays_at_one_chunk(tiny, monkeypatch):
    """No tensor of the size vectors x vocabulary is ever made: the largest has one chunk of rows."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    largest[0] = max(largest[0], tensor.untyped_storage().nbytes())
            return out

    monkeypatch.setattr(projection, "_CHUNK", 16)
    with Watch():
        project(tiny, random_vectors(400, tiny.d_model), k=5, cache=False)
    chunk = 16 * tiny.d_vocab * 4
    assert chunk <= largest[0] <= 1.01 * max(chunk, tiny.unembedding_rows().nbytes)


def test_top_tokens_index(tiny):
    found = project(tiny, random_vectors(4, tiny.d_model), k=3)
    part = found[1:3]
    assert isinstance(part, TopTokens) and torch.equal(part.top_ids, found.top_ids[1:3])


def test_contract_with_transformer_lens(bundled):
    """Same tokens and, up to the norm's positive scale, the same values as the logit lens of TransformerLens."""
    from transformer_lens.tools.analysis import logit_readout

    lm = bundled
    layer = lm.n_layers - 1
    vectors = lm.value_vectors(layer)[:6].float()
    ours = project(lm, vectors, k=10)
    for sign, ids, values in ((1, ours.top_ids, ours.top_values), (-1, ours.bottom_ids, ours.bottom_values)):
        theirs = logit_readout(lm.bridge, sign * vectors * 1e3, top_k=10)  # large: the norm's epsilon vanishes
        rms = vectors.square().mean(1, keepdim=True).sqrt()
        torch.testing.assert_close(theirs.values * rms, sign * values, rtol=1e-3, atol=1e-4)
        agree = (theirs.top_ids == ids).float().mean()
        assert agree > 0.95, f"{agree:.0%} of the tokens agree"
