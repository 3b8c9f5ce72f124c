"""The checks of notebook 05: solutions pass, usual mistakes are named, nonsense does not stop a notebook."""

import re

import pytest
import torch

from conceptlab.course.checks import nb05_attacks as nb


def share(original, erased, attacked):
    original, erased, attacked = (torch.tensor(x).mean() for x in (original, erased, attacked))
    return float((attacked - erased) / (original - erased)) if original > erased else float("nan")


def cut(text, answers, flags=re.I, edge=r"(?<!\w)(?:{})(?!\w)"):
    pattern = re.compile(edge.format("|".join(map(re.escape, answers))) if answers else r"(?!)", flags)
    return " ".join(s for s in re.split(r"(?<=[.!?])\s+", text) if not pattern.search(s))


def rounding(W, bits):
    scale = W.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (W / scale).round() * scale


def candidates(logits, B):
    order = logits.argsort(1, descending=True).flip(0).T.flatten().tolist()  # rank by rank, the last layer first
    return list(dict.fromkeys(order))[:B]


class LoRA(torch.nn.Module):
    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear, self.scale = linear.requires_grad_(False), alpha / rank
        self.A = torch.nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.B = torch.nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.A.T @ self.B.T)

    def merged(self):
        return self.linear.weight + self.scale * self.B @ self.A


SOLUTIONS = {"share": share, "cut": cut, "rounding": rounding, "candidates": candidates, "lora": LoRA}


@pytest.mark.parametrize("name", SOLUTIONS)
def test_a_solution_passes_and_nonsense_does_not(name, capsys):
    check = getattr(nb, f"check_{name}")
    check(SOLUTIONS[name])
    assert "PASSED" in capsys.readouterr().out
    for wrong in (lambda *_: None, lambda *_: torch.zeros(3), lambda *_: 1 / 0, lambda *_: "text", lambda: 0):
        check(wrong)
        assert "NOT YET" in capsys.readouterr().out


def scaled(W, bits, largest=None, top=None):
    largest = W.abs().amax(1, keepdim=True) if largest is None else largest
    return (W / (largest / top)).round() * (largest / top)


@pytest.mark.parametrize(
    ("check", "answer", "says"),
    [
        ("share", lambda o, e, a: sum(a) / sum(o), "what the erased model still knows"),
        ("share", lambda o, e, a: 1 - share(o, e, a), "the share that stayed erased"),
        ("cut", lambda text, answers: text, "nothing was cut"),
        ("cut", lambda text, answers: cut(text, answers, edge="(?:{})"), "'Golden' does not hold"),
        ("cut", lambda text, answers: cut(text, answers, flags=0), "case must not matter"),
        ("rounding", lambda W, b: W, "nothing was rounded"),
        ("rounding", lambda W, b: scaled(W, b, W.abs().max(), 2 ** (b - 1) - 1), "one scale for the whole matrix"),
        ("rounding", lambda W, b: scaled(W, b, top=2 ** (b - 1)), "must be a level"),
        ("candidates", lambda logits, B: logits[-1].topk(B).indices, "only the last layer"),
        ("candidates", lambda logits, B: logits.amax(0).topk(B).indices, "different scales"),
        ("candidates", lambda logits, B: [0] * B, "counts once|expected"),
    ],
)
def test_the_usual_mistake_is_named(check, answer, says, capsys):
    getattr(nb, f"check_{check}")(answer)
    out = capsys.readouterr().out
    assert re.search(says, out) and "NOT YET" in out
