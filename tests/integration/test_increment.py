"""What an increment costs does not depend on how many there were, nor on how long the log is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import psycopg
import pytest

from tests.archived import STARTED, continued
from tests.fix_archive import newest, options
from tests.fix_vices import StoreWrapper
from tests.history import create_schema, fill, push
from zbackup.archive import FORMAT
from zbackup.archive.ancestry import ancestry_of
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ArchiveRecord, Log
from zbackup.archive.names import BackupName, backup_id
from zbackup.backup import backup
from zbackup.store.base import Stat
from zbackup.store.local import LocalStore
from zbackup.verify import verify


class Counting(StoreWrapper):
    """Counts calls by kind of object."""

    def __init__(self, path: Path) -> None:
        super().__init__(LocalStore(path, create=True))
        self.calls: Counter[str] = Counter()

    def put(self, name: str, body: BinaryIO, *, size: int, sha256: str) -> None:
        self._count("put", name)
        super().put(name, body, size=size, sha256=sha256)

    def open(self, name: str) -> BinaryIO:
        self._count("get", name)
        return super().open(name)

    def read(self, name: str, offset: int, length: int) -> bytes:
        self._count("get", name)
        return super().read(name, offset, length)

    def list(self, prefix: str, *, fold: bool = False) -> Iterator[Stat]:
        self._count("list", prefix)
        return super().list(prefix, fold=fold)

    def _count(self, call: str, name: str) -> None:
        self.calls[f"{call} {name.partition('/')[0]}"] += 1


@pytest.fixture
def store(tmp_path: Path) -> Counting:
    return Counting(tmp_path / "archive")


@pytest.fixture
def archive(store: Counting) -> Archive:
    return Archive.create(store, ArchiveRecord(FORMAT, "20260101T000000Z-00000000", STARTED, "test"))


def calls(archive: Archive, store: Counting, source: str, name: str) -> Counter[str]:
    with psycopg.connect(source) as connection:
        push(connection, "i1", ("user", name))
    store.calls.clear()
    backup(archive, source, options(jobs=1, chunk_bytes=32 << 10, audit_budget=timedelta(0)))
    return Counter(store.calls)


def test_an_increment_after_millions(archive: Archive, store: Counting, database: str) -> None:
    """
    Behind millions of backups, and a log of many indexes, an increment asks the store for as little as behind two.
    """
    with psycopg.connect(database) as connection:
        create_schema(connection)
        end = datetime.now(UTC) - timedelta(days=2)
        fill(connection, events=4000, seed=3, start=end - timedelta(days=30), end=end)
    for name in ("first", "second"):
        calls(archive, store, database, name)
    early = calls(archive, store, database, "third")
    made, head = newest(archive), archive.catalog().head()
    assert head is not None
    log = list(archive.chunks(made.log))
    assert len(log) > 8
    indexes = tuple(archive.put_index(made.backup, [chunk]) for chunk in log[:-1])
    later = replace(continued(made, head), backup=backup_id(made.started, "0000abcd"), number=2_999_998)
    told = ancestry_of(later.number, head, made.ancestry)
    archive.commit(replace(later, ancestry=told, log=Log(indexes, tuple(log[-1:]))))

    late = [calls(archive, store, database, f"late{number}") for number in range(3)]

    assert early["list manifests"] <= 10
    for found in late:
        # Of one chunk each: the newest few, and the one whose turn to be counted it is; of some twenty.
        assert found.pop("get indexes") <= 5
        # Where the newest two thousands are of two millions, their folders are listed, too.
        assert found.total() <= early.total() + 6, found - early
    head = archive.catalog().head()
    assert head is not None
    assert [3_000_001, 3_000_000, 2_999_999, 2_999_998, 3] == [
        entry.number for _, entry in zip(range(5), archive.catalog().line(head), strict=False)
    ]
    ancestry = newest(archive).ancestry
    assert ancestry is not None
    assert [2_999_999] == sorted((BackupName.parse(link).number for link in ancestry.links), reverse=True)
    assert verify(archive, level="full", source=database).ok
