"""The one place that decides sizes and device."""

from dataclasses import asdict

import pytest

from conceptlab.core import ConceptLabError
from conceptlab.course import PROFILES
from conceptlab.course.profiles import get_profile
from conceptlab.models.registry import known_models


@pytest.fixture
def gpu(monkeypatch):
    """Set whether torch sees a GPU, of 80 GB unless said otherwise."""
    import torch

    def make(there, free=80 * 10**9, capability=(8, 0)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: int(there))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free, free))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)

    return make


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


@pytest.mark.parametrize(
    ("free", "capability", "said"),
    [
        (
            4 * 10**9,
            (8, 0),
            "needs 5.2 GB for the weights of gemma-2-2b-it in bfloat16, and 4.0 GB of the GPU are free",
        ),
        (15 * 10**9, (8, 6), "needs 16.1 GB for the weights of llama-3.1-8b-instruct in bfloat16, and 15.0 GB"),
        (15 * 10**9, (7, 5), "needs 32.1 GB for the weights of llama-3.1-8b-instruct in float32, and 15.0 GB"),
        (8 * 10**9, (7, 5), "needs 10.4 GB for the weights of gemma-2-2b-it in float32"),
    ],
)
def test_paper_refuses_what_does_not_fit_with_the_number(gpu, free, capability, said):
    gpu(True, free, capability)
    with pytest.raises(ConceptLabError, match=said):
        get_profile("paper")
    assert get_profile("full").device == "cuda"  # the small models fit anywhere
    gpu(True, 17 * 10**9, (8, 0))
    assert get_profile("paper").device == "cuda"


def test_profiles_grow_and_name_known_models():
    quick, full, paper = (asdict(PROFILES[name]) for name in ("quick", "full", "paper"))
    assert {p[key] for p in (quick, full, paper) for key in ("model", "second_model")} <= set(known_models())
    for key, value in quick.items():
        if type(value) is int:  # not bool
            assert value <= full[key] <= paper[key], key
