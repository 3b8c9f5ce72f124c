"""`conceptlab attack`: attack a saved edit, or the unchanged model."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

from ..core import ConceptLabError, say


def add(verbs: argparse._SubParsersAction) -> None:
    """The verb and its options."""
    verb = verbs.add_parser("attack", help="attack an edit, or the unchanged model, with a concept's questions")
    verb.add_argument("concept", help="name in data/concepts, or a YAML file")
    verb.add_argument("--edit", type=Path, help="a saved WeightEdit; default: the unchanged model")
    verb.add_argument("--attacks", nargs="+", help="names of the suite; default: the quick ones")
    verb.add_argument("--model", default="smollm2-135m", help="registry name, folder or Hub id")
    verb.add_argument("--questions", type=int, default=24, help="test questions that judge, of those the model knows")
    verb.add_argument("--lr", type=float, help="of fine-tuning attacks; default: what the model's weights bear")
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Attack a saved edit, or the unchanged model, with the questions of one concept."""
    from ..attacks import COUNTED, QUICK, QUICK_BUDGET, attacks, known_questions, run_attack, setting_for, summarise
    from ..data import load_concept
    from ..edits import WeightEdit, applied
    from ..experiments import budget_for
    from ..models import load_model

    names = arguments.attacks or QUICK
    if unknown := [name for name in names if name not in attacks()]:
        raise ConceptLabError(f"Unknown attack {unknown[0]!r}; known are {', '.join(attacks())}.")
    if arguments.lr is not None and not 0 < arguments.lr < math.inf:
        raise ConceptLabError(f"--lr is {arguments.lr:g}; give a positive number, such as 1e-4.")
    if arguments.questions < 1:
        raise ConceptLabError(f"--questions is {arguments.questions}; ask at least one.")
    concept = load_concept(arguments.concept)
    edit = None if arguments.edit is None else WeightEdit.load(arguments.edit)
    lm = load_model(arguments.model)
    if edit is not None:
        edit.check_made_for(lm)
    if arguments.lr is None:
        budget = budget_for(lm, QUICK_BUDGET)
    else:
        budget = replace(QUICK_BUDGET, lr=arguments.lr, lora_lr=3 * arguments.lr)  # the ratio of `rates_of`
    budget = replace(budget, seed=arguments.seed)
    setting = setting_for(concept, known_questions(lm, concept, arguments.questions, at_least=1), budget)
    original = setting.score(lm)
    with applied(edit, lm):
        erased = setting.score(lm)
    say(f"{len(setting.questions)} questions, margin {float(original.margin.mean()):.2f} -> "
          f"{float(erased.margin.mean()):.2f} nats")  # fmt: skip
    for name in names:
        result = run_attack(name, lm, edit, setting)
        ceiling = run_attack(name, lm, None, setting) if edit is not None and name in COUNTED else None
        for step, found in summarise(name, result, original, erased, setting, ceiling).items():
            say(f"{name} {step}: " + ", ".join(f"{k} {v}" for k, v in found.items()))
