"""Captured tables in the archive: parts, and one object per row."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest

from zbackup.archive import FORMAT, names
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ArchiveRecord, Capture, CapturedTable, CaptureRef
from zbackup.archive.reader import ChunkReader
from zbackup.archive.rows import FRAME_BYTES, HUGE_BYTES
from zbackup.archive.table import AT_ONCE, LISTED, TableSink, read_table
from zbackup.errors import Damaged, StoreError, StoreFull
from zbackup.store.base import Stat
from zbackup.store.local import LocalStore

COLUMNS = ("name", "data")


class Counts(LocalStore):
    """Counts calls; refuses to store objects beyond a number."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, create=True)
        self.calls: Counter[str] = Counter()
        self.room: int | None = None

    def put(self, name: str, body: BinaryIO, *, size: int, sha256: str) -> None:
        self.calls["put"] += 1
        if self.room is not None and self.calls["put"] > self.room:
            raise StoreFull(f"{name}: no room")
        super().put(name, body, size=size, sha256=sha256)

    def stat(self, name: str) -> Stat | None:
        self.calls["stat"] += 1
        return super().stat(name)

    def list(self, prefix: str, *, fold: bool = False) -> Iterator[Stat]:
        self.calls["list"] += 1
        return super().list(prefix, fold=fold)

    def open(self, name: str) -> BinaryIO:
        self.calls["open"] += 1
        return super().open(name)


@pytest.fixture
def store(tmp_path: Path) -> Counts:
    return Counts(tmp_path / "archive")


@pytest.fixture
def archive(store: Counts) -> Archive:
    made = Archive.create(store, ArchiveRecord(FORMAT, "20260101T000000Z-00000000", datetime.now(UTC), "test"))
    store.calls.clear()
    return made


def assets(count: int, *, seed: int = 0) -> list[bytes]:
    rng = random.Random(seed)
    return [f"users/{number}\t".encode() + rng.randbytes(300).hex().encode() + b"\n" for number in range(count)]


def capture_of(*tables: CapturedTable) -> Capture:
    return Capture(FORMAT, None, None, "", tables)


def write(
    archive: Archive,
    lines: list[bytes],
    before: CapturedTable | None = None,
    *,
    by_row: bool = True,
    columns: tuple[str, ...] = COLUMNS,
) -> CapturedTable:
    sink = TableSink(archive, capture_of(before) if before else None, "1/db")
    return sink.write("system", "assets", columns, lines, by_row=by_row)


def lines_of(archive: Archive, table: CapturedTable) -> list[bytes]:
    return b"".join(read_table(archive, table)).splitlines(keepends=True)


def test_rows_come_back_in_their_order(archive: Archive) -> None:
    """
    Every row is an object of its own, and together they are the table as it was read.
    """
    lines = [b"large\t" + random.Random(1).randbytes(5 << 20).hex().encode() + b"\n", *assets(3 * AT_ONCE)]
    random.Random(2).shuffle(lines)

    table = write(archive, lines)

    assert len(lines) == len({part.name for part in table.parts}) == table.rows
    assert lines == lines_of(archive, table)
    for part, line in zip(table.parts, lines, strict=True):
        assert line == b"".join(archive.read_object(part))
        found = names.row_of(part.name)
        assert found is not None
        assert part.sha256 == found[1]


def test_objects_do_not_depend_on_how_rows_come(archive: Archive) -> None:
    """
    Row by row, all at once, or in blocks of any size: the frames are the same, each as full as rows allow.
    """
    sizes = (10, 300_000, 900_000, 400_000, 1_100_000, 30, FRAME_BYTES - 50, 50, 1, HUGE_BYTES + 7, 60, 200_000)
    lines = [f"{number:09}\t".encode() + b"x" * size + b"\n" for number, size in enumerate(sizes * 2)]
    others = [line for line in lines if len(line) < HUGE_BYTES]
    halves = [b"".join(lines[:9]), *lines[9:13], b"".join(lines[13:21]), *lines[21:]]

    one = write(archive, lines, by_row=False)

    assert write(archive, halves, by_row=False) == one
    assert write(archive, others, by_row=False) == write(archive, [b"".join(others)], by_row=False)
    assert lines == lines_of(archive, one)
    with archive.store.open(one.parts[0].name) as stream:
        reader = ChunkReader(stream, "the part")
        for _ in reader:
            pass
    frames = [frame.raw_bytes for frame in reader.trailer.frames]
    wanted: list[int] = []
    for line in lines:
        if not wanted or wanted[-1] + len(line) > FRAME_BYTES:
            wanted.append(0)
        wanted[-1] += len(line)
    assert wanted == frames


def test_unchanged_rows_cost_no_call(archive: Archive, store: Counts) -> None:
    """
    One row that changed is one call to the store, wherever the others have moved; without a change there is none.
    """
    lines = assets(50)
    first = write(archive, lines)
    store.calls.clear()

    again = write(archive, lines, first)

    assert (first, Counter[str]()) == (again, store.calls)

    moved = [*reversed(lines[1:]), b"users/0\tchanged\n"]
    second = write(archive, moved, first)

    assert {"put": 1} == store.calls
    assert moved == lines_of(archive, second)
    assert 49 == len({part.name for part in first.parts} & {part.name for part in second.parts})


def test_rows_of_older_captures_are_found_by_one_listing(archive: Archive, store: Counts) -> None:
    """
    Where the previous capture has no such table, as after `--no-capture`, what is there is listed, not stored again.
    """
    first = write(archive, assets(20))
    store.calls.clear()

    second = write(archive, [*assets(20), b"new\trow\n"])

    assert first.parts == second.parts[:-1]
    assert {"list": 1, "put": 1} == store.calls


def test_captures_of_old_are_read_and_continued(archive: Archive) -> None:
    """
    A table that was captured in one part reads back; the next capture stores its rows one by one.
    """
    lines = assets(10)
    old = write(archive, lines, by_row=False)

    new = write(archive, lines, old)

    assert (1, 10) == (len(old.parts), len(new.parts))
    assert lines == lines_of(archive, old) == lines_of(archive, new)
    assert old.raw_sha256 == new.raw_sha256


def test_rows_of_other_columns_are_others(archive: Archive) -> None:
    """
    A row says which columns it has: after a change of the table none is taken for one of before.
    """
    first = write(archive, assets(5))

    second = write(archive, assets(5), first, columns=("name", "bytes"))

    assert not {part.name for part in first.parts} & {part.name for part in second.parts}


def test_equal_rows_share_an_object(archive: Archive, store: Counts) -> None:
    """
    Rows that are equal are stored once and come back as many.
    """
    lines = [b"same\trow\n", b"other\trow\n", b"same\trow\n"]

    table = write(archive, lines)

    assert 2 == store.calls["put"]
    assert lines == lines_of(archive, table)


def test_many_rows_do_not_swell_every_capture(archive: Archive, store: Counts) -> None:
    """
    Long lists of objects are stored once and shared by all captures that have the same; a capture reads back whole.
    """
    few, many = write(archive, assets(LISTED)), write(archive, assets(LISTED + 1))
    store.calls.clear()

    again = write(archive, assets(LISTED + 1), many)

    assert (None, many) == (few.listed, again)
    assert not store.calls
    ref = archive.put_capture(capture_of(many))
    assert ref.stored_bytes < 1000
    whole = CaptureRef(ref.name, ref.sha256, ref.stored_bytes, 1, many.rows, many.raw_bytes, 0, 0, schema=False)
    assert capture_of(many) == archive.capture(whole)


def test_waiting_rows_are_bounded(archive: Archive, store: Counts) -> None:
    """
    New rows are stored on the way when many wait, so that memory does not grow with the table.
    """
    seen: list[int] = []

    def lines() -> Iterator[bytes]:
        for line in assets(40):
            seen.append(store.calls["put"])
            yield line

    sink = TableSink(archive, None, "1/db", waiting_bytes=5000)
    table = sink.write("system", "assets", COLUMNS, lines(), by_row=True)

    assert 40 == table.rows == store.calls["put"]
    assert max(len([1 for one in seen if one == puts]) for puts in seen) < 15


def test_a_store_that_fails_is_told_and_may_be_tried_again(archive: Archive, store: Counts) -> None:
    """
    When the store fails among many rows the error is told; the next try finds what is there.
    """
    store.room = 10
    with pytest.raises(StoreError, match="no room"):
        write(archive, assets(40))
    store.room = None
    stored = len(list(store.list(names.ROWS)))
    store.calls.clear()

    table = write(archive, assets(40))

    assert 0 < stored <= 10
    assert 40 - stored == store.calls["put"]
    assert assets(40) == lines_of(archive, table)


def test_what_is_not_the_table_is_damage(archive: Archive, store: Counts) -> None:
    """
    A row left out, doubled or in another's place is found when the table is read, though every object is sound.
    """
    table = write(archive, assets(6))
    one, two, *rest = table.parts

    for parts in ((two, *rest), (one, one, *rest), (two, one, *rest)):
        broken = CapturedTable(
            table.schema, table.name, table.columns, table.rows, table.raw_bytes, table.raw_sha256, parts
        )
        with pytest.raises(Damaged, match=r"system\.assets"):
            list(read_table(archive, broken))


def test_names_tell_rows(archive: Archive) -> None:
    """
    Names of rows are told from those of parts, and are names that any store takes.
    """
    row, part = write(archive, assets(1)).parts[0], write(archive, assets(1), by_row=False).parts[0]

    assert names.row_of(row.name) is not None
    assert names.row_of(part.name) is None
    assert row.name.startswith((names.ROWS, names.TABLES))
    assert len(row.name) < 128
