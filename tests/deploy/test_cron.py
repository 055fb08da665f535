"""The crontab, read and run as cron does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .files import DEPLOY, ROOT

LINES = [line for line in (DEPLOY / "crontab").read_text().splitlines() if line and not line.startswith("#")]
SETTINGS = dict(line.split("=", 1) for line in LINES if re.match(r"\w+=", line))
JOBS = [line for line in LINES if not re.match(r"\w+=", line)]
MOST = (59, 23, 31, 12, 7)


def test_each_job_has_a_time_a_user_and_a_command() -> None:
    """
    As cron.d wants it: five fields within their bounds, then who, then what; a % that is none of cron's is escaped.
    """
    assert SETTINGS.keys() == {"MAILTO", "SHELL", "PATH"}
    assert len(JOBS) == 1
    for job in JOBS:
        *fields, user, command = job.split(None, 6)
        assert len(fields) == 5
        for field, most in zip(fields, MOST, strict=True):
            assert field == "*" or 0 <= int(field) <= most
        assert user == "zbackup"
        assert not re.search(r"(?<!\\)%", command)
        assert (DEPLOY / "crontab").read_text().endswith("\n")


@pytest.fixture
def night(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the job as cron would, but with a sleep that only notes how long it was to be."""
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {
        "zbackup": f'exec {sys.executable} -m zbackup "$@"',
        "sleep": f'echo "$1" >>{tmp_path}/slept',
    }
    for name, line in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)

    def run(**environment: str) -> subprocess.CompletedProcess[str]:
        command = JOBS[0].split(None, 6)[6].replace("\\%", "%")
        return subprocess.run(
            [SETTINGS["SHELL"], "-c", command],
            env={"HOME": str(tmp_path), "PATH": f"{folder}:{SETTINGS['PATH']}", "PYTHONPATH": str(ROOT), **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_failures_and_warnings_are_mailed_and_success_is_not(
    night: Callable[..., subprocess.CompletedProcess[str]], source: str, tmp_path: Path
) -> None:
    """
    Nothing is printed when all is well; otherwise, also where a run that succeeds warns, all that was said, and the
    code is the program's. It begins at some moment of twenty minutes.
    """
    if not shutil.which(SETTINGS["SHELL"]):
        pytest.skip(f"no {SETTINGS['SHELL']} on this machine")
    there = {"ZBACKUP_ARCHIVE": str(tmp_path / "archive"), "ZBACKUP_SOURCE": source}
    init = [sys.executable, "-m", "zbackup", "init"]
    subprocess.run(init, env={**os.environ, **there}, capture_output=True, check=True)

    good, bad = night(**there), night(**there | {"ZBACKUP_ARCHIVE": str(tmp_path / "none")})
    warned = night(**there | {"ZBACKUP_METRICS_FILE": str(tmp_path / "none" / "zbackup.prom")})

    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    assert (warned.returncode, warned.stderr) == (0, "")
    assert re.search(rf"^warning: .*{tmp_path}/none", warned.stdout, re.MULTILINE)
    assert bad.returncode == 20
    assert str(tmp_path / "none") in bad.stdout
    assert all(0 <= int(seconds) < 1200 for seconds in (tmp_path / "slept").read_text().split())
