"""The drawn diagrams of notebooks 00 to 03 and of 11, and the list of all; the alternative text says what is shown."""

from __future__ import annotations

from math import cos, pi, sin

from .diagrams import Diagram
from .drawings_erasing import mirrored_neuron, row_edit, split_in_two, threat_models

__all__ = [
    "activation_functions", "autoencoder", "claim_and_control", "detection_and_fuzzing", "mirrored_neuron",
    "mlp_memory", "residual_stream", "row_edit", "split_in_two", "superposition", "threat_models", "two_lists",
]  # fmt: skip


def residual_stream() -> Diagram:
    """Notebook 00: every layer adds two vectors to a stream that is read at the end."""
    alt = (
        "The residual stream is a line from the embedding to the unembedding. In each layer, attention and the MLP "
        "read a normalised copy of it and add a vector to it. The logit lens reads the line early with the final norm "
        "and the unembedding."
    )
    d = Diagram(900, 300, alt)
    d.box(10, 128, 96, 44, "embedding").arrow((106, 150), (770, 150)).box(770, 128, 120, 44, "final norm,\nunembedding")
    d.label(440, 24, "h: one vector per position, d_model numbers", anchor="middle")
    for x, name in ((150, "layer 1"), (450, "layer L")):
        d.label(x + 130, 290, name, size=12, anchor="middle")
        for shift, part, color in ((0, "attention", "neighbour"), (140, "MLP", "target")):
            left = x + shift
            d.box(left + 10, 216, 100, 40, part, color)
            d.arrow((left + 20, 150), (left + 35, 216), color, dashed=True).arrow(
                (left + 85, 216), (left + 110, 157), color
            )
            d.label(left + 117, 138, "+", color, 18, "middle")
    d.label(425, 240, ". . .", anchor="middle")
    d.arrow((418, 150), (418, 92), "general", dashed=True).box(
        318, 48, 200, 44, "logit lens: the same norm\nand unembedding, early", "general", 12
    )
    return d


def mlp_memory() -> Diagram:
    """Notebook 00: an MLP layer as keys, activations and values."""
    alt = (
        "An MLP layer as a memory. The state x is compared with the key of every neuron. Each comparison gives an "
        "activation, positive or negative. The activation scales the value vector of that neuron, and the scaled "
        "vectors are added to the residual stream. Keys decide when, values decide what."
    )
    d = Diagram(900, 290, alt)
    d.box(10, 120, 110, 50, "state x\n(normalised)")
    heads = ((190, "keys: when"), (430, "activations"), (640, "value vectors: what"))
    for x, text in heads:
        d.label(x + 70, 24, text, anchor="middle")
    rows = (
        (46, "key 1", "a = +2.1", "v 1"),
        (121, "key 2", "a = -0.7", "v 2"),
        (196, "key d_mlp", "a = 0.0", "v d_mlp"),
    )
    for y, key, activation, value in rows:
        color = "target" if "+" in activation else ("neighbour" if "-" in activation else "ink")
        d.arrow((120, 145), (190, y + 22)).box(190, y, 140, 44, key).arrow((330, y + 22), (430, y + 22))
        d.box(430, y, 140, 44, activation, color).arrow((570, y + 22), (640, y + 22), color)
        d.box(640, y, 140, 44, value).arrow((780, y + 22), (836, 145), color)
    d.label(860, 151, "sum", size=14, anchor="middle")
    d.label(450, 276, "a negative activation turns its value vector round", "neighbour", 13, "middle")
    return d


def two_lists() -> Diagram:
    """Notebook 01: one value vector as two lists of tokens."""
    alt = (
        "A vector as two lists. The value vector is multiplied by the gain of the final norm and by the unembedding, "
        "which gives every token of the vocabulary one number. The tokens with the largest numbers form the plus list: "
        "Roman, Rome, Caesar. A positive activation pushes them up and a negative one down. Those with the smallest "
        "numbers form the minus list: flu, lens, velt. A negative activation pushes them up and a positive one down. "
        "The tokens in between are hardly moved."
    )
    d = Diagram(900, 292, alt)
    d.box(8, 118, 148, 56, "value vector v\nd_model numbers", "accent").arrow((156, 146), (196, 146))
    d.box(196, 118, 168, 56, "gain, unembedding:\na number per token").arrow((364, 146), (412, 146))
    lists = (
        (34, "plus list", "Roman\nRome\nCaesar ...", "target", "a > 0", "a < 0"),
        (198, "minus list", "flu\nlens\nvelt ...", "neighbour", "a < 0", "a > 0"),
    )
    for y, name, tokens, color, up, down in lists:
        d.label(426, y - 10, name, color).box(420, y, 190, 70, tokens, color)
        d.label(632, y + 30, f"pushed up where {up},", color).label(632, y + 50, f"down where {down}", color)
    for y in (118, 132, 146, 160):
        d.dot(515, y, radius=3)
    d.label(540, 144, "thousands of tokens in between: hardly moved", size=12)
    return d


def superposition() -> Diagram:
    """Notebook 02: five directions in a plane."""
    alt = (
        "Superposition in the plane. On the left two features lie on two axes and can be read off. On the right five "
        "features share the same two numbers: no two are orthogonal, so what one carries shows up in its neighbours, "
        "and the axes are none of them."
    )
    d = Diagram(900, 300, alt)
    for x, n, title in ((220, 2, "two features, two numbers"), (660, 5, "five features, two numbers")):
        d.label(x, 24, title, anchor="middle").line([(x - 110, 165), (x + 110, 165)]).line([(x, 55), (x, 275)])
        for i in range(n):
            angle = pi / 2 * i if n == 2 else 2 * pi * i / n + 0.47
            tip = (x + 100 * cos(angle), 165 - 100 * sin(angle))
            d.arrow((x, 165), tip, "target" if n == 2 else "neighbour")
            d.label(
                x + 122 * cos(angle),
                170 - 118 * sin(angle),
                f"d{i + 1}",
                "target" if n == 2 else "neighbour",
                13,
                "middle",
            )
    return d


def autoencoder() -> Diagram:
    """Notebook 02: encode, make sparse, decode."""
    alt = (
        "A sparse autoencoder. The vector x becomes many scores z by the encoder. An activation function sets most of "
        "them to zero. The few that are left, the features f, scale rows of the decoder, and these add up to a "
        "reconstruction of x. The loss compares it with x."
    )
    d = Diagram(900, 260, alt)
    columns = (
        (20, 6, "x", "ink"),
        (250, 12, "scores z", "neighbour"),
        (480, 12, "features f", "target"),
        (730, 6, "x, rebuilt", "ink"),
    )
    for x, n, name, color in columns:
        height, top = 15, 130 - 15 * n / 2
        d.label(x + 45, 22, name, color, 13, "middle")
        for i in range(n):
            long = (23 * (i + 1) * (3 if name == "scores z" else 5)) % 60 + 20
            if name == "features f" and i not in (2, 7, 8):
                long = 3
            d.bar(x + 45 - long / 2, top + height * i, long, height - 4, color)
    d.arrow((95, 130), (240, 130)).label(168, 120, "W_enc, b_enc", size=12, anchor="middle")
    d.arrow((345, 130), (475, 130)).label(410, 112, "most to 0", size=12, anchor="middle")
    d.arrow((580, 130), (720, 130)).label(650, 120, "W_dec, b_dec", size=12, anchor="middle")
    d.label(
        450,
        250,
        "loss: squared distance of x and its reconstruction, plus a price for features that are on",
        anchor="middle",
    )
    return d


def activation_functions() -> Diagram:
    """Notebook 02: how five dictionaries turn a score into a feature."""
    alt = (
        "Five activation functions as small graphs of feature against score. ReLU cuts at zero and, under its L1 loss, "
        "is pulled down. Gated opens at a gate and has a scale of its own. TopK keeps the k largest scores of a token, "
        "BatchTopK those of a batch, so the cut moves. JumpReLU cuts at a learned threshold and jumps."
    )
    d = Diagram(900, 220, alt)
    kinds = (("ReLU", 0, "L1 pulls it down"), ("Gated", 30, "gate, then scale"), ("TopK", 30, "cut per token"),
             ("BatchTopK", 30, "cut per batch"), ("JumpReLU", 30, "threshold learned"))  # fmt: skip
    for i, (name, cut, note) in enumerate(kinds):
        left, base = 20 + 176 * i, 160
        d.label(left + 70, 22, name, "target", 14, "middle").label(left + 70, 205, note, size=12, anchor="middle")
        d.line([(left, base), (left + 150, base)]).line([(left + 50, base + 12), (left + 50, 40)])
        start = left + 50 + cut
        d.line([(left, base), (start, base)], "target", 3)
        d.line([(start, base - cut), (left + 145, base - 95)], "target", 3)
        if cut:
            moves = name in ("TopK", "BatchTopK")
            d.line([(start, base), (start, base - cut)], "target", 2, dashed=True)
            d.label(start + 4, base + 16, "moves" if moves else "fixed", size=11)
        else:
            d.line([(start + 20, base), (left + 145, base - 75)], "control", 2, dashed=True)
    return d


def detection_and_fuzzing() -> Diagram:
    """Notebook 03: the two tests of a label."""
    alt = (
        "Two tests of a label. In detection the judge sees the label and whole contexts, some where the feature fires "
        "and some where it is silent, and must rank the firing ones higher. In fuzzing every context holds a firing, "
        "and one token is marked, the right one or another; the judge must rank the right marks higher."
    )
    d = Diagram(900, 290, alt)
    d.box(4, 118, 142, 50, "label: on\n'Islam', 'Islamic'", "target", 12)
    top = (("detection: does it fire in this context?", 40), ("fuzzing: does it fire on this token?", 180))
    for title, y in top:
        d.label(220, y - 14, title, "neighbour")
        d.arrow((146, 143), (215, y + 38))
        d.arrow((640, y + 38), (690, y + 38)).box(
            690, y + 14, 190, 48, "score right above wrong:\nAUROC, 0.5 is chance", "general", 12
        )
    d.box(220, 40, 420, 34, "... spread of [Islam] in West Africa   (fires)", size=13)
    d.box(220, 80, 420, 34, "... the river freezes in winter   (silent)", size=13)
    d.box(220, 180, 420, 34, "... spread of <<Islam>> in West Africa   (right)", size=13)
    d.box(220, 220, 420, 34, "... <<spread>> of Islam in West Africa   (wrong)", size=13)
    return d


def claim_and_control() -> Diagram:
    """Notebook 11: from a claim to what is left of it."""
    alt = (
        "A claim comes with a figure that convinces. We ask what else would give the same figure: chance, size, a "
        "common word, an easier explanation. A control has just this other thing and not the claimed one. The same "
        "measurement is made on both. What the claim has beyond its control is what is left: all of it, less, or "
        "nothing."
    )
    d = Diagram(900, 280, alt)
    d.box(10, 30, 212, 56, "the claim:\nwhat is it said to show?", "target", 12)
    d.box(10, 190, 212, 56, "the control: has the\nother thing, not the claimed", "general", 12)
    d.arrow((105, 86), (105, 190)).label(118, 128, "what else would", size=12).label(
        118, 146, "give this figure?", size=12
    )
    d.arrow((222, 58), (330, 110), "target").arrow((222, 218), (330, 166), "general")
    d.box(330, 100, 180, 76, "the same measurement,\nthe same items,\nintervals with width", size=12)
    d.arrow((510, 138), (570, 138)).label(540, 126, "minus", size=12, anchor="middle")
    d.box(570, 100, 120, 76, "what is left\nof the claim", "accent", 13)
    for y, text in (
        (28, "all: real, so far"),
        (116, "a part: how much?"),
        (204, "nothing: it was\nthe other thing"),
    ):
        d.arrow((690, 138), (740, y + 22)).box(740, y, 152, 44, text, size=12)
    return d
