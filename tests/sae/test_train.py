"""Training: planted features, checkpoints, several processes, and the command line."""

import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from conceptlab import cli
from conceptlab import sae as S
from conceptlab.core import ConceptLabError
from conceptlab.data import Harvest, TokenRows, harvest, token_rows
from conceptlab.sae import World, train_dictionaries
from conceptlab.sae.train import _schedule, _start_from_data, geometric_median

ALL = ["relu", "gated", "topk", "batchtopk", "jumprelu"]


def batch(n=20, d=6, seed=5):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


# settings of the penalties for two features per token; the defaults are for thirty-two
PLANTED = {
    "relu": {"sparsity": 0.5},
    "gated": {"sparsity": 1.0},
    "topk": {},
    "batchtopk": {},
    "jumprelu": {"sparsity": 0.05},
}


def sums(n=6_000, d=16, n_features=24, active=2, seed=0):
    """Activations that are sums of `active` of `n_features` known directions, and the directions."""
    g = torch.Generator().manual_seed(seed)
    truth = F.normalize(torch.randn(n_features, d, generator=g), dim=1)
    which = torch.rand(n, n_features, generator=g).topk(active).indices
    codes = torch.zeros(n, n_features).scatter(1, which, 1 + torch.rand(n, active, generator=g))
    return codes @ truth + 0.3, truth


def planted(tmp_path, lm, n=6_000, d=16, n_features=24, active=2, seed=0):
    """A harvest whose activations are sums of `active` of `n_features` known directions."""
    x, truth = sums(n, d, n_features, active, seed)
    n_ctx = 61
    ids = torch.arange(n // 60 * n_ctx).view(-1, n_ctx) % 100 + 5
    rows = TokenRows(ids, torch.zeros_like(ids))
    (x.to(torch.float16).numpy()).tofile(tmp_path / "layer_00.f16")
    row = torch.arange(len(ids)).repeat_interleave(60).numpy()
    pos = (torch.arange(n) % 60 + 1).numpy()
    return Harvest(tmp_path, rows, (0,), row, pos, d, "mlp_output"), truth


def test_a_harvest_trains_like_its_tensor(tmp_path, tiny_llama):
    data, _ = planted(tmp_path, lm := tiny_llama(), 1_200)
    cfg = S.TrainConfig(d_sae=48, k=2, steps=20, batch_size=256)
    sae, history = S.train_sae(data, cfg, lm, 0, progress=False)
    again, curves = S.train_sae(data.tensor(0), cfg, progress=False)
    assert torch.equal(again.W_dec, sae.W_dec) and history == curves, "the seed decides"
    assert history.step == [0, 10, 19] and history.fve[-1] > history.fve[0]
    assert sae.cfg.model_name == lm.name and sae.cfg.hook_name == lm.mlp_output(0)
    with pytest.raises(ConceptLabError, match="A harvest needs layer="):
        S.train_sae(data, cfg, lm)


@pytest.mark.parametrize("kind", ALL)
def test_every_architecture_finds_planted_features(kind):
    x, truth = sums()
    cfg = S.TrainConfig(d_sae=48, k=2, steps=300, batch_size=256, architecture=kind, **PLANTED[kind])
    sae, history = S.train_sae(x, cfg, progress=False)
    cosine = (truth @ sae.W_dec.T).amax(1).mean()
    chance = (truth @ F.normalize(batch(48, 16), dim=1).T).amax(1).mean()
    assert cosine > 0.8 > 0.7 > chance
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(48), atol=1e-5)
    found = S.quality(sae, x)
    assert found.fve > 0.7 and 1 <= found.l0 < 8
    assert len(history.loss) == len(history.l0) == 31 and history.fve[-1] > history.fve[0]


def test_decoder_norm_penalty_trains_and_ends_with_unit_norms():
    x, truth = sums()
    cfg = S.TrainConfig(d_sae=48, k=2, steps=200, batch_size=256, architecture="relu", decoder_norm_penalty=True)
    sae, _ = S.train_sae(x, cfg, progress=False)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(48), atol=1e-5)
    assert (truth @ sae.W_dec.T).amax(1).mean() > 0.75 and S.quality(sae, x).fve > 0.6


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "jumprelu", "gated"])
def test_an_interrupted_run_ends_in_the_same_bits(tmp_path, kind):
    x, _ = sums(1_000)
    fields = dict(d_sae=24, k=2, steps=25, batch_size=64, architecture=kind, dead_after=300, resample_at=(0.3, 0.8))
    cfg = S.TrainConfig(**fields, checkpoint_every=10)
    whole, curves = S.train_sae(x, cfg, progress=False)

    class Stop(Exception):
        pass

    def stop(self, step, part):
        if step == 14:
            raise Stop
        return update(self, step, part)

    update = S.train._Run.update
    S.train._Run.update = stop
    try:
        with pytest.raises(Stop):
            S.train_sae(x, cfg, progress=False, checkpoint=tmp_path / "c")
    finally:
        S.train._Run.update = update
    assert json.loads((tmp_path / "c" / "state.json").read_text())["done"] == 10
    resumed, again = S.train_sae(x, cfg, progress=False, checkpoint=tmp_path / "c")
    assert all(torch.equal(whole.state_dict()[n], t) for n, t in resumed.state_dict().items())
    assert again == curves
    with pytest.raises(ConceptLabError, match="belongs to a run with another seed"):
        S.train_sae(x, S.TrainConfig(**fields, seed=1), progress=False, checkpoint=tmp_path / "c")
    with pytest.raises(ConceptLabError, match="other data"):
        S.train_sae(2 * x, cfg, progress=False, checkpoint=tmp_path / "c")
    (tmp_path / "c" / "state.safetensors").write_bytes(b"no")
    with pytest.raises(ConceptLabError, match="cannot be read .* delete it"):
        S.train_sae(x, cfg, progress=False, checkpoint=tmp_path / "c")


def test_restarted_features_point_at_the_errors():
    x, _ = sums(600)
    cfg = S.TrainConfig(d_sae=24, k=2, steps=10, batch_size=600, architecture="relu", dead_after=100)
    sae = S.make_sae(S.SAEConfig("relu", 16, 24, 2, "m", 0, "h"))
    run = S.train._Run(sae, S.check_config(cfg), World(), 1.0, "")
    run.update(0, x)
    before, moments = sae.W_dec.clone(), run.optimiser.state[sae.W_enc]["exp_avg"].clone()
    run.idle[:5] = 101
    run.restart(3, x)
    error = F.normalize(x - (F.relu((x - sae.b_dec) @ sae.W_enc + sae.b_enc).index_fill(
        1, torch.arange(5), 0) @ before + sae.b_dec), dim=1)  # fmt: skip
    assert torch.equal(sae.W_dec[5:], before[5:])
    assert not torch.allclose(sae.W_dec[:5], before[:5], atol=1e-2) and error.shape == x.shape
    assert torch.allclose(sae.W_dec[:5].norm(dim=1), torch.ones(5), atol=1e-5)
    cosine = F.cosine_similarity(sae.W_enc[:, :5].T, sae.W_dec[:5])
    assert torch.allclose(cosine, torch.ones(5), atol=1e-5) and bool((sae.b_enc[:5] == 0).all())
    now = run.optimiser.state[sae.W_enc]["exp_avg"]
    assert bool((now[:, :5] == 0).all()) and torch.equal(now[:, 5:], moments[:, 5:])
    assert bool((run.idle[:5] == 0).all())


@pytest.mark.parametrize(("resamples", "expected"), [(None, False), (True, True), (False, False)])
def test_whether_dead_features_are_restarted_can_be_chosen(resamples, expected):
    cfg = S.TrainConfig(d_sae=24, k=2, steps=10, architecture="topk", resamples=resamples)
    run = S.train._Run(S.make_sae(S.SAEConfig("topk", 16, 24, 2, "m", 0, "h")), S.check_config(cfg), World(), 1.0, "")
    assert bool(run.restarts) is expected
    rows = F.normalize(batch(24, 16), dim=1)
    run.sae.restart_features(torch.arange(24) < 5, rows[:5])  # a restarted TopK feature is as loud as a living one
    sizes = run.sae.W_enc.norm(dim=0)
    assert torch.allclose(sizes[:5], sizes[5:].mean().expand(5), rtol=1e-5)


def test_geometric_median_ignores_an_outlier():
    x = torch.cat([batch(99, 3), torch.full((1, 3), 1e4)])
    centre = geometric_median(x)
    assert centre.norm() < 0.5 < 50 < x.mean(0).norm()
    pull = F.normalize(x - centre, dim=1).sum(0)  # the gradient of the sum of distances
    assert pull.norm() < 1e-2
    sae = S.make_sae(S.SAEConfig("topk", 3, 8, 2, "m", 0, "h"))
    _start_from_data(sae, x, S.TrainConfig(d_sae=8, encoder_scale=0.1, bias_init="geometric_median"))
    assert torch.equal(sae.b_dec, centre)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": 9}, "k = 9 active features need 1 <= k <= d_sae = 8"),
        ({"architecture": "magic"}, "Unknown architecture 'magic'"),
        ({"decoder_norm_penalty": True}, "option of the relu architecture"),
        ({"bias_init": "zero"}, "bias_init is 'mean' or 'geometric_median', not 'zero'"),
        ({"steps": 0}, "steps is 0; give a whole number of at least 1"),
        ({"lr": 1e30}, "not finite at step"),
    ],
)
def test_settings_that_cannot_be(fields, message):
    with pytest.raises(ConceptLabError, match=message):
        S.train_sae(batch(64), S.TrainConfig(**{"d_sae": 8, "k": 2, "steps": 25} | fields), progress=False)


def test_bfloat16_products_leave_float32_weights(monkeypatch):
    """On CUDA the products run in bfloat16; the same context on a CPU shows that every architecture bears it."""
    x, _ = sums(2_000)
    real = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda device, dtype, enabled: real(device, dtype=dtype, enabled=True))
    for kind in ALL:
        fields = dict(d_sae=32, k=2, steps=60, batch_size=128, architecture=kind, dead_after=200)
        sae, history = S.train_sae(x, S.TrainConfig(**fields), progress=False)
        assert all(p.dtype == torch.float32 for p in sae.parameters()), kind
        assert S.quality(sae, x).fve > 0.3 and history.loss[-1] < history.loss[0], kind


def test_starts_from_data_even_with_fewer_tokens_than_features():
    sae, sample = S.make_sae(S.SAEConfig("topk", 6, 50, 3, "m", 0, "h")), batch(30)
    _start_from_data(sae, sample, S.TrainConfig(d_sae=50, encoder_scale=0.1))
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(50), atol=1e-5)
    assert torch.allclose(sae.W_enc, 0.1 * sae.W_dec.T) and torch.allclose(sae.b_dec, sample.mean(0))
    rows = F.normalize(sample - sample.mean(0), dim=1)
    assert bool(((sae.W_dec[:30] @ rows.T).amax(1) > 0.99).all())


def test_learning_rate_rises_and_falls():
    cfg = S.TrainConfig(steps=100, warmup=0.1)
    factors = [_schedule(step, cfg) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == 1.0 and factors[-1] == pytest.approx(1 / 90)
    assert factors.index(1.0) == 9 and factors[10:] == sorted(factors[10:], reverse=True)


# ---- several processes -----------------------------------------------------------------------------------
TOGETHER = dict(d_sae=64, k=2, steps=40, batch_size=64, dead_after=150, resample_at=(0.5,))
CURVES = ("loss", "fve", "l0", "dead")
PROCESS = """
import json, sys, torch
from safetensors.torch import save_file
from conceptlab import sae as S
from conceptlab.sae.distributed import join, leave
out, x, fields, curves = sys.argv[1], torch.load(sys.argv[2], weights_only=True), *map(json.loads, sys.argv[3:])
world, tensors = join(), {}
for kind in S.ARCHITECTURES:
    sae, history = S.train_sae(x, S.TrainConfig(architecture=kind, **fields), progress=False, world=world)
    tensors |= {f"{kind}.{n}": t.contiguous() for n, t in sae.state_dict().items()}
    tensors |= {f"{kind}.{n}": torch.tensor(getattr(history, n)) for n in curves}
save_file(tensors, f"{out}.{world.rank}")
leave(world)
"""


def launch(processes, *arguments, code=PROCESS):
    """Run the script in that many processes with the environment that a launcher gives them."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = os.environ | {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    running = [
        subprocess.Popen(command, env=env | {"RANK": str(i), "LOCAL_RANK": str(i)}, stderr=subprocess.PIPE, text=True)
        for i in range(processes)
    ]
    errors = [p.communicate(timeout=120)[1] for p in running]
    assert not any(p.returncode for p in running), errors


def test_two_processes_train_as_one(tmp_path):
    from safetensors.torch import load_file

    x, _ = sums(1_500)
    torch.save(x, tmp_path / "x.pt")
    launch(2, tmp_path / "two", tmp_path / "x.pt", json.dumps(TOGETHER), json.dumps(CURVES))
    a, b = (load_file(tmp_path / name) for name in ("two.0", "two.1"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    for kind in ALL:
        sae, history = S.train_sae(x, S.TrainConfig(architecture=kind, **TOGETHER), progress=False)
        one = sae.state_dict() | {n: torch.tensor(getattr(history, n)) for n in CURVES}
        for name, want in one.items():
            assert torch.allclose(a[f"{kind}.{name}"], want, atol=1e-4, rtol=1e-4), (kind, name)
    assert max(a[f"{kind}.dead"].max() for kind in ALL) > 0, "revival was part of it"


def test_batches_must_be_shared_equally():
    with pytest.raises(ConceptLabError, match="A batch of 5 tokens cannot be shared equally by 2 processes"):
        World(0, 2).share(torch.arange(5).numpy())


def test_shares_of_a_harvest_make_the_whole(tmp_path, tiny_llama):
    lm = tiny_llama()
    rows = token_rows(lm, ["some words about nothing much at all"] * 40, n_ctx=16)
    whole = harvest(lm, rows, (0, 1), folder=tmp_path / "whole", progress=False)
    for i in (2, 0, 1):
        assert not (tmp_path / "parts" / "state.json").exists()
        parts = harvest(lm, rows, (0, 1), folder=tmp_path / "parts", progress=False, batch_size=3, part=(i, 3))
    assert json.loads((tmp_path / "parts" / "state.json").read_text())["rows"] == len(rows)
    for layer in (0, 1):
        assert torch.allclose(parts.tensor(layer), whole.tensor(layer), atol=1e-3)


# ---- folders and the command line ------------------------------------------------------------------------
def test_dictionaries_in_a_folder(tmp_path, monkeypatch, tiny_llama):
    lm = tiny_llama()
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    rows = token_rows(lm, ["some words about nothing much at all"] * 40, n_ctx=16)
    cfg = S.TrainConfig(d_sae=32, k=4, steps=4, batch_size=32)
    folders = train_dictionaries(lm, rows, (0, -1), cfg, tmp_path / "out", progress=False)
    assert [f.name for f in folders] == ["layer_00", "layer_01"]
    assert S.load_sae(folders[1]).cfg.hook_layer == 1 and sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "layer_00",
        "layer_01",
    ]
    card = json.loads((folders[1] / "card.json").read_text())
    assert card["recipe"]["model"] == lm.name and card["recipe"]["steps"] == 4 and card["tokens_trained_on"] == 128
    stamp = (folders[0] / "cfg.json").stat().st_mtime_ns
    train_dictionaries(lm, rows, (0, 1), cfg, tmp_path / "out", progress=False)
    assert (folders[0] / "cfg.json").stat().st_mtime_ns == stamp, "what is there is left"
    with pytest.raises(ConceptLabError, match="another k .4, now 5.; choose another --out"):
        train_dictionaries(lm, rows, (0,), S.TrainConfig(d_sae=32, k=5, steps=4, batch_size=32), tmp_path / "out",
                           progress=False)  # fmt: skip


def test_train_sae_from_the_command_line(tmp_path, monkeypatch, capsys, tiny_llama):
    lm = tiny_llama()
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("conceptlab.models.load_model", lambda name: lm)
    monkeypatch.setattr("conceptlab.data.mixture", lambda: (["a few words " * 30] * 50, ["words a few " * 30] * 9))
    words = ["train-sae", "--layers", "1", "--d-sae", "32", "--k", "4", "--tokens", "2000", "--batch-size", "64"]
    words += ["--architecture", "jumprelu", "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'layer_01'}: ready\n"
    sae = S.load_sae(tmp_path / "out" / "layer_01")
    assert isinstance(sae, S.JumpReLUSAE)
    card = json.loads((tmp_path / "out" / "layer_01" / "card.json").read_text())
    assert card["recipe"]["steps"] == 2000 // 64 and card["held_out"]["fve"] > 0.5
    for extra, message in ((["--layers", "7"], "layer 7 does not exist"), (["--architecture", "x"], "Unknown arch")):
        assert cli.main([*words, *extra, "--out", str(tmp_path / "other")]) == 1
        error = capsys.readouterr().err
        assert message in error and error.splitlines()[-1].startswith("conceptlab: ")
    assert cli.main(["train-sae"]) == 1 and "needs --layers, or --shipped" in capsys.readouterr().err


def test_the_shipped_dictionaries_are_rebuilt_by_the_same_verb(tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("conceptlab.models.load_model", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr("conceptlab.sae.build_shipped", lambda *words, seed: seen.append((*words, seed)) or ["x"])
    assert cli.main(["train-sae", "--shipped", "--model", "gemma3-270m", "--layers", "3", "5"]) == 0
    assert seen == [(SimpleNamespace(name="gemma3-270m"), [3, 5], None, S.World(), 0)]
    assert capsys.readouterr().out == "x: ready\n"


def test_from_text_to_a_file(tmp_path, tiny_llama):
    lm = tiny_llama()
    rows = token_rows(lm, ["the cat sat on the mat and looked at the moon"] * 30, n_ctx=16)
    data = harvest(lm, rows, (1,), folder=tmp_path / "h", progress=False)
    sae, _ = S.train_sae(data, S.TrainConfig(d_sae=32, k=4, steps=10), lm, 1, progress=False)
    assert sae.cfg.model_name == lm.name and sae.cfg.hook_name == "blocks.1.mlp.hook_out"
    S.save_sae(sae, tmp_path / "s")
    again, x = S.load_sae(tmp_path / "s"), data.tensor(1)[:7]
    assert all(torch.equal(p, q) for p, q in zip(again.parameters(), sae.parameters(), strict=True))
    torch.testing.assert_close(again(x), sae(x))  # the encoder is laid out otherwise, so products round otherwise
