"""
The program in a process of its own, forked from one that has loaded it and does nothing else.

It lives and dies as one that was started, without the time that starting and loading take; for tests that run it
often.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Imported so that they are there when it forks: these are what the commands load when they need it.
import zbackup.backup
import zbackup.prune
import zbackup.restore
import zbackup.verify  # noqa: F401
from scripts.peak import high_water
from zbackup.__main__ import main
from zbackup.cli.main import main as run
from zbackup.cli.render import Output

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
    return _fork(_run, arguments, variables)


def forked_together(*commands: Sequence[str]) -> tuple[list[Ended], int]:
    """Run commands after one another in one process; return how each ended, and the most memory that it had."""
    ended = _fork(_run_together, commands, {})
    assert ended.code == 0, ended.err
    told, peak = json.loads(ended.out)
    return [Ended(*each) for each in told], peak


def _fork(work: Callable[..., None], values: Sequence[object], variables: Mapping[str, str]) -> Ended:
    with tempfile.TemporaryDirectory(prefix="zbackup-forked-") as folder:
        streams = Path(folder) / "out", Path(folder) / "err"
        surroundings = {**os.environ, **variables}, Path.cwd(), *streams
        child = _FORKS.Process(target=_settle, args=(surroundings, work, values))
        child.start()
        child.join(SECONDS)
        if child.exitcode is None:
            child.kill()
            child.join()
        assert child.exitcode is not None
        code = child.exitcode
        child.close()
        return Ended(code, *(stream.read_text() for stream in streams))


def _settle(
    surroundings: tuple[Mapping[str, str], Path, Path, Path], work: Callable[..., None], values: Sequence[object]
) -> None:
    """Be a process like one that was started there."""
    environment, folder, out, err = surroundings
    warnings.simplefilter("error")
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), descriptor)
    work(*values)


def _run(*arguments: str) -> None:
    sys.argv = ["zbackup", *arguments]
    main()


def _run_together(*commands: Sequence[str]) -> None:
    told: list[tuple[int, str, str]] = []
    for command in commands:
        out, err = io.StringIO(), io.StringIO()
        told.append((run(command, Output(out, err)), out.getvalue(), err.getvalue()))
    # Asked of the process's memory: the peak of getrusage is that of the process that forked, too.
    sys.stdout.write(json.dumps((told, high_water())))
