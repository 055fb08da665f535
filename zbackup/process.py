"""Processes of this machine, by names that are never used again. Only Linux tells enough."""

from __future__ import annotations

import os
from pathlib import Path

# What `nice` adds, too.
NICENESS = 10

# Of a process id: they are below 2^22 on Linux.
MOST_DIGITS = 7


def this_process() -> str | None:
    """Return boot, pid namespace, pid and start of this process; None where the system does not tell."""
    return _name(os.getpid())


def give_way() -> None:
    """
    Let others on this machine have the processor first.

    It counts for this thread (on Linux), and for the threads and programs that it starts from now on.
    """
    os.nice(NICENESS)


def pid_of(process: str) -> str:
    """Return its number, as its own machine or container counts."""
    return process.split("/")[-2] if process.count("/") >= 2 else "unknown"


def is_gone(process: str) -> bool:
    """Tell whether a process ended for sure. Of another machine, boot or container nothing is sure."""
    here = this_process()
    place, pid = process.rsplit("/", 2)[:-1] if process.count("/") >= 2 else ("", "")
    if here is None or not pid.isdecimal() or len(pid) > MOST_DIGITS or here.rsplit("/", 2)[0] != place:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    return _name(int(pid)) not in {None, process}


def _name(pid: int) -> str | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/pid").readlink()
        # The name of the program, in parentheses, may hold anything.
        state, *fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return None
    return f"{boot}/{namespace}/{pid}/{'ended' if state in b'ZX' else fields[18].decode()}"
