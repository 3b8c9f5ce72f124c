"""Texts of features' pages: written, read again, and refused where the file is damaged."""

import gzip

import pytest

from conceptlab import sae as S
from conceptlab.autointerp import Corpus, sae_firings
from conceptlab.core import ConceptLabError
from conceptlab.course.site import Context, context_articles, read_contexts
from conceptlab.course.site.contexts import contexts_path, strongest_texts, strongest_words
from conceptlab.data import Article, harvest, token_rows


def test_articles_are_those_of_the_corpus_each_once():
    found = context_articles()
    assert len({a.title for a in found}) == len(found) > 80 and all(a.topic for a in found)


def test_the_strongest_firings_come_first_each_from_another_text(tiny_llama, tmp_path):
    lm = tiny_llama()
    articles = [Article(t, f"the {t} sat on the mat and looked at the moon", "x", "") for t in ("cat", "dog", "bird")]
    found = harvest(lm, token_rows(lm, [a.text for a in articles], n_ctx=8), (1,), folder=tmp_path, progress=False)
    sae = S.TopKSAE(S.SAEConfig("topk", lm.d_model, 40, 2, lm.name, 1, lm.mlp_output(1))).requires_grad_(False)
    firings = sae_firings(sae, found.tensor(1))
    feature = int(firings.counts().argmax())
    texts = strongest_texts(Corpus(lm, found), firings, feature, articles)
    assert texts and len({t.title for t in texts}) == len(texts)
    tops = [max(t.activations) for t in texts]
    assert tops == sorted(tops, reverse=True) and tops[0] > 0
    assert all(len(t.tokens) == len(t.activations) for t in texts)


def test_contexts_that_are_not_there_or_cannot_be_read(tmp_path):
    assert read_contexts("m", 3, tmp_path) == {}
    path = contexts_path("m", 3, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(b'[7, [["Title", ["a", " b"], [0, 1.5]]]]\n'))
    (context,) = read_contexts("m", 3, tmp_path)[7]
    assert context.title == "Title" and context.tokens == ("a", " b") and context.activations == (0.0, 1.5)
    for damaged in (b"not gzip", gzip.compress(b"[7]"), gzip.compress(b"{")):
        path.write_bytes(damaged)
        with pytest.raises(ConceptLabError, match="cannot be read as contexts"):
            read_contexts("m", 3, tmp_path)


def test_the_strongest_word_is_put_together_from_its_tokens():
    texts = [
        Context("A", (" the", " wiz", "ard", "s", " sat"), (0.0, 0.0, 2.0, 1.0, 0.5)),
        Context("B", ("Pre", "fix", ",", " and"), (3.0, 0.0, 0.0, 0.0)),
        Context("C", (" wiz", "ards"), (0.0, 1.0)),
        Context("D", (" a", "\n"), (0.0, 1.0)),
        Context("E", (), ()),
    ]
    assert strongest_words(texts) == ["wizards", "Prefix"]
