"""
The program in a process of its own, forked from one that has loaded it and does nothing else.

It lives and dies as one that was started, without the time that starting and loading take; for tests that run it
often.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Imported so that they are there when it forks: these are what the commands load when they need it.
import zbackup.backup
import zbackup.prune
import zbackup.restore
import zbackup.verify  # noqa: F401
from zbackup.__main__ import main

SECONDS = 120

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: its exit code, or the negative number of the signal, and what it wrote."""

    code: int
    out: str
    err: str


def forked(*arguments: str, **variables: str) -> Ended:
    """Run a command in this folder and environment, with some variables more."""
    with tempfile.TemporaryDirectory(prefix="zbackup-forked-") as folder:
        streams = Path(folder) / "out", Path(folder) / "err"
        child = _FORKS.Process(target=_run, args=(arguments, {**os.environ, **variables}, Path.cwd(), *streams))
        child.start()
        child.join(SECONDS)
        if child.exitcode is None:
            child.kill()
            child.join()
        assert child.exitcode is not None
        code = child.exitcode
        child.close()
        return Ended(code, *(stream.read_text() for stream in streams))


def _run(arguments: tuple[str, ...], environment: Mapping[str, str], folder: Path, out: Path, err: Path) -> None:
    warnings.simplefilter("error")
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), descriptor)
    sys.argv = ["zbackup", *arguments]
    main()
