"""The drawn diagrams of notebooks 04 and 05. Each says in its alternative text what it shows."""

from __future__ import annotations

from .diagrams import Diagram


def row_edit() -> Diagram:
    """Notebook 04: encode, edit and decode one row of the weights."""
    alt = (
        "Editing one row of the weights. The row that a neuron writes is encoded into feature activations as if it "
        "were an activation of the layer. The activation of the concept's feature is set to a large value of the "
        "opposite sign, all others stay. Decoding gives the new row, and what the dictionary cannot rebuild of the old "
        "row is added to it unchanged."
    )
    d = Diagram(900, 300, alt)
    d.box(10, 100, 130, 56, "row w_j: what\nneuron j writes").arrow((140, 128), (316, 128))
    d.label(228, 118, "encode", size=12, anchor="middle")
    columns = ((232, "features a_j", 16), (500, "features, edited", -92))
    for left, title, length in columns:
        d.label(left + 92, 24, title, size=13, anchor="middle")
        d.line([(left + 104, 40), (left + 104, 216)])
        for i, long in enumerate((30, 12, 44, length, 8, 24, 4)):
            y = 48 + 24 * i
            if long < 0:
                d.bar(left + 104 + long, y, -long, 14, "target")
            else:
                d.bar(left + 104, y, long, 14, "target" if i == 3 else "ink")
    d.arrow((394, 128), (486, 128), "target").label(440, 118, "one changes", "target", 12, "middle")
    d.label(440, 148, "f to -s σ μ M", "target", 12, "middle")
    d.arrow((660, 128), (745, 128)).label(702, 118, "decode", size=12, anchor="middle")
    d.box(745, 100, 145, 56, "new row w_j'", "target")
    d.line([(75, 156), (75, 262), (817, 262)], dashed=True).arrow((817, 262), (817, 158), dashed=True)
    d.label(446, 284, "what the dictionary cannot rebuild of w_j (the residual) is kept as it is", anchor="middle")
    return d


def mirrored_neuron() -> Diagram:
    """Notebook 04: what the edit makes of a neuron."""
    alt = (
        "What a mirrored neuron does. The neuron still reacts to the concept as before, since only the row that it "
        "writes is changed. Before the edit it writes a little along the concept's direction. After the edit the same "
        "reaction writes a lot in the opposite direction. On text about anything else the neuron is silent, and a "
        "silent neuron writes nothing, whatever its row holds."
    )
    d = Diagram(900, 270, alt)
    for x, text in ((110, "text"), (330, "neuron j reacts"), (530, "its row, along d"), (765, "what is written")):
        d.label(x, 24, text, anchor="middle")
    rows = (
        (40, "'Tokyo', before", "strongly", "neighbour", "as trained", 40, "toward the concept", "neighbour"),
        (115, "'Tokyo', after", "strongly", "target", "reversed, large", -92, "far away from it", "target"),
        (190, "'Paris', after", "hardly", "ink", "reversed, large", -3, "nothing to speak of", "ink"),
    )
    for y, text, reacts, color, row, long, says, shade in rows:
        d.box(30, y, 160, 44, text).arrow((190, y + 22), (255, y + 22), color)
        d.box(255, y, 150, 44, reacts, color).arrow((405, y + 22), (455, y + 22), color)
        d.box(455, y, 150, 44, row, color).arrow((605, y + 22), (655, y + 22), color)
        d.line([(765, y), (765, y + 26)])
        d.bar(765 if long > 0 else 765 + long, y + 6, abs(long), 14, shade)
        d.label(765, y + 42, says, shade, 12, "middle")
    d.label(450, 258, "the edit changes what the neuron writes, not when it reacts", "target", 13, "middle")
    return d


def threat_models() -> Diagram:
    """Notebook 05: who attacks, with what in hand."""
    alt = (
        "Threat models. The edited model is attacked by four kinds of people. Who can only ask may rephrase questions "
        "or put text in front of them. Who can look inside may read the states with the logit lens or with a probe. "
        "Who holds the weights may round them or train them. Who holds the edit itself may undo it, which is the "
        "strongest and the least realistic of the four. Each is compared with the same attack on the original, on a "
        "random edit, and on a twin that was never taught."
    )
    d = Diagram(900, 310, alt)
    d.box(360, 108, 180, 56, "the edited model", "target")
    places = (
        (10, 20, "who can ask: prompts,\nother words, languages", "general"),
        (640, 20, "who can look inside:\nlogit lens, probe", "neighbour"),
        (10, 196, "who holds the weights:\nrounding, relearning", "second"),
        (640, 196, "who holds the edit too:\nundoing (no real attacker)", "control"),
    )
    for x, y, text, color in places:
        d.box(x, y, 250, 56, text, color)
        start = (x + 250 if x < 300 else x, y + 28)
        end = (360 if x < 300 else 540, 124 if y < 100 else 150)
        d.arrow(start, end, color)
    d.label(450, 284, "each against three controls at the same budget:", anchor="middle")
    d.label(450, 304, "the original, a random edit, a twin that was never taught", anchor="middle")
    return d


def split_in_two() -> Diagram:
    """Notebook 05: retraining on T, testing on V."""
    alt = (
        "The split into T and V. The facts that an edit was meant to remove are split in two. The attacker trains on "
        "T: texts about the concept from which every sentence with a tested answer is cut. The test asks V. If V comes "
        "back although nobody taught it again, the knowledge was hidden and not removed. If it comes back by training "
        "on unrelated text as well, that was repair of damage."
    )
    d = Diagram(900, 250, alt)
    d.box(10, 92, 160, 56, "facts that the\nedit should remove", "target")
    d.arrow((170, 108), (245, 62)).arrow((170, 132), (245, 188))
    d.box(245, 34, 210, 56, "T: texts, cut of all\ntested answers", "second")
    d.box(245, 160, 210, 56, "V: the tested\nquestions", "neighbour")
    d.arrow((455, 62), (520, 62), "second").box(520, 34, 170, 56, "train the edited\nmodel on T", "second")
    d.arrow((605, 90), (605, 160), "second").arrow((455, 188), (520, 188), "neighbour")
    d.box(520, 160, 170, 56, "ask V", "neighbour").arrow((690, 188), (745, 188), "neighbour")
    d.box(745, 160, 145, 56, "V is back:\nit was hidden", "target")
    d.label(818, 60, "no text of T", size=12, anchor="middle").label(
        818, 76, "holds an answer of V", size=12, anchor="middle"
    )
    return d
