"""Checks of notebook 01. Each calls the reader's function on small data whose answer is known by other means."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...models import LanguageModel
from ..record import Points
from .feedback import call, check_equal, check_true, passed, random_tensor


def check_both_ends(function: Callable) -> Points:
    """`function(vector, gain, rows, k) -> (top_ids, bottom_ids)` against a loop over the vocabulary."""
    vector, rows = random_tensor(6, seed=1), random_tensor(40, 6, seed=2)
    gain = torch.linspace(3.0, 0.2, 6)
    logits = torch.tensor([sum(float(vector[d] * gain[d] * row[d]) for d in range(6)) for row in rows])
    order, plain = logits.argsort(descending=True), (rows @ vector).argsort(descending=True)
    answer = call("both ends", function, vector, gain, rows, 5)
    pair = answer if isinstance(answer, tuple) and len(answer) == 2 else (None, None)
    no_gain = "these are the tokens without the final norm's gain: multiply the vector by `gain` first."
    results = [
        check_equal("promoted tokens", pair[0], order[:5], {no_gain: plain[:5]}),
        check_equal(
            "suppressed tokens",
            pair[1],
            order.flip(0)[:5],
            {
                no_gain: plain.flip(0)[:5],
                "right tokens, weakest first: put the most suppressed token first.": order[-5:],
                "these are the promoted tokens again: look at the other end (largest=False).": order[:5],
            },
        ),
    ]
    return passed("both ends of a value vector", *results)


def check_pair_cosine(function: Callable) -> Points:
    """`function(units [n, d]) -> mean cosine over pairs` against a double loop, and on two known cases."""
    units = torch.nn.functional.normalize(random_tensor(7, 5, seed=3), dim=1)
    pairs = [float(units[i] @ units[j]) for i in range(7) for j in range(i)]
    truth = torch.tensor(sum(pairs) / len(pairs))
    square = float(units.sum(0).square().sum())
    mistakes = {
        "the diagonal is in it: every token has cosine 1 with itself, leave those pairs out.": square / 49,
        "you took out the diagonal, but divide by n^2: there are n (n - 1) pairs left.": (square - 7) / 49,
        "this is the sum over pairs, not the mean.": square - 7,
    }
    same = torch.nn.functional.normalize(torch.ones(4, 3), dim=1)
    results = [
        check_equal("random unit vectors", call("cosine", function, units), truth, mistakes),
        check_equal("four equal vectors give 1", call("cosine", function, same), torch.tensor(1.0)),
        check_equal(
            "orthogonal vectors give 0",
            call("cosine", function, torch.eye(4)),
            torch.tensor(0.0),
            {"their only non-zero cosines are those of each vector with itself.": torch.tensor(0.25)},
            tol=1e6,  # of a largest value of 1e-12
        ),
    ]
    return passed("coherence by hand", *results)


def check_effects(function: Callable) -> Points:
    """`function(vectors, rows, ids) -> z [n, m]` against standardising the whole table of effects."""
    vectors, rows, ids = random_tensor(3, 8, seed=4), random_tensor(50, 8, seed=5) + 2.0, torch.tensor([4, 17, 30])
    table = vectors @ rows.T
    mean, spread = table.mean(1, keepdim=True), table.std(1, keepdim=True)
    mistakes = {
        "these are raw logits: a long vector would win every search. Subtract the mean, divide by the spread.": table,
        "centred, but not divided by the spread over the vocabulary.": table - mean,
        "divided, but not centred: subtract each vector's mean effect over the vocabulary.": table / spread,
        "standardised over the vectors (dim 0); each vector has to be compared with its own effects (dim 1).": (
            (table - table.mean(0)) / table.std(0)
        ),
    }
    answer = call("effects", function, vectors, rows, ids)
    named = {message: wrong[:, ids] for message, wrong in mistakes.items()}
    scaled = call("effects", function, 10 * vectors, rows, ids)
    results = [
        check_equal("effects on three words", answer, ((table - mean) / spread)[:, ids], named, tol=0.03),
        check_equal("a vector ten times as long scores the same", scaled, ((table - mean) / spread)[:, ids], tol=0.03),
    ]
    return passed("effects in standard deviations", *results)


def check_clamp(function: Callable, lm: LanguageModel) -> Points:
    """`function(layer, neuron, value) -> hooks`: the layer's output must move by (value - activation) * weight row."""
    layer, neuron = lm.n_layers // 2, 5
    ids, mask = lm.tokens("The cat sat on the mat.")
    sites = [("neurons", layer), ("mlp_output", layer)]
    before = lm.capture(ids, sites, mask)
    value = 3 * float(before[sites[0]][..., neuron].abs().max())  # setting it and adding it then differ in any model
    hooks = call("clamp", function, layer, neuron, value)
    if not isinstance(hooks, dict):
        check_true("hooks", False, "return a dictionary {(kind, layer): function}.")
        return passed("clamping a neuron", False)
    try:
        with lm.intervene(hooks):
            after = lm.capture(ids, sites[1:], mask)[sites[1]]
    except Exception as error:  # see `call`
        print(f"  no   clamp: the forward pass stopped with {type(error).__name__}: {error}")
        return passed("clamping a neuron", False)
    activation, output = before[sites[0]][..., neuron, None], before[sites[1]]
    row = lm.down_proj(layer)[neuron]
    last = torch.zeros_like(activation)
    last[:, -1] = 1
    mistakes = {
        "nothing changed: return the new activations from the hook.": torch.zeros_like(output),
        "you added the value; clamping *sets* the activation to it.": value * row.expand_as(output),
        "only the last position was clamped; set all of them.": last * (value - activation) * row,
    }
    truth = (value - activation) * row
    with lm.intervene({}):
        again = lm.capture(ids, sites[1:], mask)[sites[1]]
    results = [
        check_equal("change of the layer's output", after - output, truth, mistakes, tol=1e-3),
        check_true("the model is as before outside the block", torch.equal(again, output), "do not write in place."),
    ]
    return passed("clamping a neuron", *results)


def check_noise_loop(function: Callable) -> Points:
    """`function(weight, columns, c, evaluate)`: one noisy column at each call of `evaluate`, none in the end."""
    weight = random_tensor(12, 6, seed=6)
    original, columns = weight.clone(), [4, 1, 3]
    seen: list[Tensor] = []

    def evaluate() -> float:
        seen.append(weight - original)
        return 10.0 * len(seen)

    returned = call("noise", function, weight, columns, 2.0, evaluate)
    first, restored = list(seen), torch.equal(weight, original)
    weight.copy_(original)
    call("noise again", function, weight, columns, 2.0, evaluate)
    again = seen[len(first) :]
    weight.copy_(original)
    lengths = [float(d[:, j].norm() / original[:, j].norm()) for d, j in zip(first, columns, strict=False)]
    right = len(lengths) == 3 and all(abs(length - 2.0) < 1e-3 for length in lengths)
    touched = [set((delta != 0).any(0).nonzero()[:, 0].tolist()) for delta in first]
    try:
        given = list(returned) == [10.0, 20.0, 30.0]  # type: ignore[call-overload]
    except TypeError:
        given = False
    results = [
        check_true("evaluate is called once per column", len(first) == 3, f"it was called {len(first)} times, not 3."),
        check_true("one noisy column at a time", touched == [{4}, {1}, {3}], _which_columns(touched, columns)),
        check_true("noise has c times the column's length", right, "scale the noise: ||noise|| = c ||column||."),
        check_true("the noise is random", _random(first, again, columns), "noise must differ from entry to entry, from "
                   "column to column and from call to call: draw it with torch.randn."),
        check_true("weights are bit-identical afterwards", restored, "restore by copying a clone."),
        check_true("the results come back", given, "return the list of what evaluate() gave, in the order of columns."),
    ]  # fmt: skip
    return passed("causal validation without the bug", *results)


def _which_columns(touched: list[set[int]], columns: list[int]) -> str:
    if touched == [set(columns[: i + 1]) for i in range(len(columns))]:
        return "noise accumulates: earlier columns are still noisy. Keep a clone of the column and copy it back."
    if not any(touched):
        return "no noise reached the weight when `evaluate` was called: change `weight` in place, then evaluate."
    return "at each call of `evaluate` exactly the one column under test must be noisy."


def _random(first: list[Tensor], again: list[Tensor], columns: list[int]) -> bool:
    """Whether the noise of each column has a spread, and differs between columns and between calls."""
    if not len(first) == len(again) == len(columns):
        return False
    unit = [torch.nn.functional.normalize(d[:, j], dim=0) for d, j in zip(first + again, columns * 2, strict=True)]
    spread = all(float(u.abs().std()) > 0.02 for u in unit)
    pairs = [abs(float(unit[i] @ unit[k])) for i in range(len(unit)) for k in range(i)]
    return spread and max(pairs) < 0.99
