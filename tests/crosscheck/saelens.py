"""Does the real sae-lens read what we write, and we what it writes? Two steps, each in its own environment.

`make crosscheck` calls

    python saelens.py theirs FOLDER     with sae-lens installed: write its files, and compare those of `ours`
    python saelens.py ours FOLDER       with conceptlab installed: write our files, or compare those of `theirs`

in the order ours, theirs, ours. Each side stores its activations and reconstructions beside the dictionary, computed in
float32 from the weights as they are stored; the other must find the same to 1e-5 of the largest number. Activations
are compared as the lengths that they write, since we give decoder rows norm 1 where that leaves the function as it is.
What sae-lens writes and we do not support must be refused with a sentence.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

D_IN, D_SAE, N = 24, 96, 300
TOLERANCE = 1e-5
TYPES = ("float32", "float64", "bfloat16", "float16")
HOOK = "blocks.2.hook_mlp_out"


def random_tensors(names: list[str], seed: int) -> dict[str, torch.Tensor]:
    """Weights of a dictionary that no training made: random, the decoder's rows not of norm 1."""
    g = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (D_IN, D_SAE), "W_dec": (D_SAE, D_IN), "b_dec": (D_IN,), "W_skip": (D_IN, D_IN)}
    out = {name: 0.5 * torch.randn(shapes.get(name, (D_SAE,)), generator=g) for name in names}
    if "threshold" in out:
        out["threshold"] = out["threshold"].abs() + 0.1
    return out


def inputs() -> torch.Tensor:
    return torch.randn(N, D_IN, generator=torch.Generator().manual_seed(99))


def lengths(sae, features: torch.Tensor) -> torch.Tensor:
    """Activations times the norms of the decoder's rows: the same for every free scale of a feature."""
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        return features  # sae-lens has multiplied them already
    return features * sae.W_dec.norm(dim=1)


@torch.no_grad()
def keep(sae, folder: Path) -> None:
    """Activations and reconstructions of the side that wrote the dictionary."""
    x = inputs()
    features = sae.encode(x)
    assert 0.0 < float((features > 0).float().mean()) < 0.9, "a test dictionary should be sparse and alive"
    save_file({"features": lengths(sae, features).contiguous(), "x_hat": sae(x).contiguous()}, folder / "expected")


@torch.no_grad()
def differs(sae, folder: Path, who: str) -> bool:
    """Whether the side that reads finds something else than what the writing side stored; says how much."""
    x, expected = inputs(), load_file(folder / "expected")
    worst = 0.0
    for found, name in ((lengths(sae, sae.encode(x)), "features"), (sae(x), "x_hat")):
        worst = max(worst, float((found - expected[name]).abs().max() / expected[name].abs().max()))
    print(f"{folder.name:40} {who:36} largest difference {worst:.1e}", flush=True)
    return worst > TOLERANCE


def stop(bad: list[str]) -> None:
    if bad:
        sys.exit(f"{len(bad)} dictionaries are read otherwise than written: {', '.join(bad)}.")


def theirs(root: Path) -> None:
    """With sae-lens: read what conceptlab wrote, then write one file per architecture and option."""
    from sae_lens import SAE
    from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    folders = sorted((root / "ours").iterdir())
    bad = [f.name for f in folders if differs(SAE.load_from_disk(f, dtype="float32"), f, "by us, read by sae-lens")]
    cases = {
        "standard": (StandardSAE, StandardSAEConfig, {}),
        "gated": (GatedSAE, GatedSAEConfig, {}),
        "topk": (TopKSAE, TopKSAEConfig, {"k": 8}),
        "topk-rescaled": (TopKSAE, TopKSAEConfig, {"k": 8, "rescale_acts_by_decoder_norm": True}),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),
    }
    for seed, (name, (cls, config, more)) in enumerate(cases.items()):
        for centred in (True, False):
            for kind in TYPES:
                options = more | {"apply_b_dec_to_input": centred}
                _write(
                    cls,
                    config,
                    options,
                    seed,
                    kind,
                    root / "theirs" / f"{name}-{'centred' if centred else 'plain'}-{kind}",
                )
    for seed, (name, (cls, config)) in enumerate(_transcoders().items()):
        for kind in ("float32", "bfloat16"):
            _write(
                cls,
                config,
                {"d_out": D_IN, "apply_b_dec_to_input": False},
                seed,
                kind,
                root / "theirs" / f"{name}-{kind}",
            )
    for name, options in {
        "layer_norm": {"normalize_activations": "layer_norm"},
        "constant_norm_rescale": {"normalize_activations": "constant_norm_rescale"},
        "expected_average_only_in": {"normalize_activations": "expected_average_only_in"},
        "covariance_whitening": {"normalize_activations": "covariance_whitening"},
    }.items():
        _write(StandardSAE, StandardSAEConfig, options, 0, "float32", root / "refused" / name, expected=False)
    stop(bad)


def _transcoders() -> dict:
    from sae_lens.saes import transcoder as T

    return {
        "transcoder": (T.Transcoder, T.TranscoderConfig),
        "skip-transcoder": (T.SkipTranscoder, T.SkipTranscoderConfig),
        "jumprelu-transcoder": (T.JumpReLUTranscoder, T.JumpReLUTranscoderConfig),
        "jumprelu-skip-transcoder": (T.JumpReLUSkipTranscoder, T.JumpReLUSkipTranscoderConfig),
    }


def _write(cls, config, options: dict, seed: int, kind: str, folder: Path, expected: bool = True) -> None:
    """One dictionary as sae-lens saves it in a precision; what it finds is computed in float32 afterwards."""
    from sae_lens.saes.sae import SAEMetadata

    metadata = SAEMetadata(model_name="gpt2", hook_name=HOOK, hook_name_out=HOOK)
    sae = cls(config(D_IN, D_SAE, metadata=metadata, **options))
    sae.load_state_dict(random_tensors([*sae.state_dict()], seed))
    sae.to(getattr(torch, kind)).save_model(folder)
    if expected:
        keep(sae.to(torch.float32), folder)


def ours(root: Path) -> None:
    """With conceptlab: read what sae-lens wrote, if it has; else write one file per architecture."""
    from conceptlab.sae import ARCHITECTURES, SAEConfig, load_sae, make_sae, save_sae

    if (root / "theirs").exists():
        bad = []
        for folder in sorted((root / "theirs").iterdir()):
            sae = load_sae(folder, layer=2)
            bad += [folder.name] * differs(sae, folder, "by sae-lens, read by us")
            assert json.loads((folder / "cfg.json").read_text())["metadata"]["model_name"] == sae.cfg.model_name
        return stop(bad + [folder.name for folder in sorted((root / "refused").iterdir()) if not refused(folder)])
    for seed, kind in enumerate(ARCHITECTURES):
        for type_ in TYPES:
            sae = make_sae(SAEConfig(kind, D_IN, D_SAE, 8, "smollm2-135m", 6, "blocks.6.mlp.hook_out"))
            tensors = random_tensors([*sae.state_dict()], seed)
            if kind == "batchtopk":
                tensors["threshold"] = torch.tensor(0.7)
            sae.load_state_dict(tensors)
            folder = root / "ours" / f"{kind}-{type_}"
            save_sae(sae.to(getattr(torch, type_)), folder)
            keep(sae.to(torch.float32), folder)


def refused(folder: Path) -> bool:
    """Whether we refuse a dictionary with a sentence; it is printed."""
    from conceptlab.core import ConceptLabError
    from conceptlab.sae import load_sae

    try:
        load_sae(folder, layer=2)
    except ConceptLabError as error:
        print(f"{folder.name:40} refused: {error}", flush=True)
        return True
    return False


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("ours", "theirs"):
        sys.exit(__doc__)
    {"ours": ours, "theirs": theirs}[sys.argv[1]](Path(sys.argv[2]))
