"""Tasks from templates: classes even, test words never trained on, no single word that gives the answer away."""

import random
from collections import Counter

import pytest

from conceptlab.core import ConceptLabError
from conceptlab.early_exit import SIZES, TEMPLATES, describe, load_task, over_groups
from conceptlab.early_exit.templates import Item, split_groups


@pytest.mark.parametrize("name", TEMPLATES)
def test_classes_are_even_and_groups_whole(name):
    task = load_task(name)
    assert SIZES[name] == 0 and task == load_task(name), "the whole task, the same every time"
    assert len(set(task.texts)) == len(task.texts) and len(task.groups) == len(task.texts) - task.n_train
    assert len(set(task.groups)) >= 10
    for part in (task.labels[: task.n_train], task.labels[task.n_train :]):
        counts = Counter(part).values()
        assert len(counts) == len(task.classes) and max(counts) < 1.4 * min(counts)
    assert describe(name)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_word_of_the_test_is_in_no_training_text(name):
    items = TEMPLATES[name](random.Random(0))
    train, test = split_groups(items, 0.4, random.Random(1))
    assert {i.group for i in train}.isdisjoint({i.group for i in test})
    assert len(train) + len(test) == len({i.text for i in items})


@pytest.mark.parametrize("name", ["agreement", "sentiment", "entailment", "sense"])
def test_the_shared_word_alone_says_nothing(name):
    by_word = {}
    for item in TEMPLATES[name](random.Random(0)):
        by_word.setdefault(item.group, []).append(item.label)
    assert all(0.35 < Counter(labels).most_common(1)[0][1] / len(labels) < 0.65 for labels in by_word.values())


def test_the_last_noun_says_nothing_about_agreement():
    items = TEMPLATES["agreement"](random.Random(0))
    assert Counter((i.label, i.text.endswith("s")) for i in items).most_common(1)[0][1] == len(items) / 4


def test_a_split_keeps_every_class_on_both_sides():
    items = [Item(f"{c} {g} {i}", c, f"{c}{g}") for c in "abc" for g in range(5) for i in range(2)]
    train, test = split_groups(items, 0.4, random.Random(0))
    assert {i.label for i in train} == {i.label for i in test} == set("abc") and len(test) == 12


def test_intervals_over_groups_are_wider_where_items_of_a_group_agree():
    import torch

    values = torch.tensor([0.0, 1.0] * 10).repeat_interleave(8)
    groups = torch.arange(20).repeat_interleave(8).tolist()
    alone, whole = over_groups(values), over_groups(values, groups)
    assert whole.value == alone.value and whole.high - whole.low > 2 * (alone.high - alone.low)
    with pytest.raises(ConceptLabError, match="one for each item"):
        over_groups(values, groups[:-1])
