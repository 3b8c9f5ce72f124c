"""What the YAML files of data/ may hold: one validating reader, which says file, line and key of what is wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from ..core import ConceptLabError
from .yaml_text import YamlText

_NOT_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "none"}  # what YAML users write for something else


def _visible(value):
    if isinstance(value, str) and (wrong := re.search(r"[\x00-\x08\x0b-\x1f\x7f]", value)):
        raise ValueError(f"holds the control character {ascii(wrong[0])}")
    return value


def _whole_number(value) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"0|[1-9][0-9]{0,8}", value):
        raise ValueError("must be a whole number, 0 or larger")
    return int(value)


def _sentence(value):
    if isinstance(value, str) and (value.lower() in _NOT_WORDS or not any(c.isalpha() for c in value)):
        raise ValueError("must be written in words")
    return value


def _claim(value):
    if isinstance(value, str) and value.count("{}") != 1:
        raise ValueError("needs exactly one {} for the answer")
    return value


def _title(value):
    if isinstance(value, str) and not re.fullmatch(r"[^\W_][\w .'-]{0,79}", value):
        raise ValueError("is used in file names: letters, digits, '_', '-', '.' and spaces only")
    return value


Whole = Annotated[int, BeforeValidator(_whole_number)]
Text = Annotated[str, BeforeValidator(_visible), StringConstraints(strip_whitespace=True, min_length=1)]
Sentence = Annotated[Text, BeforeValidator(_sentence)]
Claim = Annotated[Text, BeforeValidator(_claim)]
Name = Annotated[Text, BeforeValidator(_title)]
Keyword = Annotated[str, StringConstraints(pattern=r"\S")]  # a space at its edge tells "world war i " from ii
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]


class Part(BaseModel):
    """A mapping of a file: no other keys, nothing converted."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RawQuestion(Part):
    id: Text
    q: Sentence
    options: Annotated[tuple[Text, ...], Field(min_length=2, max_length=8)]
    answer: Whole
    claim: Claim | None = None
    clue: Sentence | None = None
    check: Text | None = None
    field: Text | None = None


QuestionList = Annotated[tuple[RawQuestion, ...], Field(min_length=1)]


class RawQuestions(Part):
    dev: QuestionList
    test: QuestionList


class RawTest(Part):
    test: QuestionList


class RawTemplate(Part):
    """One kind of story of data/contrasts: sentences with places for people and values."""

    name: Name
    question: Sentence
    copy_: Annotated[Sentence, Field(alias="copy")]
    step: tuple[Sentence, Sentence]
    memory: Sentence
    values: dict[Text, Text]
    scale: tuple[Text, ...] = ()
    deltas: dict[Text, Whole] = {}


class RawStories(Part):
    names: Texts
    templates: Annotated[tuple[RawTemplate, ...], Field(min_length=1)]
    example: RawTemplate


class RawArticle(Part):
    title: Text
    text: Text


class RawTexts(Part):
    titles: tuple[Text, ...] = ()
    any: tuple[Keyword, ...] = ()
    min_hits: Whole = 2
    topics: tuple[Text, ...] = ()
    written: tuple[RawArticle, ...] = ()


class RawSubject(Part):
    name: Name
    title: Text
    summary: Text | None = None
    words: Texts
    lookalikes: tuple[Text, ...] = ()
    texts: RawTexts


class RawNear(Part):
    name: Name
    title: Text
    words: Texts
    questions: RawTest


class RawConcept(RawSubject):
    questions: RawQuestions
    neighbour: RawSubject
    neighbour_questions: RawQuestions
    near: tuple[RawNear, ...] = ()
    provenance: Text | None = None


class RawGeneral(Part):
    name: Name
    title: Text
    summary: Text | None = None
    questions: RawQuestions
    provenance: Text | None = None


class RawSteps(Part):
    lead: Text
    stem: Text


class RawPrompts(Part):
    """data/attacks/prompts.yaml."""

    role: Texts
    story: Texts
    article: Texts
    definition: Texts
    priming: Texts
    paraphrase: Texts
    step_by_step: dict[str, RawSteps]
    definitions: dict[str, Text]
    provenance: Text | None = None


class RawLanguage(Part):
    name: Text
    stem: Text
    few_shot: Annotated[tuple[tuple[Text, Text], ...], Field(min_length=1)]


class RawTranslation(Part):
    q: Sentence
    options: Annotated[tuple[Text, ...], Field(min_length=2, max_length=8)] | None = None


class RawTranslations(Part):
    """data/attacks/translations.yaml."""

    languages: dict[str, RawLanguage]
    questions: dict[str, dict[str, RawTranslation]]
    provenance: Text | None = None


class RawFiction(Part):
    """data/attacks/fictional.yaml."""

    name: Name
    title: Text
    definition: Text
    questions: QuestionList
    texts: Texts
    provenance: Text | None = None


# ---- reading -----------------------------------------------------------------------------------------------
class Misfit(Exception):
    """What a schema of types cannot say: the place in the file, and what is wrong there."""

    def __init__(self, place: tuple, message: str):
        self.place, self.message = place, message


Schema = TypeVar("Schema", bound=Part)


def read_yaml(path: Path, schema: type[Schema], check=None) -> Schema:
    """The file as `schema` (a class of this module), and `check` of it, a function that raises `Misfit`.

    Raises ConceptLabError in one sentence that names file, line and key.
    """
    file = YamlText(path)
    try:
        found = schema.model_validate(file.content)
        if check is not None:
            check(found)
        return found
    except ValidationError as error:
        first, *more = error.errors(include_url=False)
        place, message = first["loc"], _message(first)
        further = f" ({len(more)} more after it)" if more else ""
    except Misfit as error:
        place, message, further = error.place, error.message, ""
    where = _where(file.content, place)
    raise ConceptLabError(
        f"{path.name}, line {file.line(place)}: {where}{message}{further}; the schema is in data/README.md."
    )


def _where(content, place: tuple) -> str:
    """A path of keys as a reader would write it, with the id of the question it leads through."""
    words, node, name = "", content, ""
    for key in place:
        words += f"[{key}]" if isinstance(key, int) else f"{'.' if words else ''}{key}"
        node = node[key] if isinstance(node, list | dict) and _has(node, key) else None
        if isinstance(node, dict) and isinstance(node.get("id"), str):
            name = f" (question {node['id'][:40]})"
    return f"{words}{name} " if words else "the file "


def _has(node, key) -> bool:
    return isinstance(key, int) and key < len(node) if isinstance(node, list) else key in node


def _message(error: Mapping[str, Any]) -> str:
    kind, given = error["type"], error["input"]
    shown = "a list" if isinstance(given, list) else "a mapping" if isinstance(given, dict) else repr(str(given)[:40])
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(error["loc"][-1]), _KEYS, 1)
        return f"is an unknown key{f'; did you mean {close[0]!r}?' if close else ''}"
    if kind in ("tuple_type", "list_type"):
        return f"must be a list, not {shown}"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"must be a mapping of keys, not {shown}"
    if kind == "string_type":
        return f"must be a text, not {shown}"
    if kind in ("string_too_short", "string_pattern_mismatch"):
        return "is blank"
    if kind in ("too_short", "too_long"):
        context = error["ctx"]
        bound = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return f"must have {bound} entries"
    why = str(error["ctx"]["error"]) if kind == "value_error" else error["msg"]
    return why if isinstance(given, list | dict) else f"{why}, not {shown}"


def _fields(schema: type[Part]) -> set[str]:
    return set(schema.model_fields).union(*(_fields(part) for part in schema.__subclasses__()), set())


_KEYS = sorted(_fields(Part))
