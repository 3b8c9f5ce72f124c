"""From a dictionary to a file of scored labels: choose features, label, score, keep what is done."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from ..core import ConceptLabError, atomic_path
from ..data import Article, harvest, label_texts, token_rows, vital_articles
from ..models import LanguageModel
from ..sae import N_CTX, SAE, load_shipped, shared_kind, shipped_layers
from .controls import feature_units
from .explain import EnsembleExplainer, OutputExplainer
from .judge import EvidenceJudge
from .labelling import LabelConfig, Labelling
from .labels import (
    FeatureLabel,
    check_label_folder,
    feature_label,
    labels_path,
    load_records,
    silent_label,
    write_labels,
)
from .score import detect
from .scorers import score_label
from .steer import output_scores


def as_articles(texts: Sequence[str]) -> list[Article]:
    """Texts as articles: with title and topic where they are encyclopedia leads, without otherwise."""
    known = {article.text: article for article in vital_articles()}
    return [known.get(text) or Article("", text, "", "") for text in texts]


def label_dictionaries(
    lm: LanguageModel,
    layers: Sequence[int] | None = None,
    cfg: LabelConfig | None = None,
    out: Path | None = None,
    saes: Path | None = None,
    listed: Mapping[int, Sequence[int]] | None = None,
    texts: Sequence[str] | None = None,
    progress: bool = True,
) -> Iterator[Path]:
    """Label dictionaries into `out/<model>/layer_NN.jsonl.gz` (default data/labels); yields each file once it is done.

    `layers` None: every layer with a dictionary in `saes` (default data/saes). `listed`: layer -> features that are
    labelled in any case. `texts` None: `label_texts`. Finished files with the same settings are left as they are;
    an interrupted layer goes on with its next chunk of features. Raises ConceptLabError when a layer has no dictionary.
    """
    cfg = cfg or LabelConfig()
    layers = [lm.check_layer(x) for x in (shipped_layers(lm.name, saes) if layers is None else layers)]
    listed = {lm.check_layer(layer): sorted(set(found)) for layer, found in (listed or {}).items()}
    dictionaries = {layer: load_shipped(lm, layer, saes) for layer in layers}
    if not layers:
        raise ConceptLabError(f"There is no dictionary of {lm.name} to label; build them or give --saes.")
    if others := sorted(set(listed) - set(layers)):
        raise ConceptLabError(f"Features of layer {others[0]} are listed, which is not to be labelled; add the layer.")
    for layer, found in listed.items():
        if wrong := [feature for feature in found if not 0 <= feature < dictionaries[layer].cfg.d_sae]:
            raise ConceptLabError(
                f"Layer {layer} has units 0 to {dictionaries[layer].cfg.d_sae - 1}; unit {wrong[0]} does not exist."
            )
    check_label_folder(out)
    chosen = label_texts() if texts is None else list(texts)
    rows, articles = token_rows(lm, chosen, n_ctx=N_CTX), as_articles(chosen)
    data = harvest(lm, rows, layers, kind=shared_kind(dictionaries), progress=progress)
    for layer in layers:
        path = labels_path(lm.name, layer, out)
        recipe = {"model": lm.name, "layer": layer, "method": EnsembleExplainer.name, "judge": EvidenceJudge.name}
        recipe |= asdict(cfg) | {"listed": listed.get(layer, []), "texts": len(chosen), "tokens": data.n_tokens}
        ids = hashlib.sha256(rows.ids.numpy().tobytes()).hexdigest()[:12]
        recipe |= {"data": ids, "dictionary": _digest(dictionaries[layer]), "weights": lm.fingerprint()}
        if not (path.exists() and _read(path.with_name(f"layer_{layer:02d}.json")).get("recipe") == recipe):
            labelling = Labelling(lm, dictionaries[layer], data, articles, cfg)
            _label_layer(labelling, path, recipe, progress)
        yield path


def label_features(labelling: Labelling, features: Sequence[int]) -> list[FeatureLabel]:
    """Labels and scores of some features; those that never fire strongly in one half are recorded as unexplained.

    Their labels are exchanged for the shuffled control, so at least two must fire; a single one is unexplained too.
    """
    cfg, layer, method, judge = labelling.cfg, labelling.layer, EnsembleExplainer.name, EvidenceJudge()
    done = labelling.label(feature_units(labelling.lm, labelling.sae, labelling.firings, features))
    n = len(done.ensemble) if len(done.ensemble) > 1 else 0
    labels, records = done.ensemble[:n], []
    found = detect(judge, labels, done.seen[:n], done.new[:n], n_resamples=cfg.n_resamples)
    directions = labelling.directions[[label.unit for label in labels]]
    pushed = output_scores(labelling.lm, layer, directions, labels, n_resamples=cfg.n_resamples, seed=cfg.seed)
    for i, detection in enumerate(found):
        scores = score_label(judge, detection.label, done.new[i], cfg.n_resamples) | {"output_auroc": pushed[i]}
        records.append(feature_label(layer, detection, scores, done.reads[i], done.writes[i]))
    rates, writer = labelling.firings.rates(), OutputExplainer(labelling.lm, labelling.directions)
    for feature in sorted(set(features) - {label.unit for label in labels}):
        promoted = labelling.lm.words(writer.token_ids(feature))
        records.append(silent_label(layer, feature, method, float(rates[feature]), promoted))
    return records


def _label_layer(labelling: Labelling, path: Path, recipe: dict, progress: bool) -> None:
    """All chunks of one layer, then the file; finished chunks lie in a folder beside it until then."""
    folder = path.with_name(f"layer_{labelling.layer:02d}.parts")
    if _read(folder / "recipe.json") != recipe:  # chunks of other settings are of no use
        shutil.rmtree(folder, ignore_errors=True)
        with atomic_path(folder / "recipe.json") as temporary:
            temporary.write_text(json.dumps(recipe), encoding="utf-8")
    features = labelling.choose(recipe["listed"])
    if len(features) < 2:
        raise ConceptLabError(
            f"Layer {labelling.layer}: {len(features)} features fire often enough to be labelled, two are needed; "
            "use more texts, a smaller `least`, or list features."
        )
    started, records = time.monotonic(), []
    chunks = torch.tensor(features).tensor_split(max(1, len(features) // labelling.cfg.chunk))
    with tqdm(
        total=len(features), unit="feature", disable=not progress, desc=f"labels of layer {labelling.layer}"
    ) as bar:
        for i, chunk in enumerate(chunks):
            part = folder / f"{i:04d}.jsonl.gz"
            if not part.exists():
                write_labels(part, label_features(labelling, chunk.tolist()))
            records += load_records(part)
            bar.update(len(chunk))
    write_labels(path, records)
    how = {
        "recipe": recipe,
        "rule": f"{labelling.cfg.n} features by firing rate (equal numbers from four bands, at least "
        f"{labelling.cfg.least} firings in each half of the texts; all of them where there are fewer) and the listed "
        "ones",
        "features": len(records),
        "explained": sum(r.explained for r in records),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "torch": torch.__version__,
    }
    with atomic_path(path.with_name(f"layer_{labelling.layer:02d}.json")) as temporary:
        temporary.write_text(json.dumps(how, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder)


def _read(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(sae: SAE) -> str:
    """A few digits that change with the dictionary's weights."""
    return hashlib.sha256(sae.W_dec.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:12]
