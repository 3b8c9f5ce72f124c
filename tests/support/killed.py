"""Run a function in a process of its own and kill it: after a while, or at its n-th access to files."""

import multiprocessing
import os
import signal
import sys
import time

FORK = multiprocessing.get_context("fork")
TOUCHES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "shutil.rmtree")
TOUCHES += ("ctypes.dlsym", "os.chmod", "os.listdir")


def kill_after(seconds, work, *arguments, how=signal.SIGKILL):
    """Exit code of `work(*arguments)` in a forked process that gets a signal after some seconds."""
    process = FORK.Process(target=_quietly, args=(work, arguments))
    process.start()
    time.sleep(seconds)
    if process.is_alive():
        os.kill(process.pid, how)
    process.join()
    return process.exitcode


def kill_at(n, work, *arguments, how=signal.SIGKILL):
    """Exit code of `work(*arguments)` in a forked process killed at its n-th access to files; 0: too late."""
    process = FORK.Process(target=_counting, args=(n, how, work, arguments))
    process.start()
    process.join()
    return process.exitcode


def _counting(n, how, work, arguments):
    left = n

    def hook(event, _):
        nonlocal left
        if event in TOUCHES:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), how)

    sys.addaudithook(hook)
    _quietly(work, arguments)


def _quietly(work, arguments):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        work(*arguments)
    except KeyboardInterrupt:
        os._exit(130)
    os._exit(0)
