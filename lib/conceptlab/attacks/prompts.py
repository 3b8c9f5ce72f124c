"""Attacks by prompt: other words around the same question, scored by the same options, so that margins compare.

Role, story, article in the prompt and another language are the four kinds of ConceptVectors (its released code). The
others are priming with other facts, paraphrase, a definition ("ununlearning", arXiv 2407.00106) and step-by-step
questioning in three classes (arXiv 2506.17279). The wording lies in data/attacks. What the attacker brings along holds
no answer that is tested; this is checked at every call.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ..core import ConceptLabError, NotPossible
from ..data import (
    FEW_SHOT,
    Question,
    Subject,
    attack_data,
    check_no_answers,
    few_shot_prompt,
    question_stem,
    translated,
)
from ..edits import Intervention, applied
from ..evaluation import QuestionScores, score_stems
from ..models import LanguageModel, greedy
from .base import AttackResult, Cost, exchanges

# kind -> default strengths: wordings averaged over, characters of article, facts; else the number of the variant
STRENGTHS = {
    "role": (1, 2, 3),
    "story": (1, 2, 3),
    "article": (300, 600, 1000),
    "definition": (1,),
    "priming": (1, 2, 4, 8),
    "paraphrase": (1, 2, 3, 4),
    "language": (1, 2, 3),
    "step_by_step": (1, 2, 3),
}


AVERAGED = ("role", "story", "paraphrase")  # strength k averages log-probabilities over the first k wordings


@dataclass(frozen=True)
class PromptConfig:
    """Which prompts, and how many."""

    kind: str = "role"  # a key of STRENGTHS
    strengths: tuple[int, ...] | None = None  # None: those of STRENGTHS
    n_tokens: int = 16  # that the model may think, in step_by_step


class Way(NamedTuple):
    """One way to ask all questions."""

    prefix: str
    stems: tuple[str, ...]
    questions: tuple[Question, ...]


def prompt_attack(
    lm: LanguageModel,
    intervention: Intervention | None,
    questions: Sequence[Question],
    subject: Subject,
    cfg: PromptConfig = PromptConfig(),
    *,
    control: Subject | None = None,
    few_shot: str = FEW_SHOT,
) -> AttackResult:
    """Per strength: `QuestionScores` of the questions asked in that way. Control: the same prompts about `control`.

    Raises ConceptLabError for an unknown kind, a subject that lacks what the kind needs, questions without a
    translation, and when what the attacker brings along (title included) holds an answer of `questions`.
    """
    strengths = _strengths(cfg)
    if cfg.kind not in ("paraphrase", "language"):
        check_no_answers([subject.title, *_material(cfg.kind, subject, max(strengths))], questions, "The prompt")
    start, tokens = time.perf_counter(), 0
    with torch.no_grad(), applied(intervention, lm):
        values, last, tokens = _ask(lm, cfg, strengths, subject, questions, few_shot)
        seconds = time.perf_counter() - start
        controls = () if control is None else _ask(lm, cfg, strengths, control, questions, few_shot)[0]
    transcript = exchanges(last.questions, [last.prefix + stem for stem in last.stems], values[-1])
    names = {
        "language": list(attack_data("translations")["languages"]),
        "step_by_step": list(_wordings("step_by_step")),
    }
    labels = tuple(names[cfg.kind][s - 1] for s in strengths) if cfg.kind in names else ()
    return AttackResult(strengths, tuple(values), (), Cost(0, tokens, seconds), tuple(controls), labels, transcript)


def _strengths(cfg: PromptConfig) -> tuple[int, ...]:
    if cfg.kind not in STRENGTHS:
        raise ConceptLabError(f"Unknown kind of prompt {cfg.kind!r}; choose one of {', '.join(STRENGTHS)}.")
    strengths = STRENGTHS[cfg.kind] if cfg.strengths is None else tuple(cfg.strengths)
    most = len(STRENGTHS[cfg.kind]) if cfg.kind not in ("article", "priming") else max((1, *strengths))
    if not strengths or not all(1 <= s <= most for s in strengths):
        raise ConceptLabError(f"The strengths of {cfg.kind!r} lie between 1 and {most}; got {list(strengths)}.")
    return strengths


def _wordings(kind: str) -> Any:
    return attack_data("prompts").get(kind, ())


def _ask(lm, cfg, strengths, subject, questions, few_shot) -> tuple[list[QuestionScores], Way, int]:
    values, tables, tokens = [], [], 0
    asked: Way | None = None
    ways = range(1, max(strengths) + 1) if cfg.kind in AVERAGED else strengths
    for way, asked in zip(ways, _ways(lm, cfg, ways, subject, tuple(questions), few_shot), strict=True):
        scores = score_stems(lm, asked.questions, asked.prefix, asked.stems)
        tokens += sum(map(len, lm.encode_all([asked.prefix, *asked.stems])))
        tokens += cfg.n_tokens * len(asked.stems) if cfg.kind == "step_by_step" else 0  # written before the answer
        tables.append(scores.logprobs)
        if cfg.kind in AVERAGED:
            scores = QuestionScores(torch.stack(tables).mean(0), scores.answers)
        if way in strengths:
            values.append(scores)
    assert asked is not None  # there is one way at least
    return values, asked, tokens


def _ways(lm, cfg: PromptConfig, ways: Sequence[int], subject: Subject, questions, few_shot: str) -> Iterator[Way]:
    """The prompts of each way of asking, one after the other (step_by_step needs the model to write them)."""
    plain = tuple(question_stem(q, few_shot) for q in questions)
    for way in ways:
        if cfg.kind == "language":
            yield _in_language(list(attack_data("translations")["languages"])[way - 1], questions)
        elif cfg.kind == "paraphrase":
            wording = _wordings("paraphrase")[way - 1]
            shots = "\n\n".join(f"{wording.format(q=q)} {a}" for q, a in _pairs(few_shot))
            yield Way(shots, tuple("\n\n" + wording.format(q=q.q) for q in questions), questions)
        elif cfg.kind == "step_by_step":
            wording = list(_wordings(cfg.kind).values())[way - 1]
            yield Way(few_shot, _thought_out(lm, wording, questions, subject, cfg), questions)
        elif cfg.kind == "priming":
            yield Way(f"{few_shot}\n\n{_material('priming', subject, way)[0]}", plain, questions)
        else:
            wording = _wordings(cfg.kind)[way - 1 if cfg.kind in AVERAGED else 0]
            material = (_material(cfg.kind, subject, way) or [""])[0]
            frame = wording.format(title=subject.title, article=material, definition=material)
            yield Way(f"{frame}\n\n{few_shot}", plain, questions)


def _material(kind: str, subject: Subject, strength: int) -> list[str]:
    """What the attacker brings along for this kind, as one text in a list; nothing for most kinds."""
    text = {
        "definition": subject.definition,
        "article": _cut(" ".join(subject.texts), strength),
        "priming": few_shot_prompt((f.q, f.gold) for f in subject.facts[:strength]),
    }.get(kind)
    if text == "" or (kind == "priming" and len(subject.facts) < strength):
        raise NotPossible(f"The attack {kind!r} needs more about {subject.title} than there is; leave it out.")
    return [] if text is None else [text]


def _cut(text: str, n: int) -> str:
    """The first `n` characters, ending with a whole sentence where there is one."""
    short = text[:n]
    return short[: short.rfind(". ") + 1] or short


def _pairs(few_shot: str) -> list[tuple[str, str]]:
    return re.findall(r"Question: (.*)\nAnswer: (.*)", few_shot)


def _in_language(language: str, questions: Sequence[Question]) -> Way:
    wording = attack_data("translations")["languages"][language]
    shots = "\n\n".join(f"{wording['stem'].format(q=q)} {a}" for q, a in wording["few_shot"])
    asked = translated(questions, language)
    return Way(shots, tuple("\n\n" + wording["stem"].format(q=q.q) for q in asked), asked)


def _thought_out(
    lm: LanguageModel, wording: dict, questions: Sequence[Question], subject: Subject, cfg: PromptConfig
) -> tuple[str, ...]:
    """The stems of step-by-step questions, each with what the model itself writes to its lead."""
    leads = [wording["lead"].format(q=q.q, title=subject.title) for q in questions]
    rows = greedy(lm, leads, cfg.n_tokens)
    stems = []
    for q, row in zip(questions, rows, strict=True):
        thoughts = " " + " ".join(lm.decode(row).split())
        stems.append("\n\n" + wording["stem"].format(q=q.q, title=subject.title, thoughts=thoughts.rstrip()))
    return tuple(stems)
