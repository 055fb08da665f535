"""Nights on which the disk of the archive or of the spool is full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import conftest as cli
from tests.cli.conftest import Zbackup
from tests.fault.nights import Night, failed, grow, hidden, lived_in
from tests.fix_archive import execute
from tests.fix_disk import PAGE, NewDisk
from tests.fix_whole import one

bare, zbackup = cli.bare, cli.zbackup

pytestmark = pytest.mark.slow

NO_SPACE = "No space left on device"


@pytest.fixture
def night(bare: Path, zbackup: Zbackup, new_database: Callable[[], str]) -> Night:
    return Night(zbackup, new_database, lived_in(new_database()), str(bare / "archive"))


def test_a_full_archive(night: Night, new_disk: NewDisk) -> None:
    """
    Wherever the disk of the archive fills up, the run ends with 24, leaves no half object, and runs again.
    """
    disk = new_disk()
    whole = night.at(disk.folder / "whole")
    whole.init()
    free = disk.free
    whole.made()
    needed = free - disk.free

    # The last page is for the word that the lease has ended, those before it for the manifest.
    manifest = needed - 2 * PAGE
    for left in (0, needed // 3, manifest):
        there = night.at(disk.folder / f"left{left}")
        there.init()
        disk.leave(left)
        ran = night.zbackup(*there.backup)

        failed(ran, 24, there.address, NO_SPACE, *(["manifests/"] if left == manifest else []))
        assert there.sound() == 0
        assert hidden(Path(there.address)) == []
        disk.empty()
        there.morning()


def test_a_full_archive_of_more_backups(night: Night, new_disk: NewDisk) -> None:
    """
    A disk that fills up during an increment leaves the backups before it as they were, and they restore from it.
    """
    disk = new_disk()
    there = night.at(disk.folder / "archive")
    there.init()
    there.made()
    grow(night.source, 1000, 60)
    disk.leave(8 * PAGE)

    failed(night.zbackup(*there.backup), 24, there.address, NO_SPACE)

    assert there.sound() == 1
    assert there.ask("restore", "--target", night.new_database()).code == 0
    disk.empty()
    there.morning()


def test_no_room_for_an_archive(night: Night, new_disk: NewDisk) -> None:
    """
    On a full disk no archive is made, and what was begun there is in nobody's way once there is room.
    """
    disk = new_disk()
    there = night.at(disk.folder / "archive")
    for left in (0, 2 * PAGE):
        disk.leave(left)

        failed(there.init(), 24, there.address, NO_SPACE)

        disk.empty()
    assert there.init().code == 0


@pytest.mark.parametrize("given", [True, False])
def test_a_full_spool(night: Night, new_disk: NewDisk, monkeypatch: pytest.MonkeyPatch, *, given: bool) -> None:
    """
    A spool that is full is an error with its own name, the archive's disk is not blamed, and nothing is left there.
    """
    disk = new_disk()
    night.init()
    # Chunks grow in memory up to 32 MiB.
    execute(
        night.source,
        """INSERT INTO projections.orgs1
           SELECT n, 'i1', string_agg(encode(sha512((random() + m)::text::bytea), 'base64'), '')
             FROM generate_series(1, 28) n, generate_series(1, 20000) m GROUP BY n""",
    )
    spool = ("--spool", str(disk.folder)) if given else ()
    if not given:
        monkeypatch.setattr("tempfile.tempdir", str(disk.folder))
    disk.leave(PAGE)

    failed(night.zbackup(*night.backup, *spool), 24, f"spool {disk.folder}", NO_SPACE)

    assert night.sound() == 0
    disk.empty()
    assert list(disk.folder.iterdir()) == []
    assert night.zbackup(*night.backup, *spool).code == 0
    night.holds_the_source()


def test_a_full_temporary_folder_of_a_restore(night: Night, new_disk: NewDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It is named as it is, nothing is published, and the same command goes on once there is room.
    """
    disk = new_disk()
    execute(
        night.source,
        """INSERT INTO eventstore.unique_constraints
           SELECT 'i1', 'elsewhere', repeat(n::text, 12) FROM generate_series(1, 150000) n""",
    )
    night.init()
    night.made()
    # Rows that no event came after would be loaded as they are.
    grow(night.source, 301, 1)
    assert night.zbackup(*night.backup, "--no-capture").code == 0
    target = night.new_database()
    monkeypatch.setattr("tempfile.tempdir", str(disk.folder))
    disk.leave(PAGE)

    failed(night.ask("restore", "--target", target), 24, f"spool {disk.folder}", NO_SPACE)

    assert one(target, "SELECT to_regclass('eventstore.events2') IS NULL")
    disk.empty()
    assert night.ask("restore", "--target", target).code == 0
    kept = "SELECT count(*) FROM eventstore.unique_constraints WHERE unique_type = 'elsewhere'"
    assert one(target, kept) == 150_000
