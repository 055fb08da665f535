"""Hooks: a command as it stands, with what it is given, and no longer than it may take."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from zbackup import hook
from zbackup.process import is_gone


def test_it_gets_the_result_and_its_arguments_as_they_stand(tmp_path: Path) -> None:
    """
    No shell reads them: a dollar and a semicolon are letters.
    """
    code = "import sys; open(sys.argv[1], 'w').write(sys.argv[2] + sys.stdin.read())"

    assert hook.run([sys.executable, "-c", code, str(tmp_path / "got"), "$HOME; "], b"{}\n") is None
    assert (tmp_path / "got").read_text() == "$HOME; {}\n"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["false"], "its exit code is 1"),
        (["sh", "-c", "kill -9 $$"], "it was ended by signal 9"),
        (["/nowhere/to/be/found"], "No such file or directory"),
        (["/"], "Permission denied"),
        (["a\0b"], "it is no command"),
    ],
)
def test_why_it_failed_is_said(command: list[str], told: str) -> None:
    assert hook.run(command, b"") == told


def test_one_that_does_not_read_is_no_failure() -> None:
    """
    More than fits into a pipe, and nobody takes it.
    """
    assert hook.run(["true"], b"x" * 1_000_000) is None


def test_one_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    """
    When its time is up; what it started goes with it.
    """
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "from zbackup.process import _name\n"
        "open(sys.argv[1], 'w').write(_name(child.pid))\n"
        "time.sleep(60)"
    )
    begun = time.monotonic()
    told = hook.run([sys.executable, "-c", code, str(tmp_path / "child")], b"x" * 1_000_000, seconds=1.5)

    assert told == "it did not end within 1.5 s"
    assert time.monotonic() - begun < 30
    child = (tmp_path / "child").read_text()
    for _ in range(1000):
        if is_gone(child):
            break
        time.sleep(0.01)
    assert is_gone(child)
