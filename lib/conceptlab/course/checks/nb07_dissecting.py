"""Checks of notebook 07. Oracles: rows written out, sums over loops, hooks called one by one, exact resamples."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..record import Points
from .feedback import call, check_equal, check_true, passed, random_tensor

END = 0  # end of text, which is also the padding


def check_answer_length(answer_length: Callable) -> Points:
    """`answer_length(row, width, end)`: answer tokens, padding not counted. Oracle: rows written out."""
    cases = {  # name -> row, width of the padded prompt, truth
        "no padding": ([5, 6, 7, 8, 9], 3, 2),
        "the prompt padded on the left": ([END, END, 5, 6, 8, 9, 4], 4, 3),
        "ended, then filled up": ([5, 6, 8, 9, END, END], 2, 2),
        "both": ([END, 5, 6, 7, 8, END, END], 4, 1),
        "nothing was said": ([END, 5, 6, END, END], 3, 0),
    }
    results = []
    for name, (row, width, truth) in cases.items():
        mistakes = {
            "the padding in front of the prompt was counted as end of text: that is the released code's mistake, and "
            "it cuts the answer.": len(row) - row.count(END) - width,
            "an answer ends at the first end of text behind the prompt.": len(row) - width,
            "the prompt does not belong to the answer.": len(row) - row.count(END),
        }
        found = call("answer_length", answer_length, list(row), width, END)
        results.append(check_equal(name, found, truth, mistakes))
    return passed("length of an answer", *results)


def check_predicting(predicting: Callable) -> Points:
    """`predicting(n_prompt, n_answer)`: positions whose logits predict the answer. Oracle: written out."""
    results = []
    for n_prompt, n_answer in ((4, 3), (1, 1), (7, 5)):
        truth = torch.tensor(list(range(n_prompt - 1, n_prompt + n_answer - 1)))
        mistakes = {
            "off by one: the logits at a position predict the *next* token.": truth + 1,
            "these positions predict the tokens of the prompt.": torch.arange(n_answer),
        }
        found = call("predicting", predicting, n_prompt, n_answer)
        found = list(found) if isinstance(found, range) else found
        results.append(check_equal(f"{n_answer} behind {n_prompt}", found, truth, mistakes))
    return passed("positions that predict", *results)


def check_shift_free(shift_free: Callable) -> Points:
    """`shift_free(z, z0)`: per position, both sides centred. Oracle: loops; a shift must not count."""
    z, z0 = random_tensor(3, 6, seed=1), random_tensor(3, 6, seed=2)
    truth = torch.zeros(3)
    for t in range(3):
        gaps = [float(z[t, v] - z0[t, v]) for v in range(6)]
        truth[t] = sum((g - sum(gaps) / 6) ** 2 for g in gaps) / 6
    gap = z - z0
    mistakes = {
        "that is the raw distance; take each side's mean over the vocabulary off first.": gap.square().mean(-1),
        "take the mean over the vocabulary, not over the positions.": (gap - gap.mean(0)).square().mean(-1),
        "divide by the size of the vocabulary: a mean, not a sum.": truth * 6,
        "that is one number; return one per position.": truth.mean().expand(3),
        "divide by the size of the vocabulary, not by one less.": gap.var(-1),
    }
    results = [check_equal("three positions, six tokens", call("shift_free", shift_free, z, z0), truth, mistakes)]
    shifted = call("shift_free", shift_free, z0 + 5.0, z0.clone())
    results.append(check_true("a shift of all logits is none", _tiny(shifted), "softmax does not see a shift."))
    lone = call("shift_free", shift_free, z + random_tensor(3, 1, seed=3), z0)
    results.append(check_equal("another shift at every position", lone, truth))
    return passed("distance without a shift", *results)


def _tiny(x: object) -> bool:
    return isinstance(x, Tensor) and x.shape == (3,) and bool(x.abs().max() < 1e-6)


def check_patch_hooks(patch_hooks: Callable) -> Points:
    """`patch_hooks(kept, first, last)`: one hook per layer, each giving its own layer's activation. Oracle: calls."""
    kept = {layer: random_tensor(1, 4, 5, seed=layer) for layer in range(6)}
    found = call("patch_hooks", patch_hooks, dict(kept), 2, 4)
    if not isinstance(found, Mapping):
        return passed("patching a window", *[check_true("three hooks", False, "return a dictionary.")] * 3)
    wanted = {("neurons", layer) for layer in (2, 3, 4)}
    hint = 'one hook at ("neurons", layer) for every layer of the window, the last one included.'
    results = [check_true("one hook per layer of the window", set(found) == wanted, hint)]
    given = {site: call("hook", hook, torch.zeros(1, 4, 5)) for site, hook in found.items() if callable(hook)}
    own = bool(given) and all(_same(x, kept.get(site[1])) for site, x in given.items())
    late = len(given) > 1 and all(_same(x, kept[4]) for x in given.values())
    hint = (
        "every hook gives the last layer's activation: a function made in a loop looks its variable up when it is "
        "called; bind it (a function that makes the hook, or a default argument)."
        if late
        else "each hook returns the kept activation of its own layer."
    )
    results.append(check_true("each gives its own layer's activation", own, hint))
    single = call("patch_hooks", patch_hooks, dict(kept), 5, 5)
    ok = isinstance(single, Mapping) and list(single) == [("neurons", 5)]
    results.append(check_true("a window of one layer", ok, "first and last may be the same layer."))
    return passed("patching a window", *results)


def _same(x: object, kept: Tensor | None) -> bool:
    return isinstance(x, Tensor) and kept is not None and x.shape == kept.shape and torch.equal(x, kept)


def check_taken_back(taken_back: Callable) -> Points:
    """`taken_back(treated, lost)`: ratio of means over questions. Oracle: sums."""
    lost, treated = torch.tensor([4.0, 2.0, 0.01, 2.0]), torch.tensor([1.0, 1.0, 0.05, 0.5])
    truth = 1 - sum(treated.tolist()) / sum(lost.tolist())
    mistakes = {
        "that is the mean of the questions' own shares: the one that lost next to nothing rules it.": (
            1 - (treated / lost).mean()
        ),
        "that is what is left; the share *taken back* is 1 minus it.": 1 - truth,
        "divide by the distance of the unlearned model, not of the treated one.": 1 - lost.mean() / treated.mean(),
        "that is a difference; divide by what was lost.": lost.mean() - treated.mean(),
    }
    results = [check_equal("four questions", call("taken_back", taken_back, treated, lost), truth, mistakes)]
    results.append(check_equal("everything", call("taken_back", taken_back, torch.zeros(4), lost), 1.0))
    results.append(check_equal("nothing", call("taken_back", taken_back, lost.clone(), lost), 0.0))
    results.append(check_equal("worse than before", call("taken_back", taken_back, 2 * lost, lost), -1.0))
    return passed("share taken back", *results)


def check_share_gaps(share_gaps: Callable) -> Points:
    """`share_gaps(treated, lost, treated_c, lost_c, picks)`: paired resamples of a difference. Oracle: loops."""
    t, u, tc, uc = (random_tensor(6, seed=i).abs() + 0.5 for i in range(4))
    picks = torch.randint(6, (40, 6), generator=torch.Generator().manual_seed(0))
    truth, shuffled = torch.zeros(40), torch.zeros(40)
    for r, row in enumerate(picks.tolist()):
        for out, other in ((truth, row), (shuffled, picks[(r + 1) % 40].tolist())):
            a = sum(float(t[i]) for i in row) / sum(float(u[i]) for i in row)
            b = sum(float(tc[i]) for i in other) / sum(float(uc[i]) for i in other)
            out[r] = b - a
    ratios = 1 - (t / u)[picks].mean(1) - (1 - (tc / uc)[picks].mean(1))
    mistakes: dict[str, Tensor | float | int] = {
        "the control needs the *same* questions in each resample: pair them.": shuffled,
        "take the ratio of the means in each resample, not the mean of ratios.": ratios,
        "the sign is turned: edit minus control.": -truth,
        "the denominator is drawn anew with the questions, too.": (
            tc[picks].mean(1) / uc.mean() - t[picks].mean(1) / u.mean()
        ),
        "that divides both by what the edit lost; each has its own denominator.": (
            (tc - t)[picks].mean(1) / u[picks].mean(1)
        ),
    }
    found = call("share_gaps", share_gaps, t.clone(), u.clone(), tc.clone(), uc.clone(), picks)
    results = [check_equal("forty resamples of six questions", found, truth, mistakes)]
    same = call("share_gaps", share_gaps, t.clone(), u.clone(), t.clone(), u.clone(), picks)
    results.append(check_equal("an edit against itself", same, torch.zeros(40)))
    one = torch.arange(6)[None]
    found = call("share_gaps", share_gaps, t.clone(), u.clone(), tc.clone(), uc.clone(), one)
    results.append(check_equal("every question once", found, torch.tensor([_gap(t, u, tc, uc)])))
    return passed("difference to a control", *results)


def _gap(t: Tensor, u: Tensor, tc: Tensor, uc: Tensor) -> float:
    return float(tc.sum() / uc.sum() - t.sum() / u.sum())
