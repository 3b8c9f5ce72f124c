"""How deep is a fact, and can it be erased there? Two comparisons of depth and loss for notebook 10.

*Centres*: one layer's MLP at a time is edited, which says around which layer an edit costs a fact most. *Losses*: the
lab's PISCES edit of the concept, fitted anew at the setting that the lab's table names, and what it costs every fact;
beside it the lab's control, other features' directions in the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import Cell, Interval, NotPossible, Store, bootstrap, contents, interval_of, results, say, table_path
from ..data import Concept, list_concepts, load_concept
from ..early_exit import centre_of_loss, memorised_layer, rank_correlation, ranks, right_at_layers, separable
from ..erasure import Dictionaries, Fitted, Shared, ablation_edit, get_method, shipped_dictionaries
from ..evaluation import ask, gold_logprobs
from ..models import LanguageModel
from .layers import contrast_directions

FACT_CONCEPTS = ("ancient_rome", "astronomy", "chemical_elements", "japan")
EDITS = ("pisces", "other_features")  # what is measured, and its control
ERASED = "losses"  # the method of these cells


def centres_of_facts(lm: LanguageModel, store: Store, concepts: Sequence[str], n_questions: int) -> None:
    """Is the memorised layer of a fact where it can be erased? Spearman over facts, and within concepts.

    The correlation is over all concepts of the table, whichever of them are asked for now.
    """
    for name in concepts:
        cell = Cell("facts", name)
        if store.missing(cell):
            memorised, centre = fact_depths(lm, load_concept(name), n_questions, store.seed)
            usable = centre.isfinite()  # no layer's edit costs it anything: there is no centre
            pairs = [memorised[usable].tolist(), centre[usable].tolist()]
            found = {"memorised": bootstrap(pairs[0]), "erasable": bootstrap(pairs[1])}
            store.add(cell, found, record=pairs)
            say(f"facts, {name}: known from layer {found['memorised']} on, erased around {found['erasable']}")
    kept = [record for name in list_concepts() if (record := store.record(Cell("facts", name)))]
    if kept:
        store.add(Cell("facts", "all"), correlations(kept, store.seed))


def correlations(records: Sequence[Sequence[Sequence[float]]], seed: int = 0) -> dict[str, Interval]:
    """Spearman of memorised layer and centre of loss, over all facts, within concepts, and with facts shuffled.

    `records`: per concept both lists. Within: the concept's mean is taken off both, so that concepts cannot do it.
    """
    parts = [torch.tensor(record, dtype=torch.float64) for record in records]
    both, inner = torch.cat(parts, 1), torch.cat([p - p.mean(1, keepdim=True) for p in parts], 1)
    order = torch.randperm(both.shape[1], generator=torch.Generator().manual_seed(seed))
    return {
        "rho": rank_correlation(*both), "rho_within": rank_correlation(*inner),
        "rho_shuffled": rank_correlation(both[0, order], both[1]),
    }  # fmt: skip


def fact_depths(
    lm: LanguageModel, concept: Concept, n_questions: int, seed: int = 0
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Of known dev questions: the memorised layer (logit lens) and where an edit of one layer costs them most.

    The edit is that of `conceptlab reproduce layers`: the concept's directions turned round in one down projection.
    """
    asked = ask(lm, separable(lm, concept.dev), 4 * n_questions).known(n_questions).questions
    right = right_at_layers(lm, asked)
    memorised = memorised_layer(right).double()
    directions = contrast_directions(lm, concept, 5, seed, n_texts=24)["contrast"]
    before, losses = gold_logprobs(lm, asked), []
    for layer in range(lm.n_layers):
        with ablation_edit(lm, {("mlp_output", layer): directions[layer].T}, 2.0).applied(lm):
            losses.append(before - gold_logprobs(lm, asked))
    return memorised, centre_of_loss(torch.stack(losses, 1)).double()


# ---- what the lab's edit costs every fact -------------------------------------------------------------------
def losses_of_facts(lm: LanguageModel, store: Store, concepts: Sequence[str], n_questions: int) -> None:
    """Per concept: memorised layers, the originals' log-probabilities, and the losses under the edits.

    The correlations are over all concepts of the table, whichever of them are asked for now.
    """
    saes: Dictionaries = {}
    settings = lab_settings(lm)
    for name in concepts:
        cell = Cell("facts", name, ERASED)
        if not store.missing(cell):
            continue
        saes = saes or shipped_dictionaries(lm)
        try:
            columns = fact_losses(lm, load_concept(name), saes, settings.get(name, {}), n_questions, store.seed)
        except NotPossible as reason:
            store.add(cell, {"n_facts": Interval(0, 0, 0, 1)}, record={"not possible": str(reason)})
            continue
        found = {key: bootstrap(values) for key, values in columns.items()}
        store.add(cell, found, record=columns)
        say(f"facts, {name}: memorised {found['memorised']}, lost {found['pisces']}, control {found['other_features']}")
    kept = {name: store.record(Cell("facts", name, ERASED)) for name in list_concepts()}
    usable = {name: columns for name, columns in kept.items() if columns and "memorised" in columns}
    if len(usable) > 1:
        store.add(Cell("facts", "all", ERASED), loss_correlations(list(usable.values()), store.seed))


def kept_losses(model: str) -> dict[str, dict[str, list[float]]]:
    """Concept -> the columns of `fact_losses` in the shipped table, concepts where nothing was possible left out."""
    path = table_path("early_exit", model)
    records = contents(path).records if path.exists() else {}
    found = {key[1]: record for key, record in records.items() if key[0] == "facts" and key[2] == ERASED}
    return {name: record for name, record in found.items() if record and "memorised" in record}


def centre_rows(model: str, seed: int = 0) -> list[tuple[str, ...]]:
    """Per concept of the shipped table, then over all: number of facts, the layer from which they can be read, the
    layer around which an edit of one layer costs them most, and the Spearman of both (over all: within concepts)."""
    path = table_path("early_exit", model)
    records = contents(path).records if path.exists() else {}
    found = {key[1]: record for key, record in records.items() if key[0] == "facts" and key[2:4] == ("", "")}
    found = {name: record for name, record in found.items() if name != "all" and len(record[0]) > 2}
    rows = [
        _centre_row(name, (layers, centres), rank_correlation(_tensor(layers), _tensor(centres)))
        for name, (layers, centres) in found.items()
    ]
    if len(rows) > 1:
        pairs = correlations(list(found.values()), seed)
        every = [[x for record in found.values() for x in record[i]] for i in (0, 1)]
        rows.append(_centre_row("all, Spearman within concepts", every, pairs["rho_within"]))
        rows.append(("all, facts shuffled", "", "", "", f"{pairs['rho_shuffled']:+.2f}"))
    return rows


def _centre_row(name: str, pairs: Sequence[Sequence[float]], rho: Interval) -> tuple[str, ...]:
    means = (f"{bootstrap(_tensor(column), over='facts'):.1f}" for column in pairs)
    return (name, str(len(pairs[0])), *means, f"{rho:+.2f}")


def lab_settings(lm: LanguageModel) -> dict[str, dict[str, float]]:
    """Concept -> the setting of PISCES that the lab's table names for this model; empty where there is no table."""
    found: dict[str, dict[str, float]] = {}
    for row in results("lab", lm.name):
        if (row["method"], row["attack"]) == ("pisces", "fit") and row["metric"].startswith("setting_"):
            found.setdefault(row["concept"], {})[row["metric"].removeprefix("setting_")] = float(row["value"])
    return found


def fact_losses(
    lm: LanguageModel, concept: Concept, saes: Dictionaries, setting: dict[str, float], n_questions: int, seed: int = 0
) -> dict[str, list[float]]:
    """Per known test question: `memorised` layer, `gold` log-probability before, and what each of `EDITS` takes of it.

    Without a `setting`, PISCES chooses its strength on dev as in the lab. Raises NotPossible where it finds nothing.
    """
    asked = ask(lm, separable(lm, concept.test), 4 * n_questions).known(n_questions).questions
    before = gold_logprobs(lm, asked)
    columns = {"memorised": memorised_layer(right_at_layers(lm, asked)).double(), "gold": before}
    shared = Shared(lm, concept, saes, seed=seed)
    if setting:
        method = get_method("pisces")
        config = method.at(setting)
        shared.keep_chosen(Fitted("pisces", config, method.fit(lm, concept, config, shared), setting))
    for name in EDITS:
        with shared.chosen(name).intervention.applied(lm):
            columns[name] = before - gold_logprobs(lm, asked)
    return {key: [round(float(x), 4) for x in values] for key, values in columns.items()}


def loss_correlations(records: Sequence[dict[str, list[float]]], seed: int = 0) -> dict[str, Interval]:
    """Spearman of memorised layer and loss; intervals over concepts drawn anew, or over facts where that is wider.

    `rho`: over all facts. `rho_within`: the concept's means taken off both sides. `rho_given_gold`: within concepts,
    and what the original's log-probability explains taken off both. `rho_control`: within, other features' directions.
    `rho_shuffled`: within, memorised layers dealt to other facts of the same concept, many times; its interval is what
    95 of 100 deals give.
    """
    groups = torch.cat([torch.full((len(r["gold"]),), i) for i, r in enumerate(records)])
    wide = {k: torch.cat([_tensor(r[k]) for r in records]) for k in records[0]}
    inner = {k: torch.cat([_tensor(r[k]) - _tensor(r[k]).mean() for r in records]) for k in records[0]}
    depth, loss, gold = inner["memorised"], inner["pisces"], inner["gold"]
    pairs = {
        "rho": (wide["memorised"], wide["pisces"]),
        "rho_within": (depth, loss),
        "rho_given_gold": (_without(depth, gold), _without(loss, gold)),
        "rho_control": (depth, inner["other_features"]),
    }
    found = {
        name: _wider(rank_correlation(*p, groups, seed), rank_correlation(*p, seed=seed)) for name, p in pairs.items()
    }
    return found | {"rho_shuffled": _dealt(depth, loss, groups, seed)}


def _dealt(
    depth: Float[Tensor, " n"], loss: Float[Tensor, " n"], groups: Int[Tensor, " n"], seed: int, n: int = 500
) -> Interval:
    """Spearman of `loss` with the depths of other facts of the same group: mean and middle 95 % of `n` deals."""
    generator, draws = torch.Generator().manual_seed(seed), []
    for _ in range(n):
        order = torch.randperm(len(groups), generator=generator)
        order = order[groups[order].argsort(stable=True)]  # groups stand one after the other
        draws.append(torch.corrcoef(torch.stack([ranks(depth[order]), ranks(loss)]))[0, 1])
    dealt = torch.stack(draws)
    return interval_of(dealt, float(dealt.mean()), len(groups), "deals")


def _wider(over_concepts: Interval, over_facts: Interval) -> Interval:
    """Few concepts may agree by chance: never narrower than the facts alone make it."""
    found = max(over_concepts, over_facts, key=lambda x: x.high - x.low)
    return Interval(*found[:3], over_concepts.n, "concepts")


def _without(values: Float[Tensor, " n"], other: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """What a straight line in `other` leaves of `values`; both have mean 0."""
    return values - (values @ other) / (other @ other).clamp_min(1e-12) * other


def _tensor(values: Sequence[float]) -> Float[Tensor, " n"]:
    return torch.tensor(values, dtype=torch.float64)
