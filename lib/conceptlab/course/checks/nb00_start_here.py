"""Checks of notebook 00. Each calls the reader's function on small data whose answer is known by other means."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..record import Points
from .feedback import call, check_equal, check_true, passed, random_tensor


def check_direct_effects(function: Callable) -> Points:
    """`function(pieces, direction) -> effects [n]` against a loop, and their sum against the logit of the whole."""
    pieces, direction = 3 * random_tensor(7, 5, seed=1), random_tensor(5, seed=2)
    whole = pieces.sum(0)
    rms = (sum(float(x) ** 2 for x in whole) / 5) ** 0.5
    truth = torch.tensor([sum(float(a) * float(b) for a, b in zip(p, direction, strict=True)) / rms for p in pieces])
    own = pieces / pieces.square().mean(1, keepdim=True).sqrt()
    mistakes = {
        "you divided each piece by its own rms: the final norm sees the sum, so all share one divisor.": own
        @ direction,
        "nothing is divided: the final norm divides by the rms of the sum of the pieces.": pieces @ direction,
        "you divided by the length of the sum; rms is the length divided by sqrt(d_model).": truth * rms / whole.norm(),
    }
    answer = call("direct effects", function, pieces, direction)
    results = [check_equal("effect of each piece", answer, truth, mistakes)]
    total = answer.sum() if isinstance(answer, Tensor) else None
    results.append(check_equal("their sum is the logit of the whole", total, whole @ direction / rms))
    return passed("which part writes the answer", *results)


def check_settles_at(function: Callable) -> Points:
    """`function(ranks [layers, prompts]) -> first layer from which the rank stays 0` against a loop."""
    generator = torch.Generator().manual_seed(0)
    ranks = torch.randint(0, 2, (6, 40), generator=generator) * torch.randint(1, 90, (6, 40), generator=generator)
    ranks[:, 0], ranks[:, 1], ranks[:, 2] = 0, 5, torch.tensor([4, 0, 3, 0, 0, 0])
    truth = []
    for column in ranks.T.tolist():
        layer = 6
        while layer > 0 and column[layer - 1] == 0:
            layer -= 1
        truth.append(layer)
    zero = ranks == 0
    first = torch.where(zero.any(0), zero.int().argmax(0), 6)
    mistakes = {
        "this is the first layer with rank 0; the lens may lose the answer again: ask for the last run of zeros": first,
        "you counted the layers of the last run; subtract the count from the number of layers.": 6
        - torch.tensor(truth),
        "you counted every layer with rank 0, also those before the answer was lost again.": 6 - zero.sum(0),
    }
    answer = call("settles_at", function, ranks)
    results = [check_equal("first layer from which the answer stays on top", answer, torch.tensor(truth), mistakes)]
    ends = answer[:2] if isinstance(answer, Tensor) and answer.ndim else None
    results.append(check_equal("always on top gives 0, never gives the number of layers", ends, torch.tensor([0, 6])))
    return passed("where the answer settles", *results)


def check_per_neuron(function: Callable) -> Points:
    """`function(neurons, W_down, gain) -> [d_mlp, d_model]` against the norm computed on the whole sum."""
    neurons, w_down, gain = (
        random_tensor(6, seed=3),
        2 * random_tensor(6, 4, seed=4),
        torch.tensor([0.5, 3.0, 1.0, 8.0]),
    )
    output = torch.zeros(4)
    for j in range(6):
        output += neurons[j] * w_down[j]
    rms = (sum(float(x) ** 2 for x in output) / 4) ** 0.5
    truth = torch.stack([neurons[j] * w_down[j] * gain / rms for j in range(6)])
    raw = neurons[:, None] * w_down
    mistakes = {
        "the norm after the MLP is missing: multiply by the gain and divide by the rms of the whole output.": raw,
        "the gain is there, the division by the rms of the MLP's output is not.": raw * gain,
        "the division is there, the gain is not.": raw / rms,
        "you divided each row by its own rms; the norm sees the sum of all rows.": raw
        * gain
        / raw.square().mean(1, keepdim=True).sqrt(),
        "the gain comes after the division: take the rms of the output before the gain.": raw
        * gain
        / (output * gain).square().mean().sqrt(),
        "these are the value vectors themselves: multiply each by its neuron's activation.": w_down * gain / rms,
    }
    answer = call("per_neuron", function, neurons, w_down, gain)
    results = [check_equal("one row per neuron", answer, truth, mistakes)]
    total = answer.sum(0) if isinstance(answer, Tensor) else None
    results.append(check_equal("the rows add up to the normalised output", total, output / rms * gain))
    return passed("what one neuron adds", *results)


def check_promoted(function: Callable) -> Points:
    """`function(activation, value, rows, k) -> ids` on a planted vocabulary, for both signs of the activation."""
    rows, value = random_tensor(30, 5, seed=5), random_tensor(5, seed=6)
    rows[7], rows[19] = 4 * value, -4 * value  # +value promotes token 7, -value token 19
    effect = torch.tensor([sum(float(a) * float(b) for a, b in zip(r, value, strict=True)) for r in rows])
    up, down = effect.argsort(descending=True)[:4], effect.argsort()[:4]
    plus = call("positive activation", function, 2.5, value, rows, 4)
    minus = call("negative activation", function, -2.5, value, rows, 4)
    lost = "these are the tokens that the vector itself promotes: a negative activation turns it round."
    results = [
        check_equal("positive activation", plus, up, {"these are the suppressed tokens.": down}),
        check_equal("negative activation", minus, down, {lost: up}),
        check_true("both planted tokens are found", _holds(plus, 7) and _holds(minus, 19), "look at both ends."),
    ]
    return passed("what a neuron promotes on this token", *results)


def check_option_score(function: Callable) -> Points:
    """`function(logits [pos, d_vocab], ids [pos], n_prompt) -> mean log-probability of the option` against a loop."""
    logits, ids, n_prompt = 2 * random_tensor(9, 11, seed=7), torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5]), 6
    logp = logits.double().softmax(-1).log()
    own = [float(logp[i - 1, ids[i]]) for i in range(n_prompt, len(ids))]
    late = [float(logp[i, ids[i]]) for i in range(n_prompt, len(ids))]
    every = [float(logp[i - 1, ids[i]]) for i in range(1, len(ids))]
    raw = [float(logits[i - 1, ids[i]]) for i in range(n_prompt, len(ids))]
    truth = torch.tensor(sum(own) / len(own))
    mistakes = {
        "off by one: the logits at position i predict token i + 1.": sum(late) / len(late),
        "the sum: a longer option would lose only because it is longer; take the mean per token.": sum(own),
        "the prompt's own tokens are in it; score the option's only.": sum(every) / len(every),
        "these are raw logits; log_softmax over the vocabulary makes log-probabilities.": sum(raw) / len(raw),
        "probabilities were averaged; average their logarithms.": sum(map(math.exp, own)) / len(own),
    }
    answer = call("option score", function, logits, ids, n_prompt)
    results = [check_equal("three tokens behind six", answer, truth, mistakes)]
    one = call("one token", function, logits, ids, len(ids) - 1)
    results.append(check_equal("an option of one token", one, torch.tensor(own[-1])))
    shifted = call("shifted logits", function, logits + 5.0, ids, n_prompt)
    results.append(check_equal("adding a number to all logits changes nothing", shifted, truth))
    return passed("the score of an option", *results)


def _holds(ids: object, token: int) -> bool:
    return isinstance(ids, Tensor) and token in ids.tolist()
