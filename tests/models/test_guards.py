"""Guards at both ends of a pass: what they are told, on every way that a prompt takes through a model."""

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.models import branch_logprobs, greedy, guarded, reading, rewritten, shared_prefix, unguarded

HEAD = "Question: What is dry?\nAnswer: sand"
TREES = [("\n\nQuestion: What is tin?\nAnswer:", [" a metal", " a gas"]), ("\n\nSo:", [" one", " two and three"])]


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.5)


def close(a, b):
    return all(torch.allclose(x, y, rtol=1e-4, atol=1e-4) for p, q in zip(a, b, strict=True)
               for x, y in zip(p, q, strict=True))  # fmt: skip


def test_a_prompt_is_the_stem_whatever_was_run_before_it(lm):
    seen = []

    def start(embeds, found):
        seen.append((found.prompts, found.here))
        return embeds

    prefix = shared_prefix(lm, HEAD)
    plain = branch_logprobs(lm, prefix, TREES)
    with guarded(lm, "a test", start=start):
        assert close(branch_logprobs(lm, prefix, TREES), plain)
    stems = [tuple(lm.encode(stem)) for stem, _ in TREES]
    prompts, here = seen[0]
    assert len(seen) == 1 and sorted(prompts) == sorted(stems)
    assert here.sum(1).tolist() == [len(p) for p in prompts] and bool(here[:, 0].all())
    assert close(branch_logprobs(lm, prefix, TREES), plain) and not lm.is_hooked


def test_a_change_of_the_prompt_s_embeddings_equals_rows_by_hand(lm):
    """The stem's embeddings doubled, the branches' not: the tree gives what whole rows give."""

    def double(embeds, found):
        return torch.where(found.here[..., None], 2 * embeds, embeds)

    prefix = shared_prefix(lm, HEAD)
    with guarded(lm, "a test", start=double):
        found = branch_logprobs(lm, prefix, TREES)
    for (stem, branches), logprobs in zip(TREES, found, strict=True):
        for branch, values in zip(branches, logprobs, strict=True):
            parts = [lm.encode(x) for x in (HEAD, stem, branch)]
            ids = torch.tensor([[i for part in parts for i in part]])
            x = lm.embed(ids).clone()
            x[:, len(parts[0]) : len(parts[0]) + len(parts[1])] *= 2
            logits = lm.head(lm.final_hidden(embeds=x)).log_softmax(-1)[0]
            n = len(parts[2])
            by_hand = logits[-n - 1 : -1].gather(1, torch.tensor(parts[2])[:, None])[:, 0]
            torch.testing.assert_close(values, by_hand, rtol=1e-3, atol=1e-3)


def test_generation_tells_the_prompt_at_every_step_and_changes_it_once(lm):
    seen = []

    def start(embeds, found):
        seen.append((found.prompts, int(found.here.sum())))
        return embeds

    prompts = ["The sea is", "A long way from the town and"]
    plain = greedy(lm, prompts, 4)
    with guarded(lm, "a test", start=start):
        assert greedy(lm, prompts, 4) == plain
    rows = {tuple(lm.encode(p)) for p in prompts}
    assert len(seen) >= 3 and all(set(found) == rows for found, _ in seen)
    assert seen[0][1] == sum(map(len, rows)) and not any(n for _, n in seen[1:])


def test_the_end_changes_every_logit(lm):
    """Pushing along one unembedding row makes its token the next one, in scores and in texts."""
    token = lm.encode(" gas")[0]
    push = 50 * torch.nn.functional.normalize(lm.unembedding_rows()[token], dim=0)
    with guarded(lm, "a test", end=lambda hidden, _: hidden + push):
        assert greedy(lm, ["Tin is"], 2)[0] == [token, token]
        assert int(lm.logits(torch.tensor([lm.encode("Tin is")]))[0, -1].argmax()) == token
        with unguarded(lm):
            assert int(lm.logits(torch.tensor([lm.encode("Tin is")]))[0, -1].argmax()) != token


def test_prompts_are_rewritten_in_scores_and_texts(lm):
    note = "\n\nNote: nothing."
    with guarded(lm, "a test", rewrite=lambda prompt: [*lm.encode(note), *prompt]):
        found, texts = branch_logprobs(lm, HEAD, TREES), greedy(lm, ["Tin is"], 3)
    assert close(found, branch_logprobs(lm, HEAD + note, TREES))
    assert texts == greedy(lm, [[*lm.encode(note), *lm.encode("Tin is")]], 3)
    assert rewritten(lm, [5, 6]) == [5, 6]


def test_passes_over_embeddings_are_left_alone_unless_they_say_what_they_read(lm):
    ids = torch.tensor([lm.encode("Tin is a metal")])
    told = []

    def start(embeds, found):
        told.append(found.prompts)
        return 2 * embeds

    with guarded(lm, "a test", start=start):
        lm.final_hidden(embeds=lm.embed(ids))
        assert told == []
        with reading(lm, [(1, 2)], torch.ones(ids.shape, dtype=torch.bool)):
            lm.final_hidden(embeds=lm.embed(ids))
        lm.logits(ids)
        with pytest.raises(RuntimeError), reading(lm, [(1, 2)], torch.ones(1, 1, dtype=torch.bool)):
            raise RuntimeError
    assert told == [((1, 2),), (tuple(ids[0].tolist()),)] and lm.readers.announced is None


def test_a_guard_that_fails_leaves_nothing_behind(lm):
    def broken(*_):
        raise ConceptLabError("no.")

    with pytest.raises(ConceptLabError, match="no"), guarded(lm, "a test", start=broken, rewrite=broken):
        greedy(lm, ["Tin is"], 2)
    assert not lm.is_hooked and lm.readers.rewrites == [] and not lm.readers.busy
    assert greedy(lm, ["Tin is"], 2)
