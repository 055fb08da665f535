"""Ranges of a chunk: exactly their rows, from no more frames than they need, and damage by its name."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.archived import Maker, created
from tests.unit.rows import EPOCH, history
from zbackup.archive.archive import Archive
from zbackup.archive.between import ALWAYS, Order, Range, between, edges
from zbackup.archive.chunk import Frame, Trailer
from zbackup.archive.manifest import ChunkRef
from zbackup.archive.rows import split_rows
from zbackup.errors import Damaged, ZbackupError
from zbackup.event import END, parse_instant

ROWS = history(60)


@pytest.fixture(scope="module")
def chunk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Archive, ChunkRef]:
    maker = Maker.at(tmp_path_factory.mktemp("chunk") / "archive", frame_bytes=400)
    made = maker.backup(ROWS, horizon=END, snapshot=created(ROWS[-1]))
    (ref,) = maker.archive.chunks(made.log)
    assert len(maker.archive.trailer(ref).frames) > 6
    return maker.archive, ref


def seconds(lo: float, hi: float) -> Range:
    return EPOCH + timedelta(seconds=lo), EPOCH + timedelta(seconds=hi)


def read(archive: Archive, ref: ChunkRef, ranges: Sequence[Range], order: Order = Order.FORWARDS) -> list[bytes]:
    blocks = list(between(archive, ref, ranges, order))
    for block in blocks:
        rows = split_rows(block.rows)
        assert edges(block) == (created(rows[0]), created(rows[-1]))
    return [
        row for block in (blocks if order is Order.FORWARDS else reversed(blocks)) for row in split_rows(block.rows)
    ]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-4, 130), max_size=6, unique=True).map(sorted), st.sampled_from(Order))
def test_exactly_the_rows_of_the_ranges(chunk: tuple[Archive, ChunkRef], ends: list[int], order: Order) -> None:
    """
    Whatever the ranges and the order, each row of theirs comes once, and no other.
    """
    ranges = [seconds(lo / 2, hi / 2) for lo, hi in zip(ends[::2], ends[1::2], strict=False)]

    wanted = [row for row in ROWS if any(lo <= created(row) <= hi for lo, hi in ranges)]
    assert read(*chunk, ranges, order) == wanted
    assert read(*chunk, ALWAYS, order) == ROWS


def test_frames_that_no_range_needs_are_not_read(
    chunk: tuple[Archive, ChunkRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A range within one frame takes that one, and at most its neighbours.
    """
    archive, ref = chunk
    frames = archive.trailer(ref).frames
    offsets: list[int] = []
    original = Archive.frame

    def noted(self: Archive, ref: ChunkRef, frame: Frame) -> Iterator[bytes]:
        offsets.append(frame.offset)
        return original(self, ref, frame)

    monkeypatch.setattr(Archive, "frame", noted)

    assert len(read(archive, ref, [seconds(20, 20)])) == 1
    assert len(offsets) <= 3
    assert len(offsets) < len(frames) / 2


@contextmanager
def suppress_named(name: str) -> Generator[list[str]]:
    """Note an error that has a name in it, and go on."""
    raised: list[str] = []
    try:
        yield raised
    except ZbackupError as error:
        if name not in error.message:
            raise
        raised.append(error.message)


def test_any_flipped_bit_is_damage_or_changes_nothing(chunk: tuple[Archive, ChunkRef]) -> None:
    """
    Wherever a bit flips, a range gives its rows or an error with the chunk's name, and a whole chunk the error.
    """
    archive, ref = chunk
    path = Path(archive.store.address) / ref.name
    sound = path.read_bytes()
    ranges = [seconds(20, 24)]
    wanted = read(archive, ref, ranges)
    refused = 0
    try:
        for place in range(0, len(sound), 9):
            path.write_bytes(sound[:place] + bytes([sound[place] ^ 1 << place % 7]) + sound[place + 1 :])
            with suppress_named(ref.name) as raised:
                assert read(archive, ref, ranges, Order.BACKWARDS) == wanted
            refused += len(raised)
            with pytest.raises(ZbackupError, match=ref.name):
                read(archive, ref, ALWAYS)
        assert refused > len(sound) // 45
        path.write_bytes(sound[: len(sound) // 2])
        for order in Order:
            with pytest.raises(ZbackupError, match=ref.name):
                read(archive, ref, ranges, order)
    finally:
        path.write_bytes(sound)


class Lying(Archive):
    """Says another time of one frame than it has."""

    number, field, by = 0, "first", timedelta()

    def trailer(self, ref: ChunkRef) -> Trailer:
        found = super().trailer(ref)
        frame = found.frames[self.number]
        moved = (parse_instant(getattr(frame, self.field)) + self.by).isoformat()
        changed = replace(frame, **{self.field: moved})
        return replace(found, frames=(*found.frames[: self.number], changed, *found.frames[self.number + 1 :]))


@pytest.mark.parametrize("field", ["first", "last"])
@pytest.mark.parametrize("by", [-3.5, -0.5, 0.5, 3.5])
def test_a_trailer_that_lies_about_one_time_hides_nothing(
    chunk: tuple[Archive, ChunkRef], field: str, by: float
) -> None:
    """
    A frame is passed over only where two of its times say so.
    """
    archive, ref = chunk
    lying = Lying(archive.store, archive.record)
    lying.field, lying.by = field, timedelta(seconds=by)
    refused = 0
    for lying.number in range(len(archive.trailer(ref).frames)):
        for second in range(60):
            try:
                assert read(lying, ref, [seconds(second, second)]) == [ROWS[second]]
            except Damaged:
                refused += 1
    assert refused
