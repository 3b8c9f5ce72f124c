"""Device, number type, memory and threads, on machines that are not here."""

import os
import subprocess
import sys

import pytest
import torch

from conceptlab.core import ConceptLabError
from conceptlab.models import (
    backward_memory,
    choose_device,
    choose_dtype,
    compute,
    memory_free,
    memory_needed,
    next_token_loss,
    optimiser_memory,
    require_training_memory,
)

CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch):
    """Factory: a machine with so many GPUs of a capability."""

    def make(capability=(8, 0), n=1, free=16 * 10**9):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free, 2 * free))

    return make


# ---- device -------------------------------------------------------------------------------------------------
def test_the_device_is_a_gpu_where_there_is_one(gpu):
    gpu(n=2)
    assert choose_device() == torch.device("cuda") and choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == CPU
    gpu(n=0)
    assert choose_device() == CPU
    with pytest.raises(ConceptLabError, match="no GPU that torch can use here"):
        choose_device("cuda:0")


# ---- number type ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 0), torch.float32), ((7, 5), torch.float32), ((6, 1), torch.float32), ((8, 0), torch.bfloat16),
     ((8, 9), torch.bfloat16), ((9, 0), torch.bfloat16), ((12, 0), torch.bfloat16)],
)  # fmt: skip
def test_the_type_goes_by_what_the_chip_can(gpu, capability, dtype):
    """A T4 (7.5) has no fast bfloat16, and emulates it."""
    gpu(capability)
    assert choose_dtype(CUDA, "llama") is dtype and choose_dtype(CUDA, "gemma3_text") is dtype
    assert choose_dtype(CPU, "llama") is torch.float32


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3", "gemma3_text"])
@pytest.mark.parametrize(("capability", "advice"), [((7, 5), "float32"), ((8, 0), "bfloat16")])
def test_gemma_is_never_float16(gpu, family, capability, advice):
    gpu(capability)
    with pytest.raises(ConceptLabError, match=f"Gemma overflows in float16; load it in {advice}"):
        choose_dtype(CUDA, family, torch.float16)
    assert choose_dtype(CUDA, "llama", torch.float16) is torch.float16
    assert choose_dtype(CUDA, family, torch.float32) is torch.float32


# ---- memory -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tied", [False, True])
def test_the_estimate_counts_every_weight_once(tiny_llama, tmp_path, tied):
    from conceptlab.models.registry import skeleton

    lm = tiny_llama(tie_word_embeddings=tied)
    lm.save(tmp_path)
    weights = sum(p.numel() for p in lm.parameters().values())
    for dtype in (torch.float32, torch.bfloat16):
        need = memory_needed(skeleton("tiny", str(tmp_path)), dtype)
        assert need.weights == weights * dtype.itemsize
        logits = compute.BATCH_TOKENS * lm.d_vocab * (dtype.itemsize + 4)
        assert logits < need.activations < 1.1 * logits


def test_the_estimate_covers_a_forward_pass(tiny_llama, monkeypatch):
    """The largest tensors that are alive at once: logits in the model's type, and again in float32."""
    lm = tiny_llama(max_position_embeddings=compute.BATCH_TOKENS)
    logits = lm.logits(torch.ones(1, compute.BATCH_TOKENS, dtype=torch.long))
    assert memory_needed(lm.hf, torch.float32).activations >= logits.nbytes + logits.float().nbytes


def test_what_does_not_fit_is_refused_with_the_number(gpu):
    gpu(free=16 * 10**9)
    need = compute.Memory(weights=18 * 10**9, activations=10**9)
    with pytest.raises(
        ConceptLabError, match=r"big needs 18.0 GB of weights .* cuda:0 has 16.0 GB free; choose a small"
    ):
        compute.require_memory("big", need, CUDA)
    compute.require_memory("small", compute.Memory(15 * 10**9, 10**9), CUDA)
    with pytest.raises(ConceptLabError):
        compute.require_memory("just too big", compute.Memory(15 * 10**9, 10**9 + 1), CUDA)


def test_free_memory_of_this_machine_and_of_a_container(monkeypatch):
    monkeypatch.setattr(compute, "_free_of_machine", lambda: 8)
    for limit, free in ((None, 8), (3, 3), (30, 8)):
        monkeypatch.setattr(compute, "_free_of_group", lambda limit=limit: limit)
        assert memory_free(CPU) == free
    monkeypatch.setattr(compute, "_free_of_group", lambda: None)
    monkeypatch.setattr(compute, "_free_of_machine", lambda: None)
    assert memory_free(CPU) is None
    compute.require_memory("unknown", compute.Memory(10**18, 0), CPU)  # where nothing is known nothing is refused


def test_a_training_that_does_not_fit_is_refused_and_one_that_does_is_announced(gpu, monkeypatch, capsys):
    gpu(free=10 * 10**9)
    parts = {"of gradients": 4 * 10**9, "of Adam's moments": 6 * 10**9, "for 64 tokens": 1}
    with pytest.raises(
        ConceptLabError, match=r"It needs 4.0 GB of gradients, 6.0 GB of Adam's moments and 0.0 GB for 64 tokens, and "
        r"cuda:0 has 10.0 GB free; train fewer",
    ):  # fmt: skip
        require_training_memory("It", parts, CUDA)
    assert capsys.readouterr().out == ""
    require_training_memory("It", parts | {"for 64 tokens": 0}, CUDA)
    assert "It: about 4.0 GB of gradients, 6.0 GB" in (said := capsys.readouterr().out) and "10.0 GB are free" in said
    monkeypatch.setattr(compute, "memory_free", lambda device: 10)
    require_training_memory("It", {"a": 5}, CPU)
    assert capsys.readouterr().out == "", "on a CPU with room enough nothing is said"
    require_training_memory("It", {"a": 6}, CPU)
    assert "It: about" in capsys.readouterr().out
    monkeypatch.setattr(compute, "memory_free", lambda device: None)
    require_training_memory("It", {"a": 10**18}, CPU)  # where nothing is known nothing is refused


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_optimisers_estimate_is_what_its_tensors_take(dtype):
    from conceptlab.edits import Trainer

    p = torch.nn.Parameter(torch.ones(100, 7, dtype=dtype))
    trainer = Trainer([p], 1e-3)
    trainer.step((p * p).sum())
    (master,) = trainer.masters
    state = trainer.optimiser.state[master]
    held = [master.grad, state["exp_avg"], state["exp_avg_sq"]]
    held += [] if master is p else [master, *trainer._start, p]  # the weights' own gradient is as large as they are
    assert sum(x.nbytes for x in held) == sum(optimiser_memory(p.numel(), dtype).values())


def test_the_estimate_of_a_step_covers_what_the_blocks_keep(tiny_llama):
    """All that autograd saves for the way back, each tensor once."""
    lm, kept = tiny_llama(d_model=64, n_layers=3), {}
    lm.hf.requires_grad_(True)
    weights = {p.data_ptr() for p in lm.hf.parameters()}

    def keep(x):
        if x.untyped_storage().data_ptr() not in weights:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    ids = torch.randint(5, 1000, (4, 32), generator=torch.Generator().manual_seed(0))
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = next_token_loss(lm, ids, torch.ones_like(ids, dtype=torch.bool))
    assert torch.isfinite(loss)
    (estimate,) = backward_memory(lm, ids.numel()).values()
    assert 0.8 * sum(kept.values()) < estimate < 5 * sum(kept.values())


# ---- threads ------------------------------------------------------------------------------------------------
@pytest.fixture
def machine(monkeypatch):
    """Factory: a machine of so many cores beside so many busy threads; gives the threads that torch is told to use."""

    def make(n_cores, busy, environment=(), torch_has=None):
        told = []
        monkeypatch.setattr(compute, "_THREADS_ARE_SET", [])
        monkeypatch.setattr(compute, "cores", lambda: n_cores)
        monkeypatch.setattr(compute, "busy_elsewhere", lambda: busy)
        monkeypatch.setattr(torch, "get_num_threads", lambda: torch_has or n_cores)
        monkeypatch.setattr(torch, "set_num_threads", told.append)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            monkeypatch.delenv(name, raising=False)
        for name in environment:
            monkeypatch.setenv(name, "2")
        chosen = [compute.choose_threads(), compute.choose_threads()]
        assert chosen[0] == chosen[1] and len(told) <= 1, "once per process"
        return told

    return make


@pytest.mark.parametrize(
    ("n_cores", "busy", "threads"),
    [(2, 0, 2), (2, 0.4, 2), (2, 0.9, 1), (2, 9, 1), (16, 0, 16), (16, 4, 12), (1, 3, 1)],
)
def test_torch_gets_the_cores_that_are_free(machine, n_cores, busy, threads):
    assert machine(n_cores, busy) == ([] if n_cores == 1 else [threads])


def test_what_a_user_has_set_stays(machine):
    assert machine(8, 7, ["OMP_NUM_THREADS"]) == machine(8, 7, ["MKL_NUM_THREADS"]) == []
    assert machine(8, 7, torch_has=3) == []  # torch.set_num_threads(3) before


def test_busy_threads_are_counted_now():
    assert 0 <= compute.busy_elsewhere(samples=3, pause=0.0) < 10_000
    assert 1 <= compute.cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("environment", "policy"),
    [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active"), ({"GOMP_SPINCOUNT": "5"}, None),
     ({"KMP_BLOCKTIME": "0"}, None)],
)  # fmt: skip
def test_threads_wait_passively_unless_a_user_says_otherwise(environment, policy):
    """Set before torch can be imported, and without importing it."""
    code = "import conceptlab, os, sys; print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)"
    kept = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(policy), "False"]
