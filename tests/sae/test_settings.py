"""Configurations are read by what is known: every value that changes the function is honoured or refused."""

import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from conceptlab.core import ConceptLabError
from conceptlab.sae import load_sae, sae_site
from conceptlab.sae.files.names import gemma_release, hook_in_ours, layer_in

D_IN, D_SAE = 16, 64


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weights(threshold=False):
    out = {"W_enc": draw(D_IN, D_SAE), "W_dec": draw(D_SAE, D_IN, seed=1)}
    out |= {"b_enc": 0.3 * draw(D_SAE, seed=2), "b_dec": draw(D_IN, seed=3)}
    return out | ({"threshold": 0.3 + draw(D_SAE, seed=4).abs()} if threshold else {})


def sl(folder, tensors=None, drop=(), **cfg):
    """A folder in SAELens' layout."""
    folder.mkdir(parents=True, exist_ok=True)
    base = {"architecture": "standard", "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "model_name": "m"}
    base |= {"hook_name": "blocks.0.mlp.hook_out", "apply_b_dec_to_input": True}
    merged = {k: v for k, v in (base | cfg).items() if k not in drop}
    (folder / "cfg.json").write_text(json.dumps(merged), encoding="utf-8")
    save_file({k: v.contiguous() for k, v in (tensors or weights()).items()}, folder / "sae_weights.safetensors")
    return folder


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"activation_fn_str": "tanh-relu"}, "activation 'tanh-relu' with 'standard', which is not supported"),
        ({"activation_fn": "gelu"}, "activation 'gelu' with 'standard'"),
        ({"activation_fn": "leaky_relu", "architecture": "gated"}, "activation 'leaky_relu' with 'gated'"),
        ({"activation_fn": "topk", "architecture": "jumprelu"}, "activation 'topk' with 'jumprelu'"),
        (
            {"activation_fn": "topk", "activation_fn_kwargs": {"k": 8, "signed": True}},
            r"activation_fn_kwargs\['signed'\]",
        ),
        ({"activation_fn": "relu", "activation_fn_kwargs": {"slope": 0.1}}, r"activation_fn_kwargs\['slope'\] = 0.1"),
        ({"normalize_activations": "layer_norm"}, "every token by its own size .*no weights can hold"),
        ({"normalize_activations": "constant_norm_rescale"}, "every token by its own size"),
        ({"normalize_activations": "expected_average_only_in"}, "fold_activation_norm_scaling_factor in sae-lens"),
        ({"normalize_activations": True}, "scales its inputs by one factor .True."),
        ({"normalize_activations": "something_new"}, "scales its inputs by one factor .something_new."),
        ({"reshape_activations": "hook_z"}, "reshape_activations = 'hook_z': attention heads are not supported"),
        ({"rescale_acts_by_decoder_norm": True}, "rescales standard features by decoder norms"),
        ({"apply_b_dec_to_input": "sometimes"}, "apply_b_dec_to_input = 'sometimes'"),
        ({"dtype": "float8_e4m3fn"}, "dtype = 'float8_e4m3fn', known are float64"),
        ({"hook_head_index": 3}, "hook_head_index = 3: single attention heads"),
        ({"multi_topk": True}, "multi_topk = True"),
        ({"use_b_dec_out": True}, "use_b_dec_out = True"),
        ({"model_from_pretrained_kwargs": {"fold_ln": True}}, "processed weights .fold_ln = True."),
        ({"model_from_pretrained_kwargs": {"center_writing_weights": True}}, "processed weights"),
        ({"input_gain": 3.0}, "setting input_gain = 3.0, which is not known here.* accept=.'input_gain',."),
        ({"scaling": "per-feature"}, "setting scaling = 'per-feature'"),
        ({"architecture": "temporal"}, "Unknown architecture 'temporal'"),
        ({"architecture": "matching_pursuit"}, "Unknown architecture 'matching_pursuit'"),
        ({"architecture": "batchtopk", "k": 4}, "unfinished training without a threshold"),
        ({"d_in": 0}, "d_in is 0, not a whole number of at least 1"),
        ({"d_sae": -64}, "d_sae is -64"),
        ({"d_in": "16"}, "d_in is '16'"),
        ({"d_in": 16.5}, "d_in is 16.5"),
        ({"activation_fn": "topk", "k": "many"}, "k is 'many', not a number of features"),
        ({"activation_fn": "topk", "k": 65}, "k is 65, but there are 64 features"),
    ],
)
def test_what_changes_the_function_is_refused_with_advice(tmp_path, cfg, message):
    with pytest.raises(ConceptLabError, match=message) as caught:
        load_sae(sl(tmp_path, **cfg))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "cfg",
    [
        {"normalize_activations": None},
        {"normalize_activations": False, "hook_head_index": None, "activation_fn_kwargs": {}},
        {"dtype": "torch.bfloat16", "device": "cuda:3", "lr": 1e-4, "l1_coefficient": 5, "wandb_project": "x"},
        {"model_from_pretrained_kwargs": {"center_writing_weights": False}, "seqpos_slice": [None]},
        {"activation_fn_str": "relu", "finetuning_scaling_factor": False, "multi_topk": False, "unknown": None},
    ],
)
def test_what_training_leaves_in_a_configuration_is_read(tmp_path, cfg):
    x = draw(50, D_IN, seed=9)
    t = weights()
    want = F.relu((x - t["b_dec"]) @ t["W_enc"] + t["b_enc"]) @ t["W_dec"] + t["b_dec"]
    torch.testing.assert_close(load_sae(sl(tmp_path, **cfg))(x), want, atol=1e-4, rtol=1e-4)


def test_an_unknown_setting_can_be_declared_harmless(tmp_path):
    sl(tmp_path, colour="red")
    assert load_sae(tmp_path, accept=("colour",)).cfg.architecture == "relu"


def test_a_topk_that_is_named_by_its_activation(tmp_path):
    sae = load_sae(sl(tmp_path, activation_fn_str="topk", activation_fn_kwargs={"k": 3, "signed": False}))
    assert sae.cfg.architecture == "topk" and sae.cfg.k == 3


def test_an_unknown_tensor_is_refused(tmp_path):
    with pytest.raises(ConceptLabError, match="holds a tensor 'gain', which is no part of that layout"):
        load_sae(sl(tmp_path, weights() | {"gain": torch.ones(D_SAE)}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    t = weights()
    t["W_dec"][3, 2] = value
    with pytest.raises(ConceptLabError, match="W_dec holds NaN, infinite or complex numbers"):
        load_sae(sl(tmp_path, t))


@pytest.mark.parametrize("rescaled", [True, False])
def test_an_unfinished_batchtopk_training_is_read_with_its_threshold(tmp_path, rescaled):
    t, x = weights(), draw(200, D_IN, seed=9)
    cfg = {"architecture": "batchtopk", "k": 4.0, "rescale_acts_by_decoder_norm": rescaled, "topk_threshold_lr": 0.01}
    sl(tmp_path, t | {"topk_threshold": torch.tensor(2.5, dtype=torch.float64)}, **cfg)
    sae = load_sae(tmp_path)
    norm = t["W_dec"].norm(dim=1) if rescaled else 1.0
    scores = ((x - t["b_dec"]) @ t["W_enc"] + t["b_enc"]) * norm
    want = (scores * (scores > 2.5) / norm) @ t["W_dec"] + t["b_dec"]
    assert sae.cfg.architecture == "batchtopk" and sae.cfg.k == 4
    torch.testing.assert_close(sae(x), want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("even", [True, False])
def test_the_architecture_that_training_had(tmp_path, even):
    """`metadata.training_architecture`: a finished BatchTopK is a JumpReLU, with one threshold or with many."""
    t = weights(threshold=True)
    if even:
        t["threshold"] = torch.full((D_SAE,), 1.5)
    metadata = {"model_name": "m", "hook_name": "blocks.0.mlp.hook_out", "training_architecture": "batchtopk"}
    sae = load_sae(sl(tmp_path, t, architecture="jumprelu", k=4, metadata=metadata))
    x = draw(100, D_IN, seed=9)
    scores = (x - t["b_dec"]) @ t["W_enc"] + t["b_enc"]
    want = (scores * (scores > t["threshold"])) @ t["W_dec"] + t["b_dec"]
    assert sae.cfg.architecture == ("batchtopk" if even else "jumprelu")
    torch.testing.assert_close(sae(x), want, atol=1e-4, rtol=1e-4)


# ---- names -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("hook", "site"),
    [
        ("model.layers.6", ("resid_post", 6)),
        ("model.layers.6.output", ("resid_post", 6)),
        ("model.layers.0.input", ("resid_pre", 0)),
        ("model.layers.6.mlp", ("mlp_output", 6)),
        ("model.layers.11.mlp.down_proj.input", ("neurons", 11)),
        ("layers.3.mlp", ("mlp_output", 3)),
        ("model.layers.5.post_feedforward_layernorm.output", ("mlp_contribution", 5)),
        ("model.layers.5.pre_feedforward_layernorm.output", ("mlp_input", 5)),
        ("blocks.2.hook_resid_pre", ("resid_pre", 2)),
    ],
)
def test_hub_style_names_of_places(tmp_path, hook, site):
    sae = load_sae(sl(tmp_path, metadata={"model_name": "m", "hook_name": hook}, drop=("model_name", "hook_name")))
    assert sae_site(sae) == site and sae.cfg.hook_layer == site[1]
    assert sae_site(load_sae(sl(tmp_path, drop=("hook_name",)), hook_name=hook)) == site


@pytest.mark.parametrize(
    "hook", ["h", "model.layers.6.mlp.gate_proj", "blocks.1.attn.hook_z", "transformer.h.3", "layers"]
)
def test_a_place_we_cannot_read_is_named(tmp_path, hook):
    sl(tmp_path, hook_name=hook)
    with pytest.raises(ConceptLabError, match="is no place of a LanguageModel; use a dictionary that reads at"):
        sae_site(load_sae(tmp_path, layer=0 if hook in ("h", "layers", "transformer.h.3") else None))


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("/x/layer_5_study/gemma-scope-2b-pt-mlp/layer_12/width_16k/average_l0_60", 12),
        ("/data/layer_3/runs/blocks.7.hook_mlp_out", 7),
        ("google/gemma-scope-2-270m-pt/mlp_out_all/layer_5_width_16k_l0_small", 5),
        ("fnlp/Llama3_1-8B-Base-LXM-8x/Llama3_1-8B-Base-L17M-8x", 17),
        ("fnlp/Llama-Scope-R1-Distill/400M/L10R", 10),
        ("EleutherAI/sae/layers.23.mlp", 23),
        ("/x/layer_5_study/weights", None),
        ("/x/player_9/weights", None),
    ],
)
def test_the_last_part_of_a_path_that_states_a_layer_counts(path, layer):
    assert layer_in(path) == layer


def test_a_study_folder_above_a_release_decides_nothing(tmp_path):
    folder = tmp_path / "layer_5_study/gemma-scope-2b-pt-mlp/layer_12/width_16k/average_l0_60"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **{n: t.numpy() for n, t in weights(threshold=True).items()})
    assert load_sae(folder).cfg.hook_layer == load_sae(folder, layer=12).cfg.hook_layer == 12
    with pytest.raises(ConceptLabError, match="is of layer 12, not of layer 5"):
        load_sae(folder, layer=5)


@pytest.mark.parametrize(
    "name", ["clt", "transcoder", "my crosscoder notes", "gemma-scope-2b-pt-res", "transcoder_all"]
)
def test_the_name_of_a_folder_above_never_decides(tmp_path, name):
    sae = load_sae(sl(tmp_path / name / "sae"))
    assert sae_site(sae) == ("mlp_output", 0) and sae.cfg.architecture == "relu"
    shutil.move(tmp_path / name / "sae", tmp_path / name / "layer_9")
    assert sae_site(load_sae(tmp_path / name / "layer_9")) == ("mlp_output", 0)


def test_what_gemma_scope_s_paths_say():
    cached = "/hub/models--google--gemma-scope-2b-pt-mlp/snapshots/ab12/layer_3/width_16k/average_l0_9"
    assert gemma_release(cached) == ("google/gemma-2-2b", "hook_mlp_out", "")
    assert gemma_release("google/gemma-scope-9b-it-res/layer_1") == ("google/gemma-2-9b-it", "hook_resid_post", "")
    assert gemma_release("google/gemma-scope-2b-pt-transcoders/layer_1")[1:] == ("ln2.hook_normalized", "hook_mlp_out")
    assert gemma_release("g/gemma-scope-2-1b-it/transcoder_all/layer_1")[1:] == ("mlp.hook_in", "hook_mlp_out")
    assert gemma_release("/home/transcoder/clt/layer_1") == ("", "", "")
    assert hook_in_ours("blocks.3.hook_mlp_out") == "blocks.3.hook_mlp_out"


# ---- files that are not what they say --------------------------------------------------------------------
def bomb(path, shape, written=1_000):
    """An npz whose member claims `shape` and unpacks to zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("W_enc.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for _ in range(written):
            file.write(bytes(65_536))


def test_an_npz_is_looked_at_before_it_is_unpacked(tmp_path):
    bomb(tmp_path / "params.npz", (4_000, 4_096), 1_000)
    with pytest.raises(ConceptLabError, match="says that it unpacks to 65,5.* that is no dictionary"):
        load_sae(tmp_path, model_name="m", hook_name="blocks.0.mlp.hook_out")


@pytest.mark.parametrize("shape", [(1 << 40, 1 << 20), (3,), (0,)])
def test_an_npz_that_says_another_shape_than_it_holds(tmp_path, shape):
    bomb(tmp_path / "params.npz", shape, 1)
    with pytest.raises(ConceptLabError, match="W_enc.npy says shape .* and holds 65,"):
        load_sae(tmp_path, model_name="m", hook_name="blocks.0.mlp.hook_out")


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([1 + 2j]), np.zeros((2, 2, 2), np.float32)])
def test_an_npz_of_something_else(tmp_path, array):
    np.savez(tmp_path / "params.npz", W_enc=array)
    with pytest.raises(ConceptLabError, match="W_enc.npy holds .*, not weights"):
        load_sae(tmp_path, model_name="m", hook_name="blocks.0.mlp.hook_out")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "\xff\xfe", "null", "3"])
def test_a_configuration_that_is_none(tmp_path, text):
    sl(tmp_path)
    (tmp_path / "cfg.json").write_text(text, encoding="latin-1")
    with pytest.raises(ConceptLabError) as caught:
        load_sae(tmp_path)
    assert "\n" not in str(caught.value)
