"""Classification tasks made from templates, whose test words stand in no training text.

Five kinds of question in which a single word does not give the answer away: agreement past a distracting noun, the
sense of an ambiguous name, two facts in a row, sentiment under negation, and whether a conclusion follows. Items that
share their word belong to one *group*; groups are split, and intervals are over groups.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import NamedTuple


class Item(NamedTuple):
    """A text, its class, and the word that it shares with the other items of its group."""

    text: str
    label: str
    group: str


_NOUNS = (
    "key actor letter farmer teacher picture doctor window report painter bridge student garden driver poem singer "
    "ticket judge stone horse novel lawyer machine dancer photo pilot table player room writer engine nurse flower "
    "builder song guard road sailor cup baker train hunter map guest boat tailor chair cook lamp clerk tower king "
    "wheel priest coin queen door author tree friend"
).split()
_LINKS = ("near", "behind", "beside", "with")


def agreeing(rng: random.Random) -> list[Item]:
    """ "The keys near the cabinet": does a singular or a plural verb follow? The last noun has either number."""
    items = []
    for noun, plural, other_plural, link in itertools.product(_NOUNS, (False, True), (False, True), _LINKS):
        other = rng.choice([n for n in _NOUNS if n != noun])
        subject, last = noun + "s" * plural, other + "s" * other_plural
        items.append(Item(f"The {subject} {link} the {last}", "plural" if plural else "singular", noun))
    return items


# name -> (words that go with the living or natural thing, words that go with the thing that people made)
_SENSES: dict[str, tuple[str, str]] = {
    "bat": ("cave", "baseball team"),
    "crane": ("marsh", "building site"),
    "mouse": ("barn", "computer desk"),
    "seal": ("icy shore", "royal letter"),
    "bark": ("old oak", "sailing fleet"),
    "bank": ("muddy river", "loan office"),
    "palm": ("tropical beach", "glove factory"),
    "plant": ("green valley", "power company"),
    "bass": ("deep lake", "jazz band"),
    "fly": ("summer meadow", "trouser shop"),
    "kid": ("goat farm", "school bus"),
    "jaguar": ("rain forest", "car dealer"),
    "python": ("hot jungle", "software course"),
    "turkey": ("farm yard", "travel agency"),
    "beetle": ("rotten log", "car museum"),
    "amazon": ("wild jungle", "online shop"),
    "mustang": ("wide prairie", "car race"),
    "ram": ("sheep farm", "laptop shop"),
    "mole": ("garden soil", "spy agency"),
    "spring": ("mountain forest", "clock workshop"),
    "nail": ("bear's paw", "hammer box"),
    "cricket": ("tall grass", "sports club"),
    "shell": ("sandy beach", "gun barrel"),
    "chip": ("chopped wood", "circuit board"),
    "drone": ("bee hive", "air force"),
    "horn": ("goat's head", "car's hood"),
    "pen": ("swan's nest", "ink shop"),
    "pool": ("rocky stream", "snooker hall"),
    "caterpillar": ("cabbage leaf", "road works"),
    "bug": ("rose bush", "computer program"),
    "virus": ("sick animal", "infected laptop"),
    "web": ("spider's corner", "internet site"),
    "stream": ("mountain valley", "video service"),
    "cloud": ("stormy sky", "data centre"),
    "trunk": ("elephant's face", "car park"),
    "branch": ("apple tree", "local bank office"),
    "root": ("old oak", "algebra lesson"),
    "leaf": ("maple forest", "printed book"),
    "star": ("night sky", "film studio"),
    "wave": ("stormy ocean", "radio station"),
}
_SENSE_FRAMES = (
    "Beside the {0} we saw a {1}",
    "In the story of the {0}, there is a {1}",
    "They talked about the {0} and then a {1}",
    "A guide to the {0} has a chapter on the {1}",
    "Near the {0} lay a {1}",
    "The child drew the {0} with a {1}",
    "All of us remember the {0} and its {1}",
    "For the {0}, nothing matters as much as the {1}",
)


def sense(rng: random.Random) -> list[Item]:
    """ "Beside the icy shore we saw a seal": does the last word mean something natural or something made?"""
    return [
        Item(frame.format(clue, word), label, word)
        for word, clues in _SENSES.items()
        for label, clue in zip(("natural", "made"), clues, strict=True)
        for frame in _SENSE_FRAMES
    ]


_CAPITALS = {
    "Africa": "Cairo Nairobi Accra Dakar Lagos Tunis Rabat Algiers Tripoli Khartoum Kampala Luanda Maputo Harare "
    "Lusaka Pretoria Kigali Bamako Gaborone Windhoek",
    "Asia": "Tokyo Beijing Seoul Bangkok Hanoi Manila Jakarta Delhi Tehran Baghdad Riyadh Damascus Beirut Kabul "
    "Islamabad Dhaka Colombo Kathmandu Taipei Amman",
    "Europe": "Paris Berlin Madrid Rome Vienna Warsaw Prague Budapest Athens Lisbon Dublin Oslo Stockholm Copenhagen "
    "Helsinki Brussels Amsterdam Sofia Bucharest Belgrade",
    "America": "Ottawa Washington Havana Lima Bogota Quito Caracas Santiago Montevideo Asuncion Brasilia Managua "
    "Guatemala Kingston Nassau Panama Montreal Toronto Boston Chicago",
}
_HOP_FRAMES = (
    "The country in which the city of {0} lies is on the continent of",
    "Whoever lives in {0} is a citizen of a country in",
    "The president of the country around {0} rules a part of",
    "Question: on which continent is the country of {0}?\nAnswer:",
    "The army of the nation whose city is {0} defends a piece of",
    "Football teams from the land of {0} play in the cup of",
    "A passport handed out in {0} belongs to a state in",
    "The currency used in {0} is that of a country in",
)


def two_hops(rng: random.Random) -> list[Item]:
    """ "Whoever lives in Oslo is a citizen of a country in": which continent? From a city by way of its country."""
    return [
        Item(frame.format(city), continent, city)
        for continent, cities in _CAPITALS.items()
        for city in cities.split()
        for frame in _HOP_FRAMES
    ]


_GOOD = (
    "wonderful brilliant excellent charming delightful superb lovely splendid amazing fantastic pleasant clever funny "
    "beautiful perfect thrilling elegant fresh exciting warm moving honest gripping tasty generous impressive graceful "
    "fascinating outstanding enjoyable"
).split()
_BAD = (
    "terrible boring awful dull horrible dreadful ugly stupid weak clumsy disappointing annoying tedious bland poor "
    "miserable pointless shallow nasty painful lazy cheap messy rude tiresome unpleasant lifeless silly disgusting "
    "mediocre"
).split()
_FEEL_FRAMES = (  # frame, whether it turns the word's sentiment round
    ("To me, the {1} was {0} .", False), ("Everybody says that the {1} was truly {0} .", False),
    ("The {1} was short, late and {0} .", False), ("Again and again I found the {1} {0} .", False),
    ("To me, the {1} was not {0} at all .", True), ("Nobody could say that the {1} was {0} .", True),
    ("The {1} was anything but {0} .", True), ("Not once did I find the {1} {0} .", True),
)  # fmt: skip
_THINGS = ("film", "meal", "book", "concert", "hotel", "speech", "play", "trip")


def sentiment(rng: random.Random) -> list[Item]:
    """ "The meal was anything but dull .": is it praised or blamed? Half of the frames turn the word round."""
    items = []
    for word in (*_GOOD, *_BAD):
        for frame, turned in _FEEL_FRAMES:
            praised = (word in _GOOD) != turned
            items.append(Item(frame.format(word, rng.choice(_THINGS)), "praised" if praised else "blamed", word))
    return items


_ORDERS = (
    "tall old fast strong rich heavy young short loud bright smart small cold warm dark calm clean cheap kind weak "
    "poor light slow quick thin soft hard deep mild proud"
).split()
_PEOPLE = "Anna Ben Carl Dora Emil Fay Greg Hanna Ivan Jane Karl Lisa Mark Nora Otto Paul Rosa Sam Tom Vera".split()


def entailment(rng: random.Random) -> list[Item]:
    """ "Anna is older than Ben. Ben is older than Carl. So Anna is older than Carl.": does the conclusion follow?"""
    items = []
    for word in _ORDERS:
        more = _comparative(word)
        for follows in (True, False):
            for _ in range(12):
                a, b, c = rng.sample(_PEOPLE, 3)
                facts = [f"{a} is {more} than {b}.", f"{b} is {more} than {c}."]
                rng.shuffle(facts)
                x, y = (a, c) if follows else (c, a)
                text = f"{facts[0]} {facts[1]} So {x} is {more} than {y}."
                items.append(Item(text, "follows" if follows else "does not follow", word))
    return items


def _comparative(word: str) -> str:
    if word.endswith("e"):
        return f"{word}r"
    return {"heavy": "heavier", "thin": "thinner"}.get(word, f"{word}er")


TEMPLATES: dict[str, Callable[[random.Random], list[Item]]] = {
    "agreement": agreeing, "sense": sense, "two_hops": two_hops, "sentiment": sentiment, "entailment": entailment,
}  # fmt: skip


def split_groups(items: list[Item], share: float, rng: random.Random) -> tuple[list[Item], list[Item]]:
    """(training, test) items, both shuffled, each text once; about `share` of the groups are for the test.

    Groups are split within their first item's class, so that both sides hold every class.
    """
    once = list({item.text: item for item in items}.values())
    by_class: dict[str, list[str]] = {}
    for item in once:
        if not any(item.group in groups for groups in by_class.values()):
            by_class.setdefault(item.label, []).append(item.group)
    tested = set(itertools.chain(*(rng.sample(g, round(share * len(g))) for g in by_class.values())))
    sides = [[item for item in once if (item.group in tested) == side] for side in (False, True)]
    for side in sides:
        rng.shuffle(side)
    return sides[0], sides[1]
