"""What is refused before the first step, and why: settings, data, folders, another training of the same folder."""

import multiprocessing
import os
import warnings

import numpy as np
import pytest
import torch

from conceptlab import cli
from conceptlab import sae as S
from conceptlab.core import ConceptLabError
from conceptlab.data import Harvest, TokenRows
from conceptlab.sae.checkpoint import check_folder, sole_writer
from conceptlab.sae.training_data import Source

SMALL = dict(d_sae=24, k=2, steps=3, batch_size=32)


def with_values(cfg, fields):
    """A configuration with any values at all: the tests' type checker would stop some before the library does."""
    for name, value in fields.items():
        object.__setattr__(cfg, name, value)
    return cfg


def x(n=400, d=16, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *(({name: value}, f"{name} is {value!r}; give a whole number of at least") for name in
          ("d_sae", "k", "steps", "batch_size", "checkpoint_every") for value in (0, -1, 1.5, True, None, "8")),
        ({"seed": -1}, "seed is -1; give a whole number of at least 0"),
        ({"seed": 1 << 64}, "seed is 18446744073709551616"),
        ({"dead_after": -1}, "dead_after is -1"),
        *(({"lr": value}, "lr is .*; give a positive number, such as 0.004")
          for value in (float("nan"), -1.0, 0.0, float("inf"))),
        ({"encoder_scale": 0.0}, "encoder_scale is 0.0; give a positive number"),
        ({"sparsity": float("nan")}, "sparsity is nan; give a number of at least 0"),
        ({"sparsity": -0.1}, "sparsity is -0.1"),
        ({"warmup": 1.5}, "warmup is 1.5; give a share of the steps between 0 and 1"),
        ({"sparsity_warmup": float("nan")}, "sparsity_warmup is nan"),
        ({"resample_at": (0.2, 7.0)}, "resample_at is 7.0"),
        ({"k": 25}, "k = 25 active features need 1 <= k <= d_sae = 24"),
        ({"architecture": ""}, "Unknown architecture ''"),
    ],
)  # fmt: skip
def test_settings(fields, message):
    with pytest.raises(ConceptLabError, match=message) as caught:
        S.train_sae(x(), with_values(S.TrainConfig(**SMALL), fields), progress=False)
    assert "\n" not in str(caught.value)


def infinite(value):
    out = x()
    out[7, 3] = value
    return out


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(50, 16), "activations are all zero, so that there is nothing to learn"),
        (torch.ones(50, 16), "activations are all the same"),
        (3.7 * x(1).expand(50, 16), "activations are all the same"),
        (x(1), "activations are all the same"),
        (torch.zeros(0, 16), r"Activations of shape \[0, 16\] cannot be trained on"),
        (torch.zeros(5, 0), r"Activations of shape \[5, 0\] cannot be trained on"),
        (infinite(float("nan")), "activations of token 7 are not finite; leave it out"),
        (infinite(float("inf")), "activations of token 7 are not finite"),
        (infinite(-float("inf")), "activations of token 7 are not finite"),
    ],
)
def test_degenerate_activations(data, message):
    with pytest.raises(ConceptLabError, match=message):
        S.train_sae(data, S.TrainConfig(**SMALL), progress=False)


def test_a_token_that_holds_the_variance_is_named():
    data = x()
    data[7] *= 1e6 / float(data[7].norm())
    with pytest.warns(UserWarning, match=r"Token 7 has size 1e\+06 and holds 99.7% of the variance of 400 tokens"):
        S.train_sae(data, S.TrainConfig(**SMALL), progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        S.train_sae(x(), S.TrainConfig(**SMALL), progress=False)
        S.train_sae(x(5), S.TrainConfig(**SMALL), progress=False)  # few tokens hold much each
        S.train_sae(x() + 1_000.0, S.TrainConfig(**SMALL), progress=False)  # far from 0, but all alike


def stored(folder, numbers):
    n = len(numbers)
    ids = torch.arange(5, 5 + n // 10 * 11).view(-1, 11)
    numbers.to(torch.float16).numpy().tofile(folder / "layer_01.f16")
    row = np.arange(n) // 10
    return Harvest(folder, TokenRows(ids, torch.zeros_like(ids)), (1,), row, np.arange(n) % 10 + 1, 16, "mlp_output")


def test_a_token_of_a_harvest_is_named_by_its_place(tmp_path):
    data = x()
    data[27] = float("inf")
    with pytest.raises(ConceptLabError, match=r"token 27 \(row 2, position 8\) are not finite"):
        S.train_sae(stored(tmp_path, data), S.TrainConfig(**SMALL), layer=1, progress=False)


def swapped(data):
    return data[[1, 0, *range(2, len(data))]]


@pytest.mark.parametrize(
    "change", [lambda t: t.flip(0), lambda t: -t, swapped, lambda t: t[:, torch.arange(15, -1, -1)]]
)
def test_training_goes_on_with_the_same_data_only(tmp_path, change):
    data, cfg = x(), S.TrainConfig(**SMALL)
    first, _ = S.train_sae(data, cfg, progress=False, checkpoint=tmp_path / "c")
    again, _ = S.train_sae(data.clone(), cfg, progress=False, checkpoint=tmp_path / "c")
    assert torch.equal(first.W_dec, again.W_dec)
    with pytest.raises(ConceptLabError, match="belongs to a run with other data"):
        S.train_sae(change(data), cfg, progress=False, checkpoint=tmp_path / "c")


def test_a_fingerprint_of_data_sees_order_sign_and_place(tmp_path):
    data = x(9_000)
    marks = {
        Source(change, None).fingerprint() for change in (data, data.flip(0), -data, data.roll(5_000, 0), data[:-1])
    }
    assert len(marks) == 5 and Source(data.clone(), None).fingerprint() in marks
    half = data.to(torch.float16)
    assert Source(stored(tmp_path, data), 1).fingerprint() == Source(half, None).fingerprint()


# ---- folders ---------------------------------------------------------------------------------------------
def test_a_folder_that_cannot_be_made_is_named_first(tmp_path, capsys):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for path in (tmp_path / "file", tmp_path / "file" / "deeper" / "still"):
        with pytest.raises(ConceptLabError, match="file is a file, so no folder can be made there"):
            check_folder(path)
        with pytest.raises(ConceptLabError, match="is a file"):
            S.train_sae(x(), S.TrainConfig(**SMALL), progress=False, checkpoint=path)
    check_folder(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists(), "looking makes nothing"
    if os.geteuid():  # root may write anywhere
        tmp_path.chmod(0o500)
        with pytest.raises(ConceptLabError, match="cannot be written"):
            check_folder(tmp_path / "new")
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokens", "0"], "--tokens 0 and --batch-size 512 must both be at least 1"),
        (["--batch-size", "0"], "must both be at least 1"),
        (["--steps", "0"], "steps is 0; give a whole number"),
        (["--k", "0"], "k is 0; give a whole number"),
        (["--d-sae", "-4"], "d_sae is -4"),
        (["--lr", "nan"], "lr is nan; give a positive number"),
        (["--lr", "-1"], "lr is -1.0"),
        (["--seed", "-1"], "seed is -1"),
        (["--checkpoint-every", "0"], "checkpoint_every is 0"),
        (["--architecture", "magic"], "Unknown architecture 'magic'"),
        (["--out", "FILE"], "is a file, so no folder can be made there"),
    ],
)
def test_the_command_refuses_before_a_model_is_loaded(tmp_path, capsys, monkeypatch, options, message):
    from conceptlab import models

    monkeypatch.setattr(models, "load_model", lambda name: pytest.fail("the model was loaded first"))
    (tmp_path / "FILE").write_text("x", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train-sae", "--layers", "1", *options]) == 1
    assert message in capsys.readouterr().err


# ---- two at once -----------------------------------------------------------------------------------------
def hold(folder, ready, done):
    with sole_writer(folder):
        ready.set()
        done.wait(60)


def test_two_trainings_of_one_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "c", ready, done))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(ConceptLabError, match="Another training writes into .*c; wait until it is done"):
            S.train_sae(x(), S.TrainConfig(**SMALL), progress=False, checkpoint=tmp_path / "c")
        with pytest.raises(ConceptLabError, match="Another training writes into"), sole_writer(tmp_path / "." / "c"):
            pass
        S.train_sae(x(), S.TrainConfig(**SMALL), progress=False, checkpoint=tmp_path / "d")
    finally:
        done.set()
        other.join()
    S.train_sae(x(), S.TrainConfig(**SMALL), progress=False, checkpoint=tmp_path / "c")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "cache", "d"], "nothing is left beside the folders"


def test_a_dictionary_that_does_not_fit_is_refused_before_the_data_are_read(monkeypatch):
    from conceptlab.models import compute

    monkeypatch.setattr(compute, "memory_free", lambda device: 10**9)
    monkeypatch.setattr(Source, "check", lambda self: pytest.fail("read the data"))
    with pytest.raises(
        ConceptLabError, match=r"A dictionary of 10,000,000 features needs 1.4 GB of weights, .* cpu has 1.0"
    ):
        S.train_sae(x(), S.TrainConfig(d_sae=10_000_000, k=2), progress=False)
