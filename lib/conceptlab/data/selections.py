"""Which texts an experiment is given: evidence about a concept, training mixtures, held-out text."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from ..core import ConceptLabError
from .concepts import Concept, load_concept
from .corpora import enwik8_paragraphs, vital_articles, web_passages
from .leaks import cut_answers
from .questions import Question


def unrelated_texts(
    concept: Concept, n: int = 10, seed: int = 0, without_answers: Sequence[Question] = ()
) -> list[str]:
    """`n` encyclopedia leads about neither the concept nor its neighbour (10 examples: arXiv 2409.18025).

    Sentences that hold the right answer to one of `without_answers` are cut; a lead may vanish by that.
    """
    return cut_answers(evidence_texts(concept, n, seed)[2], without_answers)


def label_texts(concepts: Sequence[Concept] = ()) -> list[str]:
    """Leads and web passages that no dictionary was trained on (about 85,000 tokens), then the concepts' leads.

    Features of a concept are rare in 700 texts about anything; the leads about it make them fire often enough to be
    labelled. Most of these the dictionaries have seen, the labels' authors see half of them.
    """
    leads = [article.text for concept in concepts for article in concept.articles()]
    return list(dict.fromkeys([*held_out_texts(), *leads]))


COURSE_CONCEPTS = ("ancient_rome", "chemical_elements", "japan")  # those that the notebooks study live


def course_texts(n_general: int = 600, seed: int = 0) -> list[str]:
    """Training text of the live dictionaries: the leads of `COURSE_CONCEPTS` and neighbours, and as many other leads.

    Sorted and seeded, so that every notebook that asks for the same text shares one harvest.
    """
    chosen: dict[str, str] = {}
    for name in COURSE_CONCEPTS:
        concept = load_concept(name)
        for article in (*concept.articles(), *(concept.neighbour.articles() if concept.neighbour else ())):
            chosen[article.title] = article.text
    others = [a for a in vital_articles() if a.title not in chosen]
    for article in random.Random(seed).sample(others, min(n_general, len(others))):
        chosen[article.title] = article.text
    return [chosen[title] for title in sorted(chosen)]


def unseen_leads(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """(topic, text): at most `n` leads of every topic that no shipped and no live dictionary was trained on."""
    free, rng, chosen = set(held_out_leads()) - set(course_texts()), random.Random(seed), list[tuple[str, str]]()
    for topic in sorted({a.topic for a in vital_articles()} - {"Uncategorized"}):
        texts = [a.text for a in vital_articles() if a.topic == topic and a.text in free]
        chosen += [(topic, text) for text in rng.sample(texts, min(n, len(texts)))]
    return chosen


def other_texts(concept: Concept, n: int, seed: int = 0) -> list[str]:
    """`n` encyclopedia leads, drawn at random, that are neither about the concept nor about its neighbour."""
    titles = {a.title for c in (concept, concept.neighbour) if c for a in c.articles()}
    rest = [a.text for a in vital_articles() if a.title not in titles]
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))[:n].tolist()
    return [rest[i] for i in order]


def held_out_passages(split: str, n: int) -> tuple[str, ...]:
    """`n` web passages that nothing was trained on (at most 100), others for "dev" than for "test"."""
    if split not in ("dev", "test") or not 0 < n <= 100:
        raise ConceptLabError(f"There are 1 to 100 passages for 'dev' and for 'test'; asked were {n} for {split!r}.")
    start = 100 if split == "dev" else 0
    return web_passages()[start : start + n]


def evidence_texts(concept: Concept, n_texts: int = 60, seed: int = 0) -> tuple[list[str], list[str], list[str]]:
    """At most `n_texts` texts each: of the concept, of its neighbour, and of neither (shuffled by `seed`)."""
    if concept.neighbour is None:
        raise ConceptLabError(f"{concept.name} has no neighbour; add one to its file, selectivity needs it.")
    own, near = ({a.title: a.text for a in c.articles()} for c in (concept, concept.neighbour))
    far = {a.title: a.text for a in vital_articles() if a.title not in own and a.title not in near}
    near = {title: text for title, text in near.items() if title not in own}

    def chosen(texts: dict[str, str]) -> list[str]:
        return [texts[title] for title in random.Random(seed).sample(sorted(texts), min(n_texts, len(texts)))]

    return chosen(own), chosen(near), chosen(far)


MIXTURE = "encyclopedia leads, web passages, paragraphs of enwik8"  # for the card


N_ENWIK8 = 5_000  # paragraphs of enwik8 in the mixture, about 0.45 M tokens


HELD_OUT = {"leads": 500, "web": 200, "enwik8": 300}  # texts of each source that no dictionary is trained on


def mixture(seed: int = 0, more_enwik8: int = 0) -> tuple[list[str], list[str]]:
    """Training texts and held-out texts: encyclopedia leads, web passages and paragraphs of enwik8.

    About 1.5 M tokens to train on; `more_enwik8` paragraphs (about 90 tokens each) are added at the end of them. The
    two never share a text; leads and enwik8 are both Wikipedia, twenty years apart, so that some sentences may
    resemble each other. The held-out texts depend on `seed` alone.
    """
    generator, leads = _shuffled_leads(seed)
    everything = list(enwik8_paragraphs())
    numbers = generator.sample(range(len(everything)), N_ENWIK8 + HELD_OUT["enwik8"])
    paragraphs = [everything[i] for i in numbers]
    train, held_out = [], []
    for name, texts in (("leads", leads), ("web", list(web_passages())), ("enwik8", paragraphs)):
        held_out += texts[: HELD_OUT[name]]
        train += texts[HELD_OUT[name] :]
    if more_enwik8:
        used = set(paragraphs)  # by text: a paragraph that occurs twice is not held out and trained on
        rest = [text for text in everything if text not in used]
        train += generator.sample(rest, min(more_enwik8, len(rest)))
    return train, held_out


def held_out_leads(seed: int = 0) -> list[str]:
    """The encyclopedia's part of the held-out texts."""
    return _shuffled_leads(seed)[1][: HELD_OUT["leads"]]


def held_out_texts(seed: int = 0) -> list[str]:
    """The held-out texts that need no enwik8: encyclopedia leads, then web passages; about 85,000 tokens."""
    return held_out_leads(seed) + list(web_passages()[: HELD_OUT["web"]])


def _shuffled_leads(seed: int) -> tuple[random.Random, list[str]]:
    generator, leads = random.Random(seed), [a.text for a in vital_articles()]
    generator.shuffle(leads)
    return generator, leads
