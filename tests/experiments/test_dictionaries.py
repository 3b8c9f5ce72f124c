"""Races, rivals and detectors of notebook 02 on small data whose answers are known."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from conceptlab.autointerp import EvidenceJudge, FeatureLabel, Labelling, UnitExamples, text_label
from conceptlab.core import ConceptLabError
from conceptlab.experiments import dictionaries as D
from conceptlab.experiments import labels as L
from conceptlab.sae import planted


def test_a_race_measures_every_setting_and_its_curves_are_by_architecture():
    world = planted.PlantedConfig(d_in=8, n_features=12, active=1.5)
    train, test = planted.plant(world, 2_000), planted.plant(world, 500, seed=2)
    settings = [("topk", {"k": 1}), ("topk", {"k": 3}), ("relu", {"sparsity": 0.1})]
    runners = D.race(train.x, test.x, settings, {"d_sae": 16, "k": 2, "steps": 30, "batch_size": 64})
    assert [r.name for r in runners] == ["topk", "topk", "relu"]
    assert runners[0].l0 <= 1 and runners[1].l0 <= 3 and runners[0].fve < runners[1].fve
    found = D.curves(runners, ["fve"])
    assert list(found) == ["topk", "relu"] and found["topk"]["fve"] == [r.fve for r in runners[:2]]
    assert all(len(c["l0"]) == len(c["fve"]) for c in found.values())


def test_rivals_rebuild_what_they_are_made_of():
    from conceptlab.sae.by_hand import as_sae

    g = torch.Generator().manual_seed(0)
    W_down = torch.linalg.qr(torch.randn(6, 6, generator=g)).Q
    neurons = torch.randn(300, 6, generator=g).relu()
    x = neurons @ W_down
    p = {"W_enc": W_down.T.clone(), "b_enc": torch.zeros(6), "W_dec": W_down.clone(), "b_dec": torch.zeros(6)}
    found = D.explained_by_k(as_sae(p), x, neurons, W_down, x, [1, 6], chunk=70)
    refitted = ("random directions, refitted", "directions of tokens, refitted")
    assert list(found) == ["features", "neurons", "PCA", *refitted]
    assert all(found[name][0] < found[name][1] for name in refitted)
    for name in ("features", "neurons", "PCA"):
        assert found[name][0] < 0.9 and found[name][1] == pytest.approx(1, abs=1e-4)


def test_detectors_see_each_class_on_its_own_sample():
    g = torch.Generator().manual_seed(0)
    truth = torch.rand(400, generator=g) < 0.3
    units = {
        "good": torch.stack([truth.float(), torch.rand(400, generator=g)], 1),
        "bad": torch.rand(400, 2, generator=g),
    }
    found = D.detectors(units, {"a": truth, "b": ~truth}, torch.arange(400), (1, 2))
    assert [len(v) for v in found.values()] == [2, 2]
    assert all(float(d[1][0]) == 1 for d in found["good"]) and all(
        abs(float(d[1][0]) - 0.5) < 0.15 for d in found["bad"]
    )


def record(reads, promotes):
    return FeatureLabel(6, 0, "a label", "rule_based", True, 0.1, {}, 0.6, reads, (), promotes)


def test_a_feature_promotes_what_it_reads_whatever_the_case():
    records = [record((" Sea", "a"), ("sea", "x")), record((" king",), ("a", "queen")), record(("a",), ("a",))]
    assert L.promotes_what_it_reads(records) == [1, 0, 0]  # a single character does not count
    assert L.promotes_what_it_reads(records, shift=2) == [0, 0, 0]
    assert L.promotes_what_it_reads([*records[:2], record(("queen",), ("sea",))], 1)[2] == 0


def test_hard_negatives_and_random_contexts_are_scored_on_the_same_firings():
    class Corpus:
        token_ids = torch.tensor([5, 5, 6, 7, 8, 8])

        def examples(self, places, _):
            return [SimpleNamespace(index=int(p), score=0.0) for p in places]

    firing = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    firings = SimpleNamespace(dense=lambda unit: firing)
    bench = Mock(spec=Labelling, corpus=Corpus(), firings=firings, halves=(None, torch.ones(6, dtype=torch.bool)))
    judge = Mock(spec=EvidenceJudge)
    judge.judge = lambda label, contexts: torch.tensor([c.score for c in contexts])
    spread = [SimpleNamespace(index=i, score=s) for i, s in ((0, 1.0), (2, -9.0), (4, 1.0))]
    examples = Mock(spec=UnitExamples, unit=0, spread=spread, silent=[SimpleNamespace(index=3, score=1.0)] * 2)
    label = text_label(0, "by hand", "sea")

    def auroc(a, b):
        return (a[:, None] > b).double().mean() + (a[:, None] == b).double().mean() / 2

    hard, easy, count = L.hard_score(bench, judge, label, examples, lambda *_: torch.tensor([1, -1, 5]), auroc)
    assert (hard, easy, count) == (1.0, 0.5, 2), "the firing without a partner counts in neither"
    assert L.hard_score(bench, judge, label, examples, lambda *_: torch.full((3,), -1), auroc)[2] == 0


def test_numbers_of_a_stored_table():
    row = {"method": "ensemble", "metric": "hard_auroc", "attack": "evidence", "budget": "6", "value": "0.6",
           "low": "0.5", "high": "0.7"}  # fmt: skip
    numbers = L.stored_numbers([row])
    assert numbers("ensemble", "hard_auroc", budget=6) == (0.6, 0.5, 0.7)
    with pytest.raises(ConceptLabError, match="no detection_auroc of ensemble under evidence"):
        numbers("ensemble")
