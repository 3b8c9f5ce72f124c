"""Two arms beside each other: the same questions in the same order, of concepts that both have."""

import pytest
import torch

from conceptlab.experiments import TOGETHER, Beside, Relearnt, beside, beside_control, together


@pytest.fixture
def records(monkeypatch):
    def arm(erased, after, concept, names):
        return Relearnt(
            torch.zeros(len(erased)), torch.tensor(erased), torch.tensor(after), torch.tensor(concept), names
        )

    found = {
        "pisces": arm([1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [0, 0, 1], ("a", "b")),
        "noise": arm([5.0, 3.0], [0.0, 0.0], [0, 1], ("c", "b")),
        "none": arm([], [], [], ()),
        "again": arm([0.0, 0.0, 0.0], [7.0, 8.0, 9.0], [0, 1, 1], ("b", "a")),
    }
    monkeypatch.setattr(beside, "relearnt", lambda model, method, attack: found[method])


def test_only_concepts_of_both(records):
    found = beside_control("m", "noise")
    assert list(found) == ["b"] and [x.tolist() for x in found["b"]] == [[3.0], [4.0], [3.0], [0.0]]
    assert beside_control("m", "none") == {}


def test_each_concept_with_its_own_questions_whatever_their_order_and_all_together(records):
    found = beside_control("m", "again")
    assert list(found) == ["a", "b", TOGETHER]
    assert found["a"].control_after.tolist() == [8.0, 9.0] and found["b"].control_after.tolist() == [7.0]
    assert found[TOGETHER].before.tolist() == [1.0, 2.0, 3.0]
    assert found[TOGETHER].control_after.tolist() == [8.0, 9.0, 7.0]
    one = {"a": Beside(*torch.zeros(4, 2))}
    assert together(one) == one
