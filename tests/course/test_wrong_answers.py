"""Every check of notebooks 00 to 03 passes the course's answer and fails at least three wrong ones."""

from math import log

import pytest
import torch

from conceptlab.course import EXERCISES, Points, exercises_of
from conceptlab.course.checks import answers_reading as r
from conceptlab.course.checks import answers_sae as s
from conceptlab.course.checks import check_written, use
from conceptlab.course.checks import nb00_start_here as nb00
from conceptlab.course.checks import nb01_concept_vectors as nb01
from conceptlab.course.checks import nb02_sparse_autoencoders as nb02
from conceptlab.course.checks import nb03_autointerp as nb03
from exercises_of_checks import NONSENSE, assert_right_and_wrong


def noise(entries, result=True):
    """A validation loop whose noise is what `entries(column)` gives."""

    def validate(weight, columns, c, evaluate):
        results = []
        for j in columns:
            old, draw = weight[:, j].clone(), entries(weight[:, j])
            weight[:, j] += draw * c * old.norm() / draw.norm()
            results.append(evaluate())
            weight[:, j] = old
        return results if result else None

    return validate


def unshuffled(token_ids, on, off, order=lambda places: places):
    places = {}
    for place in order(off.tolist()):
        places.setdefault(int(token_ids[place]), []).append(place)
    return torch.tensor([places[t].pop() if places.get(t) else -1 for t in token_ids[on].tolist()])


def any_token(token_ids, on, off):
    return off[torch.randperm(len(off), generator=torch.Generator().manual_seed(0))][: len(on)]


def wrong_place_without_generator(activations, place, generator):
    silent = [p for p, value in enumerate(activations) if value == 0]
    return silent[int(torch.randint(len(silent), (1,)))] if silent else -1


def kernel(z, t, w):
    return ((z - t).abs() < w / 2) / w


def clamped(change):
    return lambda layer, neuron, value: {("neurons", layer): lambda a: change(a.clone(), neuron, value)}


def put(a, where, value):
    a[where] = value
    return a


def relu_loss(x, p, l1, forward=s.forward, price=torch.sum, around=lambda x: x.mean(0)):
    f, x_hat = forward(x, p)
    variance = (x - around(x)).square().sum()
    return (x - x_hat).square().sum() / variance + l1 * price(f) / (variance * len(x)).sqrt()


def loop(clear=True, unit=True, fresh=True, whole=False, seeded=True, step=True):
    """A training loop with one thing missing."""

    def train(x, p, loss_of, steps, lr=3e-3, batch_size=512, seed=0):
        g, history = torch.Generator().manual_seed(seed if seeded else 0), []
        optimiser = torch.optim.Adam(p.values(), lr=lr)
        first = torch.randint(len(x), (batch_size,), generator=g)
        for _ in range(steps):
            rows = torch.randint(len(x), (batch_size,), generator=g) if fresh else first
            loss = loss_of(x if whole else x[rows], p)
            if clear:
                optimiser.zero_grad()
            loss.backward()
            if step:
                optimiser.step()
            with torch.no_grad():
                p["W_dec"] /= p["W_dec"].norm(dim=1, keepdim=True) if unit else 1.0
            history.append(loss.item())
        return history

    return train


def reviving(target=torch.sub, power=2, length=0.2, bias=True, seeded=True, everyone=False):
    """Dead features revived with one thing wrong."""

    @torch.no_grad()
    def revive(p, dead, x, x_hat, generator):
        chance = (x - x_hat).square().sum(1) ** power
        generator = generator if seeded else torch.Generator().manual_seed(0)
        picks = torch.multinomial(chance, int(dead.sum()), generator=generator)
        rows = torch.nn.functional.normalize(target(x, x_hat)[picks], dim=1)
        p["W_dec"][dead], p["W_enc"][:, dead] = rows, length * p["W_enc"][:, ~dead].norm(dim=0).mean() * rows.T
        p["b_enc"][slice(None) if everyone else dead] = 0.0 if bias else 1.0

    return revive


def pushing(sink=False, everywhere=False, unit=True, length=True, size=True, inplace=False):
    """A push with one thing wrong."""

    def push(direction, mask, by):
        inner = mask.bool().clone()
        inner[:, 0] = sink

        def hook(states):
            typical = states[inner].norm(dim=1).mean() if length else 1.0
            along = direction / direction.norm() if unit else direction
            step = (by if size else 1.0) * typical * along * (1 if everywhere else inner[..., None])
            return states.add_(step) if inplace else states + step

        return hook

    return push


FURTHER = {  # checks that the notebook names at its end
    "shrinkage": (nb02.check_shrunk, [
        lambda a, l1: (a - l1).relu(), lambda a, l1: a * (a > l1 / 2), lambda a, l1: a - l1 / 2,
    ]),
    "mean max cosine": (nb02.check_mean_max_cosine, [
        lambda a, b: (a @ b.T).amax(1).mean(),
        lambda a, b: torch.cosine_similarity(a[:, None], b[None], -1).amax(0).mean(),
        lambda a, b: torch.cosine_similarity(a[:, None], b[None], -1).mean(),
    ]),
    "norms into the encoder": (nb02.check_unit_norm, [
        lambda e, b, d: (e, b, d),
        lambda e, b, d: (e, b, d / d.norm(dim=1, keepdim=True)),
        lambda e, b, d: (e * d.norm(dim=1), b, d / d.norm(dim=1, keepdim=True)),
    ]),
}  # fmt: skip
CASES = {
    "which part writes the answer": (nb00.check_direct_effects, [
        lambda p, d: p @ d,
        lambda p, d: p / p.square().mean(1, keepdim=True).sqrt() @ d,
        lambda p, d: p @ d / p.sum(0).norm(),
    ]),
    "where the answer settles": (nb00.check_settles_at, [
        lambda x: torch.where((x == 0).any(0), (x == 0).int().argmax(0), len(x)),
        lambda x: (x == 0).flip(0).long().cumprod(0).sum(0),
        lambda x: len(x) - (x == 0).sum(0),
    ]),
    "what one neuron adds": (nb00.check_per_neuron, [
        lambda a, w, g: a[:, None] * w, lambda a, w, g: a[:, None] * w * g, lambda a, w, g: w * g,
    ]),
    "what a neuron promotes on this token": (nb00.check_promoted, [
        lambda a, v, rows, k: (rows @ v).topk(k).indices,
        lambda a, v, rows, k: (rows @ (a * v)).topk(k, largest=False).indices,
        lambda a, v, rows, k: (rows @ (a * v)).abs().topk(k).indices,
    ]),
    "the score of an option": (nb00.check_option_score, [
        lambda x, ids, n: x.log_softmax(-1)[n:].gather(1, ids[n:, None]).mean(),
        lambda x, ids, n: x.log_softmax(-1)[n - 1 : -1].gather(1, ids[n:, None]).sum(),
        lambda x, ids, n: x[n - 1 : -1].gather(1, ids[n:, None]).mean(),
        lambda x, ids, n: x.log_softmax(-1)[:-1].gather(1, ids[1:, None]).mean(),
    ]),
    "both ends of a value vector": (nb01.check_both_ends, [
        lambda v, g, rows, k: ((rows @ v).topk(k).indices, (rows @ v).topk(k, largest=False).indices),
        lambda v, g, rows, k: 2 * ((rows @ (v * g)).topk(k).indices,),
        lambda v, g, rows, k: (rows @ (v * g)).topk(k).indices,
    ]),
    "coherence by hand": (nb01.check_pair_cosine, [
        lambda u: (u @ u.T).mean(),
        lambda u: ((u @ u.T).sum() - len(u)) / len(u) ** 2,
        lambda u: (u @ u.T).sum() - len(u),
    ]),
    "effects in standard deviations": (nb01.check_effects, [
        lambda v, rows, i: v @ rows[i].T,
        lambda v, rows, i: (v @ rows.T - (v @ rows.T).mean(1, keepdim=True))[:, i],
        lambda v, rows, i: ((v @ rows.T - (v @ rows.T).mean(0)) / (v @ rows.T).std(0))[:, i],
    ]),
    "causal validation without the bug": (nb01.check_noise_loop, [
        noise(torch.randn_like, result=False),
        noise(torch.ones_like),
        noise(torch.clone),
        lambda weight, columns, c, evaluate: [evaluate() for _ in columns],
        noise(lambda v: torch.randn(len(v), generator=torch.Generator().manual_seed(0))),
    ]),
    "JumpReLU's gradient": (nb02.check_pseudo_gradients, [
        lambda z, t, w: (torch.zeros_like(z), torch.zeros_like(z)),
        lambda z, t, w: (-kernel(z, t, w), -kernel(z, t, w)),
        lambda z, t, w: (t * kernel(z, t, w), kernel(z, t, w)),
    ]),
    "BatchTopK's threshold": (nb02.check_inference_threshold, [
        lambda b, k: torch.stack([x.flatten().topk(k * len(x)).values[-1] for x in b]).median(),
        lambda b, k: torch.stack([x.flatten().topk(k).values[-1] for x in b]).mean(),
        lambda b, k: b[-1].flatten().topk(k * len(b[-1])).values[-1],
        lambda b, k: torch.stack([x.topk(k).values[:, -1] for x in b]).mean(),
    ]),
    "a training loop": (nb02.check_training_loop, [
        loop(clear=False), loop(unit=False), loop(fresh=False), loop(whole=True), loop(seeded=False), loop(step=False),
    ]),
    "dead features revived": (nb02.check_revive, [
        reviving(target=lambda x, x_hat: x),
        reviving(target=lambda x, x_hat: x_hat - x),
        reviving(power=1), reviving(power=0), reviving(length=1.0), reviving(bias=False), reviving(seeded=False),
        reviving(everyone=True),
    ]),
    "AUROC": (nb03.check_auroc, [
        lambda a, b: (a[:, None] > b).float().mean(),
        lambda a, b: (a[:, None] >= b).float().mean(),
        lambda a, b: ((a[:, None] < b).float() + (a[:, None] == b) / 2).mean(),
    ]),
    "log-odds of an item": (nb03.check_log_odds, [
        lambda k, n, K, N: (-r.my_log_odds(k, n, K, N)[0], -r.my_log_odds(k, n, K, N)[1]),
        lambda k, n, K, N: (log((k + 0.5) / (n + 1)) - log((K + 0.5) / (N + 1)), r.my_log_odds(k, n, K, N)[1]),
        lambda k, n, K, N: (r.my_log_odds(k, n, K, N)[0], r.my_log_odds(k, n, K, N)[0]),
        lambda k, n, K, N: r.my_log_odds(k, n, K, N)[0],
    ]),
    "a push along a direction": (nb03.check_push, [
        pushing(sink=True), pushing(everywhere=True), pushing(unit=False), pushing(length=False), pushing(size=False),
        pushing(inplace=True), lambda d, mask, size: r.push(-d, mask, size),
    ]),
    "wrong places": (nb03.check_wrong_place, [
        wrong_place_without_generator,
        lambda a, place, g: place - 1,
        lambda a, place, g: next((i for i, v in enumerate(a) if v == 0), -1),
    ]),
    "hard negatives": (nb03.check_hard_negatives, [
        unshuffled, lambda t, on, off: unshuffled(t, on, off, reversed), any_token,
    ]),
}  # fmt: skip
REWRITTEN = ("00", "01", "02", "03")
NAMED = {
    "causal validation without the bug": ["return the list", "differ from entry to entry"],
    "BatchTopK's threshold": ["median over the batches"],
    "wrong places": ["pass `generator=generator`"],
    "hard negatives": ["one end of the corpus"],
    "a training loop": ["clear them", "divide each row", "draw a new batch", "torch.Generator", "nothing moved"],
    "dead features revived": ["not x, and not the opposite", "square the squared error", "0.2 times the mean length"],
}


@pytest.mark.parametrize("name", CASES)
def test_the_answer_passes_and_wrong_ones_do_not(name, capsys):
    assert_right_and_wrong(name, *CASES[name], NAMED.get(name, []), capsys)


@pytest.mark.parametrize("name", FURTHER)
def test_a_check_beyond_the_page(name, capsys):
    assert_right_and_wrong(name, *FURTHER[name], [], capsys)


def test_the_check_of_forward_pass_and_loss(capsys):
    assert nb02.check_forward(s.forward, relu_loss).earned == EXERCISES["forward pass and loss"].points
    plain = [
        lambda x, p: (torch.relu(x @ p["W_enc"] + p["b_enc"]), s.forward(x, p)[1]),
        lambda x, p: ((x - p["b_dec"]) @ p["W_enc"] + p["b_enc"], s.forward(x, p)[1]),
        lambda x, p: (s.forward(x, p)[0], s.forward(x, p)[1] - p["b_dec"]),
        *NONSENSE,
    ]
    losses = [
        lambda x, p, l1: relu_loss(x, p, l1, price=lambda f: (f > 0).sum()),
        lambda x, p, l1: relu_loss(x, p, l1, around=lambda x: 0),
        lambda x, p, l1: relu_loss(x, p, 0.0),
        lambda x, p, l1: (x - s.forward(x, p)[1]).square().mean() + l1 * s.forward(x, p)[0].sum(),
        *NONSENSE,
    ]
    assert not any(nb02.check_forward(forward, relu_loss) for forward in plain)
    assert not any(nb02.check_forward(s.forward, loss) for loss in losses)
    out = capsys.readouterr().out
    for said in (
        "subtract b_dec",
        "the ReLU is missing",
        "add b_dec",
        "counts features that are on",
        "price is missing",
    ):
        assert said in out


def test_the_check_of_a_clamp(tiny_llama, capsys):
    lm = tiny_llama()
    assert nb01.check_clamp(r.my_clamp, lm)
    for wrong in (
        clamped(lambda a, n, v: a),
        clamped(lambda a, n, v: put(a, (..., n), a[..., n] + v)),
        clamped(lambda a, n, v: put(a, (slice(None), -1, n), v)),
        lambda layer, neuron, value: {("neurons", layer): lambda a: a.fill_(value)},
    ):
        assert not nb01.check_clamp(wrong, lm)


def test_every_code_exercise_of_00_to_03_is_tried_here():
    code = {e.name for n in ("00", "01", "02", "03") for e in exercises_of(n) if not e.written}
    assert code - {"your label"} == set(CASES) | {"clamping a neuron", "forward pass and loss"}
    for n in ("00", "01", "02", "03"):
        assert 4 <= len(exercises_of(n)) <= 7
    for n in REWRITTEN:
        own = exercises_of(n)
        assert any(e.difficulty == "hard" for e in own) and any(e.written for e in own)


def test_a_notebook_goes_on_with_the_readers_version_or_the_courses(capsys):
    assert use(Points("AUROC", 3, 3), len) is len
    assert use(Points("AUROC", 2, 3), len) is r.my_auroc
    assert "your version" in capsys.readouterr().out.splitlines()[0]


def test_a_written_answer_shows_its_rubric_once_it_is_there(capsys):
    assert not check_written("a blank lens", "too short")
    assert "2 words" in capsys.readouterr().out
    points = check_written("a blank lens", "word " * 40)
    out = capsys.readouterr().out
    assert not points and out.count("[ ]") == len(EXERCISES["a blank lens"].rubric)
