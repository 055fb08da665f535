"""
The program in a process of its own, forked from one that has loaded it and does nothing else.

It lives and dies as one that was started, without the time that starting and loading take; for tests that run it
often.
"""

from __future__ import annotations

import io
import itertools
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from scripts.peak import high_water
from zbackup.__main__ import main
from zbackup.archive.archive import Archive
from zbackup.cli.main import main as run
from zbackup.cli.render import Output
from zbackup.moment import parse_point
from zbackup.progress import Progress
from zbackup.restore import RestoreOptions, restore
from zbackup.store.local import LocalStore

SECONDS = 240
"""until a process that does not end is killed"""

# Commands load these when they need them.
_LOADED = ("zbackup.backup", "zbackup.verify", "zbackup.prune", "zbackup.inspect", "boto3.session")

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__, *_LOADED])


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


def killed_restore(
    moment: int, where: Path, target: str, point: str = "latest", options: RestoreOptions | None = None
) -> bool:
    """Restore in a process that kills itself at its n-th progress record; False when it finished before."""
    ended = _fork(_restore_until, (moment, where, target, point, options or RestoreOptions()), {})
    assert ended.code in {0, -signal.SIGKILL}, ended.err
    return ended.code != 0


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


def _restore_until(moment: int, where: Path, target: str, point: str, options: RestoreOptions) -> None:
    numbers = itertools.count(1)

    def report(_: Progress) -> None:
        if next(numbers) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    restore(Archive.open(LocalStore(where)), target, parse_point(point, datetime.now(UTC)), options, report=report)
