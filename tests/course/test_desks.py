"""Erasure desk and attack desk on a tiny model: the widget draws what the plain functions give."""

import pytest
import torch

from conceptlab import sae as S
from conceptlab.core import ConceptLabError
from conceptlab.course.widgets import (
    ShownErasure,
    Start,
    answers_html,
    attack_desk,
    attack_edits,
    attack_figure,
    desk_starts,
    erase,
    erasure_desk,
    erasure_figure,
    feature_places,
    png,
    signs_of,
    transcript_html,
)
from conceptlab.course.widgets.desks import efficacy_html
from conceptlab.data import list_concepts, load_concept
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
        ({"method": "npo"}, "Live methods are"),
        ({"method": "words", "mu": 16.0}, "at most 3 for words"),
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
    assert panel.image.value == png(erasure_figure(again, "Golf: 1 feature, mu 16"))
    assert panel.text.value == efficacy_html(again) + answers_html(again)
    panel.controls["mu"].value = -1.0
    panel.button.click()
    assert "mu is the strength" in panel.message.value and panel.image.value == b""
    assert panel.controls["mu"].value == -1.0, "refused, not clipped"


def test_features_are_switched_on_and_off_and_handed_on(desk):
    from conceptlab.autointerp import FeatureLabel
    from conceptlab.course.widgets import FeatureBrowser

    lm, saes, concept = desk
    panel = erasure_desk(lm, saes, {"Golf": (concept, [Feature(1, 3), Feature(1, 7, -1)])})
    places = panel.controls["features"]
    assert places.value == "1:3, 1:-7" and [t.value for t in places.ticks.values()] == [True, True]
    places.ticks["1:3"].value = False
    assert places.value == "1:-7"
    browser = FeatureBrowser(
        [FeatureLabel(1, 5, "tea", "ensemble", True, 0.1, {}, None, (" tea",))], words="tea", desk=panel
    )
    button = browser.children[0].children[-1]
    assert button.description == "edit with this feature"
    for _ in range(2):
        button.click()
    places.add("1:3")
    assert places.value == "1:3, 1:-7, 1:5" and "is on" in browser.panel.message.value
    panel.controls["method"].value = "words"
    assert panel.controls["mu"].value == 1.0 and places.layout.display == "none"
    browser.box.value = "desert"
    button.click()
    assert "No feature is shown" in browser.panel.message.value


def test_efficacy_and_specificity_are_corrected_for_guessing():
    right = {"original": {"target": [1, 1, 1, 1], "near": [1, 1, 1, 1], "general": [1, 1, 1, 1]},
             "edited": {"target": [1, 0, 0, 0], "near": [1, 1, 1, 0], "general": [1, 1, 1, 1]}}  # fmt: skip
    assert "edited: efficacy 100%, specificity 80%" in efficacy_html(ShownErasure(right, []))
    right["original"] = dict.fromkeys(right["original"], [1, 0, 0, 0])
    assert "efficacy not measurable, specificity not measurable" in efficacy_html(ShownErasure(right, []))


def test_every_concept_has_its_features_and_signs_of_its_own(desk, monkeypatch):
    from types import SimpleNamespace

    from conceptlab.course.widgets import desks

    lm, saes, golf = desk
    japan, asked = load_concept("japan"), []

    def shared(lm, concept, saes):
        asked.append(concept.name)
        return SimpleNamespace(signs={1: torch.ones(lm.d_mlp)})

    monkeypatch.setattr(desks, "Shared", shared)
    starts = {"Golf": Start(golf, [Feature(1, 3)], 0.4, 10.0), "Japan": (japan, [Feature(1, 7)])}
    panel = erasure_desk(lm, saes, starts, signs_of(lm, saes, {"golf": {1: -torch.ones(lm.d_mlp)}}))
    assert [panel.controls[k].value for k in ("features", "tau", "mu")] == ["1:3", 0.4, 10.0]
    panel.controls["n_questions"].value = 4
    panel.button.click()
    assert asked == [] and panel.last is not None and panel.message.value == ""
    panel.controls["title"].value = "Japan"
    assert [panel.controls[k].value for k in ("features", "tau", "mu")] == ["1:7", 0.5, 16.0]
    for _ in range(2):
        panel.button.click()
    assert asked == ["japan"], "once a concept"
    assert desk_starts(lm) == {}
    monkeypatch.setattr(lm, "name", "smollm2-135m")
    found = desk_starts(lm, {"Japan": Start(japan, [])})
    assert len(found) == len(list_concepts()) == 16 and next(iter(found)) == "Japan"
    assert all(x.features and x.mu > 0 for title, x in found.items() if title != "Japan")


def test_words_are_edited_live_beside_as_many_other_words(desk, monkeypatch):
    from conceptlab.course.widgets import desks
    from conceptlab.erasure.embedding import ConceptAtoms

    lm, saes, concept = desk

    def atoms(ids):
        index = torch.tensor(ids)
        parts = lm.embedding()[index].float() - lm.embedding().float().mean(0)
        return ConceptAtoms(index, parts, len(ids), 1.0, tuple((w,) for w in lm.words(index)), {})

    monkeypatch.setattr(desks, "word_atoms", lambda *_: atoms([400, 500]))
    monkeypatch.setattr(desks, "random_word_atoms", lambda *_: atoms([600, 700]))
    found = erase(lm, saes, concept, [], 0.5, 1.0, 4, method="words")
    assert list(found.scores) == ["original", "edited", "as many other words"]
    shown = found.shown()
    assert len(shown.rows) == len(shown.right["edited"]["target"]) == 4 and len(shown.rows[0]) == 5
    assert answers_html(shown) == answers_html(found)


def test_the_attack_desk_shows_what_the_functions_give(desk, monkeypatch):
    from conceptlab.course.widgets import attacking

    lm, saes, concept = desk
    questions = concept.dev[:4]
    monkeypatch.setattr(attacking, "known_questions", lambda *_: questions)  # a random model knows none
    edit = erase(lm, saes, concept, [Feature(1, 3)], 0.5, 16.0, 4).edit
    edits = {"original": None, "erased": edit}
    found = attack_edits(lm, edits, concept, "relearning", 1, 4)
    assert found.strengths == ("0", "1") and set(found.values) == set(edits)
    assert "asks nothing" in transcript_html(found)
    panel = attack_desk(lm, edits, concept)
    panel.controls["steps"].value, panel.controls["n_questions"].value = 1, 4
    panel.button.click()
    assert panel.image.value == png(attack_figure(found, "Golf under relearning")), panel.message.value
    assert panel.controls["edit"].options == ("all of them", "erased")
    panel.controls["steps"].value = 0
    panel.button.click()
    assert "1 to 60 steps" in panel.message.value
    for n in (3, 61):
        panel.controls["steps"].value, panel.controls["n_questions"].value = 1, n
        panel.button.click()
        assert "Ask 4 to 60 questions" in panel.message.value and panel.controls["n_questions"].value == n
    panel.controls["n_questions"].value = 12
    panel.button.click()
    assert "knows only 4 of these" in panel.text.value
    with pytest.raises(ConceptLabError, match="Live attacks are"):
        attack_edits(lm, edits, concept, "gcg")
