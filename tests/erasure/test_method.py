"""Methods of erasure behind one interface: the registry, what methods share, how strengths are chosen."""

import json
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from math import prod
from pathlib import Path

import pytest
import torch

from conceptlab import cli, erasure
from conceptlab.core import ConceptLabError, NotPossible
from conceptlab.data import activations, load_concept
from conceptlab.edits import Dense, WeightEdit
from conceptlab.erasure import (
    SETTINGS,
    EmberConfig,
    Feature,
    Filtered,
    Fitted,
    Method,
    Shared,
    choose,
    controls,
    get_method,
    methods,
    shipped_dictionaries,
)
from conceptlab.erasure import method as interface
from conceptlab.erasure import shared as parts
from conceptlab.erasure.embedding import EmbeddingConfig
from conceptlab.sae import TrainConfig, command
from sentences import sentences
from signatures import signature
from sizes import SMALL

EMBER = EmberConfig(12, 0.05, iterations=4, mass_ratio=0.05, min_share=0.0, n_texts=20)
FROZEN = TrainConfig(d_sae=32, k=4, steps=20, batch_size=64, architecture="batchtopk", freeze_decoder=True)
EDITS_BEFORE = json.loads((Path(__file__).parent / "edits_before.json").read_text(encoding="utf-8"))


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama(initializer_range=0.5, tie_word_embeddings=True)


@pytest.fixture(autouse=True)
def kept(monkeypatch, tmp_path):
    """Finished searches go to a folder of the test's own."""
    monkeypatch.setattr(interface, "cache_dir", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "search"


@pytest.fixture
def small(monkeypatch, tmp_path, lm):
    """Factorisations and trainings small enough for a tiny model."""
    known = dict(methods())
    for name in ("embedding", "pisces+embedding"):
        method = known[name]
        known[name] = replace(method, config=replace(method.config, ember=EMBER))
    monkeypatch.setattr(controls, "mixture", lambda: (sentences(60, 0), []))
    frozen = replace(known["frozen_decoder"].config, n_tokens=2_000, train=FROZEN)
    known["frozen_decoder"] = replace(known["frozen_decoder"], config=frozen)
    monkeypatch.setattr(controls, "FROZEN_DECODER", known["frozen_decoder"])
    for module in (command, activations):
        monkeypatch.setattr(module, "cache_dir", lambda: tmp_path / "small")
    monkeypatch.setattr(interface, "_METHODS", known)


# ---- the registry -----------------------------------------------------------------------------------------
def test_every_method_is_tuned_with_as_many_settings():
    for method in methods().values():
        assert is_dataclass(method.config) and method.source and method.fit.__doc__ or method.kind == "control"
        if method.knobs or method.kind != "control":
            assert prod(len(values) for values in method.knobs.values()) == SETTINGS, method.name


def test_every_field_of_a_config_is_a_number_a_word_or_another_config():
    for method in methods().values():
        for f in fields(method.config):
            value = getattr(method.config, f.name)
            assert isinstance(value, int | float | str) or is_dataclass(value), (method.name, f.name)


def test_unknown_and_double_names_are_refused():
    with pytest.raises(ConceptLabError, match="Unknown method 'magic'; nearest are .*`conceptlab methods` lists all"):
        get_method("magic")
    with pytest.raises(ConceptLabError, match="There is a method 'pisces' already"):
        erasure.register(replace(get_method("pisces"), source="somebody else"))
    assert erasure.register(get_method("pisces")) is get_method("pisces")


@dataclass(frozen=True)
class ToyConfig:
    """A toy's strength."""

    amount: float = 1.0


class AtRunTime:
    """An intervention that changes no weight."""

    def applied(self, lm):
        return nullcontext(lm)


def toy_fit(lm, concept, config, shared):
    """Adds a constant to one weight."""
    delta = torch.zeros(lm.d_model, lm.d_mlp)
    delta[0, 0] = config.amount
    return WeightEdit(lm.name, {lm.down_proj_name(0): Dense(delta)})


TOY = Method("toy", "vectors", "a test", ToyConfig(), toy_fit, {"amount": (0.5, 1.0)})


@pytest.mark.parametrize("way", ["register", "entry point"])
def test_a_method_from_outside_the_package(lm, monkeypatch, way, capsys):
    """The walk of docs/adding_a_method.md."""
    if way == "register":
        monkeypatch.setattr(interface, "_METHODS", dict(methods()))
        erasure.register(TOY)
    else:
        entry = type("Entry", (), {"load": lambda self: TOY})()
        monkeypatch.setattr(interface, "_METHODS", {})
        monkeypatch.setattr(interface, "entry_points", lambda group: [entry] if group == interface.GROUP else [])
    concept = load_concept("golf")
    fitted = choose("toy", lm, concept, Shared(lm, concept, {}, SMALL))
    assert fitted.setting["amount"] in (0.5, 1.0) and fitted.config == ToyConfig(fitted.setting["amount"])
    assert cli.main(["methods", "--kind", "vectors"]) == 0 and "toy" in capsys.readouterr().out


def test_a_method_must_make_sense():
    for wrong, message in (({"config": ToyConfig}, "an instance"), ({"kind": "art"}, "Unknown kind"),
                           ({"knobs": {"tau": (1.0,)}}, "does not have")):  # fmt: skip
        with pytest.raises(ConceptLabError, match=message):
            replace(TOY, **wrong)


def test_what_starts_from_an_edit_of_weights_is_told_where_there_is_none(lm):
    fitted = Fitted("toy", ToyConfig(), toy_fit(lm, None, ToyConfig(), None), {})
    assert fitted.edit is fitted.intervention
    with pytest.raises(ConceptLabError, match="toy works at run time and leaves no edit of weights"):
        _ = replace(fitted, intervention=AtRunTime()).edit


def test_numbers_of_a_setting_take_the_types_of_the_config():
    config = get_method("pisces").at({"n": 5.0, "mu": 3})
    assert config.n == 5 and isinstance(config.n, int) and isinstance(config.mu, float)


# ---- what methods share -----------------------------------------------------------------------------------
def test_parts_are_made_once_and_on_the_original(lm, saes):
    concept = load_concept("golf")
    shared, made = Shared(lm, concept, saes, SMALL), []
    assert shared.made("x", lambda: made.append(1) or 7) == shared.made("x", lambda: made.append(1) or 7) == 7
    assert made == [1] and shared.features is shared.features
    edit = toy_fit(lm, concept, ToyConfig(), shared)
    with edit.applied(lm):
        assert shared.features  # made before
        with pytest.raises(ConceptLabError, match="made on the original, so ask for it outside `applied`"):
            shared.made("y", lambda: 0)
        with pytest.raises(ConceptLabError, match="outside `applied`"):
            choose("pisces", lm, concept, shared)
    with pytest.raises(ConceptLabError, match="These parts are of golf"):
        choose("pisces", lm, load_concept("japan"), shared)


def test_texts_to_forget_hold_no_fact_that_a_strength_is_chosen_on(lm):
    concept = load_concept("golf")
    shared = Shared(lm, concept, {}, SMALL)
    chosen_on = shared.judge.questions["target"]
    assert chosen_on and not any(f"{q.q}" in text for text in shared.forget for q in chosen_on)
    assert any(concept.dev[0].q in text for text in shared.forget)
    assert shared.keep and not {*shared.keep} & {*shared.forget}


def test_features_by_evidence_pass_the_filters_of_the_paper(lm, saes, monkeypatch):
    concept, seen = load_concept("golf"), {}
    proposed = [Feature(1, 3), Feature(1, 5, -1), Feature(1, 8)]
    monkeypatch.setattr(parts, "find_features", lambda *_, **sizes: seen.update(find=sizes) or proposed)

    def filters(lm, saes, features, concept, make, n_prompts, n_questions):
        seen.update(features=features, edit=make(features[1]), sizes=(n_prompts, n_questions))
        return Filtered(tuple(features[1:]), ((features[0], "no"),))

    monkeypatch.setattr(parts, "filter_features", filters)
    cfg = replace(SMALL, finding="evidence", n_evidence=5)
    shared = Shared(lm, concept, saes, cfg)
    assert [(f.layer, f.index, f.sign) for f in shared.features] == [(1, 5, -1), (1, 8, 1)]
    assert all(f.reach > 0 for f in shared.candidates) and seen["features"] == shared.candidates
    assert seen["edit"].info["features"] == [[1, 5, -1]] and seen["find"]["n_texts"] == 5
    assert seen["sizes"] == (SMALL.n_asked, SMALL.n_asked), "dev questions, none on which strengths are chosen"
    monkeypatch.setattr(parts, "filter_features", lambda *_: Filtered((), ()))
    again = Shared(lm, concept, saes, cfg)
    assert again.features == again.candidates[:3]
    with pytest.raises(ConceptLabError, match='found by "reach" or by "evidence"; got \'magic\''):
        replace(SMALL, finding="magic")


def test_models_without_dictionaries(lm):
    with pytest.raises(ConceptLabError, match="No dictionary of tiny-llama is shipped"):
        shipped_dictionaries(lm)


# ---- every method -----------------------------------------------------------------------------------------
def test_what_is_edited_by_which_method(lm, saes, kept, small):
    concept = load_concept("golf")
    shared = Shared(lm, concept, saes, SMALL)
    before = lm.fingerprint()
    known = {name: m for name, m in methods().items() if not of_localised(m)}
    fitted = {name: shared.chosen(name) for name in known}
    edits = {name: found.intervention for name, found in fitted.items()}
    assert lm.fingerprint() == before
    layers = {lm.down_proj_name(f.layer) for f in shared.edited}
    assert 1 <= len(shared.edited) <= 2 and shared.edited == shared.features[: len(shared.edited)]
    assert set(edits["directional"].changes) == {lm.down_proj_name(f.layer) for f in shared.features}
    embedding = set(edits["embedding"].changes)
    assert set(edits["pisces+embedding"].changes) == layers | embedding and not layers & embedding
    assert set(edits["words"].changes) == set(edits["random_words"].changes) == embedding
    assert set(edits["pisces+words"].changes) == layers | embedding
    both = {lm.embedding_name()}  # of a model that ties embedding and unembedding
    assert set(edits["words_both"].changes) == set(edits["random_words_both"].changes) == both != embedding
    assert set(edits["pisces+words_both"].changes) == layers | both
    assert edits["random_words"].info["delta"] == fitted["words"].config.delta
    assert fitted["zeroed_vectors_matched"].config.n in (2, 20)
    for name in ("pisces", "random_features", "other_features", "permuted_neurons", "random_direction", "random_norm"):
        assert set(edits[name].changes) == layers, name
    norms = {name: edit.report(lm)["norm"] for name, edit in edits.items() if isinstance(edit, WeightEdit)}
    assert {name for name in edits if name not in norms} == {m.name for m in methods().values() if m.kind == "run-time"}
    assert norms["random_norm"] == pytest.approx(norms["pisces"], rel=1e-3)
    assert norms["permuted_neurons"] == pytest.approx(norms["pisces"], rel=1e-3)
    assert set(edits["frozen_decoder"].changes) <= layers
    assert norms["random_features"] == pytest.approx(norms["pisces"], rel=1e-3)
    for name in ("gradient_difference", "npo"):
        assert all("mlp" in weight for weight in edits[name].changes) and fitted[name].config.scale in (0.5, 1.0)
    searched = [name for name, method in known.items() if method.knobs and method.match is None]
    assert len(list(kept.glob("*.json"))) == len(searched)
    for name, found in fitted.items():
        assert bool(found.setting) == bool(methods()[name].knobs) and found.method == name


def of_localised(method):
    """Whether it stands in `localised/`: those are fitted in tests/erasure/localised."""
    return method.fit.__module__.startswith("conceptlab.erasure.localised") or method.name.startswith("snmf")


def test_without_dictionaries_only_some_methods_work(lm):
    shared = Shared(lm, load_concept("golf"), {}, SMALL)
    assert shared.chosen("zeroed_vectors").intervention.changes
    with pytest.raises(NotPossible, match="no dictionaries to find any in"):
        shared.chosen("pisces")


def test_vectors_are_as_many_as_cost_what_pisces_costs(lm, saes, monkeypatch):
    cost = {"pisces": 2.0, 2: 0.5, 20: 1.9}
    monkeypatch.setattr(Shared, "lost", lambda self, edit: cost[edit.info.get("n", "pisces")])
    concept = load_concept("golf")
    assert choose("zeroed_vectors_matched", lm, concept, Shared(lm, concept, saes, SMALL)).config.n == 20
    cost["pisces"] = 0.6
    again = choose("zeroed_vectors_matched", lm, concept, Shared(lm, concept, saes, SMALL))
    assert again.config.n == 2 and again.intervention.info["n"] == 2  # 20 were tried, and cost too much
    grids = {**SMALL.grids, "zeroed_vectors_matched": {"n": (10**9,)}}
    few = Shared(lm, concept, saes, replace(SMALL, grids=grids))
    with pytest.raises(NotPossible, match="no edit to choose from"):
        choose("zeroed_vectors_matched", lm, concept, few)


def test_strengths_are_chosen_on_dev_and_kept(lm, saes, kept, monkeypatch):
    concept, seen = load_concept("golf"), []
    shared, real = Shared(lm, concept, saes, SMALL), interface.search_settings

    def spy(lm, concept, axes, make, cfg, path, judge):
        found = real(lm, concept, axes, make, cfg, path, judge=judge)
        seen.append((path, {q.id for qs in judge.questions.values() for q in qs}))
        return found

    monkeypatch.setattr(interface, "search_settings", spy)
    fitted = shared.chosen("zeroed_vectors")
    assert shared.chosen("zeroed_vectors") is fitted and fitted.setting["n"] == fitted.intervention.info["n"]
    (path, asked), test = seen[0], {q.id for q in (*concept.test, *concept.neighbour.test)}
    assert path.exists() and asked and not asked & test
    assert isinstance(fitted, Fitted) and fitted.tried == 2


def test_a_search_is_another_one_on_other_weights_or_questions(lm, saes, kept, tiny_llama):
    concept = load_concept("golf")
    choose("zeroed_vectors", lm, concept, Shared(lm, concept, saes, SMALL))
    choose("zeroed_vectors", lm, concept, Shared(lm, concept, saes, SMALL))
    assert len(list(kept.glob("*.json"))) == 1
    fewer = replace(concept, dev=concept.dev[:-1])
    choose("zeroed_vectors", lm, fewer, Shared(lm, fewer, saes, SMALL))
    other = tiny_llama(initializer_range=0.5, tie_word_embeddings=True, seed=1)  # of the same name
    choose("zeroed_vectors", other, concept, Shared(other, concept, saes, SMALL))
    assert len(list(kept.glob("*.json"))) == 3


@pytest.mark.parametrize("name", sorted(EDITS_BEFORE))
def test_the_edits_are_those_of_before_the_interface(smollm2, name):
    """All sixteen methods that the library had, at the strengths it had chosen.

    They were equal to the bit when they moved onto the interface. Since then decoder norms no longer matter (fault A4);
    those of the shipped dictionaries are 1 to within .002, so what is written along them differs in the third digit.
    """
    concept = load_concept(name)
    shared = Shared(smollm2, concept)
    for method_name, before in EDITS_BEFORE[name].items():
        method, setting = get_method(method_name), before["setting"]
        edit = method.fit(smollm2, concept, method.at(setting), shared)
        if setting:  # what combinations and controls start from
            shared._chosen[method_name] = Fitted(method_name, method.at(setting), edit, setting)
        now = signature(edit)
        assert now.keys() == before["signature"].keys(), method_name
        for weight, numbers in before["signature"].items():
            assert now[weight] == pytest.approx(numbers, rel=5e-3, abs=5e-3 * numbers[0]), (method_name, weight)


# ---- the command ------------------------------------------------------------------------------------------
def test_the_command(lm, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("conceptlab.models.load_model", lambda name: lm)
    monkeypatch.setattr("conceptlab.erasure.SharedConfig", lambda: SMALL)
    out = tmp_path / "golf.safetensors"
    assert cli.main(["erase", "golf", "--method", "zeroed_vectors", "--out", str(out), "--card"]) == 0
    said = capsys.readouterr().out
    assert "zeroed_vectors: {'n':" in said and "overall" in said
    assert WeightEdit.load(out).info["method"] == "zeroed_vectors"
    assert cli.main(["erase", "golf"]) == 1 and "else nothing would be kept" in capsys.readouterr().err
    assert cli.main(["erase", "golf", "--card"]) == 1
    assert "No dictionary of tiny-llama is shipped" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--method words --finding evidence", "words needs no dictionary; leave out --features"),
        ("--features 1:2 --finding reach", "there are none to find; leave out --finding."),
        ("--method magic", "Unknown method 'magic'; nearest are"),
    ],
)
def test_options_that_contradict_each_other_are_told_before_a_model_is_loaded(line, message, capsys):
    assert cli.main(["erase", "golf", "--card", *line.split()]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("option", ["--out", "--export"])
@pytest.mark.parametrize("what", ["a folder", "a file", "below a file", "a device", "a link"])
def test_outputs_are_checked_before_a_model_is_loaded(option, what, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("conceptlab.models.load_model", lambda name: pytest.fail("a model was loaded"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    places = {"a folder": "folder", "a file": "file", "below a file": "file/below", "a link": "link"}
    place = "/dev/null" if what == "a device" else str(tmp_path / places[what])
    if (option, what) == ("--out", "a file"):
        place = str(tmp_path / "folder" / "..")  # a file may be replaced by a file, so another folder
    assert cli.main(["erase", "golf", option, place]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and (tmp_path / "file").read_text(encoding="utf-8") == "kept"


def test_the_embedding_edit_factorises_once_for_all_strengths(lm, monkeypatch):
    concept, calls = load_concept("golf"), []
    real = erasure.embedding.concept_atoms
    monkeypatch.setattr(erasure.embedding, "concept_atoms", lambda *a: calls.append(1) or real(*a))
    shared = Shared(lm, concept, {}, SMALL)
    for delta in (1.0, 2.0):
        get_method("embedding").fit(lm, concept, EmbeddingConfig(delta, EMBER), shared)
    assert calls == [1]
