"""Transcoders and the other layouts: what they compute, where they read and write, and what they refuse."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from conceptlab.core import ConceptLabError
from conceptlab.data import harvest, token_rows
from conceptlab.erasure import Feature, directional_edit, pisces_edit, signed_edit
from conceptlab.sae import Transcoder, check_harvest, is_transcoder, load_sae, sae_site, save_sae, written_site
from sentences import sentences

D, N = 16, 40


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weights(threshold=True, skip=False, d_out=D):
    out = {"W_enc": draw(D, N), "W_dec": draw(N, d_out, seed=1), "b_enc": 0.3 * draw(N, seed=2)}
    out["b_dec"] = draw(d_out, seed=3)
    if threshold:
        out["threshold"] = 0.5 + draw(N, seed=4).abs()
    return out | ({"W_skip": draw(d_out, D, seed=5)} if skip else {})


def by_hand(t, x):
    z = x @ t["W_enc"] + t["b_enc"]
    f = F.relu(z) * (z > t.get("threshold", torch.zeros(N)))
    written = f @ t["W_dec"] + t["b_dec"]
    return f * t["W_dec"].norm(dim=1), written + (x @ t["W_skip"].T if "W_skip" in t else 0)


def computes(sae, t, x=None):
    x = draw(100, D, seed=9) if x is None else x
    features, written = by_hand(t, x)
    assert 0.02 < float((features > 0).float().mean()) < 0.9
    torch.testing.assert_close(sae.encode(x), features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sae(x), written, atol=1e-4, rtol=1e-4)
    if getattr(sae, "W_skip", None) is None:
        torch.testing.assert_close(sae.decode(sae.encode(x)), written, atol=1e-4, rtol=1e-4)


def put(folder, tensors, main, side=None, cfg=None):
    (folder / main).parent.mkdir(parents=True, exist_ok=True)
    if main.endswith(".npz"):
        np.savez(folder / main, **{n: t.numpy() for n, t in tensors.items()})
    else:
        save_file({n: t.contiguous() for n, t in tensors.items()}, folder / main)
    if side:
        (folder / side).write_text(cfg if isinstance(cfg, str) else json.dumps(cfg), encoding="utf-8")
    return folder


# ---- transcoders -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("jump", [False, True])
def test_saelens_transcoders(tmp_path, skip, jump):
    name = "jumprelu_" * jump + "skip_" * skip + "transcoder"
    t = weights(jump, skip, d_out=24)
    metadata = {"model_name": "m", "hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out"}
    cfg = {
        "architecture": name,
        "d_in": D,
        "d_sae": N,
        "d_out": 24,
        "apply_b_dec_to_input": False,
        "metadata": metadata,
    }
    sae = load_sae(put(tmp_path, t, "sae_weights.safetensors", "cfg.json", cfg))
    assert isinstance(sae, Transcoder) and is_transcoder(sae) and sae.cfg.d_out == 24
    assert sae_site(sae) == ("mlp_input", 1) and written_site(sae) == ("mlp_contribution", 1)
    computes(sae, t)
    with pytest.raises(ConceptLabError, match="Transcoders are read, not written"):
        save_sae(sae, tmp_path / "again")
    put(tmp_path, t, "sae_weights.safetensors", "cfg.json", cfg | {"apply_b_dec_to_input": True})
    with pytest.raises(ConceptLabError, match="apply_b_dec_to_input = True: a transcoder's bias"):
        load_sae(tmp_path)


def test_a_skip_that_is_promised_must_be_there(tmp_path):
    cfg = {"architecture": "skip_transcoder", "d_in": D, "d_sae": N, "metadata": {"hook_name": "blocks.1.mlp.hook_in"}}
    put(tmp_path, weights(False), "sae_weights.safetensors", "cfg.json", cfg)
    with pytest.raises(ConceptLabError, match="W_skip is missing"):
        load_sae(tmp_path)


def test_gemma_scope_transcoders_read_before_the_gain(tmp_path, tiny_gemma2):
    """The gain was folded into the MLP before they were trained: with the model at hand it is folded into them."""
    lm = tiny_gemma2("gemma-2-2b")
    g = torch.Generator().manual_seed(2)
    lm.hf.get_submodule("model.layers.1.pre_feedforward_layernorm").weight.data = torch.rand(D, generator=g) - 0.3
    folder = tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_1" / "width_16k" / "average_l0_9"
    t = weights()
    sae = load_sae(put(folder, t, "params.npz"))
    assert isinstance(sae, Transcoder) and sae.cfg.model_name == "google/gemma-2-2b"
    computes(sae, t)
    with pytest.raises(ConceptLabError, match="depends on the model's norms; pass lm= to load_sae"):
        sae_site(sae)
    sae = load_sae(folder, lm=lm)
    assert sae_site(sae) == ("mlp_input", 1) and written_site(sae) == ("mlp_contribution", 1)
    ids, _ = lm.tokens(["a river in a country", "gold"])
    found = lm.capture(ids, [("mlp_input", 1), ("resid_pre", 1)])["mlp_input", 1]
    normalised = found / lm.pre_mlp_gain(1)
    assert float((normalised.square().mean(-1) - 1).abs().max()) < 1e-2 < float((lm.pre_mlp_gain(1) - 1).abs().max())
    torch.testing.assert_close(sae.encode(found), by_hand(t, normalised)[0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("affine", [False, True])
def test_gemma_scope_2_transcoders(tmp_path, affine):
    t = weights(skip=affine)
    cfg = {
        "hf_hook_point_in": "model.layers.5.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.5.post_feedforward_layernorm.output",
        "width": N, "model_name": "google/gemma-3-270m-it", "architecture": "jump_relu", "l0": 18,
        "affine_connection": affine, "type": "transcoder",
    }  # fmt: skip
    tensors = {n.lower(): v for n, v in t.items() if n != "W_skip"}
    if affine:
        tensors["affine_skip_connection"] = t["W_skip"]
    sae = load_sae(put(tmp_path / "anywhere", tensors, "params.safetensors", "config.json", cfg))
    computes(sae, t)
    assert sae_site(sae) == ("mlp_input", 5) and written_site(sae) == ("mlp_contribution", 5)
    for change, message in (
        ({"type": "crosscoder"}, "type = 'crosscoder': crosscoders and cross-layer"),
        ({"affine_connection": not affine}, "affine_connection in config.json and the tensors disagree"),
        ({"width": 41}, "W_enc is missing or not of the shape"),
        ({"architecture": "topk"}, "architecture = 'topk': only JumpReLU"),
        ({"sparsity": "abs"}, "setting sparsity = 'abs', which is not known here"),
    ):
        put(tmp_path / "anywhere", tensors, "params.safetensors", "config.json", cfg | change)
        with pytest.raises(ConceptLabError, match=message):
            load_sae(tmp_path / "anywhere")


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("jump", "skip"), [(False, True), (True, False)])
def test_circuit_tracer(tmp_path, transposed, jump, skip):
    t = weights(jump, skip)
    tensors = {"W_enc": t["W_enc"].T, "W_dec": t["W_dec"].T if transposed else t["W_dec"]}
    tensors |= {n: t[n] for n in ("b_enc", "b_dec", "W_skip") if n in t}
    if jump:
        tensors["activation_function.threshold"] = t["threshold"]
    yaml = "model_name: Qwen/Qwen3-0.6B\nmodel_kind: transcoder_set\nfeature_input_hook: mlp.hook_in\n"
    yaml += "feature_output_hook: mlp.hook_out\ntranscoders: [hf://x/y/layer_0.safetensors]\n"
    for layer in (0, 3):
        put(tmp_path, tensors, f"layer_{layer}.safetensors", "config.yaml", yaml)
    sae = load_sae(tmp_path, layer=3)
    assert sae_site(sae) == ("mlp_input", 3) and written_site(sae) == ("mlp_output", 3)
    assert sae.cfg.model_name == "Qwen/Qwen3-0.6B"
    computes(sae, t)
    assert load_sae(tmp_path / "layer_0.safetensors").cfg.hook_layer == 0
    with pytest.raises(ConceptLabError, match="holds 2 dictionaries"):
        load_sae(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.replace("transcoder_set", "cross_layer_transcoder"), encoding="utf-8")
    with pytest.raises(ConceptLabError, match="cross-layer transcoders are not supported"):
        load_sae(tmp_path, layer=0)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(ConceptLabError, match="needs a config.yaml beside it that names model_name"):
        load_sae(tmp_path, layer=0)


def transcoder(lm, tmp_path):
    metadata = {"model_name": lm.name, "hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out"}
    cfg = {"architecture": "jumprelu_transcoder", "d_in": D, "d_sae": N, "apply_b_dec_to_input": False}
    return load_sae(
        put(tmp_path, weights(), "sae_weights.safetensors", "cfg.json", cfg | {"metadata": metadata}), lm=lm
    )


def test_a_transcoder_is_harvested_where_it_reads_and_pushes_where_it_writes(tiny_llama, tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path / "cache"))
    lm = tiny_llama()
    sae = transcoder(lm, tmp_path)
    assert written_site(sae) == ("mlp_output", 1), "no norm follows this MLP"
    rows = token_rows(lm, sentences(12, 0), n_ctx=16)
    data = harvest(lm, rows, [1], kind=sae_site(sae)[0], progress=False)
    check_harvest(data, sae)
    ids = rows.ids[:1]
    seen = lm.capture(ids, [("mlp_input", 1)])["mlp_input", 1][0, 1:]
    torch.testing.assert_close(data.tensor(1)[: len(seen)], seen.float(), atol=2e-3, rtol=2e-3)
    out = lm.hf.get_submodule("model.layers.1.mlp")(seen)
    torch.testing.assert_close(out, lm.capture(ids, [("mlp_output", 1)])["mlp_output", 1][0, 1:], atol=1e-4, rtol=1e-4)
    assert sae.residual_directions(lm).shape == (N, D)
    with pytest.raises(ConceptLabError, match="reads mlp_input, but mlp_output was harvested; harvest with kind="):
        check_harvest(harvest(lm, rows, [1], progress=False), sae)
    with pytest.raises(ConceptLabError, match=r"reads layer 1, but layers \[0\] were harvested"):
        check_harvest(harvest(lm, rows, [0], kind="mlp_input", progress=False), sae)


def test_a_transcoder_cannot_edit(tiny_llama, tmp_path):
    lm = tiny_llama()
    saes, features, signs = {1: transcoder(lm, tmp_path)}, [Feature(1, 3)], {1: torch.ones(lm.d_mlp)}
    for edit in (pisces_edit, directional_edit, lambda *args: signed_edit(*args, signs)):
        with pytest.raises(ConceptLabError, match="A transcoder reads .* cannot edit them; use an autoencoder"):
            edit(lm, saes, features)


# ---- Llamascopium ----------------------------------------------------------------------------------------
def scopium(hook="blocks.2.hook_mlp_out", **more):
    cfg = {"sae_type": "sae", "hook_point_in": hook, "hook_point_out": hook, "d_model": D, "expansion_factor": N / D}
    cfg |= {"use_decoder_bias": True, "use_glu_encoder": False, "act_fn": "jumprelu", "top_k": 50}
    cfg |= {"norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True, "use_triton_kernel": True}
    return cfg | {"jumprelu_threshold_window": 2.0, "sparsity_threshold_for_triton_spmm_kernel": 0.99} | more


def scopium_by_hand(t, x, s, s_out, with_norms, relu=False):
    """As trained: inputs times s, gate on scores times |W_dec|, outputs over s_out. Features as lengths written."""
    z = (x * s) @ t["W_enc"] + t["b_enc"]
    gate = z * t["W_dec"].norm(dim=1) if with_norms else z
    f = F.relu(z) if relu else z * (gate > t["threshold"])
    return f * t["W_dec"].norm(dim=1) / s_out, (f @ t["W_dec"] + t["b_dec"]) / s_out


@pytest.mark.parametrize("with_norms", [False, True])
@pytest.mark.parametrize("generation", [1, 2])
def test_llamascopium_both_releases(tmp_path, generation, with_norms):
    t, x, hook = weights(), draw(100, D, seed=9), "blocks.2.hook_mlp_out"
    log = t["threshold"].log()
    if generation == 1:
        tensors = {"encoder.weight": t["W_enc"].T, "encoder.bias": t["b_enc"], "decoder.weight": t["W_dec"].T}
        tensors |= {"decoder.bias": t["b_dec"], "log_jumprelu_threshold": log}
    else:
        tensors = {"W_E": t["W_enc"], "b_E": t["b_enc"], "W_D": t["W_dec"], "b_D": t["b_dec"]}
        tensors["activation_function.log_jumprelu_threshold"] = log
    tensors[f"dataset_average_activation_norm.{hook}"] = torch.tensor(2.0)
    cfg = scopium(sparsity_include_decoder_norm=with_norms)
    put(tmp_path, tensors, "sae_weights.safetensors", "config.json", cfg)
    sae = load_sae(tmp_path, model_name="m")
    features, written = scopium_by_hand(t, x, 2.0, 2.0, with_norms)
    torch.testing.assert_close(sae.encode(x), features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sae(x), written, atol=1e-4, rtol=1e-4)
    assert sae_site(sae) == ("mlp_contribution", 2)
    del tensors[f"dataset_average_activation_norm.{hook}"]
    put(tmp_path, tensors, "sae_weights.safetensors", "config.json", cfg)
    with pytest.raises(ConceptLabError, match="do not say by how much; save it again with fold_activation_scale=True"):
        load_sae(tmp_path, model_name="m")


def test_llamascopium_relu_and_transcoder(tmp_path):
    t, x = weights(threshold=False), draw(100, D, seed=9)
    tensors = {"W_E": t["W_enc"], "b_E": t["b_enc"], "W_D": t["W_dec"], "b_D": t["b_dec"]}
    cfg = scopium(
        "blocks.2.mlp.hook_in", act_fn="relu", norm_activation="inference", hook_point_out="blocks.2.mlp.hook_out"
    )
    sae = load_sae(put(tmp_path, tensors, "sae_weights.safetensors", "config.json", cfg), model_name="m")
    assert is_transcoder(sae) and written_site(sae) == ("mlp_output", 2)
    computes(sae, t, x)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"norm_activation": "token-wise"},
            "norm_activation = 'token-wise': every token or batch .*no weights can hold",
        ),
        (
            {"act_fn": "batchtopk", "norm_activation": "inference"},
            "act_fn = 'batchtopk': it depends on the other tokens",
        ),
        ({"use_glu_encoder": True, "norm_activation": "inference"}, "use_glu_encoder = True"),
        ({"sae_type": "clt"}, "sae_type = 'clt': only plain dictionaries"),
        ({"sae_type": "lorsa"}, "sae_type = 'lorsa'"),
        ({"new_switch": 1, "norm_activation": "inference"}, "setting new_switch = 1, which is not known here"),
    ],
)
def test_llamascopium_s_settings_are_known_or_refused(tmp_path, more, message):
    t = weights()
    tensors = {"W_E": t["W_enc"], "b_E": t["b_enc"], "W_D": t["W_dec"], "b_D": t["b_dec"]}
    tensors["log_jumprelu_threshold"] = t["threshold"].log()
    put(tmp_path, tensors, "sae_weights.safetensors", "config.json", scopium(**more))
    with pytest.raises(ConceptLabError, match=message):
        load_sae(tmp_path, model_name="m")
