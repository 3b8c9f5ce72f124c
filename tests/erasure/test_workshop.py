"""One concept's erasure on a tiny model: what is chosen on dev, what is kept, and the command."""

from dataclasses import replace

import pytest

from conceptlab import cli
from conceptlab.core import ConceptLabError
from conceptlab.data import load_concept
from conceptlab.edits import WeightEdit
from conceptlab.erasure import METHODS, Erasure, Feature, Filtered, shipped_dictionaries
from conceptlab.erasure import workshop as module
from sizes import SMALL


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.5, tie_word_embeddings=True)


@pytest.fixture(autouse=True)
def kept(monkeypatch, tmp_path):
    """Finished searches go to a folder of the test's own."""
    monkeypatch.setattr(module, "cache_dir", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "search"


def test_what_is_edited_by_which_method(lm, saes, kept):
    work = Erasure(lm, saes, load_concept("golf"), SMALL)
    assert 1 <= len(work.edited) <= 2 and work.edited == work.features[: len(work.edited)]
    layers = {lm.down_proj_name(f.layer) for f in work.edited}
    edits = {method: work.edit(method) for method in METHODS}
    assert set(edits["directional"].changes) == {lm.down_proj_name(f.layer) for f in work.features}
    embedding = set(edits["embedding"].changes)
    assert set(edits["pisces_embedding"].changes) == layers | embedding and not layers & embedding
    assert set(edits["words"].changes) == set(edits["random_words"].changes) == embedding
    assert set(edits["pisces_words"].changes) == layers | embedding
    shared = {lm.embedding_name()}  # of a model that ties embedding and unembedding
    assert set(edits["words_both"].changes) == set(edits["random_words_both"].changes) == shared != embedding
    assert set(edits["pisces_words_both"].changes) == layers | shared
    assert edits["random_words"].info["delta"] == work.settings["words"]["delta"]
    assert work.settings["needle_matched"]["n"] in (2, 20)
    for method in ("pisces", "random_features", "random_decoder", "random_direction", "random_norm"):
        assert set(edits[method].changes) == layers, method
    norms = {method: edit.report(lm)["norm"] for method, edit in edits.items()}
    assert norms["random_norm"] == pytest.approx(norms["pisces"], rel=1e-3)
    assert norms["random_features"] == pytest.approx(norms["pisces"], rel=1e-3)
    searched = {"pisces", "directional", "embedding", "words", "pisces_embedding", "pisces_words", "needle"}
    searched |= {"words_both", "pisces_words_both"}
    assert set(work.settings) == searched | {"needle_matched"}
    assert len(list(kept.glob("*.json"))) == len(searched)


def test_without_dictionaries_only_some_methods_work(lm):
    work = Erasure(lm, {}, load_concept("golf"), SMALL)
    assert work.features == [] and work.edit("needle").changes
    with pytest.raises(ConceptLabError, match="No features were given"):
        work.edit("pisces")


def test_needle_takes_as_many_vectors_as_cost_what_pisces_costs(lm, saes, monkeypatch):
    work = Erasure(lm, saes, load_concept("golf"), SMALL)
    cost = {"pisces": 2.0, 2: 0.5, 20: 1.9}
    monkeypatch.setattr(Erasure, "_lost", lambda self, edit: cost[edit.info.get("n", "pisces")])
    assert work.edit("needle_matched").info["n"] == 20
    cost["pisces"] = 0.6
    again = Erasure(lm, saes, load_concept("golf"), SMALL)
    assert again.edit("needle_matched").info["n"] == 2  # 20 were tried, and cost too much
    few = Erasure(lm, saes, load_concept("golf"), replace(SMALL, matched_n=(10**9,)))
    with pytest.raises(ConceptLabError, match="no edit to choose from"):
        few.edit("needle_matched")


def test_strengths_are_chosen_on_dev_and_kept(lm, saes, monkeypatch):
    work = Erasure(lm, saes, load_concept("golf"), SMALL)
    seen = []
    real = module.search_settings

    def spy(lm, concept, axes, make, cfg, path, judge):
        found = real(lm, concept, axes, make, cfg, path, judge=judge)
        seen.append((path.exists(), {q.id for qs in judge.questions.values() for q in qs}))
        return found

    monkeypatch.setattr(module, "search_settings", spy)
    edit = work.edit("needle")
    assert work.edit("needle") is edit and work.settings["needle"]["n"] == edit.info["n"]
    there, asked = seen[0]
    test = {q.id for q in (*work.concept.test, *work.concept.neighbour.test)}
    assert there and asked and not asked & test
    with pytest.raises(ConceptLabError, match="Unknown method 'magic'; known are pisces"):
        work.edit("magic")


def test_features_by_evidence_pass_the_filters_of_the_paper(lm, saes, monkeypatch):
    concept, seen = load_concept("golf"), {}
    proposed = [Feature(1, 3), Feature(1, 5, -1), Feature(1, 8)]
    monkeypatch.setattr(module, "find_features", lambda *_, **sizes: seen.update(find=sizes) or proposed)

    def filters(lm, saes, features, concept, make, n_prompts, n_questions):
        seen.update(features=features, edit=make(features[1]), sizes=(n_prompts, n_questions))
        return Filtered(tuple(features[1:]), ((features[0], "no"),))

    monkeypatch.setattr(module, "filter_features", filters)
    work = Erasure(lm, saes, concept, replace(SMALL, finding="evidence", n_evidence=5))
    assert [(f.layer, f.index, f.sign) for f in work.features] == [(1, 5, -1), (1, 8, 1)]
    assert all(f.reach > 0 for f in work.candidates) and seen["features"] == work.candidates
    assert seen["edit"].info["features"] == [[1, 5, -1]] and seen["find"]["n_texts"] == 5
    assert seen["sizes"] == (SMALL.n_asked, SMALL.n_asked), (
        "dev questions, so that none is taken on which strengths are"
    )
    monkeypatch.setattr(module, "filter_features", lambda *_: Filtered((), ()))
    assert Erasure(lm, saes, concept, work.cfg).features == work.candidates[:3]
    with pytest.raises(ConceptLabError, match='found by "reach" or by "evidence"; got \'magic\''):
        Erasure(lm, saes, concept, replace(SMALL, finding="magic"))


def test_models_without_dictionaries(lm):
    with pytest.raises(ConceptLabError, match="No dictionary of tiny-llama is shipped"):
        shipped_dictionaries(lm)


def test_the_command(lm, tmp_path, monkeypatch, capsys):
    import conceptlab.models

    monkeypatch.setattr(conceptlab.models, "load_model", lambda name: lm)
    monkeypatch.setattr("conceptlab.erasure.ErasureConfig", lambda: SMALL)
    out = tmp_path / "golf.safetensors"
    assert cli.main(["erase", "golf", "--method", "needle", "--out", str(out), "--card"]) == 0
    said = capsys.readouterr().out
    assert "needle: {'n':" in said and "overall" in said
    assert WeightEdit.load(out).info["method"] == "needle"
    assert cli.main(["erase", "golf"]) == 1 and "else nothing would be kept" in capsys.readouterr().err
    assert cli.main(["erase", "golf", "--card"]) == 1
    assert "No dictionary of tiny-llama is shipped" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--method words --finding evidence",
            "words needs no dictionary; leave out --features",
        ),
        ("--features 1:2 --finding reach", "there are none to find; leave out --finding."),
    ],
)
def test_options_that_contradict_each_other_are_told_before_a_model_is_loaded(line, message, capsys):
    assert cli.main(["erase", "golf", "--card", *line.split()]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
