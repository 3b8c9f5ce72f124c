"""The check of a device, on the CPU at tiny size: every check is ok, finds what is wrong, and stops no other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conceptlab.attacks import quantisation
from conceptlab.core import ConceptLabError
from conceptlab.experiments import check_gpu, failed_checks
from conceptlab.experiments import gpu_check as runner
from conceptlab.experiments.gpu import bench as B
from conceptlab.experiments.gpu import changing, dictionaries, reading
from conceptlab.experiments.gpu.bundled import check_bundled
from conceptlab.models import Change, random_model

CPU = torch.device("cpu")


@pytest.fixture
def bench(tmp_path):
    return B.Bench(CPU, folder=tmp_path)


@pytest.fixture
def checks(monkeypatch):
    """Put others in the place of the checks."""
    return lambda found: monkeypatch.setattr(runner, "CHECKS", found)


def test_every_check_is_ok_on_a_cpu_and_writes_its_figures(tmp_path, capsys):
    found = check_gpu("cpu", tmp_path / "gpu.json")
    assert failed_checks(found) == [], [found["checks"][name]["reason"] for name in failed_checks(found)]
    assert json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8")) == found
    assert found["device"] == "cpu" and {"torch", "transformers", "python"} <= found["versions"].keys()
    assert len(found["checks"]) == 21 and all(result["figures"] for result in found["checks"].values())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 22 and all("ok" in line for line in lines[1:])


def test_one_failure_stops_no_other_and_has_one_line(tmp_path, checks):
    def wrong(bench):
        raise ConceptLabError("The GPU counts to three.\nAnd more.")

    def broken(bench):
        raise RuntimeError("CUDA error: an illegal memory access\nCompile with TORCH_USE_CUDA_DSA")

    checks({"wrong": wrong, "broken": broken, "silent": lambda bench: 1 / 0, "fine": lambda bench: {"n": 3}})
    found = check_gpu("cpu", tmp_path / "gpu.json")
    reasons = {name: result["reason"] for name, result in found["checks"].items()}
    assert reasons == {
        "wrong": "The GPU counts to three.",
        "broken": "RuntimeError: CUDA error: an illegal memory access",
        "silent": "ZeroDivisionError: division by zero",
        "fine": "",
    }
    assert failed_checks(found) == ["wrong", "broken", "silent"] and found["checks"]["fine"]["figures"] == {"n": 3}


def test_an_error_without_words_is_a_failure_too(tmp_path, checks):
    def mute(bench):
        raise ConceptLabError("")

    checks({"mute": mute})
    found = check_gpu("cpu", tmp_path / "gpu.json")
    assert failed_checks(found) == ["mute"] and found["checks"]["mute"]["reason"] == "without a word"


def test_no_check_is_begun_after_the_time(tmp_path, checks):
    checks({"first": lambda bench: {"n": 1}, "second": lambda bench: {"n": 1}})
    found = check_gpu("cpu", tmp_path / "gpu.json", minutes=-1.0)
    assert [result["state"] for result in found["checks"].values()] == ["not run"] * 2
    assert failed_checks(found) == ["first", "second"]


def test_some_checks_and_unknown_ones(tmp_path):
    found = check_gpu("cpu", tmp_path / "gpu.json", only=["number types"])
    assert list(found["checks"]) == ["number types"]
    with pytest.raises(ConceptLabError, match="no check 'speed' here; the checks are number types"):
        check_gpu("cpu", tmp_path / "gpu.json", only=["speed"])


@pytest.mark.parametrize("device", [None, "cuda", "cuda:0"])
def test_without_a_gpu_it_says_so_before_any_work(tmp_path, checks, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    checks({"never": lambda bench: pytest.fail("a check was run")})
    with pytest.raises(ConceptLabError, match="no GPU that torch can use here, so nothing was checked") as error:
        check_gpu(device, tmp_path / "gpu.json")
    assert "\n" not in str(error.value) and not (tmp_path / "gpu.json").exists()


def test_devices_and_paths_that_are_not_there(tmp_path):
    with pytest.raises(ConceptLabError, match="no device 'tpu' here"):
        check_gpu("tpu", tmp_path / "gpu.json")
    with pytest.raises(ConceptLabError, match="is a folder"):
        check_gpu("cpu", tmp_path)


def test_the_machine_is_described_by_its_gpu(monkeypatch):
    class Properties:
        name, total_memory = "Tesla T4", 16 * 10**9

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (15 * 10**9, 16 * 10**9))
    found = runner.machine(torch.device("cuda:0"))
    assert (found["name"], found["capability"], found["memory_free"]) == ("Tesla T4", [7, 5], 15 * 10**9)
    assert found["driver"] and json.dumps(found)


# ---- the checks find what is wrong ---------------------------------------------------------------------------
def test_edits_that_leave_a_bit_are_found(bench, monkeypatch):
    def careless(change, parameter):
        original = parameter.detach().clone()
        change.then(lambda: parameter.data.copy_(original).flatten()[:1].mul_(1.01))

    monkeypatch.setattr(Change, "keep", careless)
    with pytest.raises(ConceptLabError, match="has other bits after the edit"):
        changing.edits(bench)


def test_minus_zero_is_another_bit(bench):
    lm = bench.model()
    name, p = next(iter(lm.parameters().items()))
    with torch.no_grad():
        p.flatten()[0] = 0.0
        before = B.bits(lm)
        p.flatten()[0] = -0.0
    with pytest.raises(ConceptLabError, match=f"{name} has other bits"):
        B.require_untouched(lm, before, "nothing")


def test_training_that_is_lost_in_rounding_is_found(bench, monkeypatch):
    monkeypatch.setattr("conceptlab.edits.training.rounded_at_random", lambda master, dtype, generator: 0 * master)
    with pytest.raises(ConceptLabError):
        changing.relearning(bench)
    monkeypatch.setattr("conceptlab.edits.training._exact", lambda p: True)  # steps on the weights themselves
    with pytest.raises(Exception, match="NoneType|masters"):
        changing.relearning(bench)


def test_scores_that_depend_on_the_batch_are_found(bench, monkeypatch):
    real = reading.score_questions

    def drifting(lm, questions, few_shot="", batch_size=16):
        found = real(lm, questions, few_shot, batch_size=batch_size)
        return type(found)(found.logprobs + 0.01 * (batch_size == 4), found.answers)

    monkeypatch.setattr(reading, "score_questions", drifting)
    with pytest.raises(ConceptLabError, match="scores in batches of 4 are 0.01 nats"):
        reading.scoring(bench)


def test_wrong_sparse_gradients_are_found(bench, monkeypatch):
    real = dictionaries._gradient

    def off(sae, x, name, half=False):
        return tuple(g * (1.1 if name == "sparse" else 1.0) for g in real(sae, x, name, half))

    monkeypatch.setattr(dictionaries, "_gradient", off)
    with pytest.raises(ConceptLabError, match="Sparse gradients are 0.1 of their size"):
        dictionaries.sparse_steps(bench)


def test_an_estimate_that_is_too_low_is_found(bench, monkeypatch):
    monkeypatch.setattr(B.Bench, "peak", lambda self, work: (work() and None or 0, 10**9))
    with pytest.raises(ConceptLabError, match="512 tokens took 1000 MB, and the estimate says"):
        reading.memory(bench)


def test_attacks_that_change_the_model_are_found(bench, monkeypatch):
    def forgetful(lm, intervention, evaluate, cfg):
        found = quantisation.quantise(lm, intervention, evaluate, cfg)
        with torch.no_grad():
            next(iter(lm.parameters().values())).add_(1.0)
        return found

    monkeypatch.setattr(changing, "quantise", forgetful)
    with pytest.raises(ConceptLabError, match="after quantise than before"):
        changing.inner_attacks(bench)


# ---- models ---------------------------------------------------------------------------------------------------
def test_a_bundled_model_is_compared_with_the_cpu(bench, tmp_path):
    folder = tmp_path / "model"
    bench.model("Gemma2").save(folder)
    found = check_bundled(bench, str(folder))
    assert found["nats_off_float32"] == found["nats_off"] == 0 and found["same_answer"] == 1
    assert found["dtype"] == "float32" and "No dictionary" in found["shipped_dictionary"]


def test_bundled_models_are_checked_on_a_gpu_where_they_are(monkeypatch):
    monkeypatch.setattr(runner, "cached_models", lambda: {"smollm2-135m": "folder"})
    assert "smollm2-135m" not in runner._chosen(CPU, ())
    assert "smollm2-135m" in runner._chosen(torch.device("cuda"), ())
    assert list(runner._chosen(torch.device("cuda"), ["smollm2-135m"])) == ["smollm2-135m"]


def test_figures_in_a_line():
    shown = runner.shown(
        {"a": 0.12345, "b": 123456.7, "c": 12345, "d": [1.0, 2.0], "e": {"f": 1}, "g": None, "h": True}
    )
    assert shown == "a 0.123, b 123,457, c 12,345, d 1 to 2, e (f 1), g None, h True"


def test_the_random_model_is_the_same_everywhere_and_reads_its_texts(bench):
    a, b = bench.model(), bench.model(dtype=torch.bfloat16)
    assert a.fingerprint() == bench.model().fingerprint() != random_model("Llama", bench.texts, seed=1).fingerprint()
    for name, p in a.parameters().items():
        assert torch.equal(p.to(torch.bfloat16), b.parameters()[name])
    assert a.decode(a.encode(bench.texts[0])) == bench.texts[0] and 0 not in a.encode(bench.texts[0])
    assert a.start_ids == [] and bench.model("Gemma2").start_ids == [1]


# ---- a device that is not the CPU -------------------------------------------------------------------------------
PRETEND = Path(__file__).resolve().parents[1] / "support" / "pretend_device.py"


def test_no_check_mixes_the_device_with_the_cpu():
    """Every tensor and generator of a check lies where it must, as far as that shows without a GPU."""
    done = subprocess.run([sys.executable, PRETEND], capture_output=True, text=True, encoding="utf-8", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.removesuffix(": ok") for line in done.stdout.splitlines() if line.endswith(": ok")] == list(
        runner.CHECKS
    )


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("torch.ones(3, device=D) + torch.ones(3)", "mixes the device with a tensor"),
        ("torch.ones(3)[torch.ones(3, device=D) > 0]", "mixes the device with a tensor"),
        ("torch.ones(3, device=D).index_put_((torch.tensor([0]),), torch.ones(1))", "mixes the device with a tensor"),
        ("torch.empty(3, device=D).normal_(generator=torch.Generator())", "was given a generator of the CPU"),
        ("torch.ones(3, device=D)[torch.tensor([0, 2])] * torch.tensor(2.0)", ""),
        ("torch.empty(3, device=D).normal_(generator=torch.Generator(D))", ""),
        ("torch.ones(3).to(D).cpu() + torch.ones(3)", ""),
    ],
)
def test_the_pretended_device_refuses_what_a_gpu_refuses(code, said):
    script = f"import torch, pretend_device as P; P.pretend(); D = P.DEVICE\nwith P.Mode(): {code}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PRETEND.parent, capture_output=True, text=True, encoding="utf-8"
    )
    assert (said in done.stderr and done.returncode == 1) if said else done.returncode == 0, done.stderr
