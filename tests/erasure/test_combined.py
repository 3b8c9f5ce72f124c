"""Combinations of a method with the words on both sides."""

from types import SimpleNamespace

import torch

from conceptlab.data import load_concept
from conceptlab.edits import Dense, WeightEdit
from conceptlab.erasure import SETTINGS
from conceptlab.erasure.combined import OnTopConfig, with_words_both


def test_another_method_on_top_of_the_words_is_their_sum_at_a_share(tiny_llama):
    lm = tiny_llama(tie_word_embeddings=True)
    one = WeightEdit.of(lm, {lm.down_proj_name(0): Dense(torch.ones(lm.d_model, lm.d_mlp))})
    two = WeightEdit.of(lm, {lm.embedding_name(): Dense(torch.ones_like(lm.embedding()))})
    shared = SimpleNamespace(chosen=lambda name: SimpleNamespace(edit=two if name == "words_both" else one))
    method = with_words_both("rocr")
    assert method.name == "rocr+words_both" and method.needs == ("rocr", "words_both")
    assert len(method.knobs["share"]) == SETTINGS
    edit = method.fit(lm, load_concept("golf"), OnTopConfig("rocr", 0.25), shared)
    assert float(edit.changes[lm.down_proj_name(0)].dense().max()) == 0.25
    before = lm.fingerprint()
    with edit.applied(lm):
        assert lm.fingerprint() != before
    assert lm.fingerprint() == before
