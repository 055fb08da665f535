from __future__ import annotations

import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.rows import histories, history
from tests.unit.test_chunk import written
from zbackup.archive.manifest import ChunkRef
from zbackup.archive.rescue import Rescued, rescue
from zbackup.archive.rows import split_rows


def rows_of(body: bytes, found: Rescued) -> list[bytes]:
    return [
        row
        for frame in found.trailer.frames
        for row in split_rows(zstandard.decompress(body[frame.offset : frame.offset + frame.stored_bytes]))
    ]


def frames_of(body: bytes, ref: ChunkRef) -> list[tuple[int, int, int]]:
    return [(frame.offset, frame.stored_bytes, frame.rows) for frame in rescue(body, ref).trailer.frames]


@given(histories, st.integers(1, 2000))
def test_nothing_is_missing_of_a_good_chunk(rows: list[bytes], frame_bytes: int) -> None:
    """
    Of a chunk that is whole everything is there, and it is as its manifest says.
    """
    body, ref = written(rows, frame_bytes)

    found = rescue(body, ref)

    assert rows == rows_of(body, found)
    assert found.missing == ()
    assert found.ref == ref


def test_a_flipped_byte_costs_one_frame_at_most() -> None:
    """
    Wherever a byte is flipped, only rows of its frame are missing, and exactly they are told.
    """
    rows = history(60)
    body, ref = written(rows)
    rng = random.Random(1)
    frames = frames_of(body, ref)
    assert len(frames) > 4
    for at in range(0, len(body), 2):
        bad = body[:at] + bytes([body[at] ^ (1 << rng.randrange(8))]) + body[at + 1 :]
        hit = [frame for frame in frames if frame[0] <= at < frame[0] + frame[1]]

        found = rescue(bad, ref)

        left = rows_of(bad, found)
        assert set(left) <= set(rows)
        assert found.ref.rows == len(left) == len(rows) - sum(span.rows for span in found.missing), at
        if at < frames[-1][0] + frames[-1][1]:
            assert len(rows) - len(left) <= sum(frame[2] for frame in hit), at
            assert (found.instances is not None) == (left != rows)


def test_what_follows_a_cut_is_missing() -> None:
    """
    Cut anywhere, a chunk gives its whole frames before the cut, and the span says from when on the rest is missing.
    """
    rows = history(60)
    body, ref = written(rows)
    frames = frames_of(body, ref)
    for length in range(0, len(body), 7):
        found = rescue(body[:length], ref)

        whole = sum(frame[2] for frame in frames if frame[0] + frame[1] <= length)
        assert rows[:whole] == rows_of(body, found)
        assert [len(rows) - whole] * (whole < len(rows)) == [span.rows for span in found.missing]


def test_another_chunk_gives_nothing() -> None:
    """
    Bytes of another chunk, though every frame of it is good and of the same time, are not taken.
    """
    _, ref = written(history(60))
    other, _ = written([row.replace(b"{}", b'{"a": 1}') for row in history(60)])

    found = rescue(other, ref)

    assert (found.ref.rows, [span.rows for span in found.missing]) == (0, [60])


@pytest.mark.parametrize("header", [True, False])
def test_a_trailer_that_is_gone_costs_no_rows(header: bool) -> None:
    """
    Without header or trailer all frames are still there, and are proven by the manifest's digest.
    """
    rows = history(60)
    body, ref = written(rows)
    frames = frames_of(body, ref)
    end = frames[-1][0] + frames[-1][1]
    bad = body[frames[0][0] :] if header else body[:end]

    found = rescue(bad, ref)

    assert rows == rows_of(bad, found)
    assert found.missing == ()
