"""
Run a command of the operator's, with a result on its stdin.

No shell reads the command. What goes wrong is returned, never raised: a hook must not end a run.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

SECONDS, KILLED_SECONDS = 60.0, 2.0


def run(command: Sequence[str], stdin: bytes, *, quiet: bool = False, seconds: float = SECONDS) -> str | None:
    """
    Run a command to its end; return why it failed, None when it did not.

    What it writes goes to our stderr, or nowhere (`quiet`). It has our environment. What is left of it and its
    children when time is up, or when we are interrupted, is killed.
    """
    out = subprocess.DEVNULL if quiet else 2
    try:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True)
    except OSError as error:
        return error.strerror or type(error).__name__
    except ValueError:  # a NUL
        return "it is no command"
    try:
        child.communicate(stdin, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"it did not end within {seconds:g} s"
    finally:
        if child.poll() is None:
            with suppress(OSError, subprocess.TimeoutExpired):  # in the kernel, a killed one may still hang
                os.killpg(child.pid, signal.SIGKILL)
                child.wait(KILLED_SECONDS)
        if child.stdin is not None:
            with suppress(OSError):
                child.stdin.close()
    if child.returncode < 0:
        return f"it was ended by signal {-child.returncode}"
    return f"its exit code is {child.returncode}" if child.returncode else None
