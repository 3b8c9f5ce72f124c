"""What a concept file must hold beyond types: questions that can be asked once each, texts that can be found."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from .schema import Misfit, RawConcept, RawFiction, RawGeneral, RawQuestion, RawQuestions, RawTexts, RawTranslations

Place = tuple[str | int, ...]
Groups = dict[Place, dict[str, Sequence[RawQuestion]]]


def check_concept(file: RawConcept) -> None:
    """Raises Misfit for what `check_raw_questions` refuses, texts that match nothing, and a name given twice."""
    both: dict[Place, RawQuestions] = {
        ("questions",): file.questions, ("neighbour_questions",): file.neighbour_questions,
    }  # fmt: skip
    groups: Groups = {place: {"dev": q.dev, "test": q.test} for place, q in both.items()}
    groups |= {("near", i, "questions"): {"test": n.questions.test} for i, n in enumerate(file.near)}
    check_raw_questions(groups)
    for where, texts in ((("texts",), file.texts), (("neighbour", "texts"), file.neighbour.texts)):
        _check_texts(texts, where)
    names: dict[str, Place] = {file.name: ("name",)}
    others: list[tuple[Place, str]] = [(("near", i, "name"), n.name) for i, n in enumerate(file.near)]
    for place, name in [(("neighbour", "name"), file.neighbour.name), *others]:
        if name in names:
            raise Misfit(place, f"is {name!r}, as {'.'.join(map(str, names[name]))} is; give each its own name")
        names[name] = place


def check_general(file: RawGeneral) -> None:
    """Raises Misfit for what `check_raw_questions` refuses."""
    check_raw_questions({("questions",): {"dev": file.questions.dev, "test": file.questions.test}})


def check_fiction(file: RawFiction) -> None:
    """Raises Misfit for what `check_raw_questions` refuses, and a question without a claim."""
    check_raw_questions({(): {"questions": file.questions}})
    for i, question in enumerate(file.questions):
        if question.claim is None:
            raise Misfit(("questions", i), "has no claim, which a copy is taught from; add one")


def check_translations(file: RawTranslations) -> None:
    """Raises Misfit for a question that lacks a language or has one that is not listed, and for equal options."""
    for key, rows in file.questions.items():
        if set(rows) != set(file.languages):
            raise Misfit(("questions", key), f"needs the languages {', '.join(file.languages)}, no other")
        sizes = {len(row.options) for row in rows.values() if row.options}
        if len(sizes) > 1:
            raise Misfit(("questions", key), "has another number of options from language to language")
        for language, row in rows.items():
            _check_options(row.options or (), ("questions", key, language))


def check_raw_questions(groups: Groups) -> None:
    """Raises Misfit unless every question can be asked, each once, all with the same number of options.

    `groups`: where questions about one subject stand in the file -> split -> questions. An id stands once in the file,
    a question once in its subject (case and punctuation aside).
    """
    ids: dict[str, Place] = {}
    n_options: int | None = None
    for where, splits in groups.items():
        asked: dict[str, str] = {}
        for split, questions in splits.items():
            for i, question in enumerate(questions):
                place = (*where, split, i)
                _check_options(question.options, place)
                n_options = n_options or len(question.options)
                if len(question.options) != n_options:
                    raise Misfit((*place, "options"), f"has {len(question.options)} options, others have {n_options}")
                if question.answer >= n_options:
                    raise Misfit(
                        (*place, "answer"), f"is {question.answer}; it counts options from 0 to {n_options - 1}"
                    )
                if question.id in ids:
                    raise Misfit((*place, "id"), f"occurs twice: {question.id}; give each question its own")
                ids[question.id] = place
                plain = _plain(question.q)
                if plain in asked:
                    raise Misfit((*place, "q"), f"repeats the question of {asked[plain]}; ask each fact once")
                asked[plain] = question.id


def _check_options(options: Sequence[str], place: Place) -> None:
    if len(set(map(_plain, options))) != len(options):
        raise Misfit((*place, "options"), "must be distinct options; two of them are equal")


def _plain(text: str) -> str:
    """A text without case, punctuation and characters that cannot be seen; accents as one character each."""
    text = "".join(c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c) != "Cf")
    return re.sub(r"\s+", " ", re.sub(r"[^\w\s]+", " ", text.lower())).strip() or text


def _check_texts(texts: RawTexts, place: Place) -> None:
    if not (texts.titles or texts.any or texts.written):
        raise Misfit(place, "names no texts; give titles, keywords (any), or written texts")
    if not 1 <= texts.min_hits:
        raise Misfit((*place, "min_hits"), "must be at least 1; with 0 every text would be about the concept")
    if texts.any and texts.min_hits > len(texts.any):
        raise Misfit((*place, "min_hits"), f"asks for {texts.min_hits} keywords, but there are {len(texts.any)}")
