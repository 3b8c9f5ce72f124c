"""Checks of what judges and describes: concept vectors with their controls, evaluation, labels of features."""

from __future__ import annotations

import torch

from ...autointerp import (
    Corpus,
    Label,
    ModelJudge,
    control_units,
    feature_units,
    risen_tokens,
    sae_firings,
    unit_examples,
)
from ...concept_vectors import Replay, build_atlas, matched_vectors, noise_edit, scale_edit, search
from ...data import harvest, token_rows
from ...evaluation import behaviour, residue, score_forms, score_questions, trace
from .bench import Bench, Figures, bits, require, require_untouched
from .changing import dictionary

PLACES = [(0, 1, 1), (1, 2, -1), (1, 5, 1)]  # layer, neuron, sign


def vectors(bench: Bench) -> Figures:
    """Concept vectors, their controls and edits; a replay from a layer gives what the whole model gives."""
    lm = bench.model()
    before, asked = bits(lm), bench.questions
    found = search(lm, [q.gold for q in asked], 3, build_atlas(lm, k=5))
    controls = matched_vectors(lm, found, bench.texts[:8])
    replay = Replay(lm, asked, [0, 1])
    figures: Figures = {"controls": len(controls)}
    for name, edit in (("noise", noise_edit(lm, found, 1.0)), ("zero", scale_edit(lm, found, 0.0))):
        with edit.applied(lm):
            off = (replay.score(0).logprobs - score_questions(lm, asked).logprobs).abs().max()
        figures[f"{name}_replay_nats_off"] = float(off)
        require(float(off) < 1e-3, f"A replay is {float(off):.2g} nats from the whole model.")
    require_untouched(lm, before, "edits of value vectors")
    return figures


def evaluation(bench: Bench) -> Figures:
    """Other forms of questions, open writing, and what an edit leaves of value vectors, against the CPU."""
    here, there = bench.model(), bench.model(on="cpu")
    forms = [score_forms(lm, bench.questions) for lm in (here, there)]
    off = max(float((a.logprobs - b.logprobs).abs().max()) for a, b in zip(*(f.values() for f in forms), strict=True))
    require(off < 1e-3, f"Scores of other forms are {off:.2g} nats from those of the CPU.")
    distinct = [float(behaviour(lm, ["The", "Question: What"], 8).distinct.mean()) for lm in (here, there)]
    left = residue(*(trace(lm, PLACES, 10) for lm in (here, there)))
    require(left.cosine.value > 0.999, "Value vectors differ from the CPU's.")
    return {"forms_nats_off": off, "distinct_off": abs(distinct[0] - distinct[1]), "jaccard": left.jaccard.value}


def labels(bench: Bench) -> Figures:
    """From a harvest to examples of features, neurons beside them, tokens that rise, and a judge that is a model."""
    lm = bench.model()
    sae = dictionary(lm, 0)
    held = harvest(lm, token_rows(lm, bench.texts, 32, 2_048), [0], folder=bench.folder / "labels", progress=False)
    firings = sae_firings(sae, held.tensor(0))
    corpus, units = Corpus(lm, held), firings.counts().topk(2).indices.tolist()
    examples = [unit_examples(corpus, firings, unit, corpus.halves()[0], n=8) for unit in units]
    require(all(e.spread for e in examples), "A feature that fires most often has no examples.")
    features = feature_units(lm, sae, firings, units)
    controls = control_units(lm, sae, held, features, progress=False)
    require(all(c.directions.device == lm.device for c in controls.values()), "Controls lie on another device.")
    risen = risen_tokens(lm, 0, sae.directions(torch.tensor(units, device=lm.device)), 4)
    told = Label(units[0], "by hand", "names of people")
    scores = ModelJudge(lm, batch_size=4).judge(told, examples[0].spread[:4])
    require(bool(scores.isfinite().all()), "The judge's scores are not finite.")
    return {"tokens": held.n_tokens, "firings": int(firings.counts().sum()), "risen": list(risen.shape)}


CHECKS = {"vectors": vectors, "evaluation": evaluation, "labels": labels}
