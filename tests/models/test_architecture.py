"""Every architecture is either read rightly, on every layer, or refused in one sentence: nothing is silently wrong."""

import pytest
import torch
import transformers
from torch import nn

from conceptlab.core import ConceptLabError
from conceptlab.models import LanguageModel, check_architecture, load_model
from conceptlab.models.architecture import check_structure
from conceptlab.models.sites import SITES

# what makes a tiny model of each class, beside the sizes that all share; multipliers far from 1, so that they show
RIGHT = {
    "Llama": {},
    "Mistral": {"sliding_window": 8},
    "Qwen2": {},
    "Qwen3": {},
    "Gemma": {},
    "Gemma2": {"query_pre_attn_scalar": 8, "final_logit_softcapping": 2.0, "sliding_window": 8},
    "Gemma3": {"query_pre_attn_scalar": 8, "sliding_window": 8},
    "Olmo": {},
    "Olmo2": {},
    "Olmo3": {"sliding_window": 8},
    "Phi3": {},
    "SmolLM3": {},
    "Granite": {
        "logits_scaling": 8.0, "residual_multiplier": 0.22, "embedding_multiplier": 12.0, "attention_multiplier": 0.1,
    },
    "Cohere": {"logit_scale": 0.0625},
    "Cohere2": {"logit_scale": 0.25, "sliding_window": 8},
    "Glm": {"partial_rotary_factor": 0.5},
    "Glm4": {"partial_rotary_factor": 0.5},
    "StableLm": {"use_parallel_residual": False},
    "StableLm-parallel": {"use_parallel_residual": True},
    "Nemotron": {},
    "Exaone4": {"sliding_window": 8},
    "MiniCPM3": {
        "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 8,
        "scale_depth": 1.4, "scale_emb": 12, "dim_model_base": 4, "num_key_value_heads": 2,
    },
}  # fmt: skip
MIXTURES = {
    "Mixtral": {"num_local_experts": 2},
    "Qwen2Moe": {"num_experts": 2, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8},
    "Qwen3Moe": {"num_experts": 2, "moe_intermediate_size": 8},
    "DeepseekV3": {
        "n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 8,
        "first_k_dense_replace": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4,
        "v_head_dim": 8,
    },
    "Olmoe": {"num_experts": 2},
    "GraniteMoe": {"num_local_experts": 2},
}  # fmt: skip
WITHOUT = ("GPTNeoX", "Starcoder2", "Phi", "OPT", "GPTBigCode", "Persimmon")


@pytest.fixture(scope="session")
def tokenizer():
    from conceptlab.models import packaged_checkpoint

    return transformers.AutoTokenizer.from_pretrained(packaged_checkpoint("smollm2-135m"))


def tiny_hf(kind, extra, vocab_size):
    """A random model of a class, with every number moved (gains, biases too), so that no factor hides behind a 1."""
    kind = kind.split("-")[0]
    sizes = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64, "vocab_size": vocab_size,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
    }  # fmt: skip
    config = getattr(transformers, f"{'Gemma3Text' if kind == 'Gemma3' else kind}Config")(**sizes | extra)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p + 0.3 * torch.randn(p.shape, generator=generator))
    return model


@pytest.fixture
def tiny(tokenizer, tmp_path):
    """Factory: the tiny model of a class, as a LanguageModel that has not been checked."""
    return lambda kind, extra: LanguageModel(kind, tiny_hf(kind, extra, len(tokenizer)), tokenizer, str(tmp_path))


def says(error) -> str:
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 400, text
    return text


# ---- right --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", RIGHT)
def test_the_identities_hold(tiny, kind):
    lm = tiny(kind, RIGHT[kind])
    found = check_architecture(lm)
    assert found.keys() == {"logits", "residual", "values"} and max(found.values()) < 1e-4


@pytest.mark.parametrize("kind", RIGHT)
def test_they_hold_by_other_means(tiny, kind):
    """The same three identities without the library's own check: by transformers' hidden states and its logits."""
    lm = tiny(kind, RIGHT[kind])
    ids, mask = lm.tokens(["Bees make honey", "The capital of Japan is Tokyo"])
    found = lm.capture(ids, [(kind, layer) for kind in SITES for layer in range(3)], mask)
    with torch.no_grad():
        out = lm.hf(ids, attention_mask=mask.long(), output_hidden_states=True)
    for layer in range(3):
        at = {kind: found[kind, layer] for kind in SITES}
        torch.testing.assert_close(at["resid_pre"], out.hidden_states[layer])
        total = at["resid_pre"] + at["attn_contribution"] + at["mlp_contribution"]
        torch.testing.assert_close(total, at["resid_post"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(at["neurons"] @ lm.down_proj(layer), at["mlp_output"], rtol=1e-4, atol=1e-5)
    resid = found["resid_post", 2][mask]
    torch.testing.assert_close(lm.readout(resid), out.logits[mask], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lm.head(out.hidden_states[-1][mask]), out.logits[mask], rtol=1e-4, atol=1e-5)


def test_granite_by_hand(tiny):
    """A11: logits were 8 times too large, contributions 1 / 0.22 times."""
    lm = tiny("Granite", RIGHT["Granite"])
    ids, _ = lm.tokens("Bees make honey")
    found = lm.capture(ids, [("mlp_output", 1), ("mlp_contribution", 1), ("resid_post", 2), ("neurons", 1)])
    torch.testing.assert_close(found["mlp_contribution", 1], 0.22 * found["mlp_output", 1])
    torch.testing.assert_close(found["neurons", 1] @ lm.value_vectors(1), found["mlp_contribution", 1])
    normed = lm.hf.model.norm(found["resid_post", 2])
    torch.testing.assert_close(normed @ lm.unembedding_rows().T / 8, lm.logits(ids))


def test_a_value_edit_of_granite_maps_back_through_the_multiplier(tiny):
    lm = tiny("Granite", RIGHT["Granite"])
    before, delta = lm.value_vectors(1).clone(), torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    lm.parameters()[lm.down_proj_name(1)].add_(lm.weight_delta(1, delta))
    torch.testing.assert_close(lm.value_vectors(1), before + delta)


@pytest.mark.parametrize("kind", ["Granite", "MiniCPM3", "Glm4", "Cohere"])
def test_interventions_where_contributions_are_scaled(tiny, kind):
    """The identity changes no bit; taking a contribution away takes it out of the residual stream."""
    lm = tiny(kind, RIGHT[kind])
    ids, _ = lm.tokens("Bees make honey")
    before = lm.logits(ids)
    with lm.intervene({(site, layer): lambda x: x for site in SITES for layer in range(3)}):
        assert torch.equal(lm.logits(ids), before)
    sites = [("resid_pre", 1), ("resid_post", 1), ("attn_contribution", 1)]
    with lm.intervene({("mlp_contribution", 1): torch.zeros_like}):
        found = lm.capture(ids, sites)
    torch.testing.assert_close(found["resid_pre", 1] + found["attn_contribution", 1], found["resid_post", 1])
    with lm.intervene({("mlp_contribution", 1): lambda x: torch.ones_like(x)}):
        found = lm.capture(ids, sites)
    total = found["resid_pre", 1] + found["attn_contribution", 1] + 1
    torch.testing.assert_close(total, found["resid_post", 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", RIGHT)
def test_low_precision_is_not_mistaken_for_a_fault(tiny, kind, dtype):
    lm = tiny(kind, RIGHT[kind])
    lm.hf.to(dtype)
    check_architecture(lm)


def test_the_bundled_models_pass(bundled):
    assert max(check_architecture(bundled).values()) < 1e-4


@pytest.mark.parametrize("kind", ["Cohere", "StableLm", "Olmo"])
def test_the_gain_of_a_layer_norm_is_measured_without_its_bias(tiny, kind):
    lm = tiny(kind, RIGHT[kind])
    weight = getattr(lm.hf.model.norm, "weight", None)
    torch.testing.assert_close(lm.final_gain(), torch.ones(16) if weight is None else weight.detach())


@pytest.mark.parametrize("kind", ["Cohere", "StableLm", "Olmo", "Nemotron", "Llama", "Gemma2"])
def test_what_a_direction_adds_to_the_logits_is_what_is_projected(tiny, kind):
    """The derivative of the logits along a direction that leaves the norm still is its projection, up to one scale."""
    from conceptlab.models import logit_effect

    extra = {name: value for name, value in RIGHT[kind].items() if name != "final_logit_softcapping"}
    lm = tiny(kind, extra | ({"final_logit_softcapping": None} if kind == "Gemma2" else {}))
    generator = torch.Generator().manual_seed(1)
    vector = torch.randn(1, 16, generator=generator) + 3.0  # with a mean that a LayerNorm takes out
    resid = torch.randn(1, 16, generator=generator)
    if kind in ("Cohere", "StableLm", "Olmo", "Nemotron"):
        vector -= (
            ((vector - vector.mean()) * (resid - resid.mean())).mean() / (resid - resid.mean()).pow(2).mean() * resid
        )
    else:
        vector -= (vector * resid).mean() / resid.pow(2).mean() * resid  # at a right angle: the norm stays
    moved = (lm.readout(resid + 1e-3 * vector) - lm.readout(resid - 1e-3 * vector))[0]
    found, ids = logit_effect(lm, vector, torch.arange(lm.d_vocab))[0], torch.arange(0, lm.d_vocab, 997)
    assert torch.corrcoef(torch.stack([moved, found]))[0, 1] > 0.9999
    torch.testing.assert_close((vector @ lm.unembedding().T)[0][ids], found[ids], rtol=1e-3, atol=1e-3)


# ---- each identity can fail ------------------------------------------------------------------------------------
class Around(nn.Module):
    """A module whose output is changed: what `sites` does not know of."""

    def __init__(self, inner, change):
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, *args, **kwargs):
        out = self.inner(*args, **kwargs)
        return (self.change(out[0]), *out[1:]) if isinstance(out, tuple) else self.change(out)


def block_that(change):
    """Every block's output is changed: a branch, a multiplier or a norm after the sum."""

    def apply(lm, layer):
        forward = lm._blocks[layer].forward
        lm._blocks[layer].forward = lambda x, *args, **kwargs: change(x, forward(x, *args, **kwargs))

    return apply


FAULTS = {
    "residual": {
        "the whole block is scaled": block_that(lambda x, out: 1.01 * out),
        "a branch beside attention and MLP": block_that(lambda x, out: out + 0.05 * torch.sin(x)),
        "the residual stream is weighted": block_that(lambda x, out: out - 0.02 * x),
    },
    "values": {
        "the MLP adds a bias": lambda lm, layer: setattr(
            lm._blocks[layer].mlp.down_proj, "bias", nn.Parameter(torch.full((16,), 0.05), requires_grad=False)
        ),
        "the MLP's output is scaled": lambda lm, layer: setattr(
            lm._blocks[layer], "mlp", with_down_proj(lm._blocks[layer].mlp, lambda x: 1.02 * x)
        ),
        "a norm inside the MLP": lambda lm, layer: setattr(
            lm._blocks[layer], "mlp", with_down_proj(lm._blocks[layer].mlp, lambda x: x / x.norm(dim=-1, keepdim=True))
        ),
    },
}  # fmt: skip


def with_down_proj(mlp, change):
    around = Around(mlp, change)
    around.down_proj = mlp.down_proj
    return around


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize(("identity", "fault"), [(name, fault) for name, faults in FAULTS.items() for fault in faults])
def test_a_model_with_a_fault_is_refused_with_its_layer(tiny_llama, identity, fault, layer):
    lm = tiny_llama(n_layers=3, initializer_range=0.3)
    check_architecture(lm)
    FAULTS[identity][fault](lm, layer)
    with pytest.raises(ConceptLabError, match=f"LlamaForCausalLM .* would read wrongly: at layer {layer} ") as error:
        check_architecture(lm)
    assert {"residual": "residual stream", "values": "neurons times"}[identity] in says(error)


@pytest.mark.parametrize("change", [lambda x: x / 8, lambda x: 5 * torch.tanh(x / 5), lambda x: x + 0.1 * x.sin()])
def test_logits_that_are_changed_behind_the_unembedding_are_refused(tiny_llama, change):
    lm = tiny_llama(initializer_range=0.5)
    forward = lm.hf.forward

    def changed(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits = change(out.logits)
        return out

    lm.hf.forward = changed
    with pytest.raises(ConceptLabError, match="the final norm and the unembedding do not give the model's") as error:
        check_architecture(lm)
    says(error)


@pytest.mark.parametrize("kind", ["Granite", "MiniCPM3"])
def test_a_multiplier_that_is_not_known_would_be_seen(tiny, monkeypatch, kind):
    from conceptlab.models import sites

    monkeypatch.setattr(sites, "_MULTIPLIERS", ())
    with pytest.raises(ConceptLabError, match="attention and MLP do not sum"):
        check_architecture(tiny(kind, RIGHT[kind]))


@pytest.mark.parametrize("kind", ["Gemma2", "Olmo2", "Glm4", "Exaone4"])
def test_a_norm_after_the_mlp_that_is_not_known_would_be_seen(tiny, monkeypatch, kind):
    from conceptlab.models import sites

    monkeypatch.setattr(sites, "_POST_NORMS", ())
    with pytest.raises(ConceptLabError, match="attention and MLP do not sum"):
        check_architecture(tiny(kind, RIGHT[kind]))


@pytest.mark.parametrize("kind", ["Granite", "Cohere", "Gemma2", "MiniCPM3"])
def test_a_scale_or_cap_of_the_logits_that_is_not_known_would_be_seen(tiny, monkeypatch, kind):
    monkeypatch.setattr(LanguageModel, "head", lambda lm, hidden: lm.hf.get_output_embeddings()(hidden))
    with pytest.raises(ConceptLabError, match="do not give the model's logits"):
        check_architecture(tiny(kind, RIGHT[kind]))


def test_values_that_are_not_finite_are_named(tiny_llama):
    lm = tiny_llama(initializer_range=0.3)
    lm.parameters()[lm.down_proj_name(1)].mul_(1e7)
    lm.hf.to(torch.float16)
    with pytest.raises(ConceptLabError, match="not finite .*layer 1, in torch.float16.*; load it with dtype=") as error:
        check_architecture(lm)
    says(error)
    lm = tiny_llama()
    lm.parameters()[lm.down_proj_name(0)][3, 4] = torch.nan
    with pytest.raises(ConceptLabError, match="not finite .*layer 0.*; its weights are damaged"):
        check_architecture(lm)


# ---- refused by their structure, before a weight is read ------------------------------------------------------
@pytest.mark.parametrize("kind", MIXTURES)
def test_mixtures_of_experts_are_refused(kind):
    with torch.device("meta"):
        model = tiny_hf_empty(kind, MIXTURES[kind])
    layer = 1 if kind == "DeepseekV3" else 0
    with pytest.raises(
        ConceptLabError, match=rf"mixture of experts \({kind}ForCausalLM, from layer {layer}\)"
    ) as error:
        check_structure("some-model", model)
    says(error)


@pytest.mark.parametrize("kind", WITHOUT)
def test_mlps_of_another_kind_are_refused(kind):
    with torch.device("meta"):
        model = tiny_hf_empty(kind, {})
    with pytest.raises(ConceptLabError, match=f"a {kind}ForCausalLM, whose MLP layers have no down_proj") as error:
        check_structure("some-model", model)
    says(error)


def tiny_hf_empty(kind, extra):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
    heads = {} if kind in ("GPTNeoX", "OPT", "GPTBigCode", "Persimmon") else {"num_key_value_heads": 2}
    ffn = {"OPT": {"ffn_dim": 32, "word_embed_proj_dim": 16}}.get(kind, {"intermediate_size": 32})
    return getattr(transformers, f"{kind}ForCausalLM")(
        getattr(transformers, f"{kind}Config")(**sizes, **heads, **ffn, **extra, pad_token_id=None)
    )


def test_quantised_weights_are_refused(tiny_llama):
    class Packed(nn.Linear):
        pass

    hf = tiny_llama().hf
    packed = Packed(32, 16, bias=False)
    packed.weight = nn.Parameter(torch.zeros(256, 1, dtype=torch.uint8), requires_grad=False)
    hf.model.layers[1].mlp.down_proj = packed
    with pytest.raises(ConceptLabError, match="down projections as Packed, which cannot be read or edited") as error:
        check_structure("some-model", hf)
    says(error)


def test_load_model_refuses_a_mixture_without_reading_its_weights(tmp_path):
    config = transformers.Qwen3MoeConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, num_experts=2, vocab_size=50
    )
    config.save_pretrained(tmp_path)  # and no weights
    with pytest.raises(ConceptLabError, match="is a mixture of experts") as error:
        load_model(tmp_path)
    says(error)
