"""Does the real sae-lens read what we write, and we what it writes? Two steps, each in its own environment.

`make crosscheck` calls

    python saelens.py theirs FOLDER     with sae-lens installed: write its files, and compare those of `ours`
    python saelens.py ours FOLDER       with conceptlab installed: write our files, or compare those of `theirs`

in the order ours, theirs, ours. Each side stores its activations and reconstructions beside the dictionary; the other
must find the same to 1e-5 of the largest number.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

D_IN, D_SAE, N = 24, 96, 300
TOLERANCE = 1e-5


def random_tensors(names: list[str], seed: int) -> dict[str, torch.Tensor]:
    """Weights of a dictionary that no training made: random, the decoder's rows not of norm 1."""
    g = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (D_IN, D_SAE), "W_dec": (D_SAE, D_IN), "b_dec": (D_IN,)}
    out = {name: 0.5 * torch.randn(shapes.get(name, (D_SAE,)), generator=g) for name in names}
    if "threshold" in out:
        out["threshold"] = out["threshold"].abs() + 0.1
    return out


def inputs() -> torch.Tensor:
    return torch.randn(N, D_IN, generator=torch.Generator().manual_seed(99))


@torch.no_grad()
def keep(sae, folder: Path) -> None:
    """Activations and reconstructions of the side that wrote the dictionary."""
    x = inputs()
    features = sae.encode(x)
    assert 0.0 < float((features > 0).float().mean()) < 0.9, "a test dictionary should be sparse and alive"
    save_file({"features": features.contiguous(), "x_hat": sae.decode(features).contiguous()}, folder / "expected")


@torch.no_grad()
def compare(sae, folder: Path, who: str) -> None:
    """Stop with a message unless the side that reads finds what the writing side stored."""
    x, expected = inputs(), load_file(folder / "expected")
    features = sae.encode(x)
    worst = 0.0
    for found, name in ((features, "features"), (sae.decode(features), "x_hat")):
        worst = max(worst, float((found - expected[name]).abs().max() / expected[name].abs().max()))
    print(f"{folder.name}: {who}, largest difference {worst:.1e}")
    if worst > TOLERANCE:
        sys.exit(f"{folder}: differs by {worst:.1e}, more than {TOLERANCE:.0e}.")


def theirs(root: Path) -> None:
    """With sae-lens: read what conceptlab wrote, then write one file per architecture and option."""
    from sae_lens import SAE
    from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    for folder in sorted((root / "ours").iterdir()):
        compare(SAE.load_from_disk(folder), folder, "written by us, read by sae-lens")
    cases = {
        "standard": (StandardSAE, StandardSAEConfig, {}),
        "gated": (GatedSAE, GatedSAEConfig, {}),
        "topk": (TopKSAE, TopKSAEConfig, {"k": 8}),
        "topk-rescaled": (TopKSAE, TopKSAEConfig, {"k": 8, "rescale_acts_by_decoder_norm": True}),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),
    }
    for seed, (name, (cls, config, more)) in enumerate(cases.items()):
        for centred in (True, False):
            metadata = SAEMetadata(model_name="gpt2", hook_name="blocks.2.hook_mlp_out")
            cfg = config(D_IN, D_SAE, apply_b_dec_to_input=centred, metadata=metadata, **more)
            sae = cls(cfg)
            names = list(sae.state_dict())
            sae.load_state_dict(random_tensors(names, seed))
            folder = root / "theirs" / f"{name}-{'centred' if centred else 'plain'}"
            sae.save_model(folder)
            keep(sae, folder)


def ours(root: Path) -> None:
    """With conceptlab: read what sae-lens wrote, if it has; else write one file per architecture."""
    from conceptlab.sae import ARCHITECTURES, SAEConfig, load_sae, make_sae, save_sae

    if (root / "theirs").exists():
        for folder in sorted((root / "theirs").iterdir()):
            sae = load_sae(folder, layer=2)
            compare(sae, folder, "written by sae-lens, read by us")
            assert json.loads((folder / "cfg.json").read_text())["metadata"]["model_name"] == sae.cfg.model_name
        return
    for seed, kind in enumerate(ARCHITECTURES):
        sae = make_sae(SAEConfig(kind, D_IN, D_SAE, 8, "smollm2-135m", 6, "blocks.6.mlp.hook_out"))
        tensors = random_tensors([*sae.state_dict()], seed)
        if kind == "batchtopk":
            tensors["threshold"] = torch.tensor(0.7)
        sae.load_state_dict(tensors)
        folder = root / "ours" / kind
        save_sae(sae, folder)
        keep(sae, folder)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("ours", "theirs"):
        sys.exit(__doc__)
    {"ours": ours, "theirs": theirs}[sys.argv[1]](Path(sys.argv[2]))
