"""A small drawing for every notebook, for the README's map and the site's cards: what it does, without a number.

The files in docs/images/thumbnails are made by `python -m conceptlab.course picture`; a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, exp, sin

from .diagrams import Diagram

WIDTH, HEIGHT = 320, 180


def _card(alt: str) -> Diagram:
    return Diagram(WIDTH, HEIGHT, alt).box(1, 1, WIDTH - 2, HEIGHT - 2)


def draw_tour() -> Diagram:
    """Found, erased, attacked."""
    d = _card("Three bars: tall before, short after the erasure, half as tall after an attack.")
    for x, height, color, text in (
        (60, 116, "ink", "before"),
        (138, 38, "target", "erased"),
        (216, 76, "accent", "back"),
    ):
        d.bar(x, 144 - height, 48, height, color).label(x + 24, 164, text, size=14, anchor="middle")
    return d.line([(40, 144), (284, 144)]).arrow((118, 58), (136, 92)).arrow((196, 98), (214, 72))


def draw_start_here() -> Diagram:
    """A stream through layers, read at every depth."""
    d = _card("A line through five layers; the reading gets darker towards the end.")
    d.arrow((20, 120), (304, 120))
    for i in range(5):
        x = 40 + 50 * i
        d.box(x, 100, 34, 40, "", "target" if i % 2 else "neighbour")
        d.arrow((x + 17, 98), (x + 17, 66), "general", dashed=True)
        d.bar(x + 5, 60 - 8 * (i + 1), 24, 8 * (i + 1), "general")
    return d


def draw_concept_vectors() -> Diagram:
    """One column of a weight matrix and its list of words."""
    d = _card("A matrix of weights with one row marked; from it an arrow to a short list of words.")
    for row in range(7):
        for column in range(7):
            d.bar(24 + 18 * column, 28 + 18 * row, 14, 14, "target" if row == 3 else "control")
    d.arrow((154, 89), (196, 89), "target")
    for i, word in enumerate(("Tokyo", "Kyoto", "yen")):
        d.label(206, 66 + 30 * i, word, "target", 19)
    return d


def draw_sparse_autoencoders() -> Diagram:
    """A mixture pulled apart."""
    d = _card("One bundle of mixed dots on the left; on the right the same dots in four rows, one colour each.")
    colors = ("target", "neighbour", "general", "second")
    for i in range(28):
        radius, angle = 9 * (i + 0.5) ** 0.5, 2.4 * i
        d.dot(82 + radius * cos(angle), 90 + radius * sin(angle), colors[(i * i + 3 * i) % 7 % 4], 6)
    d.arrow((146, 90), (186, 90))
    for row, color in enumerate(colors):
        for i in range(5 - row % 2):
            d.dot(206 + 23 * i, 36 + 36 * row, color, 7)
    return d


def draw_autointerp() -> Diagram:
    """Texts with marked words, and a label with a question mark."""
    d = _card("Lines of text in which one word each is marked; beside them a label with a question mark.")
    for i, (start, width) in enumerate(((70, 40), (40, 34), (104, 46), (58, 38))):
        y = 36 + 30 * i
        d.bar(24, y, 140, 12, "control").bar(24 + start - 24, y - 2, width, 16, "second")
    return d.arrow((172, 88), (204, 88)).box(208, 60, 92, 56, "rivers?", "target", 19)


def draw_pisces() -> Diagram:
    """Rows of a matrix rewritten."""
    d = _card("A matrix of weights in which two rows were rewritten; all others are as they were.")
    for row in range(7):
        for column in range(14):
            hollow = row in (2, 5)
            x, y = 34 + 18 * column, 28 + 18 * row
            d.bar(x, y, 14, 14, "target" if hollow else "control")
            if hollow:
                d.line([(x + 2, y + 12), (x + 12, y + 2)], "ink", 3)
    return d


def draw_attacks() -> Diagram:
    """A curve that climbs back, beside its control."""
    d = _card("After the erasure a curve climbs back with the attacker's steps; the dashed line is the original.")
    d.line([(36, 24), (36, 150), (300, 150)]).line([(36, 46), (296, 46)], dashed=True)
    way = [(40 + 25 * i, 134 - 74 * (1 - exp(-0.42 * i))) for i in range(11)]
    d.line(way, "target", 4)
    for point in way[::2]:
        d.dot(*point, "target", 6)
    return d.label(168, 170, "steps of the attacker", size=15, anchor="middle")


def draw_unlearning_lab() -> Diagram:
    """What is forgotten against what is spared, by method."""
    d = _card("Points of five methods in a plane: how much is forgotten against how much is spared.")
    d.line([(40, 20), (40, 148), (300, 148)])
    points = (
        (80, 52, "control"),
        (132, 70, "second"),
        (180, 54, "target"),
        (228, 98, "neighbour"),
        (272, 126, "accent"),
    )
    for x, y, color in points:
        d.dot(x, y, color, 11)
    return d.label(170, 168, "forgotten", size=14, anchor="middle").label(48, 28, "spared", size=14)


def draw_dissecting() -> Diagram:
    """Parts of the original put back into the changed model, layer by layer."""
    d = _card("Two stacks of layers; one layer of the first is put into the second.")
    for i in range(5):
        y = 24 + 28 * i
        d.box(46, y, 86, 22, "", "neighbour").box(190, y, 86, 22, "", "neighbour" if i == 1 else "target")
    return d.arrow((134, 63), (188, 63), "neighbour")


def draw_specialisation() -> Diagram:
    """Two sets of parameters that overlap."""
    d = _card("A field of dots: some serve one subject, some another, some both.")
    for row in range(6):
        for column in range(12):
            x, y = 32 + 23.5 * column, 30 + 24 * row
            left, right = (x - 120) ** 2 + (y - 90) ** 2 < 68**2, (x - 200) ** 2 + (y - 90) ** 2 < 68**2
            d.dot(x, y, "accent" if left and right else "target" if left else "neighbour" if right else "control", 7)
    return d


def draw_reasoning_or_memory() -> Diagram:
    """Two clouds and the direction between them."""
    d = _card("Two clouds of points with an arrow from one to the other, and a question mark above it.")
    for i in range(20):
        radius, angle = 9.5 * (i + 0.5) ** 0.5, 2.4 * i
        d.dot(84 + radius * cos(angle), 104 + radius * sin(angle), "neighbour", 5)
        d.dot(236 + radius * cos(angle), 84 + radius * sin(angle), "target", 5)
    return d.arrow((96, 102), (226, 86)).label(160, 66, "?", size=34, anchor="middle")


def draw_early_exit() -> Diagram:
    """Exits after every layer."""
    d = _card("A stack of layers; one question leaves after the second of them, another one goes to the end.")
    for i in range(6):
        d.box(34 + 42 * i, 62, 32, 74)
    d.arrow((14, 80), (98, 80), "general").line([(98, 80), (116, 80), (116, 44)], "general")
    d.arrow((116, 44), (116, 26), "general").label(126, 40, "easy", "general", 16)
    return d.arrow((14, 116), (306, 116), "target").label(270, 158, "hard", "target", 16)


def draw_is_it_fake() -> Diagram:
    """A result beside its control."""
    d = _card("A result with its interval beside its control; the two intervals overlap.")
    d.line([(30, 140), (294, 140)])
    for x, y, low, high, color in ((108, 56, 28, 92, "target"), (212, 78, 48, 110, "control")):
        d.line([(x, low), (x, high)], color, 4).line([(x - 14, low), (x + 14, low)], color, 4)
        d.line([(x - 14, high), (x + 14, high)], color, 4).dot(x, y, color, 11)
    d.label(108, 162, "result", "target", 16, "middle").label(212, 162, "control", size=16, anchor="middle")
    return d.label(160, 84, "?", size=34, anchor="middle")


THUMBNAILS: dict[str, Callable[[], Diagram]] = {
    "tour": draw_tour,
    "00_start_here": draw_start_here,
    "01_concept_vectors": draw_concept_vectors,
    "02_sparse_autoencoders": draw_sparse_autoencoders,
    "03_autointerp": draw_autointerp,
    "04_pisces": draw_pisces,
    "05_attacks": draw_attacks,
    "06_unlearning_lab": draw_unlearning_lab,
    "07_dissecting_unlearning": draw_dissecting,
    "08_specialisation": draw_specialisation,
    "09_reasoning_or_memory": draw_reasoning_or_memory,
    "10_early_exit": draw_early_exit,
    "11_is_it_fake": draw_is_it_fake,
}


def badge(left: str, right: str, color: str = "#0B5BC0") -> str:
    """A label of two halves as SVG, such as "licence | MIT": a fact about the course, no service is asked for it."""
    first, second = (14 + 7 * len(text) for text in (left, right))
    text = "font-family='DejaVu Sans, Verdana, sans-serif' font-size='11' fill='#fff' text-anchor='middle'"

    def word(x: float, what: str, width: int) -> str:
        return f"<text x='{x:g}' y='14' {text} textLength='{width - 14}' lengthAdjust='spacingAndGlyphs'>{what}</text>"

    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{first + second}' height='20' role='img' "
        f"aria-label='{left}: {right}'><title>{left}: {right}</title>"
        f"<rect width='{first + second}' height='20' rx='3' fill='#444'/>"
        f"<path d='M{first} 0h{second - 3}a3 3 0 0 1 3 3v14a3 3 0 0 1 -3 3h-{second - 3}z' fill='{color}'/>"
        f"{word(first / 2, left, first)}{word(first + second / 2, right, second)}</svg>\n"
    )
