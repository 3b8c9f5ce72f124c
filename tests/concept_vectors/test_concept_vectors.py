"""Concept vectors: coherence, search, edits and their measures, on planted data; the replay against a full run."""

import pytest
import torch

from conceptlab.concept_vectors import ConceptVector, build_atlas, find, validation, word_effects
from conceptlab.concept_vectors.coherence import coherence, first_of_stem, plain_words, token_stems, unit_embeddings
from conceptlab.concept_vectors.replay import Replay
from conceptlab.core import ConceptLabError
from conceptlab.data import general_questions
from conceptlab.edits.controls import random_like
from conceptlab.evaluation import QuestionScores, score_questions


@pytest.fixture
def tiny(tiny_llama):
    return tiny_llama(d_model=32, n_layers=4)


def weights(lm):
    return {name: p.detach().clone() for name, p in lm.hf.named_parameters()}


def same_weights(lm, before):
    return all(torch.equal(p, before[name]) for name, p in lm.hf.named_parameters())


# ---- coherence ------------------------------------------------------------------------------------------
def test_coherence_is_the_mean_over_pairs():
    generator = torch.Generator().manual_seed(0)
    units = torch.nn.functional.normalize(torch.randn(30, 6, generator=generator), dim=1)
    ids = torch.tensor([[3, 7, 1, 9], [2, 4, 6, 8]])
    found = coherence(ids, units, torch.arange(30))
    for row, score in zip(ids, found, strict=True):
        pairs = [float(units[a] @ units[b]) for i, a in enumerate(row) for b in row[:i]]
        assert score == pytest.approx(sum(pairs) / len(pairs), abs=1e-5)


def test_coherence_of_equal_and_of_orthogonal_tokens():
    units = torch.cat([torch.eye(4), torch.eye(4)[:1].repeat(4, 1)])  # tokens 0..3 orthogonal, 0 and 4..7 equal
    found = coherence(torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]]), units, torch.arange(8))
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0]))


def test_variants_of_one_word_count_once():
    units = torch.cat([torch.eye(3), torch.eye(3)[:1].repeat(2, 1)])  # 3 and 4 are copies of 0 ...
    stem = torch.tensor([0, 1, 2, 0, 0])  # ... and variants of it
    assert coherence(torch.tensor([[0, 3, 4, 1]]), units, stem) == 0  # what is left: 0 and 1, orthogonal
    assert coherence(torch.tensor([[0, 3, 4]]), units, stem) == 0  # a single stem: no pair
    assert first_of_stem(torch.tensor([[0, 3, 4, 1, 2]]), stem, m=2).tolist() == [[True, False, False, True, False]]


def test_whitening_removes_a_common_direction(tiny):
    """Tokens that only share the direction in which all embeddings vary most are no longer alike."""
    with torch.no_grad():
        rows = tiny.hf.get_output_embeddings().weight
        strength = torch.randn(len(rows), generator=torch.Generator().manual_seed(1))
        rows[:, 0] = 50 * rows.std() * strength
    hub = strength.topk(15).indices[None]
    stem = torch.arange(len(strength))
    plain, white = (coherence(hub, unit_embeddings(tiny, whiten=w), stem).item() for w in (False, True))
    assert plain > 0.9 and white < 0.5
    units = unit_embeddings(tiny)
    torch.testing.assert_close(units.norm(dim=1), torch.ones(len(units)), rtol=1e-4, atol=1e-4)


def test_stems_and_plain_words(smollm2):
    lm, stem = smollm2, token_stems(smollm2)
    ids = lm.single_tokens(["cancer", "cancers", "Cancer", "tumor"])
    assert stem[ids["cancer"]] == stem[ids["cancers"]] == stem[ids["Cancer"]] != stem[ids["tumor"]]
    words = lm.words(plain_words(lm))
    assert {" cancer", " Japan", " the"} <= set(words)
    assert all(w[0] == " " and w[1:].isalpha() and w[2:].islower() for w in words)
    assert " strugg" not in words and " the" not in lm.words(plain_words(lm, skip_common=50))


# ---- atlas and search -----------------------------------------------------------------------------------
def plant(lm, layer, neuron, words, sign=1.0):
    """Make the value vector of a neuron promote exactly these words: the mean of their (folded, centred) rows."""
    rows = lm.unembedding_rows()
    ids = torch.tensor([lm.single_token(w) for w in words])
    direction = sign * 50 * (rows[ids].mean(0) - rows.mean(0))
    name = lm.down_proj_name(layer)
    with torch.no_grad():
        dict(lm.hf.named_parameters())[name][:, neuron] = direction
    return ids


def test_search_finds_planted_vectors_of_either_sign(tiny):
    colours, animals = ["red", "blue", "green"], ["dog", "cat", "horse"]
    plant(tiny, 2, 11, colours)
    plant(tiny, 3, 5, animals, sign=-1)
    first = find.search(tiny, colours, 3)[0]
    assert (first.layer, first.neuron, first.sign, first.name) == (2, 11, 1, "L2N11+")
    first = find.search(tiny, [*animals, "notasingletokenatall"], 3)[0]
    assert (first.layer, first.neuron, first.sign, first.name) == (3, 5, -1, "L3N5-")
    assert {v.layer for v in find.search(tiny, animals, 3, layers=[0, 1])} <= {0, 1}
    scores = [v.score for v in find.search(tiny, animals, 10)]
    assert scores == sorted(scores, reverse=True)


def test_search_needs_a_single_token_word(tiny):
    with pytest.raises(ConceptLabError, match="single token of tiny-llama"):
        find.search(tiny, ["notasingletokenatall"])
    with pytest.raises(ConceptLabError, match="none"):
        find.search(tiny, [])


def test_word_effects_standardise_over_the_vocabulary(tiny):
    vectors, ids = tiny.value_vectors(1)[:5], torch.tensor([5, 900, 40_000])
    table = (vectors * tiny.final_gain()) @ tiny.unembedding_rows().T
    want = ((table - table.mean(1, keepdim=True)) / table.std(1, keepdim=True))[:, ids]
    torch.testing.assert_close(word_effects(tiny, vectors, ids), want, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(word_effects(tiny, 7 * vectors, ids), want, rtol=1e-3, atol=1e-3)
    assert find.tail_score(torch.tensor([[5.0, 1.0], [2.9, -9.0]])).tolist() == [1.0, 0.0]


def test_atlas_numbers_layers_and_best(tiny):
    words = ["red", "blue", "green", "yellow", "white", "black"]
    with torch.no_grad():  # long rows: in 32 dimensions some other token would win otherwise
        tiny.unembedding_rows()[torch.tensor(list(tiny.single_tokens(words).values()))] *= 30
    plant(tiny, 2, 11, words)
    atlas = build_atlas(tiny, layers=[1, 2], k=20)
    assert atlas.where(atlas.index(2, 11)) == (2, 11)
    described = atlas.describe(tiny, 2, 11, 1, n=6)
    assert {t.strip() for t in described.tokens} == set(words)
    assert find.search(tiny, words, 1, atlas)[0].tokens[:6] == described.tokens
    with pytest.raises(ConceptLabError, match="layers 1 to 2"):
        atlas.index(0, 3)
    assert atlas.gallery(tiny, [1, 2], n=4, words=torch.tensor([1]), need=0.9) == []


def test_gallery_is_sorted_and_shows_no_theme_twice(tiny):
    atlas = build_atlas(tiny, layers=[1, 2], k=20)
    shown = atlas.gallery(tiny, [2], n=4)
    assert shown and all(v.layer == 2 for v in shown)
    assert shown[0].score == pytest.approx(float(atlas.coherence[tiny.d_mlp :].max()))
    assert [v.score for v in shown] == sorted((v.score for v in shown), reverse=True)
    themes: set[int] = set()
    for v in shown:
        ids = (atlas.tokens.top_ids if v.sign > 0 else atlas.tokens.bottom_ids)[atlas.index(2, v.neuron), :10]
        own = set(atlas.stem[ids].tolist())
        assert len(own & themes) < 3
        themes |= own


def test_known_vectors_are_found(smollm2):
    """Readable by eye (issue 2): Rome and China/Japan, both in the last layer, one at each sign."""
    rome, china = (find.search(smollm2, words, 3) for words in (["Rome", "Roman", "Caesar"], ["China", "Chinese"]))
    assert ("L29N1518+" in {v.name for v in rome}) and ("L29N392-" in {v.name for v in china})


# ---- controls -------------------------------------------------------------------------------------------
def test_random_vectors_share_the_layers_and_nothing_else(tiny):
    like = [ConceptVector(1, n, 1, 0.0) for n in range(30)] + [ConceptVector(3, 2, -1, 0.0)]
    drawn = validation.random_vectors(tiny, like, seed=3)
    assert [v.layer for v in drawn] == [v.layer for v in like]
    pairs = {(v.layer, v.neuron) for v in drawn}
    assert len(pairs) == len(like) and not pairs & {(v.layer, v.neuron) for v in like}
    assert drawn[0].neuron == validation.random_vectors(tiny, like, seed=3)[0].neuron


def test_matched_vectors_are_as_active(tiny):
    texts = ["The cat sat on the mat.", "A second, longer text about nothing in particular."]
    like = [ConceptVector(2, 7, 1, 0.0), ConceptVector(2, 9, 1, 0.0)]
    avoid = [ConceptVector(2, n, 1, 0.0) for n in range(20, 30)]
    found = validation.matched_vectors(tiny, like, texts, avoid)
    ids, mask = tiny.tokens(texts)
    mask[:, 0] = False
    activation = tiny.capture(ids, [("neurons", 2)], mask)["neurons", 2][mask].abs().mean(0)
    size = activation * tiny.value_vectors(2).norm(dim=1)
    allowed = [n for n in range(tiny.d_mlp) if n not in (7, 9) and n not in range(20, 30)]
    best = min(allowed, key=lambda n: abs(float((size[n] / size[7]).log())))
    assert found[0].neuron == best and found[1].neuron in allowed and found[1].neuron != best


# ---- edits ----------------------------------------------------------------------------------------------
VECTORS = [ConceptVector(1, 3, 1, 0.0), ConceptVector(3, 8, -1, 0.0), ConceptVector(1, 6, 1, 0.0)]


def test_noise_has_the_length_asked_for_and_is_undone(tiny):
    before = weights(tiny)
    clean = {v.name: tiny.value_vectors(v.layer)[v.neuron].clone() for v in VECTORS}
    edit = validation.noise_edit(tiny, VECTORS, c=2.5, seed=1)
    with edit.applied(tiny):
        for v in VECTORS:
            noise = tiny.value_vectors(v.layer)[v.neuron] - clean[v.name]
            assert float(noise.norm()) == pytest.approx(2.5 * float(clean[v.name].norm()), rel=1e-4)
        changed = tiny.value_vectors(1) - before[tiny.down_proj_name(1)].T
        assert set((changed != 0).any(1).nonzero()[:, 0].tolist()) == {3, 6}
    assert same_weights(tiny, before)
    other = validation.noise_edit(tiny, VECTORS, c=2.5, seed=2)
    name = tiny.down_proj_name(1)
    assert not torch.equal(edit.changes[name].dense(), other.changes[name].dense())
    assert edit.info["vectors"] == [[1, 3], [3, 8], [1, 6]]


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.0])
def test_scale_edit(tiny, factor):
    before = weights(tiny)
    with validation.scale_edit(tiny, VECTORS, factor).applied(tiny):
        for v in VECTORS:
            old = before[tiny.down_proj_name(v.layer)].T[v.neuron]
            torch.testing.assert_close(tiny.value_vectors(v.layer)[v.neuron], factor * old, atol=1e-7, rtol=1e-5)
    assert same_weights(tiny, before)


def test_noise_reaches_the_value_vector_behind_a_norm(gemma3):
    """Gemma's gain after the MLP: the noise has its length in the residual stream, not in the raw weight."""
    v = ConceptVector(12, 1476, 1, 0.0)
    old = gemma3.value_vectors(12)[1476].clone()
    with validation.noise_edit(gemma3, [v], c=3.0).applied(gemma3):
        noise = gemma3.value_vectors(12)[1476] - old
    assert float(noise.norm()) == pytest.approx(3.0 * float(old.norm()), rel=1e-3)


def test_edit_of_nothing(tiny):
    with pytest.raises(ConceptLabError, match="at least one"):
        validation.scale_edit(tiny, [])


def test_intrinsic_measures(tiny):
    same, gone, turned = (
        validation.intrinsic(tiny, VECTORS, validation.scale_edit(tiny, VECTORS, f), k=20) for f in (1.0, 0.0, -1.0)
    )
    for row, v in zip(same, VECTORS, strict=True):
        assert row["jaccard"] == 1 and row["cosine"] == pytest.approx(1) and row["l2"] == 0
        assert v.layer in (1, 3)
    lengths = [float(tiny.value_vectors(v.layer)[v.neuron].norm()) for v in VECTORS]
    for row, length in zip(gone, lengths, strict=True):
        assert row["jaccard"] == 0 and row["cosine"] == pytest.approx(0, abs=1e-6)
        assert row["l2"] == pytest.approx(length, rel=1e-5)
    assert all(r["cosine"] == pytest.approx(-1, abs=1e-5) and r["jaccard"] == 0 for r in turned)
    noised = validation.intrinsic(tiny, VECTORS, validation.noise_edit(tiny, VECTORS, c=1.0), k=20)
    assert all(0 <= r["jaccard"] < 1 and 0.4 < r["cosine"] < 0.95 for r in noised)  # 1 / sqrt(2), up to the overlap
    random = validation.intrinsic(tiny, VECTORS, random_like(validation.scale_edit(tiny, VECTORS, 0.0)), k=20)
    assert all(r["l2"] > 0 for r in random)


def test_answer_shift():
    clean = QuestionScores(torch.tensor([[0.0, 0.0], [100.0, 0.0], [1.0, 2.0]]), torch.zeros(3, dtype=torch.long))
    moved = QuestionScores(torch.tensor([[5.0, 5.0], [0.0, 100.0], [1.0, 2.0]]), torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(validation.answer_shift(clean, moved), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6, rtol=0)


# ---- replay ---------------------------------------------------------------------------------------------
def test_replay_equals_a_full_run(bundled):
    lm, questions = bundled, general_questions("dev")[:5]
    late, later = lm.n_layers - 4, lm.n_layers - 1
    replay = Replay(lm, questions, [late, later], batch_size=3)
    torch.testing.assert_close(replay.clean.logprobs, score_questions(lm, questions, batch_size=3).logprobs)
    for layer in (late, late + 1, later):
        vectors = [ConceptVector(layer, n, 1, 0.0) for n in range(40)]
        before = lm.value_vectors(layer).clone()
        with validation.noise_edit(lm, vectors, c=10.0).applied(lm):
            full = score_questions(lm, questions, batch_size=3)
            torch.testing.assert_close(replay.score(layer).logprobs, full.logprobs, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(full.logprobs, replay.clean.logprobs)
        assert torch.equal(before, lm.value_vectors(layer))
    torch.testing.assert_close(replay.score(later).logprobs, replay.clean.logprobs)
    with pytest.raises(ConceptLabError, match="earlier layer"):
        replay.score(late - 1)


def test_noise_shift_averages_over_draws(tiny):
    replay = Replay(tiny, general_questions("dev")[:4], [2, 3])
    vectors, shifts = [ConceptVector(3, 1, 1, 0.0), ConceptVector(2, 5, 1, 0.0)], []
    for seed in (0, 1):
        with validation.noise_edit(tiny, vectors, 50.0, seed).applied(tiny):
            shifts.append(validation.answer_shift(replay.clean, score_questions(tiny, replay.questions)))
    both = validation.noise_shift(tiny, [replay, replay], vectors, 50.0, [0, 1])
    torch.testing.assert_close(both[0], (shifts[0] + shifts[1]) / 2, rtol=1e-4, atol=1e-5)
    assert torch.equal(both[0], both[1]) and both[0].max() > 0


def test_skip_before_leaves_no_trace(tiny):
    ids, _ = tiny.tokens("one two three")
    before = tiny.logits(ids)
    with pytest.raises(ZeroDivisionError), tiny.skip_before(3):
        assert not torch.allclose(tiny.logits(ids), before)
        raise ZeroDivisionError
    assert torch.equal(tiny.logits(ids), before)
