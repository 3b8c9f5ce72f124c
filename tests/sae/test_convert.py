"""dictionary_learning's ae.pt: read without executing anything, checked, written without pickle."""

import json
import pickle
import zipfile

import pytest
import torch
from torch.nn import functional as F

from conceptlab import cli
from conceptlab.core import ConceptLabError
from conceptlab.sae import convert, load_sae, sae_site

D, N = 8, 20


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def state(kind):
    """A state_dict as the class writes it, and what it computes."""
    W, V, b, c = draw(D, N), draw(N, D, seed=1), 0.3 * draw(N, seed=2), draw(D, seed=3)
    linear = {"encoder.weight": W.T.contiguous(), "encoder.bias": b, "decoder.weight": V.T.contiguous()}
    pre = lambda x: (x - c) @ W + b  # noqa: E731
    if kind == "AutoEncoder":
        return linear | {"bias": c}, lambda x: F.relu(pre(x)) @ V + c
    if kind == "AutoEncoderNew":
        return linear | {"decoder.bias": c}, lambda x: F.relu(x @ W + b) @ V + c
    if kind == "GatedAutoEncoder":
        r, g = 0.2 * draw(N, seed=4), 0.2 * draw(N, seed=5)
        tensors = {k: v for k, v in linear.items() if k != "encoder.bias"} | {"decoder_bias": c, "r_mag": r}
        gate = lambda x: ((x - c) @ W + g > 0) * F.relu(r.exp() * ((x - c) @ W) + b)  # noqa: E731
        return tensors | {"gate_bias": g, "mag_bias": b}, lambda x: gate(x) @ V + c
    if kind == "AutoEncoderTopK":
        tensors = linear | {"b_dec": c, "k": torch.tensor(4, dtype=torch.int), "threshold": torch.tensor(-1.0)}

        def topk(x):
            top = F.relu(pre(x)).topk(4)
            return torch.zeros(len(x), N).scatter(1, top.indices, top.values) @ V + c

        return tensors, topk
    if kind == "BatchTopKSAE":
        tensors = linear | {"b_dec": c, "k": torch.tensor(4), "threshold": torch.tensor(1.1)}
        return tensors, lambda x: (pre(x) * (pre(x) > 1.1)) @ V + c
    t = 0.4 + draw(N, seed=6).abs()
    tensors = {"W_enc": W, "W_dec": V, "b_enc": b, "b_dec": c, "threshold": t}
    return tensors, lambda x: ((x @ W + b) * (x @ W + b > t)) @ V + c


def config(kind, **trainer):
    about = {
        "dict_class": kind,
        "trainer_class": "T",
        "activation_dim": D,
        "dict_size": N,
        "k": 4,
        "layer": 3,
        "lr": 1e-4,
    }
    about |= {"lm_name": "EleutherAI/pythia-410m-deduped", "submodule_name": "resid_post_layer_3", "steps": 10}
    return {
        "trainer": about | trainer,
        "buffer": {"d_submodule": D, "io": "out", "n_ctxs": 9, "ctx_len": 4, "device": "cuda"},
    }


def put(folder, tensors, cfg):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps(cfg), encoding="utf-8")
    return folder


KINDS = ["AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "JumpReluAutoEncoder"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_class_computes_the_same_afterwards(tmp_path, kind):
    tensors, by_hand = state(kind)
    sae = convert(put(tmp_path / "in", tensors, config(kind)), tmp_path / "out")
    x = draw(100, D, seed=9)
    torch.testing.assert_close(sae(x), by_hand(x), atol=1e-4, rtol=1e-4)
    again = load_sae(tmp_path / "out")
    torch.testing.assert_close(again(x), by_hand(x), atol=1e-4, rtol=1e-4)
    assert sae_site(again) == ("resid_post", 3) and again.cfg.model_name == "EleutherAI/pythia-410m-deduped"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["cfg.json", "sae_weights.safetensors"]


def test_the_command(tmp_path, capsys):
    put(tmp_path / "in", state("AutoEncoder")[0], config("AutoEncoder", submodule_name=None, lm_name="blah"))
    where = [str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert cli.main(["convert", *where]) == 1
    assert "does not say which place of the model it reads" in capsys.readouterr().err
    assert cli.main(["convert", *where, "--hook", "model.layers.2.mlp", "--model", "m"]) == 0
    assert "relu, 20 features of blocks.2.mlp.hook_out of m" in capsys.readouterr().out


class Runs:
    def __reduce__(self):
        return (open, ("RAN", "w"))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_nothing_is_executed(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "in", state("AutoEncoder")[0], config("AutoEncoder"))
    if how == "torch":
        torch.save({"bias": Runs()}, tmp_path / "in" / "ae.pt")
    else:
        (tmp_path / "in" / "ae.pt").write_bytes(pickle.dumps({"bias": Runs()}))
    with pytest.raises(ConceptLabError, match="nothing in it is executed|not a file of torch.save"):
        convert(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "RAN").exists() and not (tmp_path / "out").exists()


def packed(path):
    """The same members, compressed: what unpacks to more than the file holds."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_sizes_are_looked_at_first(tmp_path):
    tensors = state("AutoEncoder")[0]
    put(tmp_path, tensors | {"bias": torch.zeros(1).expand(D)}, config("AutoEncoder"))
    with pytest.raises(ConceptLabError, match="bias of shape .8,. is not stored number by number"):
        convert(tmp_path, tmp_path / "out")
    put(tmp_path, tensors, config("AutoEncoder"))
    packed(tmp_path / "ae.pt")
    with pytest.raises(ConceptLabError, match="unpacks to more than it holds"):
        convert(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (config("CrossCoder"), "is of the class 'CrossCoder'; known are AutoEncoder"),
        (config("AutoEncoder", activation_dim=9), r"W_enc is missing or not of shape \(9, 20\)"),
        (config("AutoEncoder", dict_size=21), "W_enc is missing or not of shape"),
        (config("AutoEncoder", dict_size=None), "does not say dict_size"),
        (config("AutoEncoder") | {"buffer": {"io": "in"}}, "io = 'in': it reads a module's input"),
        (config("AutoEncoder") | {"buffer": {"rescale_acts": True}}, "rescale_acts = True: it was trained on scaled"),
        (config("AutoEncoder") | {"buffer": {"whiten": 1}}, "setting whiten = 1, which is not known here"),
        (config("AutoEncoder") | {"model": {}}, "setting model = {}, which is not known here"),
        (config("AutoEncoder", submodule_name="attention_layer_3"), "is no place of a LanguageModel"),
        ({}, "is of the class None"),
    ],
)
def test_settings_are_known_or_refused(tmp_path, cfg, message):
    with pytest.raises(ConceptLabError, match=message):
        convert(put(tmp_path, state("AutoEncoder")[0], cfg), tmp_path / "out")


def test_what_is_missing_or_disagrees(tmp_path):
    tensors = state("BatchTopKSAE")[0]
    for change, message in (
        ({"k": torch.tensor(5)}, "k is 4 in config.json and 5 in ae.pt"),
        ({"threshold": torch.tensor(-1.0)}, "has no threshold yet"),
        ({"b_dec": torch.full((D,), float("nan"))}, "b_dec holds NaN"),
        ({"extra": torch.ones(3)}, "holds a tensor 'extra'"),
    ):
        with pytest.raises(ConceptLabError, match=message):
            convert(put(tmp_path, tensors | change, config("BatchTopKSAE")), tmp_path / "out")
    (tmp_path / "ae.pt").unlink()
    with pytest.raises(ConceptLabError, match="has no ae.pt; give the folder of one dictionary"):
        convert(tmp_path, tmp_path / "out")
