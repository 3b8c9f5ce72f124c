"""The dictionaries that ship in data/saes: which layers, which text, how they are trained, measured and read."""

from __future__ import annotations

import json
import platform
import random
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..activations import Harvest, harvest
from ..cache import ConceptLabError, atomic_path, cache_dir, data_dir
from ..models import LanguageModel
from ..text import TokenRows, enwik8_paragraphs, token_rows, vital_articles, web_passages
from .base import SAE
from .io import check_fits, load_sae, model_family, save_sae
from .metrics import loss_recovered, quality, spliced_loss
from .topk import TopKSAE
from .train import TrainConfig, train_sae

N_ENWIK8 = 5_000  # paragraphs of enwik8 in the mixture, about 0.45 M tokens
HELD_OUT = {"leads": 500, "web": 200, "enwik8": 300}  # texts of each source that no dictionary is trained on
N_CTX = 128  # tokens per row of the harvest
STORAGE = "int5"  # about 3.1 MB for 4,096 features of width 576
KS = (16, 32, 64, 128)  # active features per token at which a card reports the share of variance explained

# Layers from which the shipped ones are chosen by measurement: harvested together, in one pass.
CANDIDATES = {
    "smollm2-135m": (3, 4, 5, 6, 7, 8, 12, 18, 24, 27),
    "gemma3-270m": (3, 5, 6, 8, 9, 10, 12, 14, 15),
}
# Six of the candidates each, spread over depth; `make saes` builds these.
SHIPPED = {
    "smollm2-135m": (4, 6, 8, 12, 18, 24),
    "gemma3-270m": (3, 5, 8, 10, 12, 15),
}
TRAINING = TrainConfig(d_sae=4_096, k=32, steps=12_000, batch_size=512, lr=2e-3)  # four times over the mixture


def mixture(seed: int = 0, more_enwik8: int = 0) -> tuple[list[str], list[str]]:
    """Training texts and held-out texts: encyclopedia leads, web passages and paragraphs of enwik8.

    About 1.5 M tokens to train on; `more_enwik8` paragraphs (about 90 tokens each) are added at the end of them. The
    two never share a text; leads and enwik8 are both Wikipedia, twenty years apart, so that some sentences may
    resemble each other. The held-out texts depend on `seed` alone.
    """
    generator = random.Random(seed)
    leads = [a.text for a in vital_articles()]
    generator.shuffle(leads)
    everything = list(enwik8_paragraphs())
    numbers = generator.sample(range(len(everything)), N_ENWIK8 + HELD_OUT["enwik8"])
    paragraphs = [everything[i] for i in numbers]
    train, held_out = [], []
    for name, texts in (("leads", leads), ("web", list(web_passages())), ("enwik8", paragraphs)):
        held_out += texts[: HELD_OUT[name]]
        train += texts[HELD_OUT[name] :]
    if more_enwik8:
        used = set(paragraphs)  # by text: a paragraph that occurs twice is not held out and trained on
        rest = [text for text in everything if text not in used]
        train += generator.sample(rest, min(more_enwik8, len(rest)))
    return train, held_out


# ---- read ------------------------------------------------------------------------------------------------
def shipped_layers(model: str, root: Path | None = None) -> tuple[int, ...]:
    """Layers of `model` for which a dictionary lies in data/saes (none: an empty tuple)."""
    return tuple(sorted(int(path.name.removeprefix("layer_")) for path in _model_folder(model, root).glob("layer_??")))


def load_shipped(lm: LanguageModel, layer: int, root: Path | None = None) -> SAE:
    """The shipped dictionary of a layer, on the model's device. Raises ConceptLabError when there is none."""
    layer = lm.check_layer(layer)
    return load_sae(_layer_folder(lm.name, layer, root), layer, lm=lm)


def load_card(model: str, layer: int, root: Path | None = None) -> dict:
    """What was measured of a shipped dictionary, and how it was trained (`card.json`)."""
    path = _layer_folder(model, layer, root) / "card.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConceptLabError(
            f"{path} cannot be read ({type(error).__name__}); fetch it again or run `make saes`."
        ) from None


def _model_folder(model: str, root: Path | None) -> Path:
    """data/saes/<model>; a tuned variant or another spelling of the model finds the same folder."""
    root = root or data_dir() / "saes"
    same = [path for path in sorted(root.glob("*")) if model_family(path.name) == model_family(model)]
    return same[0] if same else root / model.replace("/", "_")


def _layer_folder(model: str, layer: int, root: Path | None) -> Path:
    folder = _model_folder(model, root) / f"layer_{layer:02d}"
    if not folder.is_dir():
        there = ", ".join(map(str, shipped_layers(model, root)))
        raise ConceptLabError(
            f"No dictionary of {model}, layer {layer}, is shipped; "
            + (f"there are layers {there}." if there else "train one with `conceptlab train-sae`.")
        )
    return folder


# ---- build -----------------------------------------------------------------------------------------------
def build_shipped(
    lm: LanguageModel,
    layers: Sequence[int] | None = None,
    cfg: TrainConfig = TRAINING,
    root: Path | None = None,
    texts: tuple[Sequence[str], Sequence[str]] | None = None,
    harvest_layers: Sequence[int] | None = None,
    storage: str = STORAGE,
    loss_rows: int = 64,
    progress: bool = True,
) -> list[Path]:
    """Harvest, train, measure on held-out text and write `root/<model>/layer_NN` for each of `layers`.

    Resumable: a layer whose card states the same recipe is left alone, an interrupted one goes on from its last
    checkpoint. `layers` None: `SHIPPED`. `texts`: training and held-out texts (None: `mixture()`). `harvest_layers`:
    harvest these in the same pass (None: `layers`). `loss_rows`: held-out rows on which cross-entropy is measured.
    """
    if layers is None and lm.name not in SHIPPED:
        raise ConceptLabError(f"No layers are chosen for {lm.name}; pass layers=.")
    layers = [lm.check_layer(x) for x in (SHIPPED[lm.name] if layers is None else layers)]
    root = (root or data_dir() / "saes") / lm.name.replace("/", "_")
    source = "encyclopedia leads, web passages, paragraphs of enwik8" if texts is None else "texts that were passed"
    train, held_out = mixture() if texts is None else texts
    rows = token_rows(lm, train, n_ctx=N_CTX)
    recipe = {"model": lm.name, **json.loads(json.dumps(asdict(cfg))), "storage": storage}
    recipe |= {"text": source, "texts": len(train), "rows": len(rows), "n_ctx": N_CTX}
    folders = {layer: root / f"layer_{layer:02d}" for layer in layers}
    missing = [layer for layer in layers if not _is_built(folders[layer], recipe)]
    if missing:
        data = harvest(lm, rows, harvest_layers or layers, progress=progress)
        held = HeldOut(lm, token_rows(lm, held_out, n_ctx=N_CTX), missing, loss_rows, progress)
    for layer in missing:
        _build_one(lm, layer, data, held, cfg, recipe, folders[layer], progress)
    return list(folders.values())


def _build_one(
    lm: LanguageModel,
    layer: int,
    data: Harvest,
    held: HeldOut,
    cfg: TrainConfig,
    recipe: dict,
    folder: Path,
    progress: bool,
) -> None:
    start = time.monotonic()
    state = cache_dir() / "training" / f"{lm.name.replace('/', '_')}-layer_{layer:02d}-{data.folder.name[-12:]}"
    sae, _ = train_sae(data, cfg, lm, layer, progress, checkpoint=state)
    minutes = (time.monotonic() - start) / 60
    with atomic_path(folder) as temporary:
        save_sae(sae, temporary, recipe["storage"])
        stored = load_sae(temporary, layer, lm=lm)
        card = {
            "recipe": recipe,
            "layer": layer,
            "hook_name": sae.cfg.hook_name,
            "tokens": data.n_tokens,
            "tokens_trained_on": cfg.steps * min(cfg.batch_size, data.n_tokens),
            "held_out": held.measure(stored),
            "storage_loss": held.lost(sae, stored),
            "training_minutes": round(minutes, 1),
            "device": torch.cuda.get_device_name() if lm.device.type == "cuda" else platform.machine(),
            "torch": torch.__version__,
        }
        (temporary / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    shutil.rmtree(state, ignore_errors=True)


def _is_built(folder: Path, recipe: dict) -> bool:
    try:
        return json.loads((folder / "card.json").read_text())["recipe"] == recipe
    except (OSError, ValueError, KeyError):
        return False


# ---- measure ---------------------------------------------------------------------------------------------
class HeldOut:
    """Activations and losses on text that no dictionary was trained on; what every layer needs is computed once."""

    def __init__(
        self, lm: LanguageModel, rows: TokenRows, layers: Sequence[int], loss_rows: int = 64, progress: bool = True
    ):
        self.lm, self.ids = lm, rows.ids[:loss_rows]
        self.data = harvest(lm, rows, layers, progress=progress)
        self.clean = spliced_loss(lm, self.ids, layers[0], None)
        self.zero: dict[int, Tensor] = {}
        self.spliced: dict[int, Tensor] = {}

    def measure(self, sae: SAE) -> dict:
        """What a card says: all numbers of the dictionary as it is read from the disk."""
        layer = sae.cfg.hook_layer
        check_fits(self.lm, sae)
        x = self._activations(layer)
        found = quality(sae, x)
        self.zero[layer] = spliced_loss(self.lm, self.ids, layer, torch.zeros_like)
        self.spliced[layer] = self._splice(sae)
        kept = loss_recovered(self.clean, self.spliced[layer], self.zero[layer])
        ks = KS if type(sae) is TopKSAE else ()
        return {
            "tokens": len(x),
            "fve": round(found.fve, 4),
            "fve_at_k": {str(k): round(v, 4) for k, v in fve_at(sae, x, ks).items()},
            "l0": round(found.l0, 2),
            "dead_share": round(found.dead, 4),
            "ce_recovered": {name: round(getattr(kept, name), 4) for name in ("value", "low", "high")},
            "ce_tokens": self.ids[:, 2:].numel(),
            "ce_nats": {
                "model": round(float(self.clean.mean()), 4),
                "dictionary": round(float(self.spliced[layer].mean()), 4),
                "zeros": round(float(self.zero[layer].mean()), 4),
            },
        }

    def lost(self, sae: SAE, stored: SAE) -> dict:
        """What the small storage costs, in share of variance and of cross-entropy recovered. After `measure`."""
        layer = sae.cfg.hook_layer
        x = self._activations(layer)
        fve = quality(sae, x).fve - quality(stored, x).fve
        gap = (self.zero[layer] - self.clean).double().mean()
        ce = float((self.spliced[layer] - self._splice(sae)).double().mean() / gap)
        return {"fve": round(fve, 5), "ce_recovered": round(ce, 5)}

    def _activations(self, layer: int) -> Float[Tensor, "tokens d_in"]:
        return self.data.tensor(layer).to(self.lm.device)

    def _splice(self, sae: SAE) -> Float[Tensor, " rows"]:
        return spliced_loss(self.lm, self.ids, sae.cfg.hook_layer, lambda a: sae(a.float()))


@torch.no_grad()
def fve_at(sae: TopKSAE, x: Float[Tensor, "n d_in"], ks: Iterable[int], batch_size: int = 4_096) -> dict[int, float]:
    """Share of variance explained with other numbers of active features than it was trained with, in one pass."""
    ks = [k for k in ks if k <= sae.cfg.d_sae]
    error = dict.fromkeys(ks, 0.0)
    for part in x.split(batch_size) if ks else ():
        top = sae.pre_activations(part).topk(max(ks), dim=-1)
        for k in ks:
            x_hat = sae.decode_sparse(top.values[:, :k].contiguous(), top.indices[:, :k].contiguous())
            error[k] += float((part - x_hat).square().sum())
    total = float((x - x.mean(0)).square().sum())
    return {k: 1 - error[k] / total for k in ks}


def with_k(sae: TopKSAE, k: int) -> TopKSAE:
    """The same weights with another number of active features per token (nothing is copied)."""
    if not 1 <= k <= sae.cfg.d_sae:
        raise ConceptLabError(f"k = {k} is not between 1 and {sae.cfg.d_sae}, the number of features.")
    other = TopKSAE(replace(sae.cfg, k=k)).requires_grad_(False)
    other.load_state_dict(sae.state_dict(), assign=True)
    return other
