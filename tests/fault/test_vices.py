"""
Stores that answer wrongly: listings that lag, repeat or jump, reads that return something else.

tests/fix_vices.py holds the vices, one class each, in front of a folder and of a real S3 server.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.fix_archive import Rows, archived_rows, options, restored, source_rows
from tests.fix_s3_proxy import FaultyProxies, FaultyProxy
from tests.fix_store import BUCKET, MakeS3
from tests.fix_vices import LaggingList, OtherRead, StaleRead, TruncatedRead, WrongRead
from tests.fix_whole import one
from tests.history import create_schema, fill, push
from tests.races import Place, folder_place, s3_place
from tests.store_contract import names, put
from zbackup.archive.archive import Archive
from zbackup.archive.names import BackupName
from zbackup.backup import BackupResult, backup
from zbackup.errors import ArchiveError, Damaged, OutsideWindow, StoreError
from zbackup.event import cursor_of, instant_text
from zbackup.init import init
from zbackup.inspect import listing
from zbackup.store.base import Store
from zbackup.store.s3 import S3Store
from zbackup.verify import verify


@pytest.fixture(params=["folder", "rclone"])
def place(request: pytest.FixtureRequest, aws_env: None, tmp_path: Path) -> Place:
    if request.param == "folder":
        return folder_place(tmp_path / "archive")
    return s3_place(request.getfixturevalue("rclone_endpoint"), f"vices/{uuid.uuid4().hex}")


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with closing(place.connect()) as connected:
        yield connected


@pytest.fixture
def source(database: str) -> str:
    with psycopg.connect(database) as connection:
        create_schema(connection)
        fill(connection, events=40, seed=4)
    return database


@pytest.fixture
def archive(store: Store) -> Archive:
    """The archive as it is."""
    init(store)
    return Archive.open(store)


def live(dsn: str, name: str) -> None:
    with psycopg.connect(dsn) as connection:
        push(connection, "i1", ("user", name))


def run(archive: Archive, dsn: str) -> BackupResult:
    return backup(archive, dsn, options(jobs=1))


def told(result: BackupResult) -> str:
    return " ".join(warning for warning in result.warnings if "runs raced" in warning)


@pytest.mark.parametrize("unseen", [1, 3])
def test_a_run_that_overlooks_the_newest_backups(archive: Archive, store: Store, source: str, unseen: int) -> None:
    """
    A backup that did not see the ones before it stays restorable beside them; the next run says so, and no row is lost.
    """
    last = run(archive, source)
    lagging = LaggingList(store)
    lagging.freeze()
    for number in range(unseen):
        live(source, f"seen{number}")
        last = run(archive, source)
    rows = source_rows(source)
    live(source, "later")

    overlooked = run(Archive.open(lagging), source)

    result = run(archive, source)
    catalog = archive.catalog()
    chosen, other = (overlooked, last) if unseen == 1 else (last, overlooked)
    assert f"continuing {chosen.backup};" in told(result)
    assert other.backup in told(result)
    assert rows == archived_rows(archive, archive.manifest(catalog.find(last.backup)))
    for each in (overlooked, result):
        assert source_rows(source) == archived_rows(archive, archive.manifest(catalog.find(each.backup)))
    assert verify(archive, level="full", source=source).ok


def test_an_older_listing_is_never_a_wrong_answer(
    archive: Archive, store: Store, source: str, new_database: Callable[[], str]
) -> None:
    """
    With a listing that lags, `list` and `restore` know the older backups, name the one they use, and refuse the rest.
    """
    live(source, "first")
    before = run(archive, source)
    rows = source_rows(source)
    lagging = LaggingList(store)
    lagging.freeze()
    live(source, "second")
    unseen = run(archive, source)
    lagged, target = Archive.open(lagging), new_database()

    result = restored(lagged, target)

    assert [before.backup] == [found.backup for found in listing(lagged).backups]
    assert before.backup == result.backup
    assert rows == source_rows(target)
    at = cursor_of(source_rows(source)[-1]).created_at
    with pytest.raises(OutsideWindow, match="is outside the window"):
        restored(lagged, new_database(), instant_text(at))
    lagging.thaw()
    assert unseen.backup == restored(lagged, new_database(), instant_text(at)).backup


def test_an_archive_that_is_not_listed_yet(store: Store, source: str) -> None:
    """
    A new archive that is not listed yet is none, and says so; made twice, it is one archive for everybody.
    """
    lagging = LaggingList(store)
    lagging.freeze()
    init(lagging)
    with pytest.raises(ArchiveError, match="is not an archive"):
        Archive.open(lagging)
    init(lagging)
    lagging.thaw()

    run(Archive.open(lagging), source)

    assert len(list(store.list("archive/"))) == 2
    assert source_rows(source) == archived_rows(Archive.open(store))
    assert verify(Archive.open(store), level="full").ok


READS: list[type[WrongRead]] = [StaleRead, OtherRead, TruncatedRead]

on_a_server = pytest.mark.parametrize("place", ["rclone"], indirect=True)


@on_a_server
@pytest.mark.parametrize("kind", ["manifests/", "archive/", "events/"])
@pytest.mark.parametrize("vice", READS)
def test_a_backup_that_reads_something_else(
    archive: Archive, store: Store, source: str, vice: type[WrongRead], kind: str
) -> None:
    """
    A backup that reads other bytes than were written says which object it was, and commits nothing.
    """
    for name in ("first", "second"):
        live(source, name)
        run(archive, source)
    there = committed(archive)
    live(source, "third")
    wrong = vice(store)
    wrong.prefix = kind

    with pytest.raises((Damaged, StoreError)) as caught:
        run(Archive.open(wrong), source)

    assert any(name in caught.value.message for name in wrong.asked)
    assert there == committed(archive)
    assert verify(archive, level="full").ok
    assert source_rows(source) == rows_after(archive, source)


def committed(archive: Archive) -> tuple[BackupName, ...]:
    return archive.catalog().entries


def rows_after(archive: Archive, source: str) -> Rows:
    run(archive, source)
    return archived_rows(archive)


@on_a_server
@pytest.mark.parametrize("kind", ["manifests/", "events/"])
@pytest.mark.parametrize("vice", READS)
def test_a_restore_that_reads_something_else(
    archive: Archive, store: Store, source: str, database: str, new_database: Callable[[], str],
    vice: type[WrongRead], kind: str,
) -> None:  # fmt: skip
    """
    A restore that reads other bytes than were written says which object it was, and publishes nothing.
    """
    for name in ("first", "second"):
        live(source, name)
        run(archive, source)
    wrong, target = vice(store), new_database()
    opened = Archive.open(wrong)
    wrong.prefix = kind

    with pytest.raises(Damaged) as caught:
        restored(opened, target)

    assert any(name in caught.value.message for name in wrong.asked)
    assert one(target, "SELECT to_regclass('eventstore.events2')") is None
    wrong.prefix = None
    restored(opened, target)
    assert source_rows(source) == source_rows(target)


@pytest.fixture
def proxy(faulty: FaultyProxies, rclone_endpoint: str) -> FaultyProxy:
    return faulty(rclone_endpoint)


@pytest.fixture
def paged(make_s3: MakeS3, rclone_endpoint: str, proxy: FaultyProxy) -> S3Store:
    """A store with three pages of names, seen through a proxy."""
    direct = make_s3(rclone_endpoint)
    for number in range(7):
        put(direct, f"n/{number}", b"")
    return make_s3(proxy.endpoint, bucket=BUCKET, prefix=direct.address.removeprefix(f"s3://{BUCKET}/"), page=3)


def test_a_page_that_comes_twice(paged: S3Store, proxy: FaultyProxy) -> None:
    """
    A server that answers every page with the first one is an error, not a listing without end.
    """
    first: list[bytes] = []

    def again(data: bytes) -> bytes:
        first.append(data)
        return first[0]

    proxy.arm("edit", "GET", times=99, edit=again)

    with pytest.raises(StoreError, match=r"n/0 is listed after .*n/2"):
        names(paged)


@pytest.mark.parametrize("disorder", ["twice", "reversed"])
def test_a_page_in_disorder(paged: S3Store, proxy: FaultyProxy, disorder: str) -> None:
    """
    What a page lists twice or out of its place, as rclone does with what is being written, is listed once and in order.
    """

    def edit(data: bytes) -> bytes:
        head, *entries = data.split(b"<Contents>")
        last, end, tail = entries[-1].partition(b"</Contents>")
        entries[-1] = last + end
        entries = entries + entries[:1] if disorder == "twice" else entries[::-1]
        return b"<Contents>".join([head, *entries]) + tail

    proxy.arm("edit", "GET", times=99, edit=edit)

    assert names(paged) == [f"n/{number}" for number in range(7)]
