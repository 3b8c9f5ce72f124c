"""The contract of LanguageModel, on both bundled models and on tiny random models of the other architectures."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from conceptlab.core import ConceptLabError, atomic_path
from conceptlab.edits import value_edit
from conceptlab.models import greedy, load_model
from conceptlab.models.sites import SITES

TEXTS = ["The capital of Japan is the city of", "Bees make honey"]
ARCHITECTURES = ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3", "Olmo", "Olmo2")
POST_NORM = ("Gemma2", "Gemma3", "Olmo2")


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Factory: a folder with a random two-layer model of an architecture and SmolLM2's tokenizer, made once each."""
    import transformers

    from conceptlab.models import packaged_checkpoint

    tokenizer = transformers.AutoTokenizer.from_pretrained(packaged_checkpoint("smollm2-135m"))
    made = {}

    def make(kind):
        if kind not in made:
            name = "Gemma3Text" if kind == "Gemma3" else kind
            sizes = {
                "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 256, "vocab_size": len(tokenizer),
                "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
            }  # fmt: skip
            scale = {"query_pre_attn_scalar": 8} if kind.startswith("Gemma") else {}
            config = getattr(transformers, f"{name}Config")(**sizes, **scale)
            model = getattr(transformers, f"{kind}ForCausalLM")(config)
            generator = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for p in model.parameters():  # also gains and biases, which start as ones and zeros
                    p.add_(0.3 * torch.randn(p.shape, generator=generator))
            made[kind] = tmp_path_factory.mktemp(kind)
            model.save_pretrained(made[kind])
            tokenizer.save_pretrained(made[kind])
        return made[kind]

    return make


@pytest.fixture(params=ARCHITECTURES)
def tiny(request, folders):
    """(architecture, model loaded from its folder)."""
    return request.param, load_model(folders(request.param))


def close(a, b, tol=1e-4):
    """Largest difference, relative to the largest value."""
    return float((a - b).abs().max()) <= tol * float(b.abs().max())


def mlp_contract(lm, post_norm, layers):
    """The sums over neurons are what the MLP writes and what it adds; the residual stream is the sum of its parts."""
    ids, mask = lm.tokens(TEXTS)
    found = lm.capture(ids, [(kind, layer) for kind in SITES for layer in layers], mask)
    for layer in layers:
        at = {kind: found[kind, layer] for kind in SITES}
        assert close(at["neurons"] @ lm.down_proj(layer), at["mlp_output"])
        contribution = at["neurons"] @ lm.value_vectors(layer)
        if post_norm:
            mean_square = at["mlp_output"].square().mean(-1, keepdim=True)
            contribution = contribution / (mean_square + lm.hf.config.rms_norm_eps).sqrt()
            assert not close(at["mlp_output"], at["mlp_contribution"], 0.1)
        else:
            assert torch.equal(at["mlp_output"], at["mlp_contribution"])
            assert torch.equal(lm.post_mlp_gain(layer), torch.ones(lm.d_model))
        assert close(contribution, at["mlp_contribution"])
        total = at["resid_pre"] + at["attn_contribution"] + at["mlp_contribution"]
        assert close(total, at["resid_post"], 1e-6)


def unembedding_contract(lm, centred=False):
    """Logits from the last residual state and the folded unembedding alone."""
    ids, mask = lm.tokens(TEXTS)
    hidden = lm.capture(ids, [("resid_post", lm.n_layers - 1)], mask)["resid_post", lm.n_layers - 1][mask]
    hidden = hidden - hidden.mean(-1, keepdim=True) if centred else hidden  # OLMo 1 ends with a LayerNorm
    eps = getattr(lm.hf.config, "rms_norm_eps", 1e-5)
    normed = hidden / (hidden.square().mean(-1, keepdim=True) + eps).sqrt()
    logits = normed @ lm.unembedding().T
    cap = getattr(lm.hf.config, "final_logit_softcapping", None)
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    assert close(logits, lm.logits(ids, mask)[mask])


# ---- the bundled models -------------------------------------------------------------------------------------
def test_bundled_mlp(bundled):
    mlp_contract(bundled, bundled.name == "gemma3-270m", (0, bundled.n_layers // 2, bundled.n_layers - 1))


def test_bundled_unembedding(bundled):
    unembedding_contract(bundled)
    rows = torch.tensor([5, 77])
    folded = bundled.unembedding_rows()[rows] * bundled.final_gain()
    assert torch.equal(bundled.unembedding()[rows], folded)


def test_bundled_bridge_equals_hf(bundled):
    ids, _ = bundled.tokens(TEXTS[0])
    with torch.no_grad():
        logits, cache = bundled.bridge.run_with_cache(ids)
    assert (logits - bundled.logits(ids)).abs().max() < 1e-4
    layer = bundled.n_layers // 2
    found = bundled.capture(ids, [("mlp_output", layer), ("neurons", layer), ("resid_post", layer)])
    assert close(cache[bundled.mlp_output(layer)], found["mlp_output", layer])
    assert close(cache[f"blocks.{layer}.mlp.hook_post"], found["neurons", layer])
    assert close(cache[f"blocks.{layer}.hook_resid_post"], found["resid_post", layer])


def test_bundled_bridge_sees_an_edit(bundled):
    """One set of parameters, seen through both."""
    ids, _ = bundled.tokens(TEXTS[0])
    with torch.no_grad():
        before = bundled.bridge(ids)
        edit = value_edit(bundled, 3, [0, 1], -bundled.value_vectors(3)[:2] + 1.0)
        with edit.applied(bundled):
            inside = bundled.bridge(ids)
            assert (inside - bundled.logits(ids)).abs().max() < 1e-4
        assert torch.equal(bundled.bridge(ids), before) and (inside - before).abs().max() > 1e-3


def test_bundled_interventions_through_hooks_and_bridge_agree(bundled):
    ids, _ = bundled.tokens(TEXTS[0])
    layer = bundled.n_layers // 2
    hook = (bundled.mlp_output(layer), lambda activation, hook: torch.zeros_like(activation))
    with torch.no_grad():
        theirs = bundled.bridge.run_with_hooks(ids, fwd_hooks=[hook])
    with bundled.intervene({("mlp_output", layer): torch.zeros_like}):
        ours = bundled.logits(ids)
    assert (ours - theirs).abs().max() < 1e-4 and (ours - bundled.logits(ids)).abs().max() > 0.1


def test_bundled_value_edit_maps_back_exactly(bundled):
    layer, neurons = 2, [3, 10]
    weight = dict(bundled.hf.named_parameters())[bundled.down_proj_name(layer)]
    original, before = weight.detach().clone(), bundled.value_vectors(layer).clone()
    delta = torch.randn(2, bundled.d_model, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError), value_edit(bundled, layer, neurons, delta).applied(bundled):
        after = bundled.value_vectors(layer)
        assert close(after[neurons], before[neurons] + delta, 1e-6)
        others = [j for j in range(bundled.d_mlp) if j not in neurons]
        assert torch.equal(after[others], before[others])
        raise ValueError
    assert torch.equal(weight, original)


def test_an_edit_where_the_gain_after_the_mlp_is_zero(gemma3):
    """Layers 1, 3 and 4 of Gemma-3-270M cannot write a few dimensions; dividing by the gain gave NaN there."""
    for layer in (1, 3, 4):
        dead = gemma3.post_mlp_gain(layer) == 0
        assert dead.any()
        before = gemma3.value_vectors(layer).clone()
        with value_edit(gemma3, layer, [5], 1 - before[5:6]).applied(gemma3):
            after = gemma3.value_vectors(layer)[5]
        assert close(after[~dead], torch.ones(int((~dead).sum())), 1e-5) and (after[dead] == 0).all()


def test_bundled_tokens(bundled):
    ids, mask = bundled.tokens(TEXTS)
    assert ids.shape == mask.shape and mask.sum(1).tolist() == [len(bundled.tokenizer(t).input_ids) for t in TEXTS]
    alone, _ = bundled.tokens(TEXTS[1])
    padded = bundled.logits(ids, mask)[1, : alone.shape[1]]
    assert close(padded, bundled.logits(alone)[0], 1e-5)  # right padding changes nothing
    assert bundled.words(ids[0])[-3:] == [" the", " city", " of"]
    assert bundled.single_tokens(["Tokyo", "Antananarivo"]) == {"Tokyo": bundled.single_token("Tokyo")}


def test_bundled_generate(bundled):
    assert bundled.decode(greedy(bundled, TEXTS[:1], 2)[0]).strip().startswith("Tokyo")


# ---- other architectures, loaded from a local folder ------------------------------------------------------------
def test_tiny_contract(tiny):
    kind, lm = tiny
    assert (lm.n_layers, lm.d_model, lm.d_mlp, lm.d_vocab) == (2, 16, 32, len(lm.tokenizer))
    mlp_contract(lm, kind in POST_NORM, (0, 1))
    unembedding_contract(lm, centred=kind == "Olmo")


def test_tiny_bridge(tiny):
    _, lm = tiny
    ids, _ = lm.tokens(TEXTS[0])
    with torch.no_grad():
        assert close(lm.bridge(ids), lm.logits(ids))


def test_tiny_capture_stops_early_and_equals_the_full_pass(tiny):
    _, lm = tiny
    ids, mask = lm.tokens(TEXTS)
    everything = lm.capture(ids, [(kind, layer) for kind in SITES for layer in (0, 1)], mask)
    reached = []
    handle = lm._blocks[1].register_forward_pre_hook(lambda *_: reached.append(1))
    for kind in SITES:
        found = lm.capture(ids, [(kind, -2)], mask)
        assert list(found) == [(kind, -2)] and torch.equal(found[kind, -2], everything[kind, 0])
    handle.remove()
    assert not reached, "the pass went on to layer 1"
    assert len(lm._blocks[0]._forward_hooks) == 0


def test_tiny_intervene_with_the_identity_changes_nothing(tiny):
    _, lm = tiny
    ids, mask = lm.tokens(TEXTS)
    before = lm.logits(ids, mask)
    seen = []
    with lm.intervene({(kind, layer): lambda x: x for kind in SITES for layer in (0, 1)}):
        assert torch.equal(lm.logits(ids, mask), before)
    with lm.intervene({(kind, layer): seen.append for kind in SITES for layer in (0, 1)}):
        assert torch.equal(lm.logits(ids, mask), before) and len(seen) == 2 * len(SITES)
    for kind in SITES:  # and a real change at every site does something, and ends with the block
        with pytest.raises(ZeroDivisionError), lm.intervene({(kind, 1): lambda x: x + torch.randn(x.shape)}):
            assert not torch.allclose(lm.logits(ids, mask), before)
            raise ZeroDivisionError
        assert torch.equal(lm.logits(ids, mask), before)


def test_tiny_weight_delta_and_names(tiny):
    _, lm = tiny
    named = dict(lm.hf.named_parameters())
    weight = named[lm.down_proj_name(-1)]
    assert lm.down_proj_name(-1) == lm.down_proj_name(1) and torch.equal(weight.T, lm.down_proj(1))
    assert named[lm.embedding_name()].shape == (lm.d_vocab, lm.d_model)
    before, delta = lm.value_vectors(1).clone(), torch.randn(32, 16)
    weight.add_(lm.weight_delta(1, delta))
    assert close(lm.value_vectors(1), before + delta, 1e-5)
    assert not any(p.requires_grad for p in lm.hf.parameters())


# ---- bad input --------------------------------------------------------------------------------------------------
def says(error) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 700 and text.endswith("."), text
    return text


@pytest.mark.parametrize("name", ["no-such-model", "/no/such/folder", "a/b/c", "../x/y z"])
def test_an_unknown_model_lists_the_known_ones(name):
    with pytest.raises(ConceptLabError, match="known are smollm2-135m, gemma3-270m, gemma-2-2b-it") as error:
        load_model(name)
    says(error)


@pytest.mark.parametrize("name", ["gemma-2-2b-it", "nobody/no-such-model"])
def test_a_hub_model_without_a_network(name, monkeypatch, tmp_path):
    import huggingface_hub.constants
    import transformers.utils.hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(transformers.utils.hub, "is_offline_mode", lambda: True)
    with pytest.raises(ConceptLabError, match="could not be fetched from the Hub .* or use a packaged model") as error:
        load_model(name)
    says(error)


def _without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def _missing_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _config(**changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


@pytest.mark.parametrize(
    "harm",
    [
        _without("config.json"),
        _without("model.safetensors"),
        _without("tokenizer.json", "tokenizer_config.json"),
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 5000),
        lambda folder: (folder / "config.json").write_text("{"),
        _missing_tensor,  # transformers alone would fill it with random numbers
        _config(vocab_size=100),
        _config(model_type="unheard-of"),
    ],
    ids="no-config no-weights no-tokenizer bad-weights bad-config missing-tensor wrong-shape unknown-type".split(),
)
def test_an_incomplete_folder(harm, folders, tmp_path):
    folder = shutil.copytree(folders("Llama"), tmp_path / "model")
    harm(folder)
    with pytest.raises(ConceptLabError, match="does not hold a complete model .* save_pretrained") as error:
        load_model(folder)
    says(error)


def test_a_converted_model_that_was_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path))
    with atomic_path(tmp_path / "models" / "smollm2-135m") as folder:
        folder.mkdir()
        (folder / "conceptlab.json").write_text('{"fingerprints": {}}')
    with pytest.raises(ConceptLabError, match="delete the folder and call again, it will be converted anew") as error:
        load_model("smollm2-135m")
    says(error)


def test_an_architecture_without_a_down_projection(tmp_path, tiny_llama):
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(tmp_path)
    tiny_llama().tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConceptLabError, match="GPT2LMHeadModel, whose MLP layers have no down_proj") as error:
        load_model(tmp_path)
    says(error)


def test_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConceptLabError, match="no GPU") as error:
        load_model("smollm2-135m", device="cuda")
    says(error)


@pytest.mark.parametrize("device", ["tpu9", "cpu:5", "gpu", "cuda:-1", "cuda:99", "meta", " "])
def test_a_device_that_does_not_exist(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(
        ConceptLabError, match=f"no device '{device}' here; there are cpu, cuda, cuda:0, cuda:1"
    ) as error:
        load_model("smollm2-135m", device=device)
    says(error)


def test_a_gguf_file_or_a_folder_of_them(tmp_path):
    for path in (tmp_path / "missing.gguf", tmp_path / "Model.Q4_K_M.GGUF", tmp_path):
        (tmp_path / "Model.Q4_K_M.GGUF").write_bytes(b"GGUF")
        with pytest.raises(
            ConceptLabError, match=r"GGUF format.*gguf_file=.*or use a packaged model: smollm2"
        ) as error:
            load_model(path)
        says(error)


def test_too_little_memory_is_said_before_the_weights_are_read(folders, monkeypatch):
    from conceptlab.models import load

    monkeypatch.setattr(load, "from_folder_or_hub", lambda *_: pytest.fail("the weights were read"))
    monkeypatch.setattr("conceptlab.models.compute.memory_free", lambda device: 1_000_000)
    with pytest.raises(ConceptLabError, match=r"needs 0\.0 GB of weights and .* cpu has 0\.0 GB free") as error:
        load_model(folders("Llama"))
    says(error)


def test_what_load_model_refuses_of_types(folders):
    with pytest.raises(ConceptLabError, match="Gemma overflows in float16; load it in float32") as error:
        load_model(folders("Gemma2"), dtype=torch.float16)
    says(error)
    assert load_model(folders("Llama"), dtype=torch.float16).dtype is torch.float16
    with pytest.raises(ConceptLabError, match="torch.int8 is no number type to compute in") as error:
        load_model(folders("Llama"), dtype=torch.int8)
    says(error)


def test_bad_arguments(tiny_llama):
    lm = tiny_llama()
    last = lm.d_vocab - 1
    for bad in (-1, lm.d_vocab):
        for call in (lm.logits, lambda ids: lm.capture(ids, [("neurons", 0)]), lambda ids: lm.pad(ids.tolist())):
            with pytest.raises(ConceptLabError, match=f"Token id {bad} is out of range; .* ids 0 to {last}") as error:
                call(torch.tensor([[1, bad]]))
            says(error)
    with pytest.raises(ConceptLabError, match=r"'Antananarivo' is \d tokens for tiny-llama \(.* \+ .*\)") as error:
        lm.single_token("Antananarivo")
    says(error)
    for layer in (2, -3):
        with pytest.raises(ConceptLabError, match=f"layers 0 to 1; layer {layer} does not exist") as error:
            lm.value_vectors(layer)
        says(error)
    with pytest.raises(ConceptLabError, match="Unknown site 'mlp'; the sites are resid_pre") as error:
        with lm.intervene({("neurons", 0): torch.zeros_like, ("mlp", 0): torch.zeros_like}):
            pass
    says(error)
    assert not lm._blocks[0].mlp.down_proj._forward_pre_hooks, "the first hook was left behind"
