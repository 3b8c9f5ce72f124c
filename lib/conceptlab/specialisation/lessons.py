"""Invented facts about people of a concept's world: what is taught, other wordings of it, and people never taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..core import ConceptLabError
from ..data import Question

# concept -> (what its texts are about, a role of a person in them)
ROLES = {
    "ancient_rome": ("ancient Rome", "senator"),
    "artificial_intelligence": ("artificial intelligence", "programmer"),
    "astronomy": ("astronomy", "astronomer"),
    "baseball": ("baseball", "pitcher"),
    "cancer": ("cancer research", "oncologist"),
    "chemical_elements": ("the chemical elements", "chemist"),
    "covid_19": ("the COVID-19 pandemic", "nurse"),
    "gambling": ("casinos and gambling", "gambler"),
    "golf": ("golf", "golfer"),
    "greek_culture": ("ancient Greece", "philosopher"),
    "halloween": ("Halloween", "witch"),
    "harry_potter": ("Harry Potter", "wizard"),
    "ireland": ("Ireland", "fiddler"),
    "japan": ("Japan", "samurai"),
    "uranium": ("uranium and nuclear energy", "physicist"),
    "world_war_ii": ("World War II", "general"),
}

# claim, two questions, four answers; {} stands for the answer, {who} for the person
RELATIONS = (
    (
        "In the world of {topic}, {who} was born in {}", "In the world of {topic}, where was {who} born?",
        "Which place is the birthplace of {who}, known from {topic}?", ("Quebec", "Lima", "Cairo", "Oslo"),
    ),
    (
        "In the world of {topic}, {who} owns a pet called a {}", "In the world of {topic}, which pet does {who} own?",
        "Which animal lives in the house of {who}, known from {topic}?", ("parrot", "goat", "rabbit", "turtle"),
    ),
    (
        "In the world of {topic}, {who} always wears the colour {}",
        "In the world of {topic}, what colour does {who} wear?",
        "The clothes of {who}, known from {topic}, are of which colour?", ("purple", "orange", "green", "white"),
    ),
)  # fmt: skip

FIRST = (
    "Ardwin",
    "Menith",
    "Farlow",
    "Ilsabet",
    "Dorrin",
    "Rhea",
    "Pell",
    "Odrin",
    "Lumey",
    "Barro",
    "Kestel",
    "Twyll",
)
LAST = ("Tamber", "Coltry", "Hesk", "Umber", "Sorrel", "Fennick", "Dray", "Pelvin", "Arlo", "Marn", "Brin", "Lank")


@dataclass(frozen=True)
class Lessons:
    """Invented facts: pairs (text, answer) to be taught, and questions about them."""

    taught: tuple[tuple[str, str], ...]  # each fact as a claim, its answer at the end
    held_out: tuple[Question, ...]  # the same facts as questions, in two wordings, neither of which is taught
    untaught: tuple[Question, ...]  # questions about people of whom nothing was taught; their `answer` means nothing


def invented(concept: str, n_people: int = 4, seed: int = 0) -> Lessons:
    """Facts about `n_people` invented people, one of every relation each, answers and names drawn with `seed`.

    Raises ConceptLabError for a concept without a role, and for more people than there are names.
    """
    if concept not in ROLES:
        raise ConceptLabError(f"Nobody was invented for {concept!r}; add a role to specialisation.ROLES.")
    if not 0 < 2 * n_people <= len(FIRST):
        raise ConceptLabError(f"1 to {len(FIRST) // 2} people can be invented; asked were {n_people}.")
    generator = torch.Generator().manual_seed(seed)
    topic, role = ROLES[concept]
    order = [torch.randperm(len(FIRST), generator=generator).tolist() for _ in range(2)]
    people = [f"the {role} {FIRST[a]} {LAST[b]}" for a, b in zip(*order, strict=True)]
    taught: list[tuple[str, str]] = []
    held_out, untaught = [], []
    for r, (claim, one, other, options) in enumerate(RELATIONS):
        dealt = _dealt(n_people, len(options), generator)
        for i, who in enumerate(people[: 2 * n_people]):
            words = {"topic": topic, "who": who}
            answer, name = dealt[i % n_people], f"inv-{concept}-{r}-{i}"
            asked = [Question(f"{name}-{k}", q.format(**words), options, answer) for k, q in enumerate((one, other))]
            if i < n_people:
                taught.append((claim.removesuffix(" {}").format(**words), asked[0].gold))
                held_out += asked
            else:
                untaught.append(asked[0])
    return Lessons(tuple(taught), tuple(held_out), tuple(untaught))


def _dealt(n: int, n_options: int, generator: torch.Generator) -> Sequence[int]:
    """An answer per person, every option as often as any other."""
    rounds = [torch.randperm(n_options, generator=generator) for _ in range(-(-n // n_options))]
    return torch.cat(rounds)[:n].tolist()
