"""Signals wait for protected code, come through everywhere else, and handlers are put back."""

import contextlib
import signal
import sys
import threading
import time

import pytest

from conceptlab.core import hold_signals, interrupts, protect, release_signals

HANDLERS = (signal.default_int_handler, signal.getsignal(signal.SIGTERM))


@pytest.fixture
def held():
    before = {n: signal.getsignal(n) for n in interrupts._NUMBERS}
    assert hold_signals()
    yield
    release_signals()
    assert {n: signal.getsignal(n) for n in interrupts._NUMBERS} == before


def spin(seconds=0.05):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def whole(log):
    log.append("begun")
    signal.raise_signal(signal.SIGINT)
    spin(0.02)
    log.append("ended")


def test_a_signal_waits_for_protected_code_and_comes_then(held):
    protect(sys._getframe().f_code.co_filename + " of nobody", "whole")
    log = []
    with pytest.raises(KeyboardInterrupt):
        whole(log)
    assert log == ["begun"]  # not protected: at once
    interrupts._whole.add((whole.__code__.co_filename, "whole"))
    try:
        log.clear()
        with pytest.raises(KeyboardInterrupt):
            whole(log)
            spin()
        assert log == ["begun", "ended"]
    finally:
        interrupts._whole.discard((whole.__code__.co_filename, "whole"))


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGTERM, signal.SIGUSR1])
def test_every_signal_with_a_handler_in_python(number):
    class Late(Exception):
        pass

    def handler(*_):
        raise Late

    old = signal.signal(number, handler)
    try:
        assert hold_signals()
        assert signal.getsignal(number) is interrupts._handle
        with pytest.raises(Late):
            signal.raise_signal(number)
            spin()
        release_signals()
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, old)


def test_defaults_and_ignored_signals_are_left_alone():
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        hold_signals()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        release_signals()
    finally:
        signal.signal(signal.SIGINT, old)


def test_holds_nest_and_a_handler_set_meanwhile_stays():
    old = signal.getsignal(signal.SIGINT)
    hold_signals()
    hold_signals()
    release_signals()
    assert signal.getsignal(signal.SIGINT) is interrupts._handle

    def mine(*_):
        pass

    signal.signal(signal.SIGINT, mine)
    release_signals()
    assert signal.getsignal(signal.SIGINT) is mine
    signal.signal(signal.SIGINT, old)


def test_other_threads_hold_nothing():
    found = []
    thread = threading.Thread(target=lambda: found.append(hold_signals()))
    thread.start()
    thread.join()
    assert found == [False]


def test_contexts_made_of_generators_are_not_cut_between_their_frames(held):
    assert contextlib.__file__ in interrupts._files and interrupts.__file__ in interrupts._files
