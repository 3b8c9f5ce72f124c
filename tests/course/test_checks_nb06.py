"""The checks of notebook 06: the course's answers pass, usual mistakes are named, nonsense does not stop a notebook."""

import pytest
import torch

from conceptlab.course.checks import nb06_unlearning_lab as nb
from conceptlab.course.checks.answers_unlearning import (
    ANSWERS,
    assistant_loss,
    dampened,
    hinge,
    leaking_form,
    npo,
    protected,
)
from conceptlab.course.exercises import EXERCISES, exercises_of
from exercises_of_checks import NONSENSE

CHECKS = {
    "NPO's loss": nb.check_npo,
    "inverted hinge": nb.check_hinge,
    "dampening": nb.check_dampened,
    "protected keys": nb.check_protected,
    "the assistant's loss": nb.check_assistant_loss,
    "the form that leaks": nb.check_leaking_form,
}
logsigmoid = torch.nn.functional.logsigmoid


def naive_npo(logp, reference, beta):
    return (2 / beta) * torch.log(1 + torch.exp(beta * (logp - reference))).mean()


def hinge_in_place(logits, targets):
    found = hinge(logits, targets)
    logits.zero_()
    return found


def by_pinv_of_rows(change, keys):
    q = torch.linalg.qr(keys.T)[0].T  # keeps directions that dependent keys do not span
    return change - change @ q.T @ q


def leaking(form=None, facts="judged", known=True, ratio=False):
    def choose(before, after, tried, judged):
        def kept(name, at):
            top, now = before[name][list(at)], after[name][list(at)]
            keep = top > 0 if known else torch.ones_like(top, dtype=torch.bool)
            return float((now[keep] / top[keep]).mean() if ratio else now[keep].sum() / top[keep].sum())

        best = max(before, key=lambda name: kept(name, judged if form == "judged" else tried))
        if form == "least":
            best = min(before, key=lambda name: kept(name, tried))
        return best, kept(best, judged if facts == "judged" else tried)

    return choose


WRONG = {
    "NPO's loss": [
        (lambda a, b, beta: -(2 / beta) * logsigmoid(beta * (a - b)).mean(), "sign inside"),
        (lambda a, b, beta: npo(a, b, beta) / 2, "factor is 2 / beta"),
        (lambda a, b, beta: npo(a, b, beta) * len(a), "not their sum"),
        (lambda a, b, beta: npo(a, 0 * b, beta), "reference is missing"),
        (naive_npo, "not finite"),
        (lambda a, b, beta: npo(a.detach(), b, beta), "nothing yet"),
    ],
    "inverted hinge": [
        (lambda x, t: 1 + x.softmax(-1).gather(1, t[:, None])[:, 0] - x.softmax(-1).amax(1), "all tokens but"),
        (lambda x, t: hinge(x, t) - 1, "1 in front"),
        (lambda x, t: 2 - hinge(x, t), "sign is turned"),
        (lambda x, t: hinge(x, t).mean(), "shape"),
        (hinge_in_place, "do not write"),
    ],
    "dampening": [
        (lambda w, f, k, a, m: torch.where(f > a * k, w * m * k / f, w), "nothing may grow"),
        (lambda w, f, k, a, m: w * (m * k / f).clamp(max=1), "only weights"),
        (lambda w, f, k, a, m: torch.where(f > a * k, 0.0, w), "not set to 0"),
        (lambda w, f, k, a, m: torch.where(k > a * f, w * (m * k / f).clamp(max=1), w), "nothing changed"),
        (lambda w, f, k, a, m: w.copy_(dampened(w, f, k, a, m)), "return new"),
    ],
    "protected keys": [
        (lambda d, k: d, "still changes"),
        (lambda d, k: 0 * d, "must keep their change"),
        (lambda d, k: protected(d, k.mean(0, keepdim=True)), "still changes"),
        (by_pinv_of_rows, "must keep their change"),
        (lambda d, k: d - d @ k.T @ torch.linalg.inv(k @ k.T + 1e-2 * torch.eye(len(k)).to(k)) @ k, "still changes"),
    ],
    "the assistant's loss": [
        (lambda a, t, b: torch.nn.functional.cross_entropy(a, t), "is missing"),
        (lambda a, t, b: assistant_loss(a, t, b) + torch.log(torch.tensor(7.0)), "log V"),
        (lambda a, t, b: assistant_loss(a, t, b) - 2 * torch.nn.functional.cross_entropy(a, t), "to *learn*"),
        (
            lambda a, t, b: (
                torch.nn.functional.cross_entropy(a, t)
                + (b.softmax(-1) * (b.log_softmax(-1) + torch.log(torch.tensor(float(b.shape[1]))))).sum(-1).mean()
            ),
            "from the uniform",
        ),
        (lambda a, t, b: float(assistant_loss(a, t, b).detach()), "gradients flow"),
    ],
    "the form that leaks": [
        (leaking(form="judged"), "choose on `tried`"),
        (leaking(form="least"), "keeps least"),
        (leaking(facts="tried"), "report `judged`"),
        (leaking(known=False), "leave it out"),
        (leaking(ratio=True), "not the mean of the ratios"),
    ],
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_answer_passes_and_wrong_ones_are_named(name, capsys):
    points = CHECKS[name](ANSWERS[name])
    assert points and points.earned == points.possible == EXERCISES[name].points, capsys.readouterr().out
    capsys.readouterr()
    assert len(WRONG[name]) >= 3
    for i, (answer, said) in enumerate(WRONG[name]):
        points = CHECKS[name](answer)
        out = capsys.readouterr().out
        assert not points and points.earned < points.possible, f"wrong answer {i} passes"
        assert said in out, (i, said, out)
    for nonsense in NONSENSE:
        assert not CHECKS[name](nonsense)


def test_every_exercise_of_06_is_tried_here_and_they_are_of_all_kinds():
    own = exercises_of("06")
    assert {e.name for e in own if not e.written} == set(CHECKS) == set(ANSWERS) == set(WRONG)
    assert 5 <= len(own) <= 7
    assert any(e.difficulty == "hard" for e in own) and any(e.written for e in own)


def test_the_courses_answers_are_the_librarys_formulas():
    from conceptlab.erasure import inverted_hinge, npo_loss

    a, b = torch.randn(6), torch.randn(6)
    assert torch.allclose(npo(a, b, 0.2), npo_loss(a, b, 0.2))
    logits, targets = torch.randn(5, 8), torch.randint(8, (5,))
    assert torch.allclose(hinge(logits, targets), inverted_hinge(logits, targets))
    assert leaking_form({"a": torch.ones(2)}, {"a": torch.ones(2)}, [0], [1]) == ("a", 1.0)
