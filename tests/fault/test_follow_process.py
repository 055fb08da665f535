"""`follow` as a process, beside writers, other runs, crashes and signals."""

from __future__ import annotations

import json
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.cli import conftest as cli
from tests.fix_archive import archived_rows, newest, restored, source_rows
from tests.fix_postgres import StartPostgres
from tests.history import create_schema, push
from zbackup.archive.archive import Archive
from zbackup.compact import FACTOR
from zbackup.metrics import parse
from zbackup.metrics_file import read_file
from zbackup.verify import verify

bare = cli.bare

Record = dict[str, Any]

PATIENCE = 60
"""Seconds until a test gives up."""

QUICK = ("--every", "100ms", "--horizon-margin", "0", "--no-capture")


class Follow:
    """A `zbackup follow --json` under way."""

    def __init__(self, archive: Archive, source: str, *options: str) -> None:
        command = [sys.executable, "-W", "error", "-m", "zbackup", "follow", "--json"]
        where = ["--archive", archive.store.address, "--source", source]
        self.process = subprocess.Popen([*command, *where, *QUICK, *options], stdout=subprocess.PIPE, text=True)
        self.records: list[Record] = []
        self._coming: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def until(self, wanted: Callable[[Record], bool]) -> Record:
        """Return the next outcome that is wanted."""
        while (record := self._coming.get(timeout=PATIENCE)) is not None:
            self.records.append(record)
            if record["type"] == "increment" and wanted(record):
                return record
        raise AssertionError(f"it ended: {self.records[-1:]}")

    def until_caught_up(self, source: str) -> Record:
        """Return the next outcome that has all that is committed by now."""
        with psycopg.connect(source) as connection:
            row = connection.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        return self.until(lambda record: record["confirmed"] and datetime.fromisoformat(record["confirmed"]) >= row[0])

    def end(self, number: signal.Signals = signal.SIGTERM) -> Record:
        """Send a signal, and return the last record."""
        self.process.send_signal(number)
        self.process.wait(PATIENCE)
        self._reader.join()
        while (record := self._coming.get()) is not None:
            self.records.append(record)
        return self.records[-1]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def codes(self) -> set[int]:
        """The exit codes of all errors that it went on after."""
        return {record["error"]["exit_code"] for record in self.records if record.get("error")}

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._coming.put(json.loads(line))
        self._coming.put(None)


def committed(record: Record) -> bool:
    return record["outcome"] == "committed"


@pytest.fixture
def source(database: str) -> str:
    with psycopg.connect(database) as connection:
        create_schema(connection)
        push(connection, "i1", ("user", "first"))
    return database


@pytest.fixture
def follow(archive: Archive, source: str) -> Iterator[Callable[..., Follow]]:
    """Follow the test's database into the test's archive, unless told otherwise."""
    started: list[Follow] = []

    def start(*options: str, source: str = source) -> Follow:
        started.append(Follow(archive, source, *options))
        return started[-1]

    yield start
    for one in started:
        one.close()


@contextmanager
def writing(dsn: str) -> Generator[None]:
    """Push without a pause while the block runs."""
    ended = threading.Event()

    def write_on() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            number = 0
            while not ended.wait(0.01):
                push(connection, "i1", ("user", f"w{number % 7}"))
                number += 1

    thread = threading.Thread(target=write_on)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_what_is_written_meanwhile_is_archived(
    archive: Archive, source: str, follow: Callable[..., Follow], new_database: Callable[[], str]
) -> None:
    """
    Log, tail and a restore are the source's rows after SIGTERM; small chunks were merged, and `backup` had its turn.
    """
    following = follow()
    with writing(source):
        for _ in range(FACTOR):
            following.until(committed)
    following.until(lambda record: record["outcome"] == "unchanged")
    command = [sys.executable, "-m", "zbackup", "backup", "--archive", archive.store.address, "--source", source]
    beside = subprocess.run([*command, "--no-capture"], check=False, capture_output=True, text=True)
    with psycopg.connect(source) as connection:
        push(connection, "i1", ("user", "last"))
    following.until(committed)
    following.until_caught_up(source)
    result = following.end()

    assert following.process.returncode == 0
    assert (result["type"], result["command"]) == ("result", "follow")
    assert beside.returncode == 0, beside.stderr
    assert following.codes == set()
    rows = source_rows(source)
    assert archived_rows(archive) == rows
    assert any("/compact." in chunk.name for chunk in archive.chunks(newest(archive).log))
    head = archive.catalog().head()
    assert head is not None
    assert not archive.catalog().strays(head)
    target = new_database()
    restored(archive, target)
    assert source_rows(target) == rows


def test_a_server_that_restarts_is_waited_for(
    archive: Archive, start_postgres: StartPostgres, follow: Callable[..., Follow]
) -> None:
    """
    Tries come further apart while it is away; when it is back all goes on, captures and counts, too.
    """
    server = start_postgres()
    source = server.dsn(tcp=True)
    with psycopg.connect(source) as connection:
        create_schema(connection)
        push(connection, "i1", ("user", "first"))
    following = follow("--capture-every", "2s", source=source)
    first = following.until(committed)
    server.stop()
    failed = [following.until(lambda record: record["outcome"] == "failed") for _ in range(2)]
    server.start()
    with psycopg.connect(source) as connection:
        push(connection, "i1", ("user", "second"))
    after = following.until(committed)
    thorough = following.until(lambda record: record["thorough"])
    following.until_caught_up(source)
    result = following.end()

    assert following.process.returncode == 0
    assert first["thorough"]
    assert thorough["outcome"] == "committed"
    assert following.codes == {10}
    assert [record["failures"] for record in failed] == [1, 2]
    assert failed[1]["failing_since"] == failed[0]["last_failure"]
    assert failed[1]["pause"] > failed[0]["pause"]
    assert (after["failures"], after["failing_since"]) == (0, None)
    assert after["last_success"] > after["last_failure"]
    assert result["failed"] >= 2
    assert server.password not in json.dumps(following.records)
    assert archived_rows(archive) == source_rows(source)


def test_killed_and_started_again(archive: Archive, source: str, follow: Callable[..., Follow]) -> None:
    """
    A follow that was killed in the middle leaves nothing that the next one minds, its lease neither.
    """
    with writing(source):
        for _ in range(2):
            killed = follow()
            for _ in range(3):
                killed.until(committed)
            killed.end(signal.SIGKILL)
        last = follow()
        last.until(committed)
    last.until_caught_up(source)
    last.end()

    assert last.process.returncode == 0
    assert last.codes == set()
    assert archived_rows(archive) == source_rows(source)
    assert verify(archive, level="full", source=source).ok


def test_two_follows_of_one_archive_take_turns(archive: Archive, source: str, follow: Callable[..., Follow]) -> None:
    """
    Both go on, each continues what the other has committed, and the history stays one line.
    """
    both = [follow(), follow()]
    with writing(source):
        for following in both * 2:
            following.until(committed)
    for following in both:
        following.until_caught_up(source)
        following.end()

    assert [following.process.returncode for following in both] == [0, 0]
    assert set.union(*(following.codes for following in both)) <= {40}
    backups = {record["backup"] for following in both for record in following.records if record.get("backup")}
    catalog = archive.catalog()
    head = catalog.head()
    assert head is not None
    assert {entry.backup for entry in catalog.line(head)} == backups
    assert archived_rows(archive) == source_rows(source)


def test_a_signal_while_the_program_is_loaded(follow: Callable[..., Follow]) -> None:
    """
    From the moment on that signals are heeded at all, one ends it well.
    """
    following = follow()
    status = Path(f"/proc/{following.process.pid}/status")
    deadline = time.monotonic() + PATIENCE
    while not heeded(status.read_text()) & 1 << (signal.SIGTERM - 1) and time.monotonic() < deadline:
        time.sleep(0.001)

    last = following.end()

    assert (last["type"], following.process.returncode) == ("result", 0), last


def heeded(status: str) -> int:
    """Return the signals that a process has a handler for, as a set of bits."""
    return int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)


def test_a_second_signal_stops_an_increment_that_waits(
    archive: Archive, source: str, follow: Callable[..., Follow]
) -> None:
    """
    The first lets it finish, the second does not; the exit code is 0, and nothing is half done.
    """
    following = follow()
    following.until(lambda record: record["outcome"] == "unchanged")
    before = archive.catalog().entries
    with closing(psycopg.connect(source)) as locker, psycopg.connect(source, autocommit=True) as observer:
        push(locker, "i1", ("user", "second"))
        locker.execute("LOCK TABLE eventstore.events2 IN ACCESS EXCLUSIVE MODE")
        waiting = (
            "SELECT FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = 'zbackup' AND wait_event_type = 'Lock'"
        )
        while observer.execute(waiting).fetchone() is None:
            assert following.process.poll() is None
        following.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            following.process.wait(0.3)
        result = following.end()

    assert following.process.returncode == 0
    assert result["type"] == "result"
    assert archive.catalog().entries == before


def test_what_people_read_is_calm(archive: Archive, source: str) -> None:
    """
    One line at the beginning, the result at the end, and of an error that comes again and again one.
    """
    command = [sys.executable, "-W", "error", "-m", "zbackup", "follow", *QUICK, "--archive", archive.store.address]
    told = subprocess.run([*command, "--source", source, "--count", "4"], check=False, capture_output=True, text=True)
    nowhere = "host=127.0.0.1 port=1 dbname=x user=x"
    failed = subprocess.run([*command, "--source", nowhere, "--for", "2s"], check=False, capture_output=True, text=True)

    assert told.returncode == 0, told.stderr
    assert told.stderr.startswith("following ")
    assert len(told.stderr.splitlines()) == 1
    assert "looks           4: " in told.stdout
    assert failed.returncode == 10
    assert failed.stdout == ""
    assert failed.stderr.count("failed (exit code 10): ") == 1
    assert failed.stderr.count("Connection refused") == 2  # the one line, and the error at the end


def test_metrics_are_shown_while_it_goes_on(
    archive: Archive, source: str, follow: Callable[..., Follow], tmp_path: Path
) -> None:
    """
    Over HTTP and in the file stands what the last look found, errors included; its end is no failure.
    """
    file = tmp_path / "zbackup.prom"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run = follow("--listen", f"127.0.0.1:{port}", "--metrics-file", str(file))
    confirmed = datetime.fromisoformat(run.until_caught_up(source)["confirmed"]).timestamp()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        shown = {(one.name, one.labels.get("command", "")): one.value for one in parse(answer.read().decode())}
    with psycopg.connect(source) as connection:
        connection.execute("ALTER TABLE eventstore.events2 RENAME TO gone")
    # Each is measured when it has been told, so that the second one finds the first in the file.
    failed = [run.until(lambda record: record["outcome"] == "failed")["error"]["exit_code"] for _ in range(2)]
    written = {(one.name, one.labels.get("command", "")): one.value for one in read_file(file)}
    with psycopg.connect(source) as connection:
        connection.execute("ALTER TABLE eventstore.gone RENAME TO events2")
    for _ in range(2):
        run.until(lambda record: record["outcome"] != "failed")
    assert run.end()["type"] == "result"
    after = {(one.name, one.labels.get("command", "")): one.value for one in read_file(file)}

    assert shown["zbackup_confirmed_timestamp_seconds", ""] >= confirmed
    assert shown["zbackup_restorable_oldest_timestamp_seconds", ""] < confirmed
    assert shown["zbackup_last_exit_code", "follow"] == 0
    assert ("zbackup_last_failure_timestamp_seconds", "follow") not in shown
    assert written["zbackup_last_exit_code", "follow"] == failed[0]
    assert ("zbackup_last_failure_timestamp_seconds", "follow") in written
    assert after["zbackup_last_exit_code", "follow"] == 0
