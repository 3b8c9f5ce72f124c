"""Random models without a download, and the rows that a device holds."""

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.models import RANDOM_KINDS, cached_models, check_architecture, load_model, random_model, rows_that_fit
from conceptlab.models import compute as C

TEXTS = ["Question: What do cows eat?\nAnswer: grass", "the Nile is long"]


@pytest.mark.parametrize("kind", RANDOM_KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_kind_keeps_the_identities(kind, dtype):
    lm = random_model(kind, TEXTS, dtype=dtype)
    assert lm.dtype is dtype and max(check_architecture(lm).values()) < 16 * torch.finfo(dtype).eps


def test_an_unknown_kind():
    with pytest.raises(ConceptLabError, match="no random model 'Gpt9'; choose one of Llama, Qwen3"):
        random_model("Gpt9", TEXTS)


@pytest.mark.parametrize("text", [*TEXTS, "cows eat long grass", "Answer:"])
def test_the_words_come_back(text):
    lm = random_model("Llama", [*TEXTS, "cows eat long grass"])
    assert lm.decode(lm.encode(text)) == text and 0 not in lm.encode(text)


def test_unknown_words_are_the_unknown_token():
    lm = random_model("Llama", TEXTS)
    assert lm.encode(" zebra") == [0] and lm.single_token("Nile") > 2


def test_the_global_generator_is_not_what_draws_the_weights():
    torch.manual_seed(0)
    a = random_model("Llama", TEXTS).fingerprint()
    torch.manual_seed(1)
    assert random_model("Llama", TEXTS).fingerprint() == a


def test_it_is_saved_and_loaded_as_any_other(tmp_path):
    lm = random_model("Gemma3Text", TEXTS)
    lm.save(tmp_path)
    again = load_model(tmp_path, device="cpu")
    assert again.fingerprint() == lm.fingerprint() and again.encode(TEXTS[0]) == lm.encode(TEXTS[0])
    assert again.memory() == lm.memory() and again.memory().weights == sum(p.nbytes for p in lm.parameters().values())


def test_only_whole_models_in_the_cache_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPTLAB_CACHE", str(tmp_path))
    assert cached_models() == {}
    half, whole = tmp_path / "models" / "gemma3-270m", tmp_path / "models" / "smollm2-135m"
    half.mkdir(parents=True)
    whole.mkdir()
    (whole / "conceptlab.json").write_text('{"fingerprints": {}}', encoding="utf-8")
    assert cached_models() == {"smollm2-135m": whole}


class OnGPU:
    """What `rows_that_fit` asks of a model."""

    device, d_vocab, d_model, dtype = torch.device("cuda:0"), 10_000, 100, torch.bfloat16


@pytest.mark.parametrize(
    ("free", "most", "rows"),
    [(10**9, 1_024, 64), (10**9, 100, 64), (10**9, 50, 32), (10**9, 1, 1), (10**12, 1_024, 1_024), (1_000, 64, 1)],
)
def test_rows_are_half_of_what_is_free_a_power_of_two(monkeypatch, free, most, rows):
    monkeypatch.setattr(C, "memory_free", lambda device: free)
    per_row = 100 * (10_000 * 6 + 16 * 100 * 2)  # 100 tokens: 6.3 MB
    found = rows_that_fit(OnGPU(), 100, 16, most)
    assert found == rows and (found == 1 or found * per_row <= free / 2)


def test_a_cpu_keeps_its_number():
    assert rows_that_fit(random_model("Llama", TEXTS), 100, 16) == 16
