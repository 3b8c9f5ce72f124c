"""Checks of notebook 02. The oracles are counting, invariance and planted features."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .feedback import check_equal, check_true, passed

# a case small enough to do by hand: the 4 = 2 * 2 largest scores are 3, 2, 1 and 0.75
_SCORES = [[1.0, -2.0, 3.0, 0.5, 0.75], [-1.0, -3.0, -0.5, 2.0, 0.25]]
_BATCH_TOP2 = torch.tensor([[1.0, 0.0, 3.0, 0.0, 0.75], [0.0, 0.0, 0.0, 2.0, 0.0]])


def check_batch_topk(keep: Callable[[Tensor, int], Tensor]) -> None:
    """`keep(scores [batch, n], k)` keeps the `k * batch` largest of the batch, sets the rest and negatives to 0."""
    name = "BatchTopK"
    scores = torch.tensor(_SCORES)
    relu = scores.relu()
    top = relu.topk(2, dim=-1)
    mistakes = {
        "nothing was set to zero: keep the k * batch largest scores.": scores,
        "that is the relu alone; keep only the k * batch largest.": relu,
        "the k largest of each row were kept; that is TopK. Here the rows share one budget.": torch.zeros_like(
            relu
        ).scatter(-1, top.indices, top.values),
        "only k scores were kept; the budget of the batch is k * batch.": relu.where(relu >= 2.0, 0.0),
    }
    first = check_equal("the case done by hand", _attempt(lambda: keep(scores.clone(), 2)), _BATCH_TOP2, mistakes)
    many = torch.rand(64, 100, generator=torch.Generator().manual_seed(0)) + 0.1
    got = _attempt(lambda: keep(many.clone(), 7))
    if not isinstance(got, Tensor) or got.shape != many.shape:
        passed(name, first, check_true("64 tokens, 100 features", False, "expected a tensor of the scores' shape."))
        return
    kept, n = got != 0, int((got != 0).sum())
    largest = many.where(kept, torch.inf).min() >= many.where(~kept, -torch.inf).max()
    passed(
        name,
        first,
        check_true("64 * 7 non-zeros", n == 64 * 7, f"{n} scores are not zero."),
        check_true("kept scores unchanged", torch.equal(got, many.where(kept, 0.0)), "they must keep their value."),
        check_true("the largest of the batch", bool(largest), "a dropped score is larger than a kept one."),
    )


def check_unit_norm(unit_norm: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]) -> None:
    """`unit_norm(W_enc, b_enc, W_dec)` gives rows of `W_dec` norm 1 and leaves the function computed unchanged.

    The function here is the dictionary before TopK: `relu(x W_enc + b_enc) W_dec`.
    """
    name = "norms into the encoder"
    g = torch.Generator().manual_seed(0)
    W_enc, b_enc = torch.randn(6, 10, generator=g), torch.randn(10, generator=g)
    W_dec, x = 3 * torch.randn(10, 6, generator=g), torch.randn(20, 6, generator=g)

    def output(we: Tensor, be: Tensor, wd: Tensor) -> Tensor:
        return (x @ we + be).relu() @ wd

    norms = W_dec.norm(dim=1)
    unit = W_dec / norms[:, None]
    found = _attempt(lambda: unit_norm(W_enc.clone(), b_enc.clone(), W_dec.clone()))
    ok = isinstance(found, tuple | list) and len(found) == 3 and all(isinstance(t, Tensor) for t in found)
    if not ok or [t.shape for t in found] != [W_enc.shape, b_enc.shape, W_dec.shape]:
        passed(name, check_true("three tensors", False, "return W_enc, b_enc, W_dec, each with its old shape."))
        return
    columns = W_dec / W_dec.norm(dim=0)
    mistakes = {
        "the columns have norm 1; a feature is a row of W_dec.": columns,
        "W_dec is unchanged: divide each row by its norm.": W_dec,
        "the whole matrix was divided by one number; each row has its own norm.": W_dec / W_dec.norm(),
    }
    first = check_equal("decoder rows", found[2], unit, mistakes)
    truth = output(W_enc, b_enc, W_dec)
    mistakes = {
        "the norms are gone: multiply each feature's encoder column and bias by its norm.": output(W_enc, b_enc, unit),
        "the bias needs the norms as well.": output(W_enc * norms, b_enc, unit),
        "the encoder was divided by the norms; it has to be multiplied.": output(W_enc / norms, b_enc / norms, unit),
    }
    second = check_equal("same output", _attempt(lambda: output(*found)), truth, mistakes)
    passed(name, first, second)


def _attempt(function: Callable[[], object]) -> object:
    """The answer, or None with a line that says what was raised: a check never stops a notebook."""
    try:
        return function()
    except Exception as error:
        print(f"  no   your function raised {type(error).__name__}: {str(error).splitlines()[0][:120]}")
        return None
