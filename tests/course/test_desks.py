"""Erasure desk and attack desk on a tiny model: the widget draws what the plain functions give."""

import pytest
import torch

from conceptlab import sae as S
from conceptlab.core import ConceptLabError
from conceptlab.course.widgets import (
    answers_html,
    attack_desk,
    attack_edits,
    attack_figure,
    erase,
    erasure_desk,
    erasure_figure,
    feature_places,
    png,
    transcript_html,
)
from conceptlab.data import load_concept
from conceptlab.erasure import Feature


@pytest.fixture
def desk(tiny_llama):
    lm = tiny_llama()
    sae = S.TopKSAE(S.SAEConfig("topk", lm.d_model, 40, 2, lm.name, 1, lm.mlp_output(1))).requires_grad_(False)
    return lm, {1: sae}, load_concept("golf")


def test_features_are_read_as_written_and_refused_where_they_are_not_there(desk):
    saes = desk[1]
    assert feature_places("1:3, 1:-7", saes) == [Feature(1, 3), Feature(1, 7, -1)]
    for text, said in (("", "layer:feature"), ("1-3", "layer:feature"), ("5:1", "layer 5"), ("1:40", "0 to 39")):
        with pytest.raises(ConceptLabError, match=said):
            feature_places(text, saes)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tau": 1.0}, "tau"),
        ({"tau": -0.1}, "tau"),
        ({"mu": 0.0}, "mu"),
        ({"mu": 1e4}, "mu"),
        ({"n_questions": 2}, "4 to 60"),
    ],
)
def test_settings_out_of_range_are_refused(desk, settings, said):
    with pytest.raises(ConceptLabError, match=said):
        erase(*desk, [Feature(1, 3)], **settings)


def test_erasing_leaves_the_model_as_it_was_and_has_a_control(desk):
    lm, saes, concept = desk
    before = lm.fingerprint()
    found = erase(lm, saes, concept, [Feature(1, 3)], 0.5, 16.0, 4)
    assert lm.fingerprint() == before
    assert list(found.scores) == ["original", "edited", "same rows, other features"]
    original, edited, control = (by_set["target"].logprobs for by_set in found.scores.values())
    assert not torch.equal(original, edited) and not torch.equal(edited, control)
    assert answers_html(found, 2).count("<tr>") == 3


def test_the_erasure_desk_shows_what_the_functions_give(desk):
    lm, saes, concept = desk
    panel = erasure_desk(lm, saes, {"Golf": (concept, [Feature(1, 3)])})
    assert panel.controls["features"].value == "1:3" and panel.image.value == b""
    panel.controls["n_questions"].value = 4
    panel.button.click()
    again = erase(lm, saes, concept, [Feature(1, 3)], 0.5, 16.0, 4)
    assert panel.image.value == png(erasure_figure(again, "Golf: 1 features, mu 16"))
    assert panel.text.value == answers_html(again)
    panel.controls["mu"].value = -1.0
    panel.button.click()
    assert "mu is the strength" in panel.message.value and panel.image.value == b""
    assert panel.controls["mu"].value == -1.0, "refused, not clipped"


def test_the_attack_desk_shows_what_the_functions_give(desk, monkeypatch):
    from conceptlab.course.widgets import desks

    lm, saes, concept = desk
    questions = concept.dev[:4]
    monkeypatch.setattr(desks, "known_questions", lambda *_: questions)  # a random model knows none
    edit = erase(lm, saes, concept, [Feature(1, 3)], 0.5, 16.0, 4).edit
    edits = {"original": None, "erased": edit}
    found = attack_edits(lm, edits, concept, "relearning", 1, 4)
    assert found.strengths == ("0", "1") and set(found.values) == set(edits)
    assert "asks nothing" in transcript_html(found)
    panel = attack_desk(lm, edits, concept)
    panel.controls["steps"].value, panel.controls["n_questions"].value = 1, 4
    panel.button.click()
    assert panel.image.value == png(attack_figure(found, "Golf under relearning")), panel.message.value
    panel.controls["steps"].value = 0
    panel.button.click()
    assert "1 to 60 steps" in panel.message.value
    with pytest.raises(ConceptLabError, match="Live attacks are"):
        attack_edits(lm, edits, concept, "gcg")
