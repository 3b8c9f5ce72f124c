"""Checks of notebook 05: share, text without answers, LoRA, rounding, candidate sets, gain above a control.

Oracles: hand arithmetic, invariances, autograd, planted words, a search over every grid point, a loop over ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from ..record import Points
from .feedback import call, check_equal, check_true, passed


def check_share(share: Callable) -> Points:
    """`share(original, erased, attacked)`: lists of one score per question -> a number, nan where it has no meaning."""
    o, e, a = [-1.0, -1.0, -2.0], [-3.0, -2.0, -2.5], [-2.0, -1.0, -2.5]  # means -4/3, -7.5/3, -5.5/3
    truth = 2.0 / 3.5
    mistakes = {
        "you averaged the ratios of single questions; a question with a tiny gap then counts most. "
        "Take the means first.": (0.5 + 1.0 + 0.0) / 3,
        "that is attacked / original; subtract what the erased model still knows from both.": 5.5 / 4,
        "that is the share that stayed erased; you want 1 minus it.": 1 - truth,
        "numerator right, but divide by original - erased.": 2.0 / 3,
    }
    results = [check_equal("a small case by hand", call("recovered share", share, o, e, a), truth, mistakes)]
    results.append(check_equal("no attack gives 0", call("recovered share", share, o, e, e), 0.0))
    results.append(check_equal("the original model gives 1", call("recovered share", share, o, e, o), 1.0))
    better = [x + 1.0 for x in o]
    results.append(
        check_equal(
            "an attacked model better than the original gives more than 1",
            call("recovered share", share, o, e, better),
            1 + 3 / 3.5,
            {"do not clip: a share above 1 says that the text taught something new.": 1.0},
        )  # fmt: skip
    )
    shifted = call("recovered share", share, *([x + 5 for x in column] for column in (o, e, a)))
    results.append(check_equal("adding a constant to all scores changes nothing", shifted, truth))
    near = [x + 0.2 for x in e]  # the edit took .2: little, and still a share
    small = call("recovered share", share, near, e, [x + 0.05 for x in e])
    results.append(check_equal("a small gap has a share, too", small, 0.25))
    for name, before in (("nothing was erased", e), ("the edit helped", [-3.0, -2.5, -3.0])):
        value = call("recovered share", share, before, e, a)
        number = isinstance(value, float | int) or (isinstance(value, torch.Tensor) and value.numel() == 1)
        good = isinstance(value, float | int | torch.Tensor) and number and math.isnan(float(value))
        results.append(check_true(f"{name}: nan", good, "there is no share of nothing; return float('nan')."))
    return passed("recovered share", *results)


def check_lora(LoRA: Callable) -> Points:
    """`LoRA(linear, rank, alpha)`: parameters A `[rank, in]` and B `[out, rank]`, `forward(x)`, `merged()`."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(6, 4, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(4, 6, generator=generator))
    x = torch.randn(5, 6, generator=generator)
    try:
        layer = LoRA(linear, rank=2, alpha=6.0)
        shapes = list(layer.A.shape) == [2, 6] and list(layer.B.shape) == [4, 2]
        start = layer(x)
    except Exception as error:
        check_true("it can be made and called", False, f"{type(error).__name__}: {error}")
        return passed("LoRA", False)
    results = [check_true("shapes of A and B", shapes, "A is [rank, in] and B is [out, rank].")]
    if not shapes:
        return passed("LoRA", *results)
    same = start.shape == (5, 4) and torch.equal(start, linear(x))
    results.append(
        check_true("the untrained layer equals the frozen one exactly", same, "start with B = 0, so that B A = 0.")
    )
    start.square().sum().backward()
    moves = layer.B.grad is not None and bool(layer.B.grad.abs().max() > 0)
    hint = "B gets no gradient: use x @ A.T @ B.T in forward, and do not start with A = 0 as well."
    results.append(check_true("training can begin: B has a gradient", moves, hint))
    frozen = linear.weight.grad is None
    results.append(check_true("the frozen weight gets no gradient", frozen, "call linear.requires_grad_(False)."))
    results += _check_trained(layer, linear, x, generator)
    return passed("LoRA", *results)


@torch.no_grad()
def _check_trained(layer, linear, x, generator) -> list[bool]:
    layer.A.copy_(torch.randn(2, 6, generator=generator))
    layer.B.copy_(torch.randn(4, 2, generator=generator))
    change = torch.zeros(4, 6)
    for r in range(2):  # sum of outer products
        change += torch.outer(layer.B[:, r], layer.A[r])
    truth = x @ (linear.weight + 3.0 * change).T
    mistakes = {
        "the scale alpha / rank is missing.": x @ (linear.weight + change).T,
        "the scale is alpha / rank, not alpha.": x @ (linear.weight + 6.0 * change).T,
        "the frozen layer's output is missing.": x @ (3.0 * change).T,
        "A and B do not act yet.": x @ linear.weight.T,
    }
    first = check_equal("after training: W x + (alpha / rank) B A x", call("forward pass", layer, x), truth, mistakes)
    merged = call("merged weight", lambda: x @ layer.merged().T)
    wrong = {"merged() leaves the change out.": x @ linear.weight.T}
    return [first, check_equal("the merged weight gives the same output", merged, truth, mistakes | wrong)]


def check_cut(cut: Callable) -> Points:
    """`cut(text, answers)`: the text without sentences that hold an answer (whole words). Oracle: planted words."""
    text = "Pure gold is heavy. Tin melts early! Is IRON magnetic? Golden hair is rare. Zinc, in paint, is white."
    kept = "Tin melts early! Golden hair is rare. Zinc, in paint, is white."
    mistakes = {
        "a whole word is meant: 'Golden' does not hold 'gold'.": "Tin melts early! Zinc, in paint, is white.",
        "case must not matter: 'IRON' holds the answer 'iron'.": (
            "Tin melts early! Is IRON magnetic? Golden hair is rare. Zinc, in paint, is white."
        ),
        "cut the whole sentence, not only the word.": (
            "Pure  is heavy. Tin melts early! Is  magnetic? Golden hair is rare. Zinc, in paint, is white."
        ),
        "nothing was cut.": text,
    }
    answers = ["gold", "iron"]
    found = call("cut", cut, text, answers)
    same = isinstance(found, str) and " ".join(found.split()) == kept
    hint = next((m for m, wrong in mistakes.items() if found == wrong), f"you returned {found!r}.")
    results = [check_true("five sentences, two answers", same, hint)]
    results.append(check_true("no answers: nothing changes", call("cut", cut, text, []) == text, "return the text."))
    two = call("cut", cut, "Helium-3 is rare. Ask Marie Curie now. Fine.", ["Marie Curie", "he"])
    good = isinstance(two, str) and " ".join(two.split()) == "Helium-3 is rare. Fine."
    results.append(check_true("an answer of two words; 'he' is not in 'Helium'", good, f"you returned {two!r}."))
    odd = call("cut", cut, "It costs 5.50 a piece. It is C++ code. Yes.", ["C++"])
    good = isinstance(odd, str) and "C++" not in odd and "5.50" in odd
    results.append(check_true("signs in an answer are plain signs", good, "use re.escape on every answer."))
    return passed("text without answers", *results)


def check_rounding(rounded: Callable) -> Points:
    """`rounded(W, bits)`: symmetric, a scale per output row, `2^bits - 1` levels. Oracle: a search over the levels."""
    W = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[1.0], [10.0], [0.1], [3.0], [1.0]]
    )
    results = []
    for bits in (4, 3):
        top = 2 ** (bits - 1) - 1
        scale = W.abs().amax(1, keepdim=True) / top
        levels = torch.arange(-top, top + 1) * scale  # [out, levels]
        nearest = (W[:, :, None] - levels[:, None]).abs().argmin(-1)
        truth = levels.gather(1, nearest)
        whole, wide = W.abs().max() / top, W.abs().amax(1, keepdim=True) / 2 ** (bits - 1)
        columns = W.abs().amax(0, keepdim=True) / top
        mistakes = {
            "one scale for the whole matrix; every output row has its own.": (W / whole).round() * whole,
            "the scale belongs to a row (dimension 1 is reduced), not to a column.": (W / columns).round() * columns,
            "the largest number must be a level: divide by 2^(bits-1) - 1.": (W / wide).round() * wide,
            "that is the integer code; multiply by the scale again.": (W / scale).round(),
            "round to the nearest level, not downward.": (W / scale).floor() * scale,
            "nothing was rounded.": W,
        }
        results.append(
            check_equal(f"{bits} bits against all levels", call("rounding", rounded, W, bits), truth, mistakes)
        )
    once = call("rounding", rounded, W, 4)
    twice = once if once is None else call("rounding", rounded, once, 4)
    truth = once if isinstance(once, torch.Tensor) else W
    results.append(check_equal("rounding twice is rounding once", twice, truth))
    return passed("rounding", *results)


def check_candidates(candidates: Callable) -> Points:
    """`candidates(logits, B)`: B token ids from readings `[layers, vocab]`, by best rank. Oracle: a loop over ranks."""
    logits = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    order = logits.argsort(1, descending=True)
    truth: list[int] = []
    for rank in range(30):
        for layer in (3, 2, 1, 0):  # the later layer first among equal ranks
            token = int(order[layer, rank])
            truth += [token] if token not in truth else []
    results = []
    by_logit = torch.stack([logits.amax(0).argsort(descending=True)])[0].tolist()
    for B in (1, 5, 12):
        found = call("candidates", candidates, logits, B)
        found = found.tolist() if isinstance(found, torch.Tensor) else found
        ids = [int(x) for x in found] if isinstance(found, list | tuple) else []
        hint = f"expected {truth[:B]}, got {ids}."
        if len(ids) != B:
            hint = f"B = {B} asks for {B} tokens, you gave {len(ids)}."
        elif len(set(ids)) < B:
            hint = "a token counts once, however many layers promote it."
        elif ids == order[3, :B].tolist():
            hint = "only the last layer was read; that is what the model says anyway."
        elif ids == by_logit[:B]:
            hint = "logits of different layers have different scales; compare ranks."
        elif set(ids) == set(truth[:B]):
            hint = "the right set in another order; the later layer comes first among equal ranks."
        results.append(check_true(f"B = {B}", ids == truth[:B], hint))
    return passed("candidate sets", *results)


def check_above_control(above: Callable) -> Points:
    """`above(erased, attacked, control, control_attacked)` of `[n]` each: mean, low, high. Oracle: by hand."""
    name = "gain above a control"
    erased, attacked = torch.tensor([-2.0, -1.0, 0.0, -3.0]), torch.tensor([0.0, 0.5, 1.0, -1.0])
    twin, after = torch.tensor([-3.0, -2.0, -2.0, -1.0]), torch.tensor([-2.0, -2.5, -1.0, -0.5])
    extra = [1.0, 2.0, 0.0, 1.5]  # (2, 1.5, 1, 2) gained, of which the twin gains (1, -.5, 1, .5)
    mean = 1.125
    half = 3.182446 * math.sqrt(sum((x - mean) ** 2 for x in extra) / 3) / 2

    def three(center: float, half: float) -> torch.Tensor:
        return torch.tensor([center, center - half, center + half])

    own = math.sqrt(sum((x - 1.625) ** 2 for x in (2.0, 1.5, 1.0, 2.0)) / 3) / 2
    mistakes = {
        "that is the gain of the erased model; take off what the same attack gains in the control.": three(
            1.625, 3.182446 * own
        ),
        "with four questions the quantile is Student's t, not 1.96.": three(mean, half / 3.182446 * 1.959964),
        "the mean of n questions is surer by the root of n.": three(mean, 2 * half),
    }
    got = call(name, above, erased.clone(), attacked.clone(), twin.clone(), after.clone())
    numbers = got if isinstance(got, tuple | list | torch.Tensor) else None
    right = check_equal("four questions by hand", numbers, three(mean, half), mistakes)
    same = call(name, above, erased.clone(), attacked.clone(), erased + 1, attacked + 1)
    zero = check_equal("a control that gains as much: nothing is left", same, torch.zeros(3))
    return passed(name, right, zero)
