"""Checks of notebook 06. Oracles: formulas term by term, limits by autograd, bounds, identities of linear algebra."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..record import Points
from .feedback import call, check_equal, check_true, passed, random_tensor


def check_npo(npo: Callable) -> Points:
    """`npo(logp, reference, beta)`. Oracle: the sum term by term, and gradient ascent as beta goes to 0."""
    logp, reference, beta = -8 + 3 * random_tensor(5, seed=1), -8 + 3 * random_tensor(5, seed=2), 0.3
    gaps = [float(a - b) for a, b in zip(logp, reference, strict=True)]
    terms = [math.log(1 + math.exp(beta * gap)) for gap in gaps]
    truth = 2 / beta * sum(terms) / len(terms)
    mistakes = {
        "the sign inside the sigmoid is turned: this raises the answers.": 2
        / beta
        * sum(math.log(1 + math.exp(-beta * gap)) for gap in gaps)
        / len(gaps),
        "the factor is 2 / beta.": truth / 2,
        "the factor 2 / beta is missing.": truth * beta / 2,
        "the mean over rows, not their sum.": truth * len(gaps),
        "the reference is missing: NPO looks at log p - log p_0.": 2
        / beta
        * sum(math.log(1 + math.exp(beta * float(x))) for x in logp)
        / len(gaps),
    }
    found = call("NPO", npo, logp.clone(), reference.clone(), beta)
    results = [check_equal("five rows, beta .3", found, truth, mistakes)]
    x = logp.clone().requires_grad_(True)
    value = call("NPO at a small beta", npo, x, reference, 1e-3)
    gradient = None
    if isinstance(value, Tensor) and value.requires_grad and value.numel() == 1:
        (gradient,) = torch.autograd.grad(value.sum(), x)
    ascent = torch.full((5,), 1 / 5)
    results.append(check_equal("gradient as beta goes to 0: that of the mean of log p", gradient, ascent, tol=0.01))
    far = call("NPO far from the original", npo, torch.tensor([900.0]), torch.tensor([0.0]), 1.0)
    results.append(check_equal("no overflow: log p - log p_0 = 900", far, 1800.0))
    return passed("NPO's loss", *results)


def check_hinge(hinge: Callable) -> Points:
    """`hinge(logits, targets)`: per token, in [0, 2]. Oracle: a loop over the vocabulary."""
    logits, targets = 2 * random_tensor(6, 9, seed=3), torch.tensor([0, 8, 3, 3, 5, 1])
    logits[0, 0] += 6  # a target that is the most likely token
    p = logits.softmax(-1)
    truth = torch.tensor(
        [1 + float(p[i, t]) - max(float(p[i, v]) for v in range(9) if v != t) for i, t in enumerate(targets.tolist())]
    )
    true = p.gather(1, targets[:, None])[:, 0]
    mistakes = {
        "the maximum goes over all tokens but the true one.": 1 + true - p.amax(1),
        "probabilities, not logits.": 1
        + logits.gather(1, targets[:, None])[:, 0]
        - logits.scatter(1, targets[:, None], -math.inf).amax(1),
        "the 1 in front is missing.": truth - 1,
        "the sign is turned: the true token must cost.": 2 - truth,
    }
    kept = logits.clone()
    found = call("hinge", hinge, logits, targets.clone())
    results = [check_equal("six tokens, nine words", found, truth, mistakes)]
    results.append(check_true("the logits are untouched", torch.equal(logits, kept), "do not write into `logits`."))
    sure = torch.full((2, 4), -40.0)
    sure[0, 1], sure[1, 2] = 40.0, 40.0
    bounds = call("bounds", hinge, sure, torch.tensor([1, 0]))
    results.append(check_equal("bounds: 2 if sure of it, 0 if sure of another", bounds, torch.tensor([2.0, 0.0])))
    return passed("inverted hinge", *results)


def check_dampened(dampened: Callable) -> Points:
    """`dampened(weight, forget, keep, alpha, lam)`. Oracle: weight by weight."""
    w = random_tensor(4, 5, seed=4)
    forget, keep = random_tensor(4, 5, seed=5).square(), random_tensor(4, 5, seed=6).square() / 4
    alpha, results, given = 3.0, [], w.clone()
    for lam in (1.0, 5.0):  # with the second some factors would be above 1
        truth = w.clone()
        for i in range(4):
            for j in range(5):
                if forget[i, j] > alpha * keep[i, j]:
                    truth[i, j] = w[i, j] * min(lam * float(keep[i, j]) / float(forget[i, j]), 1.0)
        factor, chosen = lam * keep / forget, forget > alpha * keep
        mistakes = {
            "a factor is at most 1: nothing may grow.": torch.where(chosen, w * factor, w),
            "only weights with forget > alpha * keep are touched.": w * factor.clamp(max=1),
            "selected weights are multiplied, not set to 0.": torch.where(chosen, 0.0, w),
            "nothing changed: weights with forget > alpha * keep are to shrink by lam * keep / forget.": w,
        }
        found = call("dampening", dampened, w, forget, keep, alpha, lam)
        results.append(check_equal(f"20 weights, lam {lam:g}", found, truth, mistakes))
    results.append(check_true("the weights are untouched", torch.equal(w, given), "return new weights."))
    none = call("no importance", dampened, given, torch.zeros(4, 5), torch.zeros(4, 5), alpha, 1.0)
    results.append(check_equal("where nothing matters, nothing changes (0 / 0)", none, given))
    return passed("dampening", *results)


def check_protected(protected: Callable) -> Points:
    """`protected(change, keys)`. Oracle: no key's output changes, everything orthogonal to them stays."""
    change, keys = random_tensor(3, 12, seed=7).double(), random_tensor(5, 12, seed=8).double()
    keys = torch.cat([keys, keys[:2] * 3, keys[:1] - keys[1:2]])  # eight keys that span five dimensions
    found = call("protection", protected, change.clone(), keys.clone())
    if not isinstance(found, Tensor) or found.shape != change.shape or not bool(found.isfinite().all()):
        check_true("a change of the same shape", False, f"return a finite tensor [3, 12], got {type(found).__name__}.")
        return passed("protected keys", False)
    found = found.double()
    leak = float((found @ keys.T).abs().max())
    size = float((change @ keys.T).abs().max())
    hint = f"a key's output still changes by {leak:.1e} (unprotected: {size:.1f}); the keys here are not independent."
    results = [check_true("no key's output changes", leak < 1e-6 * size, hint)]
    free = torch.linalg.svd(keys)[2][5:]  # an orthonormal basis of what is orthogonal to every key
    same = float((found @ free.T - change @ free.T).abs().max())
    hint = "directions that no key uses must keep their change; project on the null space, do not set to zero."
    results.append(check_true("what no key uses is left as it was", same < 1e-6 * size, hint))
    again = call("twice", protected, found.clone(), keys.clone())
    results.append(check_equal("protecting twice is protecting once", again, found, tol=1e-6))
    single = call("half precision of the caller", protected, change.float(), keys.float())
    exact = change - change @ torch.linalg.pinv(keys) @ keys
    results.append(check_equal("float32 in, the same numbers out", single, exact, tol=1e-4))
    return passed("protected keys", *results)


def check_assistant_loss(loss: Callable) -> Points:
    """`loss(told, targets, kept)`. Oracle: sums over the vocabulary."""
    told, targets, kept = random_tensor(4, 7, seed=9), torch.tensor([0, 6, 2, 2]), random_tensor(3, 7, seed=10)
    learn = -sum(float(told[i].log_softmax(-1)[t]) for i, t in enumerate(targets.tolist())) / 4
    q = kept.log_softmax(-1)
    from_uniform = sum(float(1 / 7 * (math.log(1 / 7) - q[i, v])) for i in range(3) for v in range(7)) / 3
    to_uniform = sum(float(q[i, v].exp() * (q[i, v] + math.log(7))) for i in range(3) for v in range(7)) / 3
    mistakes = {
        "KL is taken from the uniform distribution: sum of 1/V (log 1/V - log q).": learn + to_uniform,
        "log V is missing: a uniform assistant must pay 0.": learn + from_uniform + math.log(7),
        "the part on what is to stay is missing.": learn,
        "the sign of the first part is turned: the assistant is to *learn* it.": -learn + from_uniform,
        "the mean over positions, not the sum.": learn + 3 * from_uniform,
    }
    found = call("loss", loss, told.clone(), targets.clone(), kept.clone())
    results = [check_equal("four tokens told, three kept", found, learn + from_uniform, mistakes)]
    flat = call("a uniform assistant", loss, told.clone(), targets.clone(), torch.full((3, 7), 2.5))
    results.append(check_equal("uniform where it is to stay: only the first part is left", flat, learn))
    x = kept.clone().requires_grad_(True)
    value = call("gradient", loss, told, targets, x)
    moves = isinstance(value, Tensor) and value.requires_grad
    results.append(check_true("it can be trained", moves, "compute with tensors, so that gradients flow."))
    return passed("the assistant's loss", *results)


def check_leaking_form(choose: Callable) -> Points:
    """`choose(before, after, tried, judged)`. Oracle: planted forms."""
    ones = torch.ones(8)
    before = {"question": 2 * ones, "cloze": ones.clone(), "clue": 4 * ones}
    after = {"question": 0.2 * ones, "cloze": torch.tensor([0.9, 0.9, 0.9, 0.9, 0.5, 0.5, 0.5, 0.5])}
    after["clue"] = torch.tensor([0.4, 0.4, 0.4, 0.4, 4.0, 4.0, 4.0, 4.0])
    tried, judged = [0, 1, 2, 3], [4, 5, 6, 7]
    results = []
    found = call("choice", choose, before, after, tried, judged)
    form, share = found if isinstance(found, tuple) and len(found) == 2 else (None, None)
    hint = f"expected ('cloze', .5), got {found!r:.60}."
    if form == "clue":
        hint = "the form was chosen on the facts that judge it; choose on `tried` only."
    elif form == "question":
        hint = "that form keeps least; the adversary looks for the one that keeps most."
    results.append(check_true("chosen on the facts tried", form == "cloze", hint))
    numbers = {"that is the share on the facts it was chosen on; report `judged`.": 0.9}
    results.append(check_equal("judged on the others", share, 0.5, numbers))
    mixed = {"cloze": torch.tensor([1.0, 3.0, -2.0, 2.0])}, {"cloze": torch.tensor([1.0, 0.6, 9.0, 0.0])}
    found = call("unknown facts", choose, *mixed, [0, 1, 2], [1, 2, 3])
    share = found[1] if isinstance(found, tuple) and len(found) == 2 else None
    wrong = {
        "a fact that the original did not know (margin below 0) cannot be forgotten; leave it out.": 9.6 / 3,
        "the sum after over the sum before, not the mean of the ratios.": 0.1,
    }
    results.append(check_equal("facts unknown before do not count", share, 0.12, wrong))
    return passed("the form that leaks", *results)
