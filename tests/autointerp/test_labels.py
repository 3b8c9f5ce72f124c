"""Label files, the search in them, controls at equal rates, and the commands that fill them, on a tiny dictionary."""

import dataclasses
import gzip
import json
import re
import sys

import pytest
import torch

from conceptlab.core import ConceptLabError, read_table
from sentences import sentences


def record(feature, label="on ' king'", layer=0, explained=True, **changes):
    from conceptlab.autointerp import FeatureLabel

    fields = {"rate": 0.01, "scores": {"detection_auroc": (0.9, 0.8, 0.95)}, "control_high": 0.7} | changes
    return FeatureLabel(layer, feature, label, "ensemble", explained, **fields)


def test_files_are_read_as_written_and_equal_records_give_equal_bytes(tmp_path):
    from conceptlab.autointerp import labelled_layers, labels_path, read_labels, write_labels

    records = [record(7, top_tokens=(" Nile", " é"), promoted=(" water",)), record(2, "unexplained", explained=False)]
    path = labels_path("owner/model", 4, tmp_path)
    assert path == tmp_path / "owner_model" / "layer_04.jsonl.gz" and labelled_layers("owner/model", tmp_path) == ()
    write_labels(path, records)
    first = path.read_bytes()
    write_labels(path, records[::-1])
    assert path.read_bytes() == first and read_labels("owner/model", 4, tmp_path) == records[::-1]
    assert labelled_layers("owner/model", tmp_path) == (4,)
    lines = gzip.decompress(first).decode().splitlines()
    assert [json.loads(line)["feature"] for line in lines] == [2, 7]
    assert first[4:8] == bytes(4) and first[3] == 0, "no time and no file name in the header"


def test_files_that_cannot_be_read(tmp_path):
    from conceptlab.autointerp import labels_path, load_records, read_labels, write_labels

    path = labels_path("m", 6, tmp_path)
    with pytest.raises(ConceptLabError, match=r"layer 6 \(labelled layers: none\).*conceptlab label --model m"):
        read_labels("m", 6, tmp_path)
    write_labels(path, [record(i) for i in range(50)])
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"text", gzip.compress(b'{"feature": 1}\n'), gzip.compress(b"[1]\n")):
        path.write_bytes(damaged)
        with pytest.raises(ConceptLabError, match="cannot be read as labels"):
            load_records(path)


def test_one_reader_refuses_what_is_no_label_file(tmp_path):
    from dataclasses import asdict

    from conceptlab.autointerp import load_records

    path = tmp_path / "layer_00.jsonl.gz"
    good = json.loads(json.dumps(asdict(record(1))))
    wrong = [{"layer": -1}, {"feature": "1"}, {"feature": True}, {"label": None}, {"explained": 1}, {"rate": 2},
             {"scores": []}, {"scores": {"f1": [1, 2]}}, {"scores": {"f1": [1, 2, float("nan")]}}, {"words": "word"},
             {"top_tokens": [1]}, {"control_high": "x"}, {"unknown": 1}]  # fmt: skip
    texts = ["", "\n", "null", "7", "[" * 100_000, json.dumps(good | {"layer": 0})[:50], f"{json.dumps(good)}\n" * 2]
    for text in [*texts, *(json.dumps(good | change) for change in wrong)]:
        path.write_bytes(gzip.compress(text.encode()))
        with pytest.raises(ConceptLabError, match=r"layer_00.jsonl.gz cannot be read as labels \(.*\); fetch it again"):
            load_records(path)
    path.write_bytes(b"")
    with pytest.raises(ConceptLabError, match="it is empty"):
        load_records(path)


def test_search_by_concept_stem_and_meaning(tiny_llama):
    from conceptlab.autointerp import search_labels
    from conceptlab.data import load_concept

    lm = tiny_llama()
    records = [record(0, words=("golfers",)), record(1, top_tokens=(" putter",)), record(2, promoted=(" river",))]
    assert [h.record.feature for h in search_labels(records, "golf")] == [0]
    assert [h.record.feature for h in search_labels(records, "golfer")] == [0]
    assert [h.record.feature for h in search_labels(records, "Golf", load_concept("golf"))] == [0, 1]
    near = search_labels(records, "Golf", load_concept("golf"), lm)
    assert [h.record.feature for h in near][:2] == [0, 1], "what matches comes first"
    (best, *_) = search_labels(records, "rivers", lm=lm, n=1)
    assert best.record.feature == 2 and best.writes == (" river",)
    assert search_labels([], "golf", lm=lm) == [] and search_labels([record(0)], "golf", lm=lm) == []


def test_every_title_finds_features(bundled):
    from conceptlab.autointerp import labelled_layers, read_labels, search_labels
    from conceptlab.data import list_concepts, load_concept

    records = [r for layer in labelled_layers(bundled.name) for r in read_labels(bundled.name, layer)]
    concepts = [load_concept(name) for name in list_concepts()]
    assert len(concepts) == 16
    for concept in concepts:
        assert len(search_labels(records, concept.title, concept)) >= 9, concept.title
    assert len(search_labels(records, "Halloween", lm=bundled)) == 10, "by meaning alone"


def test_an_export_has_the_layout_of_neuronpedia(tmp_path):
    from conceptlab.autointerp import write_neuronpedia

    records = [record(i, f"label {i} é $") for i in range(1500)] + [record(9999, "unexplained", explained=False)]
    paths = write_neuronpedia(records, "Owner/Model.1", tmp_path)
    folder = tmp_path / "v1" / "owner-model-1" / "0-conceptlab-mlp-out" / "explanations"
    assert paths == [folder / "batch-0.jsonl.gz", folder / "batch-1.jsonl.gz"]
    rows = [json.loads(x) for p in paths for x in gzip.decompress(p.read_bytes()).decode().splitlines()]
    assert {int(row["index"]): row["description"] for row in rows} == {i: f"label {i} é $" for i in range(1500)}
    columns = ["id", "modelId", "layer", "index", "authorId", "description", "embedding", "typeName",
               "explanationModelName", "umap_x", "umap_y", "umap_cluster", "umap_log_feature_sparsity"]  # fmt: skip
    assert all(list(row) == columns for row in rows) and len({row["id"] for row in rows}) == 1500
    assert [r["index"] for r in rows] == sorted(r["index"] for r in rows) and rows[0][
        "typeName"
    ] == "conceptlab_ensemble"
    texts = ("id", "modelId", "layer", "index", "authorId", "description", "typeName")
    assert all(isinstance(row[name], str) for row in rows for name in texts)
    assert all(row[name] is None for row in rows for name in columns if name not in texts)
    with pytest.raises(ConceptLabError, match="one layer's labels; got 2"):
        write_neuronpedia([record(1), record(1, layer=2)], "m", tmp_path)


def test_the_command_line_refuses_before_it_loads_anything(monkeypatch, tmp_path, capsys):
    import conceptlab.models
    from conceptlab import cli

    monkeypatch.setattr(conceptlab.models, "load_model", lambda name: 1 / 0)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for words, message in (
        ("--n -1", "n must be at least 2; got -1"),
        ("--n 0", "n must be at least 2; got 0"),
        ("--seed -1", "seed must be at least 0"),
        (f"--out {tmp_path / 'file'}", "is a file"),
        (f"--out {tmp_path / 'file' / 'below'}", "is a file"),
        ("--export neuronpedia", "needs --out"),
        (f"--export neuronpedia --model none --out {tmp_path}", "no labels of none"),
        (f"--export neuronpedia --layers 99 --out {tmp_path}", "layer 99"),
    ):
        assert cli.main(["label", *words.split()]) == 1
        assert message in capsys.readouterr().err, words
    assert cli.main(["label", "--export", "neuronpedia", "--layers", "6", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "v1/smollm2-135m/6-conceptlab-mlp-out/explanations/batch-0.jsonl.gz").exists()


def test_words_of_a_concept_lead_to_it_and_stop_words_to_nothing():
    from conceptlab.autointerp import FeatureLabel, meant_by, search_labels
    from conceptlab.data import list_concepts, load_concept

    concepts = [load_concept(name) for name in list_concepts()]
    asked = [("Golf", "golf", True), ("harry_potter", "harry_potter", True), ("the wizard", "harry_potter", False)]
    for query, name, named in (*asked, ("Turing", "artificial_intelligence", False)):
        found, by_name = meant_by(query, concepts)
        assert found is not None and (found.name, by_name) == (name, named)
    assert meant_by("corridor", concepts) == (None, False) == meant_by("of the", concepts)
    records = [
        FeatureLabel(3, i, "", "ensemble", True, 0.1, {}, None, top_tokens=tokens)
        for i, tokens in enumerate([(" the", " of"), (" wizard",), (" spell",), (" outs",), (" out",)])
    ]
    potter, baseball = load_concept("harry_potter"), load_concept("baseball")
    hits = search_labels(records, "the wizard", potter, tied=0.4)
    assert [(h.record.feature, h.score) for h in hits] == [(1, 1.0), (2, 0.4)]
    assert [h.record.feature for h in search_labels(records, "the")] == [0], "alone it is looked for"
    assert [(h.record.feature, h.score) for h in search_labels(records, "bats", baseball)] == [(3, 1.0), (4, 0.5)]
    (hit,) = search_labels(records, "moon", around={(3, 4): ["Moon"]})
    assert hit.record.feature == 4 and hit.reads == ("Moon",)


def test_search_shows_both_kinds_of_evidence():
    from conceptlab.autointerp import search_labels

    records = [
        record(0, top_tokens=(" gold", " silver"), promoted=(" Gold", "en")),  # 1 + 1
        record(1, top_tokens=(" sea",), promoted=(" x", " golden")),  # 1/2
        record(2, top_tokens=(" of",), words=("copper", "mine", "gold")),  # 1/3
        record(3, top_tokens=(" goldfish",), explained=False),
        record(4, top_tokens=("old",)),
    ]
    hits = search_labels(records, ["GOLD "])
    assert [hit.record.feature for hit in hits] == [0, 3, 1, 2]
    assert (hits[0].reads, hits[0].writes, hits[0].score) == ((" gold",), (" Gold",), 2.0)
    assert (hits[2].reads, hits[2].writes) == ((), (" golden",)) and hits[3].reads == ("gold",)
    assert [h.record.feature for h in search_labels(records, "gold", n=2)] == [0, 3]
    assert [h.record.feature for h in search_labels(records, "sea, x")] == [1]
    assert search_labels(records, "en")[0].writes == ("en",), "short words match whole items only"
    assert search_labels(records, "atlantis") == []
    with pytest.raises(ConceptLabError, match="at least one word"):
        search_labels(records, "  ")


def test_a_label_within_the_shuffled_range_reads_unexplained():
    from conceptlab.autointerp import Detection, Label
    from conceptlab.autointerp.labels import feature_label
    from conceptlab.core import Confusion, Interval

    reads = Label(5, "rule_based", "on ' gold'", {" gold": 1.0}, words={"mine": 1.0})
    writes = Label(5, "output_side", "promotes ' bar'", promotes={" bar": 1.0})
    both = Label(5, "ensemble", "on ' gold'; promotes ' bar'", {" gold": 1.0, " bar": 0.3})
    area, table = Interval(0.8, 0.7, 0.9, 200), Confusion(80, 20, 30, 70)
    for foreign, line in ((0.75, both.text), (0.85, "unexplained")):
        found = Detection(both, 0.0123456, area, None, area, area, table, (0.5, foreign), ())
        made = feature_label(3, found, {"fuzzing_auroc": area, "output_auroc": None}, reads, writes)
        assert (made.label, made.explained, made.layer, made.feature) == (line, foreign < 0.8, 3, 5)
        assert (made.top_tokens, made.words, made.promoted) == ((" gold",), ("mine",), (" bar",))
        assert set(made.scores) == {"detection_auroc", "balanced_accuracy", "f1", "fuzzing_auroc"}
        assert made.scores["detection_auroc"] == (0.8, 0.7, 0.9) and made.rate == 0.01235


# ---- from a dictionary to labels --------------------------------------------------------------------------
@pytest.fixture
def tiny(built, monkeypatch):  # noqa: F811
    """A tiny model with a dictionary of layer 1, texts, and small sizes."""
    from conceptlab.autointerp import LabelConfig, command
    from conceptlab.experiments import autointerp as experiment

    lm, build = built
    root = build((1,))[0].parents[1]
    for module in (command, experiment):
        monkeypatch.setattr(module, "N_CTX", 32, raising=False)
    monkeypatch.setattr(command, "vital_articles", lambda: ())
    cfg = LabelConfig(n=6, least=8, n_label=40, n_score=20, n_background=200, n_resamples=30, chunk=3)
    return lm, root, sentences(60, 3), cfg


@pytest.fixture
def bench(tiny):
    from conceptlab.autointerp import Labelling, as_articles
    from conceptlab.data import harvest, token_rows
    from conceptlab.sae import load_shipped

    lm, root, texts, cfg = tiny
    data = harvest(lm, token_rows(lm, texts, n_ctx=32), (1,), progress=False)
    return Labelling(lm, load_shipped(lm, 1, root), data, as_articles(texts), cfg)


def test_controls_fire_as_often_as_their_features(bench):
    from conceptlab.autointerp import control_units, feature_units

    features = feature_units(bench.lm, bench.sae, bench.firings, bench.choose())
    assert len(features.units) == 6
    wanted = bench.firings.counts()[list(features.units)]
    found = control_units(bench.lm, bench.sae, bench.data, features, progress=False)
    assert set(found) == {"neurons", "random_directions", "random_sae"}
    for kind, control in found.items():
        counts = control.firings.counts()
        assert len(control.units) == len(control.firings) == len(control.directions) == len(set(control.names)) == 6
        assert bool((counts <= wanted).all()) and int((counts == wanted).sum()) >= 3, kind
        assert bool((control.firings.value > 0).all()), kind
    neurons = list(found["neurons"].names)
    assert torch.equal(found["neurons"].directions, bench.lm.value_vectors(1)[neurons])
    assert torch.allclose(found["random_sae"].directions.norm(dim=1), torch.ones(6), atol=1e-5)
    again = control_units(bench.lm, bench.sae, bench.data, features, kinds=["random_sae"], progress=False)
    assert again["random_sae"].names == found["random_sae"].names
    with pytest.raises(ConceptLabError, match="Unknown control 'noise'"):
        control_units(bench.lm, bench.sae, bench.data, features, kinds=["noise"])


def test_strongest_firings_are_kept():
    from conceptlab.autointerp import Firings, strongest

    firings = Firings(
        torch.tensor([0, 2, 5, 1, 4]), torch.tensor([1.0, 3.0, 2.0, 7.0, 8.0]), torch.tensor([0, 3, 5, 5]), 6
    )
    kept = strongest(firings, [1, 0], torch.tensor([1, 2]))
    assert kept.of(0)[0].tolist() == [4] and kept.of(1)[0].tolist() == [2, 5] and len(kept) == 2


def test_features_and_controls_are_labelled_alike(bench):
    from conceptlab.autointerp import control_units, feature_units

    features = feature_units(bench.lm, bench.sae, bench.firings, bench.choose())
    neurons = control_units(bench.lm, bench.sae, bench.data, features, kinds=["neurons"], progress=False)["neurons"]
    for units in (features, neurons):
        done = bench.label(units)
        assert [units.units[p] for p in done.places] == [e.unit for e in done.seen] == [e.unit for e in done.new]
        labels = (done.reads, done.writes, done.ensemble)
        assert [[x.method for x in found] for found in labels] == [
            [name] * len(done.seen) for name in ("rule_based", "output_side", "ensemble")
        ]
        docs = [{e.doc for part in side for e in part.spread} for side in (done.seen, done.new)]
        assert not docs[0] & docs[1], "labels are made and scored on different texts"


def test_labels_are_made_once_resumed_and_the_same(tiny, tmp_path, monkeypatch):
    from conceptlab.autointerp import command, label_dictionaries, read_labels

    lm, root, texts, cfg = tiny

    def run(out, listed=(5,)):
        return list(label_dictionaries(lm, None, cfg, tmp_path / out, root, {-1: listed}, texts, progress=False))

    (path,) = run("a")
    records = read_labels(lm.name, 1, tmp_path / "a")
    features = [r.feature for r in records]
    assert features == sorted(set(features)) and 5 in features and len(features) in (6, 7)
    assert any(r.scores for r in records) and all(r.scores or not r.explained for r in records)
    scored = next(r for r in records if r.scores)
    assert {"detection_auroc", "f1", "fuzzing_auroc", "simulation_r", "output_auroc"} <= set(scored.scores)
    assert sorted(p.name for p in path.parent.iterdir()) == ["layer_01.json", "layer_01.jsonl.gz"]
    how = json.loads((path.parent / "layer_01.json").read_text())
    assert how["features"] == len(records) and how["recipe"]["listed"] == [5] and "four bands" in how["rule"]

    make, calls = command.label_features, []

    def interrupted(bench, chunk):
        calls.append(chunk)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return make(bench, chunk)

    monkeypatch.setattr(command, "label_features", interrupted)
    assert run("a") == [path] and not calls, "a finished file is left alone"
    with pytest.raises(KeyboardInterrupt):
        run("b")
    assert not (tmp_path / "b" / lm.name / "layer_01.jsonl.gz").exists()
    (other,) = run("b")
    assert calls[1] == calls[2] and sorted(sum(calls[:1] + calls[2:], [])) == features
    assert other.read_bytes() == path.read_bytes(), "an interruption changes nothing"
    run("a", listed=(5, 6))
    assert 6 in [r.feature for r in read_labels(lm.name, 1, tmp_path / "a")], "other settings: made again"


def test_features_that_do_not_fire_or_exist(tiny, bench):
    from conceptlab.autointerp import label_dictionaries, label_features

    (lonely,) = label_features(bench, bench.choose()[:1])
    assert lonely.label == "unexplained" and not lonely.scores and lonely.rate > 0
    lm, root, texts, cfg = tiny
    with pytest.raises(ConceptLabError, match="units 0 to 63; unit 64 does not exist"):
        list(label_dictionaries(lm, [1], cfg, root, root, {1: [64]}, texts, progress=False))
    with pytest.raises(ConceptLabError, match="Features of layer 0 are listed"):
        list(label_dictionaries(lm, [1], cfg, root, root, {0: [3]}, texts, progress=False))
    with pytest.raises(ConceptLabError, match="layer 0, is shipped; there are layers 1"):
        list(label_dictionaries(lm, [0], cfg, root, root, texts=texts, progress=False))
    with pytest.raises(ConceptLabError, match="no dictionary of tiny-llama to label"):
        list(label_dictionaries(lm, None, cfg, root, root / "elsewhere", texts=texts, progress=False))


def test_the_command_line_passes_on_what_it_was_told(monkeypatch, tmp_path, capsys):
    import conceptlab.autointerp
    import conceptlab.models
    from conceptlab import cli
    from conceptlab.autointerp import LabelConfig

    calls = []
    monkeypatch.setattr(conceptlab.models, "load_model", lambda name: f"model {name}")
    monkeypatch.setattr(
        conceptlab.autointerp, "label_dictionaries", lambda *arguments: calls.append(arguments) or [tmp_path / "x"]
    )
    words = f"label --model m --layers 6 8 --n 9 --seed 3 --out {tmp_path} --features 6:12 8:0 6:7"
    assert cli.main(words.split()) == 0 and "x: ready" in capsys.readouterr().out
    assert calls == [("model m", [6, 8], LabelConfig(n=9, seed=3), tmp_path, None, {6: [12, 7], 8: [0]}, None)]
    for wrong in ("12", "6:", "a:1", "6:-1"):
        assert cli.main(["label", "--features", wrong]) == 1
        assert f"{wrong!r} names no feature; write LAYER:FEATURE" in capsys.readouterr().err


def test_the_table_has_every_cell_and_goes_on_where_it_stopped(tiny, tmp_path, monkeypatch):
    from conceptlab.experiments import autointerp

    experiment = sys.modules["conceptlab.experiments.autointerp"]

    def absent():
        raise ConceptLabError("no encoder")

    monkeypatch.setattr(experiment, "load_encoder", absent)
    lm, root, texts, cfg = tiny
    path = tmp_path / "autointerp_tiny.csv"
    sizes = {"n": 4, "n_dear": 3, "contexts_dear": 3, "saes": root, "texts": texts, "cfg": cfg}
    cell, done = experiment._Layer.cell, []

    def stops(self, method, judge):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append((method, judge.name))
        return cell(self, method, judge)

    monkeypatch.setattr(experiment._Layer, "cell", stops)
    with pytest.raises(KeyboardInterrupt):
        autointerp(lm, path, **sizes)
    first = list(done)
    monkeypatch.setattr(experiment._Layer, "cell", lambda *a: done.append((a[1], a[2].name)) or cell(*a))
    autointerp(lm, path, **sizes)
    assert done[:5] == first and len(done) == len(set(done)) == 11
    rows = read_table(path)
    assert {(r["method"], r["attack"]) for r in rows} == set(done) and {r["budget"] for r in rows} == {"1", "all"}
    layer, pooled = ([(r["metric"], r["value"], r["n"]) for r in rows if r["budget"] == b] for b in ("1", "all"))
    assert sorted(layer) == sorted(pooled), "one layer: pooled or not is the same"
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []
    methods = {r["method"] for r in rows}
    assert methods == {"rule_based", "output_side", "ensemble", "local_llm", "shuffled", "neurons",
                       "random_directions", "random_sae"}  # fmt: skip
    metrics = {r["metric"] for r in rows if (r["method"], r["attack"]) == ("ensemble", "evidence")}
    assert {"detection_auroc", "balanced_accuracy", "f1", "fuzzing_auroc", "simulation_r", "output_auroc"} <= metrics
    assert all(float(r["low"]) <= float(r["value"]) <= float(r["high"]) for r in rows)
    monkeypatch.setattr(experiment, "harvest", lambda *a, **k: 1 / 0)
    before = path.read_bytes()
    autointerp(lm, path, **sizes)  # nothing is missing: nothing is computed
    assert path.read_bytes() == before
    for changed in (
        {"n_dear": 2},
        {"texts": texts[1:]},
        {"cfg": dataclasses.replace(cfg, n_score=cfg.n_score + 1)},
        {"seed": 1},
    ):
        with pytest.raises(ConceptLabError, match="is a finished table that was made otherwise"):
            autointerp(lm, path, **sizes | changed)


def test_candidates_are_kept_and_searched_once(tiny_llama, monkeypatch, tmp_path):
    from conceptlab.data import load_concept
    from conceptlab.erasure import Feature, candidates
    from dictionaries import make_sae

    lm = tiny_llama(initializer_range=0.5)
    saes, path = {1: make_sae(lm, 1)}, tmp_path / "candidates.json"
    two = [load_concept("golf"), load_concept("uranium")]
    calls = []

    def find(concept):
        calls.append(concept.name)
        return [Feature(1, index) for index in (3, 1)]

    def run(concepts, n=5, find=find, saes=saes):
        return candidates(lm, saes, concepts, path, find, {"n": n, "finding": "reach"}, progress=False)

    found = run(two)
    assert found == {"golf": [(1, 3), (1, 1)], "uranium": [(1, 3), (1, 1)]} and calls == ["golf", "uranium"]
    assert run(two[:1]) == {"golf": found["golf"]} and len(calls) == 2
    with pytest.raises(ConceptLabError, match=r"also of concepts not asked for \(uranium\)"):
        run(two[:1], n=6)
    run(two, n=6)
    assert calls == ["golf", "uranium"] * 2, "other settings: searched again"
    with pytest.raises(ConceptLabError):
        run([load_concept("japan")], n=6, find=lambda _: [Feature(0, 1)])  # no dictionary of that layer
    before = path.read_bytes()
    with pytest.raises(ConceptLabError, match="candidates.json lists candidates of other dictionaries"):
        run(two, n=6, saes={1: make_sae(lm, 1, seed=1)})
    with torch.no_grad():
        lm.parameters()[lm.down_proj_name(0)].add_(1)
    with pytest.raises(ConceptLabError, match="of other weights .*, here are [0-9a-f]{16}.*--out, or delete"):
        run(two, n=6)
    assert path.read_bytes() == before and len(calls) == 4
    path.write_text(re.sub(r'"weights": "\w+",', "", path.read_text()), encoding="utf-8")
    with pytest.raises(ConceptLabError, match="of other weights .it says nothing"):
        run(two, n=6)


@pytest.mark.parametrize("model", ["smollm2-135m", "gemma3-270m"])
def test_the_candidates_that_ship_say_which_weights_they_are_of(model):
    from conceptlab.core import data_dir
    from conceptlab.models import packaged_checkpoint

    kept = json.loads((data_dir() / "labels" / model / "candidates.json").read_text(encoding="utf-8"))
    record = json.loads((packaged_checkpoint(model) / "conceptlab.json").read_text(encoding="utf-8"))
    assert kept["recipe"]["weights"] == record["fingerprints"]["float32"] and kept["model"] == model
    assert re.fullmatch("[0-9a-f]{16}", kept["recipe"]["dictionaries"])


def test_concepts_add_features_and_texts(tiny, monkeypatch, tmp_path):
    import conceptlab.autointerp
    import conceptlab.data
    import conceptlab.erasure
    import conceptlab.models
    from conceptlab import cli

    lm, root, _, _ = tiny
    calls = []
    monkeypatch.setattr(conceptlab.models, "load_model", lambda name: lm)
    monkeypatch.setattr(conceptlab.data, "label_texts", lambda concepts: [c.name for c in concepts])
    monkeypatch.setattr(conceptlab.autointerp, "label_dictionaries", lambda *a: calls.append(a[5:]) or [])
    monkeypatch.setattr(conceptlab.erasure, "candidates", lambda *a: {"golf": [(1, 7), (0, 2)], "japan": [(1, 3)]})
    words = f"label --layers 1 --saes {root} --out {tmp_path} --features 1:9 --concepts"
    assert cli.main([*words.split(), "golf", "japan"]) == 0
    assert calls == [({1: [9, 7, 3]}, ["golf", "japan"])]
    assert cli.main(words.split()) == 0 and len(calls[1][1]) >= 16, "without names: all concepts"


@pytest.mark.parametrize("model", ["smollm2-135m", "gemma3-270m"])
def test_the_search_finds_features_that_edits_go_through(model):
    """Recall at 10 of a concept's words: the candidates, chosen by their edits and not by their labels, that are found.

    The control is the candidates of the other concepts. All sixteen are labelled, among 1,200 others.
    """
    from conceptlab.autointerp import labelled_layers, read_labels, search_labels
    from conceptlab.core import bootstrap, data_dir
    from conceptlab.data import load_concept

    records = [r for layer in labelled_layers(model) for r in read_labels(model, layer)]
    kept = json.loads((data_dir() / "labels" / model / "candidates.json").read_text(encoding="utf-8"))["candidates"]
    wanted = {name: {tuple(place) for place in places} for name, places in kept.items()}
    own, others = [], []
    for name in wanted:
        concept = load_concept(name)
        found = {(h.record.layer, h.record.feature) for h in search_labels(records, concept.title, concept, n=10)}
        recall = {other: len(found & places) / min(10, len(places)) for other, places in wanted.items()}
        own.append(recall.pop(name))
        others.append(sum(recall.values()) / len(recall))
    assert sum(own) / len(own) > 0.2 and bootstrap(own, over="concepts").low > 0.1
    assert bootstrap(others, over="concepts").high < 0.05
