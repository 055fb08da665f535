from __future__ import annotations

import io
import random
import subprocess
from collections import Counter
from datetime import timedelta
from random import Random
from shutil import which

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.rows import EPOCH, cursors, histories, history, row, row_of
from zbackup.archive.chunk import ChunkWriter, Header
from zbackup.archive.facts import inspect_frame
from zbackup.archive.frames import PIECE_BYTES, decoded
from zbackup.archive.manifest import ChunkRef
from zbackup.archive.reader import ChunkReader
from zbackup.archive.rows import FRAME_BYTES, HUGE_BYTES, event_frames, split_rows
from zbackup.archive.sink import reference
from zbackup.errors import ArchiveError, Damaged
from zbackup.event import KEY_COLUMNS, Cursor, cursor_of

HEADER = Header(1, "eventstore.events2", KEY_COLUMNS, "test")


def written(rows: list[bytes], frame_bytes: int = 200) -> tuple[bytes, ChunkRef]:
    """Return a chunk's bytes and what a manifest says of it."""
    writer, last = ChunkWriter(HEADER), None
    for frame in event_frames(rows, frame_bytes):
        facts = inspect_frame(frame.lines, last)
        last = facts.last
        writer.add_events(facts, frame)
    file = writer.close()
    with file.body:
        return file.body.read(), reference("events/x", file, EPOCH, EPOCH + timedelta(days=9999))


def read(body: bytes, ref: ChunkRef | None = None) -> bytes:
    return b"".join(ChunkReader(io.BytesIO(body), "events/x", ref))


@given(histories, st.integers(1, 2000))
def test_rows_come_back(rows: list[bytes], frame_bytes: int) -> None:
    """
    Rows, chunks, rows: whatever the ids hold and wherever frames end.
    """
    body, ref = written(rows, frame_bytes)

    reader = ChunkReader(io.BytesIO(body), "events/x", ref)

    assert b"".join(reader) == b"".join(rows)
    assert len(rows) == reader.trailer.rows
    assert Counter(cursor_of(line).instance_id.decode() for line in rows) == reader.trailer.instances
    assert Counter(cursor_of(line).aggregate_type.decode() for line in rows) == reader.trailer.aggregate_types


@given(cursors)
def test_a_cursor_is_read_from_its_row(cursor: Cursor) -> None:
    """
    The key columns say the same in a row, as a cursor and as the texts of a manifest.
    """
    assert cursor == cursor_of(row_of(cursor)) == Cursor.of_texts(cursor.texts())


@given(histories, st.randoms(use_true_random=False))
def test_order_is_checked_for_every_row(rows: list[bytes], random: Random) -> None:
    """
    Two rows swapped are refused, however close they are.
    """
    if len(rows) < 2:
        return
    at = random.randrange(len(rows) - 1)
    swapped = [*rows[:at], rows[at + 1], rows[at], *rows[at + 2 :]]

    with pytest.raises(ValueError, match="does not come after"):
        inspect_frame(b"".join(swapped), None)


def test_a_row_twice_is_refused() -> None:
    """
    The same row twice does not increase.
    """
    with pytest.raises(ValueError, match="does not come after"):
        inspect_frame(row(EPOCH) + row(EPOCH), None)


@given(st.data())
def test_any_changed_byte_is_found(data: st.DataObject) -> None:
    """
    A chunk with one byte changed is damaged, and the error names it.
    """
    good, ref = written(history(20))
    body = bytearray(good)
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))

    with pytest.raises(ArchiveError, match="events/x"):
        read(bytes(body), ref)


@given(st.data())
def test_any_truncation_is_found(data: st.DataObject) -> None:
    """
    A chunk cut short anywhere is damaged; the end of the stream proves nothing.
    """
    body, _ = written(history(20))

    with pytest.raises(Damaged, match="events/x"):
        read(body[: data.draw(st.integers(0, len(body) - 1))])


def test_something_behind_the_trailer_is_found() -> None:
    """
    Bytes that follow the trailer are damage, too.
    """
    body, _ = written(history(3))

    with pytest.raises(Damaged, match="follows its trailer"):
        read(body + zstandard.compress(b"more\n"))


def test_another_chunk_in_its_place_is_found() -> None:
    """
    A chunk that is good in itself but not the one the manifest names is refused.
    """
    (_, ours), (other, _) = written(history(5)), written(history(6))

    with pytest.raises(Damaged, match="of the manifest"):
        read(other, ours)


@pytest.mark.skipif(which("zstd") is None, reason="no zstd program on this machine")
def test_zstd_alone_reads_a_chunk() -> None:
    """
    `zstd -dc` gives the rows, without zbackup.
    """
    rows = history(50)
    body, _ = written(rows)

    out = subprocess.run(["zstd", "-dc"], input=body, capture_output=True, check=True).stdout

    assert b"".join(rows) == out


def test_frames_end_where_the_time_changes() -> None:
    """
    Rows of one instant are never in two frames.
    """
    rows = [row(EPOCH + timedelta(seconds=number // 7), sequence=number + 1) for number in range(100)]

    frames = [split_rows(frame.lines) for frame in event_frames(rows, frame_bytes=300)]

    assert len(frames) > 5
    edges = [(cursor_of(one[-1]).created_at, cursor_of(two[0]).created_at) for one, two in zip(frames, frames[1:])]  # noqa: B905, RUF007
    assert all(end < begin for end, begin in edges)
    assert rows == [line for frame in frames for line in split_rows(b"".join(frame))]


def test_a_frame_grows_with_huge_rows() -> None:
    """
    Rows that are too large to be gathered come one by one, and those of one instant still make one frame.
    """
    huge = "x" * HUGE_BYTES
    second = timedelta(seconds=1)
    rows = [
        row(EPOCH, sequence=1),
        row(EPOCH + second, sequence=2),
        *(row(EPOCH + second, order=number, sequence=number, payload=huge) for number in (3, 4)),
        row(EPOCH + second, order=5, sequence=5),
        row(EPOCH + 2 * second, sequence=6, payload=huge),
        row(EPOCH + 3 * second, sequence=7),
    ]

    assert [(frame.lines.count(b"\n"), frame.more) for frame in event_frames(rows)] == [
        (2, True), (1, True), (1, True), (1, False), (1, True), (1, False),
    ]  # fmt: skip
    body, ref = written(rows, frame_bytes=FRAME_BYTES)

    reader = ChunkReader(io.BytesIO(body), "events/x", ref)
    assert b"".join(rows) == b"".join(reader)
    assert [frame.rows for frame in reader.trailer.frames] == [5, 1, 1]
    for frame in reader.trailer.frames:
        stored = body[frame.offset : frame.offset + frame.stored_bytes]
        assert len(zstandard.ZstdDecompressor().decompressobj().decompress(stored)) == frame.raw_bytes
    assert (ref.positions[0], ref.positions[1]) == (cursor_of(rows[0]).position, cursor_of(rows[-1]).position)


def test_split_rows_keeps_whole_rows() -> None:
    """
    Each row keeps its newline, and what is not whole is none.
    """
    assert [split_rows(frame) for frame in (b"", b"a", b"a\n", b"a\nb", b"a\n\nb\n")] == [
        [], [], [b"a\n"], [b"a\n"], [b"a\n", b"\n", b"b\n"],
    ]  # fmt: skip


def test_a_frame_that_does_not_shrink_is_read() -> None:
    """
    A frame of the greatest size that is decoded at once may be stored in a few bytes more than it has.
    """
    block = random.Random(1).randbytes(PIECE_BYTES)
    stream = io.BytesIO(zstandard.ZstdCompressor(write_checksum=True).compress(block))

    def peek(count: int) -> bytes:
        at = stream.tell()
        found = stream.read(count)
        stream.seek(at)
        return found

    assert block == b"".join(decoded(peek, stream.read))
