"""A backup that goes easy on a busy server, as a process: what others see of it, and how it is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.history import Command, push

from .conftest import Zbackup, start

# Longer than the rests after small events, which come before.
RESTING = """
    SELECT count(*) FROM pg_stat_activity
     WHERE application_name = 'zbackup' AND datname = current_database() AND state = 'idle'
       AND query = 'ROLLBACK' AND clock_timestamp() - state_change > '1 s'
"""


@pytest.fixture
def resting(
    archive: str, source: str, zbackup: Zbackup, request: pytest.FixtureRequest
) -> Iterator[subprocess.Popen[str]]:
    """A low-impact command that has read 8 MB at 256 KiB a second, and now rests for half a minute."""
    command: str = getattr(request, "param", "backup")
    where = ("--archive", archive, "--source", source)
    with psycopg.connect(source, autocommit=True) as connection:
        push(connection, "i1", Command("user", "large", payload="x" * 8_000_000))
        if command == "verify":
            assert zbackup("backup", *where, "--horizon-margin", "0s").code == 0
        with start(command, *where, "--low-impact", "--rate-limit", "256KiB") as child:
            try:
                for _ in range(2000):
                    row = connection.execute(RESTING).fetchone()
                    if child.poll() is not None or (row and row[0]):
                        break
                    time.sleep(0.01)
                yield child
            finally:
                child.kill()


@pytest.mark.parametrize("resting", ["backup", "verify"], indirect=True)
def test_a_rest_ends_with_the_run(resting: subprocess.Popen[str]) -> None:
    """
    What is told to stop while it rests does so by itself, long before the rest would end.
    """
    resting.send_signal(signal.SIGTERM)
    _, err = resting.communicate(timeout=120)

    assert resting.returncode == 130
    assert "stopped by a signal" in err
    assert "did not end" not in err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the niceness of threads")
def test_all_its_threads_give_way(resting: subprocess.Popen[str]) -> None:
    """
    No thread of it, and so no program that it starts, competes with the database as an equal.
    """
    threads = list(Path(f"/proc/{resting.pid}/task").iterdir())
    niceness = {os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in threads}

    assert len(threads) > 1
    assert min(niceness) > os.getpriority(os.PRIO_PROCESS, 0)


def test_low_impact_does_all_that_a_backup_does(archive: str, source: str, process: Zbackup) -> None:
    with psycopg.connect(source) as connection:
        push(connection, "i1", ("user", "new"))
    ran = process("backup", "--archive", archive, "--source", source, "--low-impact", "--audit", "--json")

    assert ran.code == 0, ran.out
    assert ran.result["events"] + ran.result["tail"] == 1
    assert ran.result["capture"]["new_bytes"] == 0
    verified = process("verify", "--archive", archive, "--source", source, "--low-impact", "--rate-limit", "100MB")
    assert verified.code == 0, verified.err
