"""
One run at a time: the second waits or ends with its own exit code, and what a dead one left is no obstacle.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import psycopg
import pytest

from tests.cli import conftest as cli
from tests.cli.conftest import Ran, Zbackup, start
from tests.fix_append_only import AppendOnly
from tests.fix_store import MakeS3
from zbackup.archive import FORMAT, names
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import Lease
from zbackup.errors import Busy, Interrupted, StoreError
from zbackup.init import init
from zbackup.lease import hold
from zbackup.process import is_gone, this_process
from zbackup.progress import Progress, Warned
from zbackup.store.base import Store
from zbackup.store.local import LocalStore

bare, zbackup, source, archive = cli.bare, cli.zbackup, cli.source, cli.archive

PATIENCE = 60.0
"""Seconds after which something hangs; nothing is measured by it."""

ELSEWHERE = "00000000-0000-0000-0000-000000000000/pid:[1]/1/1"
"""A process that cannot be seen from here."""


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def leases(archive: str) -> list[str]:
    return [stat.name for stat in LocalStore(Path(archive)).list(names.LEASES)]


@dataclass
class AtWork:
    """A backup that has its lease, and is kept in the middle by a lock on the events."""

    process: subprocess.Popen[str]
    holder: psycopg.Connection

    def let_go(self) -> Ran:
        self.holder.close()
        out, err = self.process.communicate(timeout=PATIENCE)
        return Ran(self.process.returncode, out, err)


@contextmanager
def at_work(archive: str, source: str) -> Generator[AtWork]:
    before = len(leases(archive))
    with psycopg.connect(source) as holder:
        holder.execute("LOCK eventstore.events2")
        process = start("backup", "--archive", archive, "--source", source, "--json")
        try:
            wait_until(lambda: len(leases(archive)) > before or process.poll() is not None)
            yield AtWork(process, holder)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def test_the_second_run_ends_with_its_own_exit_code(archive: str, source: str, zbackup: Zbackup) -> None:
    """
    It names the first and does nothing, and the first is not disturbed.
    """
    arguments = ("backup", "--archive", archive, "--source", source)
    with at_work(archive, source) as first:
        second = zbackup(*arguments)
        meanwhile = zbackup("list", "--archive", archive, "--json").result
        ended = first.let_go()

    assert second.code == Busy.exit_code == 40, second.err
    assert "backup on " in second.err
    assert "is at work on this archive" in second.err
    assert "--wait" in second.err
    assert len(meanwhile["backups"]) == 1
    assert ended.code == 0, ended.err
    assert zbackup(*arguments).code == 0
    assert zbackup("verify", "--full", "--archive", archive).code == 0


def test_a_run_that_waits_goes_on_where_the_first_ended(archive: str, source: str, zbackup: Zbackup) -> None:
    """
    With `--wait` it says for whom, begins when the first has ended, and continues its backup.
    """
    with at_work(archive, source) as first:
        second = start("backup", "--archive", archive, "--source", source, "--wait", "2m", "--json")
        with second:
            assert second.stdout is not None
            assert any('"wait"' in line for line in iter(second.stdout.readline, ""))
            ended = first.let_go()
            told, _ = second.communicate(timeout=PATIENCE)

    assert (ended.code, second.returncode) == (0, 0), told
    catalog = Archive.open(LocalStore(Path(archive))).catalog()
    head = catalog.head()
    assert head is not None
    line = tuple(catalog.line(head))
    assert len(line) == 3
    assert ended.result["backup"] == line[1].backup


def test_a_run_that_was_killed_is_not_waited_for(archive: str, source: str, zbackup: Zbackup) -> None:
    """
    On the same machine its process is seen to be gone, and the next run begins at once.
    """
    with at_work(archive, source) as first:
        first.process.send_signal(signal.SIGKILL)
        first.let_go()
        again = zbackup("backup", "--archive", archive, "--source", source)

    assert again.code == 0, again.err


def test_a_run_that_died_elsewhere_is_waited_for_until_its_lease_ends(
    archive: str, source: str, zbackup: Zbackup
) -> None:
    """
    Where its process cannot be seen its lease runs out, and the error says when.
    """
    opened = Archive.open(LocalStore(Path(archive)))
    now = opened.store.clock()
    arguments = ("backup", "--archive", archive, "--source", source)
    run = names.backup_id(now, "00000000")
    opened.put_lease(Lease(FORMAT, run, "backup", "elsewhere", ELSEWHERE, now, now + timedelta(seconds=2)))

    refused = zbackup(*arguments)
    waited = zbackup(*arguments, "--wait", "1m")

    assert refused.code == 40
    assert "backup on elsewhere (pid 1) since" in refused.err
    assert waited.code == 0, waited.err
    assert opened.store.clock() >= now + timedelta(seconds=2)


@pytest.mark.parametrize("of", ["moto_endpoint", "swift_endpoint", "folder"])
def test_of_many_at_once_one_is_at_work(
    request: pytest.FixtureRequest, of: str, make_s3: MakeS3, tmp_path: Path
) -> None:
    """
    However their calls mix, no two have the lease at the same time, and each time somebody gets it.
    """
    writers, rounds = 4, 8

    def store(prefix: str) -> Store:
        if of == "folder":
            return LocalStore(tmp_path / "archive", create=True)
        return make_s3(request.getfixturevalue(of), prefix=prefix)

    init(store("leases"))
    archives = [Archive.open(store("leases")) for _ in range(writers)]
    inside = threading.Semaphore(1)
    begin = threading.Barrier(writers)

    def run(number: int, archive: Archive) -> bool:
        begin.wait(PATIENCE)
        time.sleep(random.Random(number).random() / 20)
        try:
            with hold(archive, "test"):
                assert inside.acquire(blocking=False), "two at once"
                time.sleep(0.05)
                inside.release()
        except Busy:
            return False
        return True

    with ThreadPoolExecutor(writers) as pool:
        for number in range(rounds):
            done = [*pool.map(run, range(number * writers, (number + 1) * writers), archives)]
            assert any(done), number


def who_keeps_out(archive: Archive) -> str:
    with pytest.raises(Busy) as busy, hold(archive, "third"):
        pass
    return str(busy.value)


def test_who_waited_is_seen_by_those_that_come_later(tmp_path: Path) -> None:
    """
    Of two that begin at once the second withdraws and waits; when it is at work a third one waits for it.
    """
    init(LocalStore(tmp_path / "archive", create=True))
    archive = Archive.open(LocalStore(tmp_path / "archive"))
    for _ in range(5):
        together = threading.Barrier(2)

        def run(number: int) -> None:
            together.wait(PATIENCE)  # noqa: B023  both end before the next round
            with hold(archive, f"run {number}", wait=timedelta(seconds=PATIENCE)):
                deadline = time.monotonic() + PATIENCE
                # For a moment the other one may be seen, until it has withdrawn.
                while f"run {number}" not in who_keeps_out(archive):
                    assert time.monotonic() < deadline
                time.sleep(0.1)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(run, range(2)))


def test_the_least_waits_for_one_that_withdraws_slowly(tmp_path: Path) -> None:
    """
    A store that takes its time leaves nobody without a backup.
    """

    class Slow(LocalStore):
        """Takes four seconds for the word that a lease has ended."""

        def put(self, name: str, body: BinaryIO, *, size: int, sha256: str) -> None:
            if name.endswith("_released.json"):
                time.sleep(4)
            super().put(name, body, size=size, sha256=sha256)

    store = Slow(tmp_path / "archive", create=True)
    init(store)
    archive = Archive.open(store)
    together = threading.Barrier(2)

    def run(number: int) -> bool:
        together.wait(PATIENCE)
        try:
            with hold(archive, f"run {number}"):
                return True
        except Busy:
            return False

    with ThreadPoolExecutor(2) as pool:
        assert any(pool.map(run, range(2)))


def test_a_run_that_is_stopped_is_stopped_quietly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The thread that keeps the lease says nothing of its own where the program is being interrupted.
    """
    store = LocalStore(tmp_path / "archive", create=True)
    init(store)
    told: list[object] = []
    stopping = threading.Event()
    monkeypatch.setattr(threading, "excepthook", told.append)

    def report(progress: Progress) -> None:
        stopping.set()
        raise Interrupted("stopped")

    with hold(Archive.open(store), "test", duration=timedelta(seconds=0.3), report=report):
        (tmp_path / "archive").rename(tmp_path / "away")
        wait_until(stopping.is_set)
        (tmp_path / "away").rename(tmp_path / "archive")

    assert told == []


def test_a_lease_from_a_clock_that_was_ahead_is_none(tmp_path: Path) -> None:
    """
    Nobody is waited for longer than a lease can last, whatever it says.
    """
    store = LocalStore(tmp_path / "archive", create=True)
    init(store)
    archive = Archive.open(store)
    now = store.clock()
    until = now + timedelta(minutes=7)
    archive.put_lease(Lease(FORMAT, names.backup_id(now, "00000000"), "backup", "elsewhere", ELSEWHERE, now, until))

    with hold(archive, "test"):
        pass


def test_a_long_run_keeps_its_lease(tmp_path: Path) -> None:
    """
    It writes the lease anew as time goes on, creates objects only, and others wait until its end.
    """
    store = AppendOnly(tmp_path / "archive")
    init(store)
    archive = Archive.open(store)
    told: list[Progress] = []

    with hold(archive, "long", duration=timedelta(seconds=1)):
        written = set(leases(str(tmp_path / "archive")))
        begun = store.clock()
        while store.clock() < begun + timedelta(seconds=2):
            with pytest.raises(Busy), hold(archive, "other", wait=timedelta(seconds=0.1)):
                pass
        later = set(leases(str(tmp_path / "archive")))
    with hold(archive, "other", report=told.append):
        pass

    assert written < later
    assert not told
    assert not [refused for refused in store.refused if names.LEASES in refused]


def test_a_lease_that_cannot_be_kept_is_lost_with_a_word(tmp_path: Path) -> None:
    """
    The run goes on, and the operator is told that another may begin beside it.
    """
    place = tmp_path / "archive"
    init(LocalStore(place, create=True))
    archive = Archive.open(LocalStore(place))
    told: list[Progress] = []

    with hold(archive, "test", duration=timedelta(seconds=0.3), report=told.append):
        place.rename(tmp_path / "away")
        wait_until(lambda: bool(told))
        (tmp_path / "away").rename(place)

    assert isinstance(told[0], Warned)
    assert "was not prolonged" in told[0].message


def test_a_store_without_a_clock_is_used_by_our_own(tmp_path: Path) -> None:
    """
    One at a time there, too.
    """

    class NoClock(LocalStore):
        def clock(self) -> datetime:
            raise StoreError("answers without a date")

    store = NoClock(tmp_path / "archive", create=True)
    init(store)

    with hold(Archive.open(store), "test"), pytest.raises(Busy), hold(Archive.open(store), "other"):
        pass


def test_strangers_among_the_leases_do_no_harm(tmp_path: Path) -> None:
    """
    What is not a lease is passed over; one that cannot be read counts until it ends, and no longer.
    """
    store = LocalStore(tmp_path / "archive", create=True)
    init(store)
    archive = Archive.open(store)
    now = store.clock()
    hour = names.leases_of(now + timedelta(minutes=1))
    run = names.backup_id(now, "00000000")
    for name in (
        f"{hour}README",
        f"{hour}{run}_99999999T999999999999-{'0' * 64}.json",
        f"{hour}{run}_{now + timedelta(days=9):%Y%m%dT%H%M%S%f}-{'0' * 64}.json",
    ):
        archive.put(name, b"?")
    with hold(archive, "test"):
        pass

    archive.put(str(names.LeaseName(run, now + timedelta(minutes=1), "0" * 64)), b"?")
    with pytest.raises(Busy, match="another run"), hold(archive, "test"):
        pass


def test_a_process_is_gone_when_it_is() -> None:
    """
    Ended, not yet collected by its parent, or its number used again; of what cannot be seen nothing is said.
    """
    here = this_process()
    if here is None:
        pytest.skip("this system does not tell processes apart")
    child = subprocess.Popen(
        [sys.executable, "-c", "from zbackup.process import *; print(this_process(), flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        place, _, began = name.rpartition("/")
        assert not is_gone(name)
        assert is_gone(f"{place}/{int(began) + 1}")
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(name)
    assert is_gone(name)
    assert not is_gone(here)
    machine = place.rpartition("/")[0]
    for unseen in (ELSEWHERE, "", "x/1/2", f"{machine}/{1 << 70}/1", f"{machine}/{'9' * 5000}/1", f"{place}x/1"):
        assert not is_gone(unseen), unseen
