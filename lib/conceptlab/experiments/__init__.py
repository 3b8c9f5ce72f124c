"""Long experiments: `conceptlab reproduce NAME --model M` fills data/results/NAME_<model>.csv, resumable."""

from collections.abc import Callable
from pathlib import Path

from .attacking import BUDGET, budget_for
from .autointerp import autointerp
from .curves import CURVE, AtLoss, CurveConfig, Point, at_loss, curve_point, curves_of, matched, matched_loss
from .directions import directions
from .dissection import CONTROLS, EDITS, DissectionConfig, DissectionTable, dissection, live_recipe
from .early_exit import early_exit
from .evidence import Relearnt, by_concept, paired_values, relearnt, table_number
from .fact_depths import kept_losses, loss_correlations
from .fiction import FictionScores, on_fiction
from .gpu_check import check_gpu, failed_checks
from .jailbreaks import shifts_under_prompts
from .lab import ATTACKED, LabConfig, edit_size, lab, shipped_edit, summarise_lab
from .layers import layers
from .pooled import DIRECT, Record, pooled
from .scoring import FinalConfig, General, Scoring
from .specialisation import SpecialisationConfig, specialisation, teaching_sets

# name -> experiment(lm, path of the table, seed=, ...), which returns the path
EXPERIMENTS: dict[str, Callable[..., Path]] = {
    "autointerp": autointerp,
    "directions": directions,
    "dissection": dissection,
    "early_exit": early_exit,
    "lab": lab,
    "layers": layers,
    "specialisation": specialisation,
}

# name -> what makes the rows over all concepts of a merged table
SUMMARIES = {"lab": summarise_lab}

__all__ = [
    "ATTACKED",
    "AtLoss",
    "BUDGET",
    "CONTROLS",
    "CURVE",
    "CurveConfig",
    "DIRECT",
    "DissectionConfig",
    "DissectionTable",
    "EDITS",
    "EXPERIMENTS",
    "FictionScores",
    "FinalConfig",
    "General",
    "LabConfig",
    "Point",
    "Record",
    "Relearnt",
    "SUMMARIES",
    "Scoring",
    "at_loss",
    "SpecialisationConfig",
    "autointerp",
    "budget_for",
    "by_concept",
    "check_gpu",
    "curve_point",
    "curves_of",
    "directions",
    "dissection",
    "early_exit",
    "edit_size",
    "failed_checks",
    "kept_losses",
    "lab",
    "layers",
    "live_recipe",
    "loss_correlations",
    "matched",
    "matched_loss",
    "on_fiction",
    "paired_values",
    "pooled",
    "relearnt",
    "shifts_under_prompts",
    "shipped_edit",
    "specialisation",
    "summarise_lab",
    "table_number",
    "teaching_sets",
]
