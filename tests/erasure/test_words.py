"""The edit of a concept's words: which words, what happens to their rows, and the control."""

from dataclasses import replace

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.data import Concept, load_concept
from conceptlab.edits import INPUT
from conceptlab.erasure import words as module
from conceptlab.erasure.embedding import bare_or_spaced_tokens, embedding_edit
from conceptlab.erasure.words import random_word_atoms, word_atoms


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama()


@pytest.fixture
def golf():
    return load_concept("golf")


@pytest.fixture
def atoms(lm, golf):
    return word_atoms(lm, golf, 5, 3.0)


def test_which_words(lm, golf, atoms):
    spared = bare_or_spaced_tokens(lm, golf.lookalikes)
    named = bare_or_spaced_tokens(lm, golf.words) - spared
    ids = set(atoms.ids.tolist())
    assert named <= ids and not spared & ids and len(ids) == len(atoms.ids) == atoms.info["tokens"]
    assert len(ids) - len(named) <= 5 and atoms.info["named"] == len(named)
    assert set(word_atoms(lm, golf, 0).ids.tolist()) == named


def test_at_one_the_words_read_like_the_average_token_and_at_two_they_are_turned_round(lm, atoms):
    weight = lm.hf.get_input_embeddings().weight
    mean, before = weight.detach().mean(0), weight.detach().clone()
    for delta, wanted in ((1.0, mean.expand(len(atoms.ids), -1)), (2.0, 2 * mean - before[atoms.ids])):
        edit = embedding_edit(lm, atoms, delta)
        assert set(edit.changes) == {lm.embedding_name() + INPUT} and edit.info["method"] == "words"
        with edit.applied(lm):
            now = lm.hf.get_input_embeddings().weight.detach()
            assert torch.allclose(now[atoms.ids], wanted, atol=1e-5)
            rest = torch.ones(len(before), dtype=torch.bool)
            rest[atoms.ids] = False
            assert torch.equal(now[rest], before[rest])


def test_typical_words_are_typical(lm, golf, monkeypatch):
    """Not a word that the neighbour's texts use as often, nor a rare one, nor a piece of a word."""
    texts = {"golf": "The winter of summer, summer winter: summer and winter, xqzv xqzv xqzv. The money."}
    monkeypatch.setattr(Concept, "texts", lambda self: [texts.get(self.name, "The winter. A winter, a winter.")])
    monkeypatch.setattr(module, "other_texts", lambda concept, n: ["The house of the king. " * 5])
    atoms = word_atoms(lm, replace(golf, words=()), 5, 1.5)
    assert atoms.top == ((" summer",),)


def test_the_control_takes_other_words_of_like_frequency(lm, golf, atoms):
    control = random_word_atoms(lm, golf, atoms, seed=1)
    assert len(control.ids) == len(atoms.ids) == len(set(control.ids.tolist()))
    assert not set(control.ids.tolist()) & set(atoms.ids.tolist())
    assert torch.equal(control.ids, random_word_atoms(lm, golf, atoms, seed=1).ids)
    assert not torch.equal(control.ids, random_word_atoms(lm, golf, atoms, seed=2).ids)


def test_a_concept_without_words(lm, golf):
    with pytest.raises(ConceptLabError, match="No word of golf is a single token"):
        word_atoms(lm, replace(golf, words=()), 0)
