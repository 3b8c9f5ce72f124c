"""The template grammar of contrast sets: what the kinds of one story share, and that nothing gives a kind away."""

from collections import Counter

import pytest

from conceptlab.core import ConceptLabError
from conceptlab.data import (
    ITEM_KINDS,
    contrast_examples,
    matched_stories,
    mmlu_contrast,
    naive_contrast,
    story_templates,
    trivia_contrast,
)


@pytest.fixture(scope="module")
def stories():
    return matched_stories(12)


def test_every_story_is_asked_for_every_kind_with_the_same_options(stories):
    assert len(stories) == 12 * 3 * len(story_templates())
    groups = {}
    for item in stories:
        groups.setdefault(item.group, []).append(item)
    for items in groups.values():
        assert sorted(item.kind for item in items) == sorted(ITEM_KINDS)
        assert len({item.text.split("\nQuestion:")[0] for item in items}) == 1
        assert len({item.options for item in items}) == 1 and len({item.gold for item in items}) == 3
        assert len(set(items[0].options)) == 4


def test_words_of_questions_are_the_same_for_every_kind(stories):
    asked = {k: Counter(x.text.rpartition("Question:")[2] for x in stories if x.kind == k) for k in ITEM_KINDS}
    assert asked["step"] == asked["copy"] == asked["memory"]


def test_answers_stand_in_the_story_where_they_are_told_and_nowhere_else(stories):
    for item in stories:
        story = item.text.split("\nQuestion:")[0].replace(".", " ").split()
        told = item.kind == "copy" or (item.kind == "step" and item.template in ("city", "animal", "colour"))
        assert (item.gold in story) == told, item.text
        assert not any(c.isdigit() for c in item.text)


def test_steps_are_right(stories):
    numbers = "zero one two three four five six seven eight".split()
    for item in stories:
        if item.kind == "step" and item.template == "coins":
            words = item.text.split("\n")[0].replace(".", "").split()
            more = next(i for i, w in enumerate(words) if w == "more")
            who, delta = words[more + 2], words[more - 2]
            base = words[next(i for i, w in enumerate(words) if w == who and words[i + 1 : i + 2] == ["has"]) + 2]
            assert numbers.index(item.gold) == numbers.index(base) + numbers.index(delta), item.text


def test_answers_are_as_frequent_in_every_kind():
    items = matched_stories(300, templates=["animal"])
    share = {k: Counter(x.gold for x in items if x.kind == k) for k in ITEM_KINDS}
    for value in share["copy"]:
        assert max(share[k][value] for k in ITEM_KINDS) < 2 * min(share[k][value] for k in ITEM_KINDS)


def test_sets_are_those_of_their_seed_and_refuse_what_they_do_not_hold(stories):
    assert matched_stories(12) == stories and matched_stories(12, seed=1) != stories
    with pytest.raises(ConceptLabError, match="in threes"):
        matched_stories(4)
    with pytest.raises(ConceptLabError, match="city, animal"):
        matched_stories(3, templates=["riddle"])
    with pytest.raises(ConceptLabError, match="rarer kind"):
        mmlu_contrast(10**4)
    with pytest.raises(ConceptLabError, match="at most that many"):
        naive_contrast(10**4)


@pytest.mark.parametrize("make", [naive_contrast, mmlu_contrast])
def test_naive_sets_have_both_kinds_once_each(make):
    items = make(20)
    assert Counter(x.kind for x in items) == {"step": 20, "memory": 20}
    assert all(x.text.endswith("Answer:") and x.gold == x.options[x.answer] for x in items)
    assert len({x.group for x in items}) == 40


def test_sums_are_right():
    for item in naive_contrast(100)[:100]:
        numbers = [int(w) for w in item.text.replace("?", " ").replace(".", " ").split() if w.isdigit()]
        a, b = numbers
        want = a + b if "minus" not in item.text and "left" not in item.text else abs(a - b)
        assert item.gold == str(want), item.text


def test_trivia_shares_the_story_and_no_answer_stands_in_it(stories):
    items = trivia_contrast(stories)
    steps, others = items[: len(items) // 2], items[len(items) // 2 :]
    for a, b in zip(steps, others, strict=True):
        assert a.text.split("\nQuestion:")[0] == b.text.split("\nQuestion:")[0] and a.group == b.group


def test_examples_are_answered_and_of_no_template(stories):
    text = contrast_examples()
    assert text.count("Answer:") == 3 and "drink" in text and not any("drink" in item.text for item in stories)
