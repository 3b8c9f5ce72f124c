"""Contrast sets for the direction between reasoning and memory, from a seeded template grammar (`data/contrasts/`).

From naive to matched: sums against facts, items of MMLU that calculate against items that recall, one story asked for
a step or for general knowledge, and one story in which the same question takes a step, a look or a memory.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle, islice

from ..core import ConceptLabError, data_dir
from .concepts import general_questions, list_concepts, load_concept
from .corpora import mmlu_items
from .questions import Question
from .schema import RawStories, RawTemplate, read_yaml

ITEM_KINDS = ("step", "copy", "memory")
LONGEST = 300  # characters of an item of MMLU


@dataclass(frozen=True)
class ContrastItem:
    """One prompt of a contrast set. Items of one `group` share their story and belong to one fold."""

    text: str  # up to "Answer:", the position that is read
    kind: str  # of the way to the answer: step, copy or memory
    template: str  # what wrote it
    group: int  # the story's number; without a story every item is its own
    options: tuple[str, ...]  # the answers that are scored; the same for all kinds of a story
    answer: int  # index of the right one
    said: str = ""  # the sentence of the story about the person who is asked for, with X in place of the name

    @property
    def gold(self) -> str:
        return self.options[self.answer]


# ---- matched stories ----------------------------------------------------------------------------------------
def story_templates() -> tuple[str, ...]:
    """Names of the templates of data/contrasts/stories.yaml."""
    return tuple(template.name for template in _raw().templates)


def matched_stories(n: int = 42, seed: int = 0, templates: Sequence[str] | None = None) -> list[ContrastItem]:
    """`n` stories of every template (a multiple of three), each asked for a step, a copy and a memory.

    In three stories in a row the people play each part in turn, so that every name is asked for every kind. Raises
    ConceptLabError for an unknown template and for an `n` that is no multiple of three.
    """
    if n < 3 or n % 3:
        raise ConceptLabError(f"Stories come in threes, with the names in turn; ask for 3, 6, 9, ... of them, not {n}.")
    known = {template.name: template for template in _raw().templates}
    items: list[ContrastItem] = []
    for name in known if templates is None else templates:
        if name not in known:
            raise ConceptLabError(f"Unknown template {name!r}; known are {', '.join(known)}.")
        rng = random.Random(f"{name} {seed}")
        for _ in range(n // 3):
            items += _three(known[name], rng, len(items) // 3)
    return items


def contrast_examples(kinds: Sequence[str] = ("step", "copy", "memory"), seed: int = 0) -> str:
    """Answered examples in front of every prompt: one of each of `kinds`, of a template that no item has."""
    rng = random.Random(f"example {seed}")
    stories = [_three(_raw().example, rng, 0)[:3] for _ in kinds]
    chosen = [next(x for x in story if x.kind == kind) for story, kind in zip(stories, kinds, strict=True)]
    return "\n\n".join(f"{item.text} {item.gold}" for item in chosen)


def _three(template: RawTemplate, rng: random.Random, group: int) -> list[ContrastItem]:
    """Three stories whose people play each part in turn, each asked for all three: nine items of three groups."""
    people, items = rng.sample(_raw().names, 4), []
    for turn in range(3):
        who = dict(zip(ITEM_KINDS, people[turn:3] + people[:turn], strict=True))
        items += _story(template, rng, who, people[3], group + turn)
    return items


def _story(
    template: RawTemplate, rng: random.Random, who: dict[str, str], other: str, group: int
) -> list[ContrastItem]:
    """One story and its three questions; `other`: the person whom the step leads to."""
    golds, base, delta = _values(template, rng)
    said = {
        "step": template.step[0].format(x=who["step"], y=other, delta=delta),
        "copy": template.copy_.format(x=who["copy"], value=golds["copy"]),
        "memory": template.memory.format(x=who["memory"], clue=template.values[golds["memory"]]),
    }
    sentences = [*said.values(), template.step[1].format(y=other, base=base)]
    story = " ".join(rng.sample(sentences, 4))
    free = [v for v in template.values if v not in golds.values()]
    options = rng.sample([*golds.values(), rng.choice(free) if base in golds.values() else base], 4)
    items = []
    for kind, gold in golds.items():
        text = f"Story: {story}\nQuestion: {template.question.format(x=who[kind])}\nAnswer:"
        masked = re.sub(rf"\b({who[kind]}|{other})\b", "X", said[kind])
        items.append(ContrastItem(text, kind, template.name, group, tuple(options), options.index(gold), masked))
    return items


def _values(template: RawTemplate, rng: random.Random) -> tuple[dict[str, str], str, str]:
    """A different answer for every kind; the value that the step starts from, and how far it goes."""
    while True:
        golds = dict(zip(ITEM_KINDS, rng.sample(list(template.values), 3), strict=True))
        if not template.scale:
            return golds, golds["step"], ""
        told, delta = rng.choice(list(template.deltas.items()))
        at = template.scale.index(golds["step"]) - delta
        taken = {*golds.values(), told}  # no answer stands in the story but where it is told
        if at >= 0 and template.scale[at] not in taken and told not in golds.values():
            return golds, template.scale[at], told


@lru_cache(1)
def _raw() -> RawStories:
    return read_yaml(data_dir() / "contrasts" / "stories.yaml", RawStories)


# ---- less matched -------------------------------------------------------------------------------------------
def naive_contrast(n: int = 200, seed: int = 0) -> list[ContrastItem]:
    """`n` sums in words and `n` questions about the course's concepts: two kinds that differ in everything."""
    rng = random.Random(f"naive {seed}")
    items = [_sum(rng, i) for i in range(n)]
    concepts = [load_concept(name) for name in list_concepts()]
    asked = list({q.q: q for c in concepts for q in c.dev}.values())
    if len(asked) < n:
        raise ConceptLabError(f"There are {len(asked)} questions about concepts; ask for at most that many, not {n}.")
    return items + [_plain(q, "memory", "concepts", n + i) for i, q in enumerate(rng.sample(asked, n))]


def mmlu_contrast(n: int = 120, seed: int = 0) -> list[ContrastItem]:
    """`n` items of MMLU that calculate (digits in question and in all options) and `n` that hold no digit at all."""
    short = [q for q in mmlu_items() if len(q.q) <= LONGEST]
    digits = [(bool(re.search(r"\d", q.q)), [bool(re.search(r"\d", o)) for o in q.options]) for q in short]
    found = {
        "step": [q for q, (asks, told) in zip(short, digits, strict=True) if asks and all(told)],
        "memory": [q for q, (asks, told) in zip(short, digits, strict=True) if not asks and not any(told)],
    }
    fewest = min(map(len, found.values()))
    if n > fewest:
        raise ConceptLabError(f"MMLU has {fewest} items of the rarer kind here; ask for at most that many, not {n}.")
    rng = random.Random(f"mmlu {seed}")
    chosen = [(kind, q) for kind, part in found.items() for q in rng.sample(part, n)]
    return [_plain(q, kind, "mmlu", i) for i, (kind, q) in enumerate(chosen)]


def trivia_contrast(stories: Sequence[ContrastItem], seed: int = 0) -> list[ContrastItem]:
    """Every story's step beside a question of general knowledge about the same story: the prompts differ at the end."""
    general = [q for q in (*general_questions("dev"), *general_questions("test"))]
    random.Random(f"trivia {seed}").shuffle(general)
    steps = [item for item in stories if item.kind == "step"]
    items = list(steps)
    for item, q in zip(steps, islice(cycle(general), len(steps)), strict=True):
        story = item.text.split("\nQuestion:")[0]
        text = f"{story}\nQuestion: {q.q}\nAnswer:"
        items.append(ContrastItem(text, "memory", item.template, item.group, q.options, q.answer))
    return items


_SUMS = (
    "What is {a} plus {b}?", "What do you get if you add {a} and {b}?", "Ann has {a} nuts and finds {b}. How many now?",
    "What is {c} minus {a}?", "What is left if you take {a} away from {c}?",
)  # fmt: skip


def _sum(rng: random.Random, group: int) -> ContrastItem:
    a, b, form = rng.randint(1, 9), rng.randint(1, 9), rng.choice(_SUMS)
    gold = b if "{c}" in form else a + b
    options = rng.sample([gold, *rng.sample([x for x in range(max(1, gold - 4), gold + 5) if x != gold], 3)], 4)
    text = f"Question: {form.format(a=a, b=b, c=a + b)}\nAnswer:"
    return ContrastItem(text, "step", "sums", group, tuple(map(str, options)), options.index(gold))


def _plain(q: Question, kind: str, template: str, group: int) -> ContrastItem:
    return ContrastItem(f"Question: {q.q}\nAnswer:", kind, template, group, q.options, q.answer)
