"""Dictionaries on disk: our files, the layouts of others, small storage, and what does not fit."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from conceptlab.core import ConceptLabError
from conceptlab.sae import ARCHITECTURES, SAEConfig, make_sae, sites
from conceptlab.sae.files import io, storage

D_IN, D_SAE = 8, 20


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def x_batch(n=200, d=D_IN, seed=5):
    return torch.randn(n, d, generator=seeded(seed))


def make(kind="topk", seed=0, d_in=D_IN, d_sae=D_SAE, model="m", layer=3):
    """A dictionary of any architecture with random biases and thresholds."""
    sae = make_sae(SAEConfig(kind, d_in, d_sae, 4, model, layer, f"blocks.{layer}.mlp.hook_out"), seed)
    g = seeded(seed + 1)
    with torch.no_grad():
        for name in (*sae.feature_vectors, "b_dec"):
            p = getattr(sae, name)
            p.copy_(0.3 * torch.randn(p.shape, generator=g))
        if kind == "batchtopk":
            sae.threshold.fill_(0.7)
    return sae.requires_grad_(False)


def raw(seed=0, d_in=D_IN, d_sae=D_SAE):
    """Tensors as a file might hold them, W_dec not of unit norm, features about half on."""
    g = seeded(seed)
    out = {"W_enc": torch.randn(d_in, d_sae, generator=g), "W_dec": torch.randn(d_sae, d_in, generator=g)}
    out |= {"b_enc": 0.3 * torch.randn(d_sae, generator=g), "b_dec": torch.randn(d_in, generator=g)}
    return out | {"threshold": 0.5 + torch.rand(d_sae, generator=g)}


def write(folder, tensors, main, side=None, cfg=None):
    (folder / main).parent.mkdir(parents=True, exist_ok=True)
    if main.endswith(".npz"):
        np.savez(folder / main, **{name: t.numpy() for name, t in tensors.items()})
    else:
        save_file({name: t.contiguous() for name, t in tensors.items()}, folder / main)
    if side:
        (folder / side).write_text(json.dumps(cfg))
    return folder


def same(sae, x, features, reconstruction, norms=1.0):
    """Compare with what a file's dictionary computes; `norms` of its decoder rows where they are folded."""
    features = features * norms
    assert bool((features > 0).any()) and not bool((features > 0).all(1).any())
    torch.testing.assert_close(sae.encode(x), features, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae(x), reconstruction, atol=2e-5, rtol=1e-5)


# ---- our own files ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_survives_the_disk(tmp_path, kind):
    sae, x = make(kind), x_batch()
    io.save_sae(sae, tmp_path / "new" / "sae")
    loaded = io.load_sae(tmp_path / "new" / "sae")
    assert loaded.cfg == sae.cfg and type(loaded) is type(sae)
    assert 0 < float((sae.encode(x) > 0).float().mean()) < 1
    torch.testing.assert_close(loaded(x), sae(x), atol=1e-6, rtol=1e-6)
    assert not any(p.requires_grad for p in loaded.parameters())
    assert sorted(p.name for p in (tmp_path / "new" / "sae").iterdir()) == ["cfg.json", "sae_weights.safetensors"]


def test_a_threshold_in_half_precision_is_rounded_once(tmp_path):
    sae = make_sae(SAEConfig("jumprelu", 16, 48, 4, "tiny", 0, "blocks.0.mlp.hook_out")).to(torch.bfloat16)
    with torch.no_grad():
        sae.log_threshold.copy_(torch.linspace(-2.0, 1.0, 48))
    io.save_sae(sae, tmp_path / "half")
    wide = sae.to(torch.float32)
    io.save_sae(wide, tmp_path / "whole")
    half, whole = (load_file(tmp_path / name / "sae_weights.safetensors") for name in ("half", "whole"))
    assert all(torch.equal(half[name], whole[name]) for name in whole)
    assert torch.equal(whole["threshold"], wide.log_threshold.exp())


def test_batch_topk_is_written_as_jumprelu(tmp_path):
    io.save_sae(make("batchtopk"), tmp_path)
    assert json.loads((tmp_path / "cfg.json").read_text())["architecture"] == "jumprelu"
    assert torch.equal(load_file(tmp_path / "sae_weights.safetensors")["threshold"], torch.full((D_SAE,), 0.7))


# ---- SAELens ---------------------------------------------------------------------------------------------
def saelens_cfg(kind, **more):
    metadata = {"sae_lens_version": "6.54.12", "model_name": "gpt2", "hook_name": "blocks.2.hook_resid_pre"}
    return {"architecture": kind, "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "metadata": metadata} | more


MAIN = "sae_weights.safetensors"


@pytest.mark.parametrize("centred", [True, False])
def test_saelens_gated(tmp_path, centred):
    t, x = raw(), x_batch()
    del t["threshold"]
    t |= {"b_gate": t.pop("b_enc"), "b_mag": 0.1 * torch.ones(D_SAE), "r_mag": 0.4 * torch.ones(D_SAE)}
    write(tmp_path, t, MAIN, "cfg.json", saelens_cfg("gated", apply_b_dec_to_input=centred))
    y = x - t["b_dec"] if centred else x
    features = (y @ t["W_enc"] + t["b_gate"] > 0) * F.relu(y @ (t["W_enc"] * t["r_mag"].exp()) + t["b_mag"])
    sae = io.load_sae(tmp_path)
    same(sae, x, features, features @ t["W_dec"] + t["b_dec"], t["W_dec"].norm(dim=1))
    assert sae.cfg.model_name == "gpt2" and sae.cfg.hook_layer == 2 and sites.sae_site(sae) == ("resid_pre", 2)


@pytest.mark.parametrize("rescaled", [True, False])
def test_saelens_topk_with_rescaled_scores(tmp_path, rescaled):
    t, x = raw(), x_batch()
    del t["threshold"]
    cfg = saelens_cfg("topk", k=4, apply_b_dec_to_input=False, rescale_acts_by_decoder_norm=rescaled)
    write(tmp_path, t, MAIN, "cfg.json", cfg)
    norm = t["W_dec"].norm(dim=1) if rescaled else torch.ones(D_SAE)
    scores = (x @ t["W_enc"] + t["b_enc"]) * norm
    top = scores.topk(4)
    features = torch.zeros_like(scores).scatter(1, top.indices, top.values.relu())
    same(io.load_sae(tmp_path), x, features, (features / norm) @ t["W_dec"] + t["b_dec"])


def test_saelens_before_version_6(tmp_path):
    t, x = raw(), x_batch()
    del t["threshold"]
    cfg = {"d_in": D_IN, "d_sae": D_SAE, "model_name": "gpt2", "hook_point": "blocks.1.hook_mlp_out"}
    cfg |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, "normalize_activations": None}
    write(tmp_path, t | {"scaling_factor": torch.ones(D_SAE)}, MAIN, "cfg.json", cfg)
    sae = io.load_sae(tmp_path)
    assert sae.cfg.architecture == "topk" and sae.cfg.k == 3 and sae.cfg.hook_name == "blocks.1.hook_mlp_out"
    assert bool(((sae.encode(x) > 0).sum(1) <= 3).all())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"normalize_activations": "layer_norm"},
            "normalises every token by its own size .layer_norm.*no weights can hold",
        ),
        ({"reshape_activations": "hook_z"}, "attention heads are not supported"),
        ({"architecture": "temporal"}, "Unknown architecture 'temporal' of .*; known are standard, gated"),
        ({"metadata": {}}, "does not say of which model it is; pass it, for example model_name="),
        ({"d_in": 9}, "is missing or not of the shape"),
        ({"d_sae": 19}, "is missing or not of the shape"),
        ({"architecture": "topk"}, "k is 0, but there are 20 features"),
    ],
)
def test_what_cannot_be_read_faithfully_is_refused(tmp_path, more, message):
    write(tmp_path, raw(), MAIN, "cfg.json", saelens_cfg("jumprelu") | more)
    with pytest.raises(ConceptLabError, match=message) as caught:
        io.load_sae(tmp_path)
    assert "\n" not in str(caught.value)


# ---- Gemma Scope, Llama Scope, sparsify ------------------------------------------------------------------
def jumprelu_by_hand(t, x):
    scores = x @ t["W_enc"] + t["b_enc"]
    features = scores * (scores > t["threshold"])
    return features, features @ t["W_dec"] + t["b_dec"]


def test_gemma_scope(tmp_path):
    folder = tmp_path / "gemma-scope-2b-pt-mlp" / "layer_12" / "width_16k" / "average_l0_60"
    t, x = raw(), x_batch()
    write(folder, t, "params.npz")
    sae = io.load_sae(tmp_path / "gemma-scope-2b-pt-mlp", layer=12)
    same(sae, x, *jumprelu_by_hand(t, x), t["W_dec"].norm(dim=1))
    assert sae.cfg.model_name == "google/gemma-2-2b" and sae.cfg.hook_name == "blocks.12.hook_mlp_out"
    assert sites.sae_site(sae) == ("mlp_contribution", 12)


@pytest.mark.parametrize("with_config", [True, False])
def test_gemma_scope_2(tmp_path, with_config):
    root, t, x = tmp_path / "google" / "gemma-scope-2-270m-pt", raw(), x_batch()
    for layer, size in ((5, "small"), (5, "big"), (6, "small")):
        folder = root / "mlp_out_all" / f"layer_{layer}_width_16k_l0_{size}"
        write(folder, {name.lower(): v for name, v in raw(layer).items()}, "params.safetensors")
    chosen = root / "mlp_out_all" / "layer_5_width_16k_l0_small"
    cfg = {"architecture": "jump_relu", "model_name": "gemma-v3-270m-pt"}
    cfg["hf_hook_point_in"] = "model.layers.5.post_feedforward_layernorm.output"
    write(chosen, {name.lower(): v for name, v in t.items()}, "params.safetensors")
    if with_config:
        (chosen / "config.json").write_text(json.dumps(cfg))
    sae = io.load_sae(root, layer=5, name="l0_small")
    same(sae, x, *jumprelu_by_hand(t, x), t["W_dec"].norm(dim=1))
    assert sae.cfg.hook_name == "blocks.5.hook_mlp_out" and sites.model_family(
        sae.cfg.model_name
    ) == sites.model_family("gemma3-270m")
    with pytest.raises(ConceptLabError, match=r"holds 2 dictionaries for layer 5 .*choose one with layer= and name="):
        io.load_sae(root, layer=5)
    with pytest.raises(ConceptLabError, match=r"holds no dictionaries for layer 7"):
        io.load_sae(root, layer=7)
    with pytest.raises(ConceptLabError, match=r"is of layer 5, not of layer 6"):
        io.load_sae(chosen, layer=6)


def llama_cfg(**more):
    norms = {"in": 2.0, "out": 2.0}
    cfg = {"d_model": D_IN, "d_sae": D_SAE, "hook_point_in": "blocks.0.hook_mlp_out", "act_fn": "jumprelu"}
    cfg |= {"hook_point_out": "blocks.0.hook_mlp_out", "norm_activation": "dataset-wise"}
    return cfg | {"dataset_average_activation_norm": norms, "jump_relu_threshold": 0.6, "top_k": 4} | more


def llama_tensors(t):
    pairs = {"encoder.weight": t["W_enc"].T, "encoder.bias": t["b_enc"], "decoder.weight": t["W_dec"].T}
    return pairs | {"decoder.bias": t["b_dec"]}


def test_llama_scope(tmp_path):
    folder, t, x = tmp_path / "Llama3_1-8B-Base-L0M-8x", raw(), x_batch()
    t["W_dec"] = F.normalize(t["W_dec"], dim=1)
    write(folder, llama_tensors(t), "checkpoints/final.safetensors", "hyperparams.json", llama_cfg())
    scale = D_IN**0.5 / 2.0  # trained on x * scale, scores there compared with threshold * scale
    scores = (x * scale) @ t["W_enc"] + t["b_enc"]
    trained = scores * (scores > 0.6 * scale)
    sae = io.load_sae(folder)
    same(sae, x, trained / scale, (trained @ t["W_dec"] + t["b_dec"]) / scale)
    assert sae.cfg.model_name == "meta-llama/Llama-3.1-8B" and sae.cfg.hook_layer == 0


def test_llama_scope_with_free_decoder_norms_and_topk(tmp_path):
    t, x = raw(), x_batch()
    cfg = llama_cfg(act_fn="topk", jump_relu_threshold=0.0, model_name="m", sparsity_include_decoder_norm=True)
    write(tmp_path, llama_tensors(t), "checkpoints/final.safetensors", "hyperparams.json", cfg)
    norm, scale = t["W_dec"].norm(dim=1), D_IN**0.5 / 2.0
    scores = ((x * scale) @ t["W_enc"] + t["b_enc"]) * norm
    top = scores.topk(4)
    trained = torch.zeros_like(scores).scatter(1, top.indices, top.values.relu())
    same(io.load_sae(tmp_path), x, trained / scale, ((trained / norm) @ t["W_dec"] + t["b_dec"]) / scale)


def test_sparsify(tmp_path):
    folder, t, x = tmp_path / "sae-SmolLM2-135M-64x" / "layers.3.mlp", raw(), x_batch()
    tensors = {"encoder.weight": t["W_enc"].T, "encoder.bias": t["b_enc"], "W_dec": t["W_dec"], "b_dec": t["b_dec"]}
    cfg = {"d_in": D_IN, "num_latents": D_SAE, "expansion_factor": 32, "k": 4, "activation": "topk"}
    write(folder, tensors, "sae.safetensors", "cfg.json", cfg)
    (folder.parent / "config.json").write_text(json.dumps({"model": "HuggingFaceTB/SmolLM2-135M"}))
    scores = (x - t["b_dec"]) @ t["W_enc"] + t["b_enc"]
    top = scores.topk(4)
    features = torch.zeros_like(scores).scatter(1, top.indices, top.values.relu())
    sae = io.load_sae(folder.parent, layer=3)
    same(sae, x, features, features @ t["W_dec"] + t["b_dec"])
    assert sae.cfg.hook_name == "blocks.3.mlp.hook_out" and sites.model_family(sae.cfg.model_name) == "smollm2135m"


def test_params_without_a_telling_path_want_names(tmp_path):
    write(tmp_path, raw(), "params.npz")
    with pytest.raises(ConceptLabError, match="does not say of which model"):
        io.load_sae(tmp_path)
    with pytest.raises(ConceptLabError, match="does not say which place"):
        io.load_sae(tmp_path, model_name="m")
    assert io.load_sae(tmp_path, model_name="m", hook_name="blocks.4.mlp.hook_out").cfg.hook_layer == 4


# ---- broken files ----------------------------------------------------------------------------------------
def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without(name):
    def damage(folder):
        tensors = {n: t.clone() for n, t in load_file(folder / MAIN).items() if n != name}
        save_file(tensors, folder / MAIN)

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "cfg.json").unlink(), "holds no dictionary that can be read.*needs cfg.json"),
        (lambda f: (f / MAIN).unlink(), "holds no dictionary"),
        (lambda f: (f / "cfg.json").write_text("{"), "holds no dictionary"),
        (lambda f: (f / "cfg.json").write_text("[]"), "cfg.json holds a list, not a table of settings"),
        (lambda f: (f / "cfg.json").write_text('{"d_sae": 3}'), "d_in is missing"),
        (lambda f: (f / MAIN).write_bytes(b"no"), "holds no dictionary"),
        (lambda f: cut_short(f / MAIN), "holds no dictionary"),
        (without("W_dec"), "W_dec is missing or not of the shape"),
        (without("b_enc"), "b_enc is missing or not of the shape"),
    ],
)
def test_broken_files_are_named(tmp_path, damage, message):
    io.save_sae(make(), tmp_path)
    damage(tmp_path)
    with pytest.raises(ConceptLabError, match=message) as caught:
        io.load_sae(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_truncated_npz(tmp_path):
    write(tmp_path, raw(), "params.npz")
    cut_short(tmp_path / "params.npz")
    with pytest.raises(ConceptLabError, match="holds no dictionary that can be read"):
        io.load_sae(tmp_path, model_name="m", hook_name="blocks.1.mlp.hook_out")


def test_npz_with_a_pickle_is_not_run(tmp_path):
    np.savez(tmp_path / "params.npz", W_enc=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ConceptLabError, match="W_enc.npy holds object of shape .1,., not weights"):
        io.load_sae(tmp_path)


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(ConceptLabError, match="holds no dictionary"):
        io.load_sae(tmp_path / "nowhere")


# ---- the Hub ---------------------------------------------------------------------------------------------
def test_files_come_from_the_hub(tmp_path, monkeypatch):
    import huggingface_hub

    root, t, x = tmp_path / "snapshot", raw(), x_batch()
    for site in ("mlp_out_all", "resid_post_all"):
        folder = root / site / "layer_5_width_16k_l0_small"
        write(folder, {n.lower(): v for n, v in t.items()}, "params.safetensors", "config.json", {})
    files = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()]
    fetched = []

    def download(repository, file):
        assert repository == "google/gemma-scope-2-270m-pt"
        fetched.append(file)
        return str(root / file)

    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda repository: files)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    sae = io.load_sae("google/gemma-scope-2-270m-pt", layer=5, name="mlp_out_all")
    same(sae, x, *jumprelu_by_hand(t, x), t["W_dec"].norm(dim=1))
    assert sae.cfg.model_name == "google/gemma-3-270m-pt" and sae.cfg.hook_name == "blocks.5.hook_mlp_out"
    folder = "mlp_out_all/layer_5_width_16k_l0_small"
    assert sorted(fetched) == [f"{folder}/config.json", f"{folder}/params.safetensors"]


def test_a_hub_that_cannot_be_reached(monkeypatch):
    import huggingface_hub

    def fail(repository):
        raise OSError("Network is unreachable\nmore")

    monkeypatch.setattr(huggingface_hub, "list_repo_files", fail)
    with pytest.raises(ConceptLabError, match=r"owner/name is no folder here .*\(Network is unreachable\)") as caught:
        io.load_sae("owner/name", layer=1)
    assert "\n" not in str(caught.value)


# ---- does it fit? ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("gemma3-270m", "google/gemma-3-270m-it"),
        ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B"),
        ("llama-3.1-8b-instruct", "Llama3_1-8B-Base"),
        ("gemma-2-2b-it", "google/gemma-2-2b"),
    ],
)
def test_tuned_variants_are_one_family(ours, theirs):
    assert sites.model_family(ours) == sites.model_family(theirs) != sites.model_family("gpt2")


def test_only_a_fitting_dictionary_is_taken(tiny_llama, tmp_path):
    lm = tiny_llama()
    fits = make(d_in=16, model="tiny-llama", layer=1)
    sites.check_fits(lm, fits)
    io.save_sae(fits, tmp_path)
    assert io.load_sae(tmp_path, lm=lm).cfg == fits.cfg
    for wrong, message in (
        (make(d_in=16, model="gpt2", layer=1), "The dictionary is of gpt2, the model is tiny-llama"),
        (make(d_in=24, model="tiny-llama", layer=1), "width 24, but mlp_output of tiny-llama has width 16"),
        (make(d_in=16, model="tiny-llama", layer=2), "layers 0 to 1; layer 2 does not exist"),
    ):
        with pytest.raises(ConceptLabError, match=message):
            sites.check_fits(lm, wrong)


# ---- small storage ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("bits", range(2, 9))
def test_packed_bits_come_back_exactly(bits):
    codes = torch.randint(2**bits, (7, 13), generator=seeded(bits), dtype=torch.uint8)
    packed = storage._pack(codes, bits)
    assert packed.shape == (7, (13 * bits + 7) // 8)
    assert torch.equal(storage._unpack(packed, bits, 13), codes)


@pytest.mark.parametrize(("bits", "group"), [(8, 0), (6, 4), (5, 8), (4, 0)])
def test_quantised_rows_are_near_and_of_the_promised_size(bits, group):
    rows = torch.randn(50, 64, generator=seeded(bits))
    packed, scales = storage.to_integers(rows, bits, group)
    back = storage.from_integers(packed, scales, bits, 64)
    assert packed.numel() == 50 * 64 * bits // 8 and scales.dtype == torch.float16
    assert scales.shape == (50, 64 // (group or 64))
    step = rows.view(50, -1, group or 64).abs().amax(-1) / (2 ** (bits - 1) - 1)
    plain = (rows.view(50, -1, group or 64) / step[..., None]).round() * step[..., None]
    error, naive = (back - rows).square().sum(), (plain.view(50, 64) - rows).square().sum()
    assert float(error) <= float(naive) * 1.01  # never worse than the scale of the largest number
    again = storage.from_integers(*storage.to_integers(back, bits, group), bits, 64)
    assert float((again - back).square().sum()) < 0.1 * float(error)


def test_rows_of_zeros_stay_zero():
    packed, scales = storage.to_integers(torch.zeros(3, 8), 5)
    assert torch.equal(storage.from_integers(packed, scales, 5, 8), torch.zeros(3, 8))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_small_files_are_read_like_large_ones(tmp_path, kind):
    sae, x = make(kind, d_in=64, d_sae=256), x_batch(500, 64)
    io.save_sae(sae, tmp_path / "large")
    io.save_sae(sae, tmp_path / "small", "int8")
    small = io.load_sae(tmp_path / "small")
    assert small.cfg == sae.cfg
    weights = (tmp_path / "small" / MAIN).stat().st_size / (tmp_path / "large" / MAIN).stat().st_size
    assert weights < 0.3
    assert float((small.W_dec - sae.W_dec).norm() / sae.W_dec.norm()) < 0.01
    assert float((small(x) - sae(x)).norm() / sae(x).norm()) < 0.1


def test_storage_mistakes_are_named(tmp_path):
    sae = make()
    with pytest.raises(ConceptLabError, match="Unknown storage 'int3'; known are float32, int8, int5"):
        io.save_sae(sae, tmp_path / "a", "int3")
    with pytest.raises(ConceptLabError, match="groups of 64 does not suit rows of 8"):
        io.save_sae(sae, tmp_path / "b", "int5")
    assert not (tmp_path / "b").exists() or not list((tmp_path / "b").iterdir())
    io.save_sae(sae, tmp_path / "c", "int8")
    without("W_enc.scales")(tmp_path / "c")
    with pytest.raises(ConceptLabError, match="lacks W_enc.scales"):
        io.load_sae(tmp_path / "c")
