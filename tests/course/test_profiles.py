"""The one place that decides sizes and device."""

from dataclasses import asdict

import pytest

from conceptlab.core import ConceptLabError
from conceptlab.course import PROFILES
from conceptlab.course.profiles import get_profile
from conceptlab.models.registry import known_models


@pytest.fixture
def gpu(monkeypatch):
    """Set whether torch sees a GPU."""
    import torch

    return lambda there: monkeypatch.setattr(torch.cuda, "is_available", lambda: there)


def test_quick_is_the_default(monkeypatch, gpu):
    gpu(False)
    monkeypatch.delenv("CONCEPTLAB_PROFILE", raising=False)
    assert get_profile() == PROFILES["quick"] and get_profile().device == "cpu"
    monkeypatch.setenv("CONCEPTLAB_PROFILE", "")
    assert get_profile().name == "quick"


def test_the_variable_and_the_argument(monkeypatch, gpu):
    gpu(True)
    monkeypatch.setenv("CONCEPTLAB_PROFILE", "full")
    assert (get_profile().name, get_profile().device) == ("full", "cuda")
    assert get_profile("paper").name == "paper"  # the argument wins


def test_bad_profiles(gpu):
    gpu(False)
    with pytest.raises(ConceptLabError, match="Unknown profile 'huge'; set CONCEPTLAB_PROFILE to one of quick, full"):
        get_profile("huge")
    with pytest.raises(ConceptLabError, match="The paper profile needs a CUDA device"):
        get_profile("paper")


def test_profiles_grow_and_name_known_models():
    quick, full, paper = (asdict(PROFILES[name]) for name in ("quick", "full", "paper"))
    assert {p[key] for p in (quick, full, paper) for key in ("model", "second_model")} <= set(known_models())
    for key, value in quick.items():
        if type(value) is int:  # not bool
            assert value <= full[key] <= paper[key], key
