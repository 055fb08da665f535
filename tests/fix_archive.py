"""Archives in a folder, and what tests ask of sources, archives and restored databases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest

from zbackup.archive import FORMAT
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ArchiveRecord, Manifest
from zbackup.archive.rows import rows_in, split_rows
from zbackup.attempt import BackupOptions
from zbackup.backup import BackupResult, backup
from zbackup.database.connection import connect
from zbackup.database.export import read_rows
from zbackup.database.shape import find_events_table
from zbackup.event import BEGINNING, END
from zbackup.moment import parse_point
from zbackup.progress import Report, silent
from zbackup.restore import RestoreOptions, RestoreResult, restore
from zbackup.store.local import LocalStore

Rows = list[bytes]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    store = LocalStore(tmp_path / "archive", create=True)
    yield Archive.create(store, ArchiveRecord(FORMAT, "20260101T000000Z-00000000", datetime.now(UTC), "test"))
    store.close()


def options(**changes: Any) -> BackupOptions:
    """Options for tests: no margin, so that what is committed is sealed; small chunks; events alone."""
    usual = BackupOptions(margin=timedelta(0), chunk_bytes=256 << 10, capture=False, horizon_wait=timedelta(seconds=2))
    return replace(usual, **changes)


class Backup(Protocol):
    def __call__(
        self, source: str = ..., *, report: Report = ..., fence: str | None = ..., **changes: Any
    ) -> BackupResult: ...


@pytest.fixture
def back_up(archive: Archive, database: str) -> Backup:
    """Back up the test's database into the test's archive."""

    def run(
        source: str = database, *, report: Report = silent, fence: str | None = None, **changes: Any
    ) -> BackupResult:
        return backup(archive, source, options(**changes), fence=fence, report=report)

    return run


def source_rows(dsn: str, lo: datetime = BEGINNING, hi: datetime = END) -> Rows:
    """Read all events of a database as archived rows, in order."""
    with connect(dsn) as connection:
        return list(rows_in(read_rows(connection, find_events_table(connection).table, lo, hi)))


def newest(archive: Archive) -> Manifest:
    head = archive.catalog().head()
    assert head is not None
    return archive.manifest(head)


def archived_rows(archive: Archive, manifest: Manifest | None = None) -> Rows:
    """Read log and tail of a backup, by default the newest."""
    manifest = manifest or newest(archive)
    return [
        row
        for chunk in (*archive.chunks(manifest.log), *manifest.tail)
        for frame in archive.read(chunk)
        for row in split_rows(frame)
    ]


def restored(archive: Archive, dsn: str, point: str = "latest", **changes: Any) -> RestoreResult:
    """Restore the events of a point; the rest, too, with `events_only=False`."""
    chosen = replace(RestoreOptions(events_only=True), **changes)
    return restore(archive, dsn, parse_point(point, datetime.now(UTC)), chosen)


def execute(dsn: str, statement: str, values: tuple[object, ...] = ()) -> None:
    """Run a statement in a session of its own; its statistics are there when this returns."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement, values)  # type: ignore[arg-type]
        connection.execute(
            "SELECT pg_stat_force_next_flush()" if connection.info.server_version >= 150000 else "SELECT 1"
        )
