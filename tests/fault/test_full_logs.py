"""Nights on which the disk is full that the output of the program is sent to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from tests.cli import conftest as cli
from tests.cli.conftest import Zbackup
from tests.fault.nights import Night, lived_in

bare, zbackup = cli.bare, cli.zbackup

pytestmark = pytest.mark.slow

FULL = Path("/dev/full")


@pytest.fixture
def night(bare: Path, zbackup: Zbackup, new_database: Callable[[], str]) -> Night:
    if not FULL.exists():
        pytest.skip("this system has no /dev/full")
    night = Night(zbackup, new_database, lived_in(new_database(), users=20), str(bare / "archive"))
    night.init()
    return night


def run(*arguments: str, full: Literal["stdout", "stderr"]) -> tuple[int, str, str]:
    """Run a command with one of its streams on a full disk."""
    with FULL.open("w") as disk:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "zbackup", *arguments],
            stdout=disk if full == "stdout" else subprocess.PIPE,
            stderr=disk if full == "stderr" else subprocess.PIPE,
            check=False,
            text=True,
            timeout=120,
        )
    return done.returncode, done.stdout or "", done.stderr or ""


def test_a_full_log_stops_no_backup(night: Night) -> None:
    """
    What the program says on its way may be lost: the backup is made, and its result is told.
    """
    code, out, _ = run(*night.backup[:-1], full="stderr")

    assert (code, night.sound()) == (0, 1)
    assert out.startswith("backup 2")


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_result_that_cannot_be_written(night: Night, flags: tuple[str, ...]) -> None:
    """
    A backup whose result is lost is made all the same, and whoever reads the exit code knows (4).
    """
    code, _, err = run(*night.backup[:-1], *flags, full="stdout")

    assert (code, night.sound()) == (4, 1)
    assert "could not be written to stdout: No space left on device" in err
    assert "Traceback" not in err


def test_an_error_that_cannot_be_written(night: Night) -> None:
    """
    A command that failed keeps its own exit code when nothing of it can be told.
    """
    failing = ("list", "--archive", f"{night.address}-of-others")

    assert run(*failing, full="stderr")[0] == 20
    code, _, err = run(*failing, "--json", full="stdout")

    assert (code, "no folder" in err) == (20, True)
