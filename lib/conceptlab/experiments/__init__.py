"""Long experiments: `conceptlab reproduce NAME --model M` fills data/results/NAME_<model>.csv, resumable."""

from collections.abc import Callable
from pathlib import Path

from .attacking import BUDGET, budget_for
from .autointerp import autointerp
from .beside import TOGETHER, Beside, beside_control, together
from .curves import CURVE, AtLoss, CurveConfig, Point, at_loss, curve_point, curves_of, matched
from .directions import directions
from .dissection import CONTROLS, EDITS, DissectionConfig, DissectionTable, dissection, live_recipe
from .early_exit import early_exit
from .evidence import Relearnt, relearnt, table_number
from .fact_depths import centre_rows, kept_losses, loss_correlations
from .fiction_table import FictionConfig, fiction
from .forms import FormsConfig, form_gap, forms
from .gpu_check import check_gpu, failed_checks
from .jailbreaks import shifts_under_prompts
from .lab import ATTACKED, LabConfig, edit_size, lab, shipped_edit, summarise_lab
from .lab_claims import closing_rows
from .lab_cover import (
    BESIDE,
    beside_rows,
    coverage,
    coverage_rows,
    overshoot_reading,
    tuning_reading,
    unreached,
)
from .lab_page import (
    AT_LOSS,
    TALLIED,
    bridged,
    curve_reading,
    differences,
    margin_table,
    matched_rows,
    per_concept,
    pool_for,
    tally_rows,
    unseen_reading,
)
from .lab_robustness import (
    RESIDUE,
    ROUNDED,
    attack_rows,
    form_rows,
    relearning_tally,
    residue_points,
    residue_reading,
    rounding_reading,
)
from .lab_table import LabTable, lab_table
from .lab_view import LabView, of_kind, tally, verdict
from .layers import layers
from .matching import scale_to
from .oracle_page import FictionTable, FormTable
from .pooled import DIRECT, Record, pooled
from .scoring import FinalConfig, General, Scoring
from .skills import SKILLS, SkillsConfig, skills
from .specialisation import (
    MaskingTable,
    SpecialisationConfig,
    attempts_page,
    ladder_page,
    masking_table,
    shares_page,
    specialisation,
    taught_page,
    teaching_sets,
    words_page,
)

# name -> experiment(lm, path of the table, seed=, ...), which returns the path
EXPERIMENTS: dict[str, Callable[..., Path]] = {
    "autointerp": autointerp,
    "directions": directions,
    "dissection": dissection,
    "early_exit": early_exit,
    "fiction": fiction,
    "forms": forms,
    "lab": lab,
    "layers": layers,
    "skills": skills,
    "specialisation": specialisation,
}

# name -> what makes the rows over all concepts of a merged table
SUMMARIES = {"lab": summarise_lab}

__all__ = [
    "ATTACKED",
    "AT_LOSS",
    "AtLoss",
    "BUDGET",
    "BESIDE",
    "Beside",
    "CONTROLS",
    "CURVE",
    "CurveConfig",
    "DIRECT",
    "DissectionConfig",
    "DissectionTable",
    "EDITS",
    "EXPERIMENTS",
    "FictionConfig",
    "FictionTable",
    "FinalConfig",
    "FormTable",
    "FormsConfig",
    "General",
    "LabConfig",
    "LabTable",
    "LabView",
    "MaskingTable",
    "Point",
    "RESIDUE",
    "ROUNDED",
    "Record",
    "Relearnt",
    "SKILLS",
    "SUMMARIES",
    "Scoring",
    "SkillsConfig",
    "SpecialisationConfig",
    "TALLIED",
    "TOGETHER",
    "at_loss",
    "attack_rows",
    "attempts_page",
    "autointerp",
    "bridged",
    "beside_control",
    "beside_rows",
    "budget_for",
    "centre_rows",
    "check_gpu",
    "closing_rows",
    "coverage",
    "coverage_rows",
    "curve_point",
    "curve_reading",
    "curves_of",
    "differences",
    "directions",
    "dissection",
    "early_exit",
    "edit_size",
    "failed_checks",
    "fiction",
    "form_gap",
    "form_rows",
    "forms",
    "kept_losses",
    "lab",
    "lab_table",
    "ladder_page",
    "layers",
    "live_recipe",
    "loss_correlations",
    "masking_table",
    "margin_table",
    "matched",
    "matched_rows",
    "of_kind",
    "overshoot_reading",
    "per_concept",
    "pool_for",
    "pooled",
    "relearning_tally",
    "relearnt",
    "residue_points",
    "residue_reading",
    "rounding_reading",
    "scale_to",
    "shares_page",
    "shifts_under_prompts",
    "shipped_edit",
    "skills",
    "specialisation",
    "summarise_lab",
    "table_number",
    "tally",
    "tally_rows",
    "taught_page",
    "together",
    "tuning_reading",
    "unreached",
    "teaching_sets",
    "unseen_reading",
    "verdict",
    "words_page",
]
