"""The paper's models: the published files out of many on the Hub, the published edit, lists by hand, memory.

The models are random ones with the names and the layers of the real ones; the Hub is a folder.
"""

import dataclasses
import inspect
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from conceptlab import cli
from conceptlab.core import ConceptLabError, read_table
from conceptlab.data import load_concept
from conceptlab.edits import WeightEdit
from conceptlab.erasure import (
    PUBLIC,
    PUBLISHED,
    Feature,
    Shared,
    SharedConfig,
    gather_evidence,
    get_method,
    grid,
    hand_picked,
    pisces_edit,
    public_dictionaries,
    reaching_features,
    shipped_dictionaries,
)
from conceptlab.erasure import method as interface
from conceptlab.erasure import shared as module
from conceptlab.evaluation import SearchConfig, fluency
from conceptlab.experiments import FinalConfig, LabConfig, lab
from conceptlab.sae import load_sae, sae_site
from conceptlab.sae.files.names import layer_in
from dictionaries import encode_edit_decode
from sizes import SMALL

GEMMA, LLAMA = "gemma-2-2b-it", "llama-3.1-8b-instruct"
HARRY_POTTER = PUBLISHED[GEMMA, "harry_potter"]
GRID = {"n": (1, 2), "tau": (0.4, 0.1), "mu": (1.0, 4.0)}
QUICK = dataclasses.replace(
    SMALL, search=SearchConfig(n_questions=4, n_asked=24, n_texts=1), grids={**SMALL.grids, "pisces": GRID}
)


@pytest.fixture(autouse=True)
def kept(monkeypatch, tmp_path):
    """Finished searches go to a folder of the test's own."""
    monkeypatch.setattr(interface, "cache_dir", lambda: tmp_path / "cache")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub that is a folder: `hub.listing` holds every file that there is, `hub.fetched` what was downloaded."""
    import huggingface_hub

    class Hub:
        root, listing, fetched = tmp_path / "hub", {}, []

        def add(self, repository, folder, files):
            """Write files of one dictionary: name -> tensors (npz or safetensors) or a JSON object."""
            path = self.root / repository / folder
            for name, content in files.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                if name.endswith(".npz"):
                    np.savez(path / name, **{n: t.numpy() for n, t in content.items()})
                elif name.endswith(".safetensors"):
                    save_file({n: t.contiguous() for n, t in content.items()}, path / name)
                else:
                    (path / name).write_text(json.dumps(content))
                self.list(repository, f"{folder}/{name}")

        def list(self, repository, *files):
            """Files that the repository has, but that nobody should ask for."""
            self.listing.setdefault(repository, []).extend(files)

    def download(repository, file):
        Hub.fetched.append(file)
        return str(Hub.root / repository / file)

    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda repository: Hub.listing[repository])
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return Hub()


def tensors(lm, layer, d_sae, threshold=0.02):
    """Random weights of a dictionary, decoder rows of norm 1."""
    g = torch.Generator().manual_seed(layer)
    W_dec = torch.randn(d_sae, lm.d_model, generator=g)
    W_dec /= W_dec.norm(dim=1, keepdim=True)
    return {
        "W_dec": W_dec,
        "W_enc": W_dec.T + 0.3 * torch.randn(lm.d_model, d_sae, generator=g),
        "b_enc": 0.01 * torch.randn(d_sae, generator=g),
        "b_dec": 0.01 * torch.randn(lm.d_model, generator=g),
        "threshold": torch.full((d_sae,), threshold),
    }


def add_gemma_scope(hub, lm, layers):
    """Dictionaries in Gemma Scope's layout, among files of other widths and l0 as in the real repository."""
    repository, names = PUBLIC[GEMMA].repository, PUBLIC[GEMMA].names
    for layer in layers:
        hub.add(repository, names[layer], {"params.npz": tensors(lm, layer, PUBLIC[GEMMA].d_sae)})
    for layer in range(26):
        l0s = {"width_16k": ("13", "1051", "canonical"), "width_65k": ("105", "85", "109", "canonical")}
        for width, some in l0s.items():
            kinds = [name if name == "canonical" else f"average_l0_{name}" for name in some]
            hub.list(repository, *(f"layer_{layer}/{width}/{kind}/params.npz" for kind in kinds))
    hub.list(repository, "README.md", *(f"{name}/params.npz" for name in names))


def add_llama_scope(hub, lm, layers, d_sae=48):
    """Dictionaries in Llama Scope's layout, with the keys of the published hyperparams.json; all layers are listed."""
    repository, names = PUBLIC[LLAMA].repository, PUBLIC[LLAMA].names
    for layer in layers:
        t, hook = tensors(lm, layer, d_sae), f"blocks.{layer}.hook_mlp_out"
        pairs = {"encoder.weight": t["W_enc"].T, "encoder.bias": t["b_enc"], "decoder.weight": t["W_dec"].T}
        cfg = {
            "hook_point_in": hook, "hook_point_out": hook, "d_model": lm.d_model, "d_sae": d_sae, "top_k": 50,
            "act_fn": "jumprelu", "jump_relu_threshold": 0.02, "norm_activation": "dataset-wise",
            "dataset_average_activation_norm": {"in": 2.0, "out": 2.0}, "use_decoder_bias": True,
            "apply_decoder_bias_to_pre_encoder": False, "sparsity_include_decoder_norm": True,
        }  # fmt: skip
        files = {"checkpoints/final.safetensors": pairs | {"decoder.bias": t["b_dec"]}, "hyperparams.json": cfg}
        hub.add(repository, names[layer], files)
    for file in ("checkpoints/final.safetensors", "hyperparams.json", "lm_config.json"):
        hub.list(repository, *(f"{name}/{file}" for name in names))


@pytest.fixture
def gemma(tiny_gemma2):
    """A random Gemma-2 of 26 narrow layers under the paper's name, whose norms have gains of their own."""
    lm = tiny_gemma2(GEMMA, 26, initializer_range=0.3)
    for layer in range(lm.n_layers):
        lm.hf.get_submodule(f"model.layers.{layer}.post_feedforward_layernorm").weight.copy_(torch.rand(16) * 2 - 0.5)
    return lm


@pytest.fixture
def llama(tiny_llama):
    """A random Llama of four narrow layers under the paper's name."""
    lm = tiny_llama(n_layers=4, initializer_range=0.5)
    lm.name = LLAMA
    return lm


def usual(work):
    """The grid of QUICK for features that were found."""
    counts = sorted({min(n, len(work.features)) for n in (1, 2)})
    return {"n": counts, "tau": [0.4, 0.1], "mu": [1.0, 4.0]}


def as_lists(axes):
    return {knob: list(values) for knob, values in axes.items()}


@pytest.fixture
def axes(monkeypatch):
    """method -> the grid that was searched."""
    seen, real = {}, interface.grid

    def spy(method, shared):
        seen[method.name] = as_lists(real(method, shared))
        return real(method, shared)

    monkeypatch.setattr(interface, "grid", spy)
    return seen


# ---- which files -----------------------------------------------------------------------------------------
def test_every_layer_has_one_file():
    published = {1: "average_l0_105", 4: "average_l0_85", 20: "average_l0_109"}
    for layer, l0 in published.items():
        assert HARRY_POTTER.dictionaries.names[layer] == f"layer_{layer}/width_16k/{l0}"
    assert HARRY_POTTER.dictionaries.layers == tuple(sorted({f.layer for f in HARRY_POTTER.features})) == (1, 4, 20)
    for found, n_layers in ((PUBLIC[GEMMA], 26), (PUBLIC[LLAMA], 32)):
        assert [layer_in(f"{found.repository}/{name}") for name in found.names] == list(range(n_layers))
        assert set(found.layers) < set(range(n_layers))
    for name in ("google/gemma-2-2b-it", "gemma-2-2b", "/models/gemma-2-2b-it/"):
        assert public_dictionaries(name) is PUBLIC[GEMMA]
    assert public_dictionaries("meta-llama/Meta-Llama-3.1-8B-Instruct") is PUBLIC[LLAMA]
    assert public_dictionaries("gemma-2-9b-it") is public_dictionaries("smollm2-135m") is None


def test_gemma_gets_exactly_the_published_files(hub, gemma):
    add_gemma_scope(hub, gemma, (1, 4, 7, 20))
    with pytest.raises(ConceptLabError, match="holds 8 dictionaries for layer 1 "):
        load_sae(PUBLIC[GEMMA].repository, 1)  # there are several, so that the name has to be said
    saes = shipped_dictionaries(gemma)
    names = [f"{PUBLIC[GEMMA].names[layer]}/params.npz" for layer in (1, 4, 20)]
    assert hub.fetched == names and list(saes) == [1, 4, 20]
    for layer, sae in saes.items():
        assert sae_site(sae) == ("mlp_contribution", layer) and sae.cfg.d_sae == 16_384
        torch.testing.assert_close(sae.W_dec, tensors(gemma, layer, 16_384)["W_dec"])
    assert list(shipped_dictionaries(gemma, [7])) == [7] and hub.fetched[3:] == [f"{PUBLIC[GEMMA].names[7]}/params.npz"]
    with pytest.raises(ConceptLabError, match="has layers 0 to 25; layer 26 does not exist"):
        shipped_dictionaries(gemma, [26])


def test_llama_gets_the_eightfold_dictionaries_of_its_mlp(hub, llama):
    add_llama_scope(hub, llama, (1, 3))
    saes = shipped_dictionaries(llama, [1, 3])
    assert list(saes) == [1, 3] and {file.split("/")[0] for file in hub.fetched} == {
        "Llama3_1-8B-Base-L1M-8x", "Llama3_1-8B-Base-L3M-8x",
    }  # fmt: skip
    assert all(sae_site(sae) == ("mlp_output", layer) for layer, sae in saes.items())  # no norm follows this MLP


# ---- from the files to the edit --------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_published_edit_of_gemma_end_to_end(hub, gemma, axes, dtype):
    add_gemma_scope(hub, gemma, (1, 4, 20))
    gemma.hf.to(dtype)
    before = {name: p.clone() for name, p in gemma.hf.named_parameters()}
    work = Shared(gemma, load_concept("harry_potter"), shipped_dictionaries(gemma), QUICK)
    edit = work.chosen("pisces").intervention
    assert all(torch.equal(p, before[name]) for name, p in gemma.hf.named_parameters())
    assert [(f.layer, f.index, f.sign) for f in work.features] == [
        (f.layer, f.index, f.sign) for f in HARRY_POTTER.features
    ]
    assert all(f.reach > 0 for f in work.features) and work.edited == work.features
    assert axes["pisces"] == {"n": [5], "tau": [0.4, 0.1], "mu": [1.0, 4.0, 36.0]} and edit.info["ramp"] == 10
    assert work.chosen("pisces").setting["n"] == 5
    assert set(edit.changes) == {gemma.down_proj_name(layer) for layer in (1, 4, 20)}
    method = get_method("pisces")
    published = method.fit(gemma, work.concept, method.at({"n": 5.0, "tau": 0.4, "mu": 36.0}), work)
    assert published.info == edit.info | {"tau": 0.4, "mu": 36.0}
    for layer, ramped in ((1, 0.2), (4, 0.5), (20, 1.0)):  # 0.1 + 0.9 layer / 9 below layer 9
        chosen = [f for f in HARRY_POTTER.features if f.layer == layer]
        rows = gemma.value_vectors(layer).float()  # as the dictionary sees them, behind the norm
        want = encode_edit_decode(work.dictionaries[layer], rows, chosen, 0.4, 36 * ramped, work.signs[layer]) - rows
        change = published.changes[gemma.down_proj_name(layer)].dense().T * gemma.post_mlp_gain(layer).float()
        torch.testing.assert_close(change, want, atol=1e-4 * float(want.abs().max()), rtol=1e-3)


def test_the_published_grid_has_the_published_setting(hub, gemma):
    add_gemma_scope(hub, gemma, (1, 4, 20))
    saes = shipped_dictionaries(gemma)
    found = Shared(gemma, load_concept("harry_potter"), saes, SharedConfig())
    axes = as_lists(grid(get_method("pisces"), found))
    assert axes == {"n": [5], "tau": [0.5, 0.4], "mu": [3.0, 6.0, 10.0, 16.0, 24.0, 36.0]}
    own = Shared(gemma, load_concept("harry_potter"), saes, QUICK, features=hand_picked(gemma, saes, [(4, 661)]))
    assert as_lists(grid(get_method("pisces"), own)) == {"n": [1], "tau": [0.4, 0.1], "mu": [1.0, 4.0, 36.0]}
    assert own.published.ramp == 10


def test_other_concepts_models_and_dictionaries_have_nothing_published(hub, gemma, axes):
    add_gemma_scope(hub, gemma, (1, 4, 20))
    saes = shipped_dictionaries(gemma)
    concept = load_concept("harry_potter")
    assert Shared(gemma, concept, saes, QUICK).picked == list(HARRY_POTTER.features)
    assert Shared(gemma, concept, {4: saes[4]}, QUICK).picked is None  # not all of its layers
    narrow = load_sae(hub.root / PUBLIC[GEMMA].repository / PUBLIC[GEMMA].names[4])
    narrow.cfg = dataclasses.replace(narrow.cfg, d_sae=4_096)
    assert Shared(gemma, concept, saes | {4: narrow}, QUICK).published is None
    gemma.name = "gemma-2-2b"  # the dictionaries fit, the edit is of the tuned model
    assert Shared(gemma, concept, saes, QUICK).published is None
    gemma.name = "google/gemma-2-2b-it"
    assert Shared(gemma, concept, saes, QUICK).published is HARRY_POTTER
    work = Shared(gemma, load_concept("golf"), {20: saes[20]}, QUICK)
    edit = work.chosen("pisces").intervention
    assert work.published is None and work.picked is None and edit.info["ramp"] == 0
    assert axes["pisces"] == usual(work)
    assert set(edit.changes) == {gemma.down_proj_name(20)}


def test_llama_end_to_end(hub, llama, axes):
    add_llama_scope(hub, llama, (1, 3))
    work = Shared(llama, load_concept("golf"), shipped_dictionaries(llama, [1, 3]), QUICK)
    edit = work.chosen("pisces").intervention
    assert edit.changes and set(edit.changes) <= {llama.down_proj_name(layer) for layer in (1, 3)}
    assert axes["pisces"] == usual(work) and work.published is None
    with edit.applied(llama):
        assert not torch.equal(llama.down_proj(1), llama.down_proj(3))
    saved = work.chosen("pisces").setting
    assert edit.info["tau"] == saved["tau"] and edit.info["mu"] == saved["mu"] and saved["n"] in (1, 2)


@pytest.mark.parametrize("which", [GEMMA, LLAMA])
def test_features_are_found_by_what_the_dictionary_reads(hub, gemma, llama, which):
    """Their mean activations are those at the dictionary's place: behind the norm of Gemma; Llama has none there."""
    lm, add, layer = (gemma, add_gemma_scope, 4) if which == GEMMA else (llama, add_llama_scope, 3)
    add(hub, lm, (layer,))
    saes, concept = shipped_dictionaries(lm, [layer]), load_concept("golf")
    evidence = gather_evidence(lm, [layer], concept, n_texts=3, n_questions=0)
    found = reaching_features(lm, saes, evidence, n=3, min_share=0.0)
    ids, mask = lm.tokens(sorted(_own_texts(concept, 3), key=len), 64)
    site = sae_site(saes[layer])
    read = lm.capture(ids, [site], mask)[site]
    mask[:, 0] = False
    wanted = saes[layer].encode(read[mask]).mean(0)
    for f in found:
        assert f.mean_concept == pytest.approx(float(wanted[f.index]), rel=1e-3)


def _own_texts(concept, n):
    """The texts of the first group of the evidence."""
    from conceptlab.data import evidence_texts

    return evidence_texts(concept, n, 0)[0]


@pytest.mark.parametrize(("which", "name"), [(GEMMA, "harry_potter"), (LLAMA, "golf")])
def test_the_experiment_runs_on_the_papers_models(hub, gemma, tiny_llama, tmp_path, which, name):
    """`conceptlab reproduce lab --model ...`, one cell of it: the dictionaries are fetched without being named."""
    if which == GEMMA:
        lm, add = gemma, add_gemma_scope
    else:
        lm, add = tiny_llama(n_layers=32, initializer_range=0.3), add_llama_scope
        lm.name = LLAMA
    add(hub, lm, PUBLIC[which].layers)
    path, final = (
        tmp_path / "lab.csv",
        FinalConfig(n_target=2, n_spared=2, n_others=0, n_texts=2, n_vectors=3, n_mmlu=0),
    )
    final = dataclasses.replace(final, forms_of=(), writing_of=())
    lab(lm, path, [name], ("pisces",), ("fit", "score"), cfg=LabConfig(QUICK, final))
    found = {(row["method"], row["metric"]): float(row["value"]) for row in read_table(path)}
    assert found["pisces", "possible"] == 1 and found["original", "reach"] > 0 and found["pisces", "norm"] > 0
    note = json.loads(path.with_suffix(".json").read_text())
    assert list(note["fingerprints"]) == [f"layer {layer}" for layer in sorted(PUBLIC[which].layers)]
    if which == GEMMA:
        assert found["original", "features"] == found["pisces", "setting_n"] == 5


# ---- lists by hand ---------------------------------------------------------------------------------------
def test_a_list_by_hand_is_edited_whole_and_unfiltered(tiny_llama, axes, monkeypatch):
    from dictionaries import make_sae

    lm = tiny_llama(initializer_range=0.5)
    saes, concept = {layer: make_sae(lm, layer) for layer in (0, 1)}, load_concept("golf")
    monkeypatch.setattr(module, "edit_effects", None)  # the causal filter would ask it
    picked = [Feature(1, 5, -1), Feature(0, 3), Feature(1, 2)]
    work = Shared(lm, concept, saes, QUICK, features=picked)
    edit = work.chosen("pisces").intervention
    assert edit.info["features"] == [[1, 5, -1], [0, 3, 1], [1, 2, 1]]
    assert axes["pisces"] == {"n": [3], "tau": [0.4, 0.1], "mu": [1.0, 4.0]}  # two, if they had been found
    assert work.candidates == work.features == work.edited and all(f.reach > 0 for f in work.features)
    setting = work.chosen("pisces").setting
    want = pisces_edit(lm, saes, picked, setting["tau"], setting["mu"], work.signs)
    assert all(torch.equal(edit.changes[name].dense(), want.changes[name].dense()) for name in want.changes)
    assert set(work.chosen("directional").intervention.changes) == set(edit.changes)
    for wrong, message in (
        ([], "No features were given"),
        ([Feature(0, 3), Feature(0, 3, -1)], "named twice"),
        ([Feature(0, 24)], "index must lie in 0 to 23"),
        ([Feature(3, 1)], "has no dictionary; those given are of layers"),
    ):
        with pytest.raises(ConceptLabError, match=message) as caught:
            Shared(lm, concept, saes, QUICK, features=wrong)
        assert "\n" not in str(caught.value)


def test_without_a_list_nothing_is_different(tiny_llama, axes):
    """What the measured tables rest on: the grid, and what names a finished search in the cache."""
    from dictionaries import make_sae

    lm = tiny_llama(initializer_range=0.5)
    saes = {layer: make_sae(lm, layer) for layer in (0, 1)}
    work = Shared(lm, load_concept("golf"), saes, QUICK)
    edit = work.chosen("pisces").intervention
    assert work.published is None and work.picked is None
    assert axes["pisces"] == usual(work)
    assert list(edit.info) == ["method", "features", "tau", "mu", "signed", "ramp"] and edit.info["ramp"] == 0


@pytest.fixture
def command(hub, llama, monkeypatch, tmp_path):
    """Runs `conceptlab erase golf` on the small Llama; returns the exit status."""
    import conceptlab.models

    add_llama_scope(hub, llama, (1, 3))
    monkeypatch.setattr(conceptlab.models, "load_model", lambda name: llama)
    monkeypatch.setattr("conceptlab.erasure.SharedConfig", lambda: QUICK)
    return lambda *more: cli.main(["erase", "golf", "--out", str(tmp_path / "e.safetensors"), *more])


def test_the_command_takes_features_and_layers(command, hub, tmp_path, capsys):
    assert command("--features", "3:7", "1:40:-", "1:4:+1", "1:5:-1") == 0
    edit = WeightEdit.load(tmp_path / "e.safetensors")
    assert edit.info["features"] == [[3, 7, 1], [1, 40, -1], [1, 4, 1], [1, 5, -1]]
    assert "pisces: {'n': 4.0" in capsys.readouterr().out and len(hub.fetched) == 4  # two files of each of two layers
    assert command("--layers", "3") == 0
    assert {layer for layer, _, _ in WeightEdit.load(tmp_path / "e.safetensors").info["features"]} == {3}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--features", "7"], "'7' names no feature; write LAYER:INDEX or LAYER:INDEX:SIGN"),
        (["--features", "3:7:"], "'3:7:' names no feature"),
        (["--features", "3:7:2"], "'3:7:2' names no feature"),
        (["--features", "3:-7"], "'3:-7' names no feature"),
        (["--features", "3:7", "3:7:-"], "named twice"),
        (["--features", "3:48"], "index must lie in 0 to 47"),
        (["--features", "4:1"], "has layers 0 to 3; layer 4 does not exist"),
        (["--layers", "4"], "has layers 0 to 3; layer 4 does not exist"),
        (
            ["--features", "3:7", "--method", "zeroed_vectors"],
            "zeroed_vectors needs no dictionary; leave out --features, --layers and --finding",
        ),
        (["--layers", "3", "--method", "words"], "words needs no dictionary"),
    ],
)
def test_wrong_features_are_one_sentence(command, capsys, more, message):
    assert command(*more) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


# ---- does it fit on a card? ------------------------------------------------------------------------------
def needed_bytes(config, public, cfg, n_ctx=64, passages=(8, 96)):
    """Bytes of one erasure of a Hub model: weights (bfloat16), dictionaries and evidence (float32), largest logits.

    `passages`: batch and length with which fluency is measured, whose logits are the largest tensors of a run: once as
    they come, once in float32, once as log-probabilities. Upper bounds: every text of the evidence is `n_ctx` long.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):  # shapes only
        model = AutoModelForCausalLM.from_config(config)
    tokens = 3 * (cfg.n_evidence + cfg.n_asked) * (n_ctx - 1)  # the first token of a text is left out
    values = 2 * public.d_sae * config.hidden_size + 2 * public.d_sae + config.hidden_size
    return {
        "weights": 2 * sum(p.numel() for p in model.parameters()),
        "dictionaries": 4 * len(public.layers) * values,
        "evidence": 4 * len(public.layers) * tokens * config.intermediate_size,
        "logits": (2 + 4 + 4) * passages[0] * passages[1] * config.vocab_size,
    }


def test_the_2b_run_fits_into_16_gb():
    from transformers import Gemma2Config

    assert inspect.signature(gather_evidence).parameters["n_ctx"].default == 64
    asked = inspect.signature(fluency).parameters
    assert (asked["batch_size"].default, asked["n_ctx"].default) == (8, 96)
    config = Gemma2Config(  # google/gemma-2-2b's config.json
        vocab_size=256_000, hidden_size=2_304, intermediate_size=9_216, num_hidden_layers=26, num_attention_heads=8,
        num_key_value_heads=4, head_dim=256,
    )  # fmt: skip
    found = needed_bytes(config, PUBLIC[GEMMA], SharedConfig())
    assert found["weights"] == pytest.approx(2 * 2.614e9, rel=1e-3)
    assert found["dictionaries"] == pytest.approx(3 * 302e6, rel=0.01)  # the files have 302 MB each
    assert sum(found.values()) < 16e9, found
    assert sum(found.values()) > 5e9


def test_the_estimate_bounds_what_a_small_run_holds(hub, gemma):
    add_gemma_scope(hub, gemma, (1, 4, 20))
    work = Shared(gemma, load_concept("harry_potter"), shipped_dictionaries(gemma), SMALL)
    found = needed_bytes(gemma.hf.config, PUBLIC[GEMMA], SMALL)
    assert found["weights"] == 2 * sum(p.numel() for p in gemma.hf.parameters())
    assert found["dictionaries"] == sum(4 * p.numel() for sae in work.dictionaries.values() for p in sae.parameters())
    held = sum(t.numel() * t.element_size() for groups in work.evidence.neurons.values() for t in groups)
    assert 0.2 * found["evidence"] < held <= found["evidence"]
