"""The stack of changes: every order of exit, generators left open, threads, exceptions and Ctrl-C at any moment."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch

import conceptlab
from conceptlab.attacks import Quantised, SoftPrompt
from conceptlab.core import ConceptLabError
from conceptlab.edits import Dense, WeightEdit, lora, trainable, trained_parameters, value_edit
from conceptlab.models import Change
from untouched import assert_untouched, weights


@pytest.fixture
def lm(tiny_llama):
    return tiny_llama()


def kinds(lm):
    """One change of every kind there is."""
    noise = 0.1 * torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    edit = WeightEdit.of(lm, {lm.down_proj_name(0): Dense(noise)})
    return {
        "edit": lambda: edit.applied(lm),
        "rounding": lambda: Quantised(None, 3).applied(lm),
        "training": lambda: trainable(lm, trained_parameters(lm)),
        "lora": lambda: lora(lm, [lm.down_proj_name(1)], 2),
        "hooks": lambda: lm.intervene({("mlp_output", 0): lambda x: 0 * x}),
        "soft prompt": lambda: SoftPrompt((5,), torch.ones(1, 16)).applied(lm),
        "untied": lambda: Change(lm, "untied embeddings", lm.untie),
        "skipped": lambda: lm.skip_before(1),
    }


NAMES = ("edit", "rounding", "training", "lora", "hooks", "soft prompt", "untied", "skipped")


def n_hooks(lm):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.hf.modules())


def assert_clean(lm, before, fingerprint):
    assert_untouched(lm, before)
    assert len(lm.changes) == 0 and n_hooks(lm) == 0 and lm.fingerprint() == fingerprint
    assert not any("forward" in vars(m) for m in lm.hf.modules())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def enter_both(lm, first, second):
    a, b = kinds(lm)[first](), kinds(lm)[second]()
    a.__enter__()
    b.__enter__()
    return a, b


def leave(change):
    change.__exit__(None, None, None)


@pytest.mark.parametrize("first", NAMES)
def test_every_pair_of_kinds_in_both_orders_of_exit(tiny_llama, first):
    lm = tiny_llama(tie_word_embeddings=True)
    before, fingerprint = weights(lm), lm.fingerprint()
    for second in NAMES:
        a, b = enter_both(lm, first, second)
        leave(b)
        leave(a)
        assert_clean(lm, before, fingerprint)
        a, b = enter_both(lm, first, second)
        with pytest.raises(ConceptLabError, match="still open when .* reverse order") as caught:
            leave(a)
        assert "\n" not in str(caught.value)
        assert_clean(lm, before, fingerprint)  # the block of a ended: nothing of a, nor of what was put on it, is left
        with pytest.raises(ConceptLabError, match="had been taken off before its block ended"):
            leave(b)
        assert_clean(lm, before, fingerprint)


def left_open(make):
    """A generator inside the block of a change."""
    with make():
        yield


def test_a_generator_left_open_inside_a_block(lm):
    before, fingerprint = weights(lm), lm.fingerprint()
    make = kinds(lm)
    generator = left_open(make["edit"])
    with pytest.raises(ConceptLabError, match="generators"), make["rounding"]():
        next(generator)
    assert_clean(lm, before, fingerprint)
    with pytest.raises(ConceptLabError, match="had been taken off"):
        next(generator)
    assert_clean(lm, before, fingerprint)


def test_a_generator_left_open_by_itself_is_seen_and_can_be_taken_off(lm, tmp_path):
    before, fingerprint = weights(lm), lm.fingerprint()
    generator = left_open(kinds(lm)["edit"])
    next(generator)
    assert [c.what for c in lm.changes] == ["an edit (by hand)"]
    with pytest.raises(ConceptLabError, match="cannot be saved while changes are on it"):
        lm.save(tmp_path / "model")
    assert lm.restore() == ["an edit (by hand)"] and lm.restore() == []
    assert_clean(lm, before, fingerprint)
    del generator  # says on stderr that it had been taken off
    generator = left_open(kinds(lm)["edit"])
    next(generator)
    generator.close()
    assert_clean(lm, before, fingerprint)


def test_an_exit_stack_and_an_exception_in_the_block(lm):
    before, fingerprint = weights(lm), lm.fingerprint()
    with pytest.raises(ZeroDivisionError), contextlib.ExitStack() as stack:
        for make in kinds(lm).values():
            stack.enter_context(make())
        raise ZeroDivisionError
    assert_clean(lm, before, fingerprint)


def test_an_exception_while_it_is_put_on(lm):
    before, fingerprint = weights(lm), lm.fingerprint()
    name = lm.down_proj_name(0)

    def begin(change):
        change.keep(lm.parameters()[name])
        with torch.no_grad():
            lm.parameters()[name].zero_()
        raise MemoryError

    with pytest.raises(MemoryError), Change(lm, "half a change", begin):
        pass
    assert_clean(lm, before, fingerprint)


def test_a_step_that_fails_does_not_keep_the_others_from_being_undone(lm):
    before, fingerprint = weights(lm), lm.fingerprint()
    p = lm.parameters()[lm.down_proj_name(0)]

    def begin(change):
        change.keep(p)
        change.then(lambda: 1 / 0)
        with torch.no_grad():
            p.zero_()

    with pytest.raises(ZeroDivisionError), Change(lm, "clumsy", begin):
        pass
    assert_clean(lm, before, fingerprint)


def test_the_same_change_twice_is_refused_and_may_be_used_again(lm):
    before, fingerprint = weights(lm), lm.fingerprint()
    change = kinds(lm)["edit"]()
    with change, pytest.raises(ConceptLabError, match="is on tiny-llama already"), change:
        pass
    assert_clean(lm, before, fingerprint)
    with change:
        assert lm.fingerprint() != fingerprint
    assert_clean(lm, before, fingerprint)


# ---- threads ----------------------------------------------------------------------------------------------
def in_thread(function):
    found = []

    def go():
        try:
            found.append(function())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("name", NAMES)
def test_another_thread_can_neither_enter_nor_leave(lm, name):
    before, fingerprint = weights(lm), lm.fingerprint()
    change = kinds(lm)["edit"]()
    with change:
        inside = weights(lm)
        for use in (kinds(lm)[name]().__enter__, lambda: change.__exit__(None, None, None), lm.restore):
            error = in_thread(use)
            assert isinstance(error, ConceptLabError) and "Another thread is changing tiny-llama" in str(error)
        assert all(torch.equal(x, inside[n]) for n, x in weights(lm).items())
    assert_clean(lm, before, fingerprint)


def test_what_a_thread_left_on_when_it_ended_can_be_taken_off(lm):
    before, fingerprint = weights(lm), lm.fingerprint()
    in_thread(kinds(lm)["edit"]().__enter__)
    assert len(lm.changes) == 1 and lm.fingerprint() != fingerprint and lm.changes.base() == fingerprint
    assert lm.restore() == ["an edit (by hand)"]
    assert_clean(lm, before, fingerprint)


def test_two_models_in_two_threads_do_not_meet(lm, tiny_llama):
    other = tiny_llama(seed=1)
    before, fingerprint = weights(other), other.fingerprint()
    with kinds(lm)["edit"]():
        name = other.down_proj_name(0)
        edit = value_edit(other, 0, [1], torch.ones(1, 16))

        def inside():
            with edit.applied(other):
                return torch.equal(weights(other)[name], before[name])

        assert in_thread(inside) is False
    assert other.fingerprint() == fingerprint
    assert_untouched(other, before)


# ---- the fingerprint ---------------------------------------------------------------------------------------
def test_the_fingerprint_is_known_again_after_a_change_without_reading(lm, monkeypatch):
    make, fingerprint = kinds(lm), lm.fingerprint()
    monkeypatch.setattr("conceptlab.models.identity.fingerprint", lambda weights: "read again")
    for name in NAMES:
        with make[name]():
            pass
        assert lm.fingerprint() == fingerprint, name
    with make["edit"](), make["rounding"]():
        assert lm.changes.base() == fingerprint
    assert lm.fingerprint() == fingerprint


def test_what_was_written_by_hand_inside_a_block_is_not_taken_for_what_was_there(lm):
    fingerprint, other = lm.fingerprint(), lm.parameters()[lm.down_proj_name(1)]
    with kinds(lm)["edit"](), torch.no_grad():
        other[0, 0] += 1  # a weight that the edit does not touch: it stays changed
    assert lm.fingerprint() != fingerprint
    with torch.no_grad():
        changed = lm.fingerprint()
        with kinds(lm)["edit"]():
            other[0, 0] += 1
            with trainable(lm, {lm.down_proj_name(1): other}):
                other.zero_()
        assert lm.fingerprint() not in (fingerprint, changed)


# ---- Ctrl-C -----------------------------------------------------------------------------------------------
CHILD = textwrap.dedent("""
    import os, random, signal, sys, threading, time
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from contextlib import contextmanager
    from conceptlab.attacks import Quantised
    from conceptlab.edits import Dense, INPUT, Rows, WeightEdit, applied, trainable, trained_parameters
    from conceptlab.models import LanguageModel

    number, hits = getattr(signal, sys.argv[1]), int(sys.argv[2])
    armed = False

    def handler(*_):
        global armed
        if armed:
            armed = False  # one at a time: the next may come once this one has been looked at
            raise KeyboardInterrupt

    signal.signal(number, handler)
    torch.manual_seed(0)
    cfg = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=6, num_attention_heads=2,
                      num_key_value_heads=2, vocab_size=3000, tie_word_embeddings=True)
    lm = LanguageModel("tiny", LlamaForCausalLM(cfg).to(torch.bfloat16), None, "")
    changes = {lm.down_proj_name(i): Dense(torch.randn(32, 64)) for i in range(6)}
    changes[lm.embedding_name() + INPUT] = Rows(torch.tensor([5]), torch.ones(1, 32), torch.tensor(3000))
    edit = WeightEdit.of(lm, changes)

    class Generator:
        @contextmanager
        def applied(self, lm):
            with edit.applied(lm), lm.intervene({("mlp_output", 1): lambda x: x}):
                yield lm

    @contextmanager
    def training():
        with trainable(lm, trained_parameters(lm)):
            with torch.no_grad():
                for p in trained_parameters(lm).values():
                    p.add_(1)
            yield

    makers = {"edit": lambda: edit.applied(lm), "rounded": lambda: Quantised(edit, 4).applied(lm),
              "generator": lambda: applied(Generator(), lm), "training": training}
    before = {n: p.detach().clone() for n, p in lm.parameters().items()}
    rng = random.Random(0)

    def pester():
        while True:
            time.sleep(rng.random() * 0.006)
            if armed:
                os.kill(os.getpid(), number)

    def clean():
        same = all(torch.equal(p, before[n]) for n, p in lm.parameters().items())
        return same and not len(lm.changes) and lm.is_tied and torch.is_grad_enabled()

    threading.Thread(target=pester, daemon=True).start()
    for kind, make in makers.items():
        wrong = met = 0
        while met < hits:
            try:
                armed = True
                while True:
                    with make():
                        pass
            except KeyboardInterrupt:
                pass
            met += 1
            if not clean():
                wrong += 1
                lm.restore()
        print(kind, met, wrong, signal.getsignal(number) is handler)
""")


@pytest.mark.parametrize("number", ["SIGINT", "SIGALRM"])
def test_a_signal_at_any_moment_leaves_every_bit(tmp_path, number):
    """Before: 11 of 75 hits on a tiny bfloat16 model left weights edited."""
    (tmp_path / "child.py").write_text(CHILD, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(conceptlab.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "child.py"), number, "60"],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == [f"{k} 60 0 True" for k in ("edit", "rounded", "generator", "training")]
