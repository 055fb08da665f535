"""
The wire between zbackup and PostgreSQL breaks, or stalls: an error that says so, nothing half done, and the same
command again ends as if nothing had happened.

A wire (fix_wire.py) counts the bytes of an undisturbed run, and is cut at some of them and where named statements
pass. With ZBACKUP_CUTS=N it is cut at N points each way.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli import conftest as cli
from tests.cli.conftest import Ran, Zbackup, start
from tests.fault import test_kill as kill
from tests.fault.test_kill import FINAL, Databases, is_there, objects, settled, state_of, verify, write_users
from tests.fix_archive import archived_rows, newest, options, source_rows
from tests.fix_wire import Fault, Way, Wire, wired
from zbackup.archive.archive import Archive
from zbackup.archive.names import MANIFESTS
from zbackup.backup import backup
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.progress import Progress, Step
from zbackup.store.local import LocalStore

bare, zbackup = cli.bare, cli.zbackup
databases, new_archive, source = kill.databases, kill.new_archive, kill.source

CUTS = int(os.environ.get("ZBACKUP_CUTS", "2"))

pytestmark = [pytest.mark.slow, *([pytest.mark.timeout(0)] if CUTS > 2 else [])]

SMALL = ("--jobs", "2", "--chunk-bytes", "64KiB", "--horizon-margin", "0s")


def spread(passed: dict[Way, int], cuts: int = CUTS) -> Iterable[Fault]:
    """Choose points of a run, both ways; one connection breaks or all, in turn."""
    for way, total in passed.items():
        for number in range(cuts):
            whole = number % 2 == (way == "up")
            yield Fault("reset" if number % 2 else "cut", way, int(total * (number + 0.5) / cuts), whole=whole)


@dataclass(frozen=True)
class Backups:
    """Backups through a wire, each into a copy of an archive that holds one backup."""

    zbackup: Zbackup
    archive: Path
    source: str
    wire: Wire
    dsn: str

    def run(self, archive: Path) -> Ran:
        where = ("--archive", str(archive), "--source", self.dsn)
        return self.zbackup("backup", *where, *SMALL, "--audit", "--json")

    def undisturbed(self, count: bytes) -> tuple[dict[Way, int], int]:
        """Return the bytes of a run, and how often a text was sent."""
        with self.copy() as archive:
            self.wire.arm(Fault("cut", when=count, nth=1_000_000))
            assert self.run(archive).code == 0
            return self.wire.passed, self.wire.found

    @contextmanager
    def copy(self) -> Generator[Path]:
        copy = self.archive.with_name("cut")
        shutil.copytree(self.archive, copy)
        try:
            yield copy
        finally:
            shutil.rmtree(copy)

    def broken_by(self, fault: Fault) -> Ran:
        """Break, look, run again, look."""
        with self.copy() as archive:
            before = objects(archive)
            self.wire.arm(fault)
            broken = self.run(archive)
            assert self.wire.met.is_set(), fault
            # pg_dump's connection is another program's, which is started again.
            assert broken.code in {0, 10}, (fault, broken.err)
            if broken.code:
                assert "server closed the connection" in broken.result["message"], broken.result
                assert "run the same command again" in broken.result["hint"], broken.result
                assert new_manifests(before, archive) == 0, fault
            settled(self.source)
            verify(self.zbackup, archive)
            self.wire.arm(None)
            again = self.run(archive)
            assert again.code == 0, (fault, again.err)
            verify(self.zbackup, archive)
            opened = Archive.open(LocalStore(archive))
            assert archived_rows(opened, newest(opened)) == source_rows(self.source), fault
            return broken


def new_manifests(before: Iterable[str], archive: Path) -> int:
    return sum(name.startswith(MANIFESTS) for name in objects(archive).keys() - set(before))


@pytest.fixture
def backups(new_archive: Path, source: str, zbackup: Zbackup) -> Iterable[Backups]:
    """Backups of a source that has grown since the last one."""
    first = zbackup("backup", "--archive", str(new_archive), "--source", source, *SMALL)
    assert first.code == 0, first.err
    write_users(source, 1000, 60)
    with wired(source) as (wire, dsn):
        yield Backups(zbackup, new_archive, source, wire, dsn)


def test_a_backup_cut_anywhere(backups: Backups) -> None:
    """
    After any number of bytes, one connection or all: an error that says so and nothing committed, or a whole backup.
    """
    passed, _ = backups.undisturbed(b"COPY")
    for fault in spread(passed):
        backups.broken_by(fault)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("reset", when=b"FROM pg_stat_activity"),
        Fault("cut", when=b"pg_export_snapshot"),
        Fault("reset", when=b"SET TRANSACTION SNAPSHOT"),
        Fault("cut", when=b"COPY (SELECT", nth=3, after=20_000),
        Fault("reset", when=b'COPY "system"'),
    ],
    ids=["horizon", "snapshot", "import", "slice", "capture"],
)
def test_a_backup_cut_while(backups: Backups, fault: Fault) -> None:
    """
    Where the answer to a statement that a backup needs does not come, the backup ends with an error that says so.
    """
    assert backups.broken_by(fault).code == 10


def test_a_backup_cut_at_its_last_rows(backups: Backups) -> None:
    """
    The tail and the audit, which are read last, are whole or the backup is none.
    """
    _, copies = backups.undisturbed(b"COPY (SELECT")
    for back in range(2):
        assert backups.broken_by(Fault("cut", when=b"COPY (SELECT", nth=copies - back)).code == 10


def test_a_schema_cut_off_is_read_again(backups: Backups) -> None:
    """
    pg_dump, whose connection broke, is started once more, so that the capture has its schema.
    """
    with backups.copy() as archive:
        backups.wire.arm(Fault("cut", when=b"pg_extension", after=100))
        ran = backups.run(archive)

        assert backups.wire.met.is_set()
        assert ran.code == 0, ran.err
        assert ran.result["warnings"] == []
        assert ran.result["capture"]["schema"] is True


def test_a_wire_that_breaks_at_the_commit(backups: Backups) -> None:
    """
    When the last row is read the source is not needed any more: the backup is committed, once.
    """
    with backups.copy() as path:
        before = objects(path)

        def report(progress: Progress) -> None:
            if progress == Step("commit"):
                backups.wire.cut()

        opened = Archive.open(LocalStore(path))
        backup(opened, backups.dsn, options(), report=report)

        assert new_manifests(before, path) == 1
        assert archived_rows(opened, newest(opened)) == source_rows(backups.source)


# Restores


@dataclass(frozen=True)
class Restores:
    """Restores through a wire, each into an empty database."""

    zbackup: Zbackup
    databases: Databases
    archive: Path

    def run(self, dsn: str) -> Ran:
        return self.zbackup("restore", "--archive", str(self.archive), "--target", dsn, "--jobs", "2", "--json")

    def undisturbed(self, count: bytes) -> tuple[dict[Way, int], int, kill.State]:
        """Return the bytes of a run, how often a text was sent, and what the target holds then."""
        with self.databases.like() as target, wired(target) as (wire, dsn):
            wire.arm(Fault("cut", when=count, nth=1_000_000))
            assert self.run(dsn).code == 0
            return wire.passed, wire.found, state_of(target)

    def broken_by(self, fault: Fault, wanted: kill.State) -> bool:
        """Break, look, run again, look; tells whether all was done when it broke."""
        with self.databases.like() as target, wired(target) as (wire, dsn):
            wire.arm(fault)
            broken = self.run(dsn)
            assert wire.met.is_set(), fault
            assert broken.code == 12, (fault, broken.err)
            assert "server closed the connection" in broken.result["message"], broken.result
            assert "run the same command again" in broken.result["hint"], broken.result
            settled(target)
            done = is_there(target, FINAL)
            assert not done or state_of(target) == wanted, fault
            wire.arm(None)
            again = self.run(dsn)
            assert again.code == 0, (fault, again.err)
            assert again.result["done_before"] == done, fault
            assert state_of(target) == wanted, fault
            return done


@pytest.fixture
def restores(new_archive: Path, source: str, databases: Databases, zbackup: Zbackup) -> Restores:
    ran = zbackup("backup", "--archive", str(new_archive), "--source", source, *SMALL)
    assert ran.code == 0, ran.err
    return Restores(zbackup, databases, new_archive)


def test_a_restore_cut_anywhere(restores: Restores) -> None:
    """
    After any number of bytes, one connection or all: no events under their final name, and a rerun that goes on.
    """
    passed, _, wanted = restores.undisturbed(b"COMMIT")
    for fault in spread(passed):
        assert not restores.broken_by(fault, wanted)


def test_a_restore_cut_while(restores: Restores) -> None:
    """
    Cut at the schema, a load, an index, a table, a key and the publication, nothing is published; where only the
    answer to the publication was lost, all is, and a rerun says that it was done before.
    """
    _, commits, wanted = restores.undisturbed(b"COMMIT")
    faults = (
        Fault("cut", when=b"CREATE TABLE system.assets"),
        Fault("reset", "up", when=b'COPY "eventstore"."events2_restoring"', after=5_000),
        Fault("cut", when=b"CREATE INDEX"),
        Fault("reset", when=b'COPY "system"."assets"'),
        Fault("cut", when=b"ADD CONSTRAINT unique_constraints_pkey"),
        Fault("cut", "up", when=b'RENAME TO "events2"'),
        Fault("cut", when=b"COMMIT", nth=commits),
    )

    assert [restores.broken_by(fault, wanted) for fault in faults] == [False] * 6 + [True]


# Stalls


def stop_when_stalled(wire: Wire, child: subprocess.Popen[str]) -> tuple[int, str]:
    with child:
        assert wire.met.wait(120), child.communicate()
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=120)
    return child.returncode, err


def test_a_stalled_backup_is_stopped(backups: Backups) -> None:
    """
    SIGTERM ends a backup whose server holds every connection and sends nothing any more.
    """
    with backups.copy() as archive:
        before = objects(archive)
        backups.wire.arm(Fault("stall", when=b"COPY (SELECT", after=1_000, whole=True))
        child = start("backup", "--archive", str(archive), "--source", backups.dsn, *SMALL, "--audit")
        code, err = stop_when_stalled(backups.wire, child)

        assert code == 130, err
        assert err.count("stopped by a signal") == 1
        assert new_manifests(before, archive) == 0


def test_a_stalled_restore_is_stopped(restores: Restores) -> None:
    """
    SIGTERM ends a restore whose server takes in nothing any more, and the next run goes on.
    """
    with restores.databases.like() as target:
        with wired(target) as (wire, dsn):
            wire.arm(Fault("stall", "up", 5_000, when=b'COPY "eventstore"."events2_restoring"', whole=True))
            child = start("restore", "--archive", str(restores.archive), "--target", dsn)
            code, err = stop_when_stalled(wire, child)

        # By itself, or by its own limit: each session that does not answer takes some seconds.
        assert code == 130, err
        assert not is_there(target, FINAL)
        settled(target)
        again = restores.zbackup("restore", "--archive", str(restores.archive), "--target", target)
        assert again.code == 0, again.err
        assert is_there(target, FINAL)


def test_a_server_that_says_nothing(postgres: EmbeddedPostgres, zbackup: Zbackup, new_archive: Path) -> None:
    """
    A server that takes a connection and says nothing is given up after `connect_timeout`.
    """
    with wired(postgres.dsn()) as (wire, dsn):
        wire.arm(Fault("stall", "up"))
        ran = zbackup("backup", "--archive", str(new_archive), "--source", f"{dsn} connect_timeout=2")

    assert ran.code == 10
    assert "connection timeout expired" in ran.err
