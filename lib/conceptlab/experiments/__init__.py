"""Long experiments: `conceptlab reproduce NAME --model M` fills data/results/NAME_<model>.csv, resumable."""

from collections.abc import Callable
from pathlib import Path

from .attacking import BUDGET, budget_for
from .autointerp import autointerp
from .early_exit import early_exit
from .gpu_check import check_gpu, failed_checks
from .lab import ATTACKED, LabConfig, edit_size, lab, shipped_edit, summarise_lab
from .layers import layers
from .pooled import DIRECT, Record, pooled
from .scoring import FinalConfig, General, Scoring
from .specialisation import SpecialisationConfig, specialisation, teaching_sets

# name -> experiment(lm, path of the table, seed=, ...), which returns the path
EXPERIMENTS: dict[str, Callable[..., Path]] = {
    "autointerp": autointerp,
    "early_exit": early_exit,
    "lab": lab,
    "layers": layers,
    "specialisation": specialisation,
}

# name -> what makes the rows over all concepts of a merged table
SUMMARIES = {"lab": summarise_lab}

__all__ = [
    "ATTACKED",
    "BUDGET",
    "DIRECT",
    "EXPERIMENTS",
    "FinalConfig",
    "General",
    "LabConfig",
    "Record",
    "SUMMARIES",
    "Scoring",
    "SpecialisationConfig",
    "autointerp",
    "budget_for",
    "check_gpu",
    "early_exit",
    "edit_size",
    "failed_checks",
    "lab",
    "layers",
    "pooled",
    "shipped_edit",
    "specialisation",
    "summarise_lab",
    "teaching_sets",
]
