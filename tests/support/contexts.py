"""Contexts and labels made of random words, for judges and scorers."""

import torch

from conceptlab.autointerp import Example, Label


def context(text, place=-1, **fields):
    """A context from words; `text` is split before every space."""
    tokens = tuple(" " + word for word in text.split())
    defaults = {"index": 0, "row": 0, "pos": 9, "doc": 0, "kind": "spread"}
    return Example(**defaults | fields, tokens=tokens, place=place % len(tokens))


def random_contexts(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    words = "the old king of Rome sailed over 1066 seas, and gold won wars".split()
    picks = torch.randint(len(words), (n, 6), generator=generator).tolist()
    return [context(" ".join(words[i] for i in row)) for row in picks]


def random_label(unit, seed):
    generator = torch.Generator().manual_seed(seed)

    def weights(items):
        values = torch.randn(len(items), generator=generator).tolist()
        keep = (torch.rand(len(items), generator=generator) < 0.5).tolist()
        return {item: v for item, v, k in zip(items, values, keep, strict=True) if k}

    return Label(
        unit, "m", f"label {seed}", weights([" king", " Rome", " 1066", " won", " elsewhere"]),
        weights(["digits", "short words", "longer words", "capitalised words"]), weights([" of", " the", " and"]),
        weights(["king", "gold", "sailed", "old", "nowhere"]),
    )  # fmt: skip


def examples_of(spread, top=None):
    from conceptlab.autointerp import UnitExamples

    return UnitExamples(0, 0.1, top or spread, spread, [], [], [])


def writer_of(label):
    """An output-side explainer that always gives this label."""
    from conceptlab.autointerp import OutputExplainer

    writer = OutputExplainer.__new__(OutputExplainer)
    writer.explain = lambda examples: label
    return writer
