"""Pages that are made from what the course holds: landing page, results, reference's index, changelog, and so on."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ...erasure import methods
from ..course_map import PARTS, PLAIN, hours, learner_minutes, part_of
from ..decisions import decision_table
from ..instructor import schedule

MODELS = ("smollm2-135m", "gemma3-270m")
RESULT_COLUMNS = {  # metric of the lab's table -> heading
    "efficacy_known": "erased",
    "specificity_known": "spared",
    "specificity_unseen_known": "unseen spared",
    "coherence_known": "fluency kept",
    "overall_known": "overall",
}

NO_CONTROLS = "---\nhtml_theme.sidebar_secondary.remove: true\n---\n"


def landing_page(cards: Sequence[Mapping[str, Any]], sections: Mapping[str, Sequence[str]]) -> str:
    """What this is, for whom, what it takes, where to start, and a card per notebook."""
    minutes = sum(learner_minutes(card["time"]) or 0 for card in cards)
    first = next((c["page"] for c in cards if c["page"]), "course.html")
    tour = next((c["page"] for c in cards if c["name"] == "tour"), None)
    start = f'<a class="start" href="{first}">Start here</a>'
    if tour:
        begin = next((c["page"] for c in cards if c["name"] != "tour" and c["page"]), first)
        start = f'<a class="start" href="{tour}">Take the ten-minute tour</a> '
        start += f'<a class="start" href="{begin}">Begin the course</a>'
    parts = [
        f"{NO_CONTROLS}# Concept Lab\n",
        "What does a language model know, where does it store that, and can it be erased? Here you find a "
        "concept in the "
        "weights of a real model, erase it, and then try to get it back.\n",
        "**For whom:** people who follow a tutorial alone, students in a lab, and researchers who want to redo a "
        "paper's "
        "figure. You need Python and a rough idea of what a transformer is.\n\n"
        f"**What it takes:** a laptop with two cores and no GPU; about {hours(minutes)} of your time for all "
        f"{len(cards)} notebooks with their exercises, a few minutes of computing each.\n\n"
        "**What you get:** every number has a control and an interval, and what did not work is shown too.\n",
        f'<p class="starts">{start} <a href="browser.html">Look through the features</a></p>\n',
    ]
    for title, own in _by_part(cards):
        parts += [f"## {title}\n", '<div class="cards">', *(_card(card) for card in own), "</div>\n"]
    for caption, documents in sections.items():
        lines = "\n".join(documents)
        parts.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n:maxdepth: 1\n\n{lines}\n```\n")
    return "\n".join(parts)


def _by_part(cards: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, list[Mapping[str, Any]]]]:
    outside = [card for card in cards if not part_of(card["name"])]
    if outside:
        yield "First look", outside
    for title, _ in PARTS:
        if own := [card for card in cards if part_of(card["name"]) == title]:
            yield title, own


def _card(card: Mapping[str, Any]) -> str:
    name, plain = card["name"], PLAIN.get(card["name"], "")
    picture = '<span class="blank" aria-hidden="true"></span>'
    if card["picture"]:
        picture = f'<img src="{card["picture"]}" alt="" width="640" height="360" loading="lazy">'
    title = escape(card["question"])
    head = f'<a href="{card["page"]}">{title}</a>' if card["page"] else title
    time = learner_minutes(card["time"])
    facts = [name, *([hours(time)] if time else [])]
    if card["minutes"]:
        facts.append(f"computed here in {card['minutes']:.1f} min")
    failed = '<p class="failed">stopped at an error</p>' if card["error"] else ""
    number = f'<p class="number">{escape(str(card["headline"]))}</p>' if card["headline"] else ""
    return (
        f'<article class="card">{picture}<div class="text"><h3>{head}</h3>'
        f"{f'<p>{escape(plain)}</p>' if plain else ''}{number}"
        f'<p class="small">{escape(" · ".join(facts))}</p>{failed}</div></article>'
    )


def results_page(root: Path) -> str:
    """The lab's table, method by concept, as a table that sorts at a click on a heading."""
    parts = [
        f"{NO_CONTROLS}# Results: every method on every concept\n",
        "What `conceptlab reproduce lab` measured, on *test* questions that the unedited model answers rightly. "
        "*Erased* "
        "is the share of the concept's answers that are lost, corrected for guessing; *spared* the same share kept of "
        "its neighbour and of general questions; *unseen spared* that of a near domain at which no choice has looked "
        "(empty: not asked); *fluency kept* compares perplexities on ordinary text; *overall* is the harmonic mean of "
        "erased, spared and fluency. In brackets: a 95 % interval. *Relearned* is the share of the loss that five "
        "steps of training on text about the concept, without the answers, bring back. A method links to what it is; "
        "one with *(control)* is there to be compared with: what it reaches is no merit of a method's choice.\n",
    ]
    used = set[str]()
    for model in MODELS:
        path = root / "data" / "results" / f"lab_{model}.csv"
        if path.exists():
            rows = _rows(path)
            used |= {row[1] for row in rows}
            parts += [f"## {model}\n", _sortable(rows, f"Scores of all methods on {model}")]
    return "\n".join([*parts, "## Methods\n", _method_list(used)]) + "\n"


def _method_list(used: Collection[str]) -> str:
    """What the methods of the tables are, from the registry."""
    head = "".join(f'<th scope="col">{h}</th>' for h in ("method", "kind", "from"))
    body = "".join(
        f'<tr id="{_anchor(m.name)}"><th scope="row">{escape(m.name.replace("_", " "))}</th><td>{escape(m.kind)}</td>'
        f"<td>{escape(m.source)}</td></tr>"
        for m in methods().values()
        if m.name in used
    )
    more = "[What the localised ones change](/localised_methods.md); `conceptlab methods` lists all, with their cost."
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>\n\n{more}\n"


def _anchor(method: str) -> str:
    return "method-" + method.replace("+", "-and-").replace("_", "-")


def _rows(path: Path) -> list[list[str]]:
    """Concept, method, the four scores and what relearning brings back, as texts."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            key = (row["concept"], row["method"])
            if not row["attack"] and row["metric"] in RESULT_COLUMNS:
                cells.setdefault(key, {})[row["metric"]] = _estimate(row)
            if (row["attack"], row["budget"], row["metric"]) == ("relearning", "5", "share") and key in cells:
                cells[key]["relearned"] = _estimate(row)
    columns = [*RESULT_COLUMNS, "relearned"]
    return [
        [concept.replace("_", " "), method, *(found.get(c, "") for c in columns)]
        for (concept, method), found in sorted(cells.items())
        if concept != "all"
    ]


def _estimate(row: Mapping[str, str]) -> str:
    value, low, high = (float(row[k]) for k in ("value", "low", "high"))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _sortable(rows: Sequence[Sequence[str]], caption: str) -> str:
    heads = ["concept", "method", *RESULT_COLUMNS.values(), "relearned"]
    head = "".join(f'<th scope="col"><button type="button">{escape(h)}</button></th>' for h in heads)
    body = "".join(
        f"<tr><td>{escape(concept)}</td><td>{_named(method)}</td>{''.join(f'<td>{escape(x)}</td>' for x in rest)}</tr>"
        for concept, method, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="sortable"><caption>{escape(caption)} (click a heading to sort)</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n"
    )


def _named(method: str) -> str:
    """A method's name, with a link to what it is; controls are those that the registry says are."""
    name, known = escape(method.replace("_", " ")), methods().get(method)
    if known is None:
        return name
    return f'<a href="#{_anchor(method)}">{name}</a>{" (control)" if known.kind == "control" else ""}'


def changelog_page(root: Path) -> str:
    """CHANGELOG.md as a page."""
    path = root / "CHANGELOG.md"
    return path.read_text(encoding="utf-8") if path.exists() else "# Changes\n\nNone are noted.\n"


def api_index(names: Sequence[str]) -> str:
    """The list of rooms."""
    lines = "\n".join(f"api/{name}" for name in names)
    return (
        "# Reference\n\nThe library stands in rooms; what a room exports is public, and nothing else is. Every "
        "entry is the "
        f"signature and the docstring as they stand in the code.\n\n```{{toctree}}\n:maxdepth: 1\n\n{lines}\n```\n"
    )


def instructor_page(cards: Sequence[Mapping[str, Any]]) -> str:
    """For someone who teaches with the course."""
    rows = [
        f"| [{card['question']}](/{card['name']}.ipynb) | {card['time'] or '-'} |" for card in cards if card["page"]
    ]
    return "\n".join(
        [
            "# For instructors\n",
            "**Copies for students.** `make student` writes the notebooks without solutions and outputs to "
            "`build/student/`; "
            "`make lab` offers them first, in an untracked copy, so that nobody works in the repository itself. "
            "An exercise "
            "is a task with a hint, a stub that runs and is visibly wrong, a check that says what is missing, and a "
            "solution, which the copies leave out. A copy in which nothing is solved runs to its end.\n",
            "**Machines.** Two cores per student are enough; no GPU is needed. After the first "
            "`make fetch` no network is needed, and the cache folder (`CONCEPTLAB_CACHE`) can be shared or "
            "copied to a room "
            "of machines.\n",
            "**Time.** What each notebook takes, in its own words:\n",
            "| notebook | time |\n|---|---|",
            *rows,
            "",
            "**A key.** `make instructor` writes the solutions of all exercises, their points and the rubrics of "
            "the written "
            "ones to `build/instructor/`.\n",
            re.sub(r"^#", "##", schedule(), flags=re.M),
        ]
    )


def decision_page() -> str:
    """The course's decision table."""
    return (
        f"{NO_CONTROLS}# Decision table\n\nWhich method for which question, what it costs, which control to "
        f"demand from "
        f"anyone who reports it, and how it is known to fail.\n\n{decision_table()._repr_html_()}\n"
    )


def section_page(title: str, text: str, found: Sequence[tuple[str, str]]) -> str:
    """A page of pieces that stand in notebooks: (document, Markdown) one after the other."""
    pieces = [f"## From [{name}](/{name}.ipynb)\n\n{piece}\n" for name, piece in found]
    return "\n".join([f"# {title}\n", text + "\n", *pieces])


def tables_with(source: str, word: str) -> list[str]:
    """The Markdown tables of a cell in whose head row `word` (a pattern, case ignored) occurs."""
    tables = re.findall(r"(?:^\|.*\|[ ]*\n?)+", source, re.M)
    return [table.strip() for table in tables if re.search(word, table.split("\n")[0], re.I)]
