"""The one place that decides how much work the notebooks do, and on which device."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from ..core import ConceptLabError


@dataclass(frozen=True)
class Profile:
    """Sizes that notebooks read. One field per quantity; the default values are those of `quick`."""

    name: str = "quick"
    device: str = "cpu"
    model: str = "smollm2-135m"  # the model most sections use
    second_model: str = "gemma3-270m"  # the model that repeats the main result
    # 01 concept vectors
    projection_words: bool = True  # project the second model on plain words only (False: on all 262,144 tokens)
    noise_draws: int = 1  # noise vectors per single concept vector in the causal validation
    concept_questions: int = 16  # questions per concept in the causal validation
    questions: int = 30  # questions per set in live figures
    # 02 sparse autoencoders
    sae_layer: int = 6  # the layer that 02 and 03 look at
    sae_class_texts: int = 16  # leads per topic and per concept in the comparison of features with neurons
    sae_toy_steps: int = 600  # steps (of 256 tokens) of every dictionary of planted features
    sae_grid_tokens: int = 45_000  # tokens harvested for the comparison of architectures
    sae_grid_width: int = 768  # features of each dictionary in it
    sae_grid_steps: int = 100  # steps (of 512 tokens) of each
    sae_loss_rows: int = 12  # rows of 128 tokens on which the model's loss is measured
    # 03 autointerp
    label_features: int = 24  # features that are labelled and scored live
    # 05 attacks
    relearn_steps: int = 6  # optimisation steps of the relearning attack
    relearn_lr: float = 3e-4  # its learning rate; 1e-3 in all layers ruins the original on dev
    attack_questions: int = 16  # known questions that judge every live attack
    gcg_steps: int = 4  # steps of the optimised suffix; the papers take 500 and more
    gcg_width: int = 16  # candidates per step
    gcg_facts: int = 3  # facts that it is optimised on
    bootstrap: int = 2_000  # resamples of every interval


_FULL = replace(
    Profile(), name="full", projection_words=False, noise_draws=10, concept_questions=50, questions=80,
    sae_class_texts=80, sae_toy_steps=2_000,
    sae_grid_tokens=400_000, sae_grid_width=2_048, sae_grid_steps=800, sae_loss_rows=100,
    label_features=200, relearn_steps=60, attack_questions=60,
    gcg_steps=60, gcg_width=64, gcg_facts=10,
    bootstrap=10_000,
)  # fmt: skip


_PAPER = replace(
    _FULL, name="paper", model="gemma-2-2b-it", second_model="llama-3.1-8b-instruct",
    label_features=1_000, relearn_steps=400, relearn_lr=1e-5,
    gcg_steps=500,
)  # fmt: skip


PARAMETERS = {"gemma-2-2b-it": 2.61e9, "llama-3.1-8b-instruct": 8.03e9}  # of the models of `paper`, as on the Hub


PROFILES = {"quick": Profile(), "full": _FULL, "paper": _PAPER}


def get_profile(name: str | None = None) -> Profile:
    """The profile named by the argument, else by `CONCEPTLAB_PROFILE`, else `quick`; on CUDA where there is one."""
    import torch

    name = name or os.environ.get("CONCEPTLAB_PROFILE") or "quick"
    if name not in PROFILES:
        raise ConceptLabError(f"Unknown profile {name!r}; set CONCEPTLAB_PROFILE to one of {', '.join(PROFILES)}.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "paper" and device == "cpu":
        raise ConceptLabError("The paper profile needs a CUDA device; use CONCEPTLAB_PROFILE=full on a CPU.")
    if name == "paper":
        _require_memory(PROFILES[name])
    return replace(PROFILES[name], device=device)


def _require_memory(profile: Profile) -> None:
    """Raise, with the number, for a GPU that the weights of a model do not fit on: before any notebook starts.

    `load_model` counts the activations as well once it has the model's configuration.
    """
    from ..models import choose_device, choose_dtype, memory_free

    gpu = choose_device("cuda")
    free = memory_free(gpu)
    for model in (profile.model, profile.second_model):
        dtype = choose_dtype(gpu, model.split("-")[0])
        need = PARAMETERS[model] * dtype.itemsize
        if free is not None and need > free:
            raise ConceptLabError(
                f"The paper profile needs {need / 1e9:.1f} GB for the weights of {model} in "
                f"{str(dtype).removeprefix('torch.')}, and {free / 1e9:.1f} GB of the GPU are free; use "
                "CONCEPTLAB_PROFILE=full, or a larger GPU."
            )
