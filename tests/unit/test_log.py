from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count, islice, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.rows import EPOCH
from zbackup.archive import FORMAT
from zbackup.archive.archive import Archive
from zbackup.archive.log import LogEdit, totals, totals_of
from zbackup.archive.manifest import ArchiveRecord, ChunkRef, Log
from zbackup.errors import Damaged
from zbackup.event import BEGINNING, Cursor
from zbackup.store.local import LocalStore

_numbers = count()


def chunk(lo: datetime, hi: datetime, rows: int = 1) -> ChunkRef:
    number = next(_numbers)
    texts = Cursor(max(lo, EPOCH), Decimal(1), 1, b"i", b"t", b"a", 1).texts()
    return ChunkRef(
        f"events/20260101T000000Z-00000000/0000.0000-{number:032x}.zst",
        f"{number:032x}{number:032x}",
        1000,
        f"{number:064x}",
        100,
        rows,
        lo,
        hi,
        texts,
        texts,
        (Decimal(1), Decimal(1)),
    )


def archive(folder: str) -> Archive:
    store = LocalStore(Path(folder), create=True)
    return Archive(store, ArchiveRecord(FORMAT, "a", EPOCH, "test"))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_log_always_tiles(data: st.DataObject) -> None:
    """
    Appended to, amended and emptied in any order, over many runs and index objects: the ranges tile from the
    beginning, and the totals add up without reading an index.
    """
    with tempfile.TemporaryDirectory() as folder:
        place, log, end = archive(folder), Log(), BEGINNING
        for run in range(data.draw(st.integers(1, 6))):
            edit = LogEdit(place, log, index_chunks=3)
            model = list(edit.chunks())
            for _ in range(data.draw(st.integers(0, 3))):
                if not model:
                    break
                old = data.draw(st.sampled_from(model))
                span = old.hi - old.lo
                cuts = sorted({old.lo + span * part / 4 for part in data.draw(st.sets(st.integers(1, 3)))})
                edges = [old.lo, *cuts, old.hi]
                new = [chunk(lo, hi) for lo, hi in pairwise(edges)] if data.draw(st.booleans()) else []
                edit.replace(old, new)
                at = model.index(old)
                model[at : at + 1] = new
            end = edit.end()
            begin = max(end, EPOCH)
            added: list[ChunkRef] = []
            for hours in data.draw(st.lists(st.integers(1, 9), max_size=5)):
                added.append(chunk(end, begin + timedelta(hours=hours)))
                end = begin = added[-1].hi
            edit.append(added)
            log = edit.store(f"run{run}")

            held = list(place.chunks(log))
            assert [one.name for one in (*model, *added)] == [one.name for one in held]
            assert all(one.hi == other.lo for one, other in pairwise(held))
            assert not held or held[0].lo == BEGINNING
            assert totals_of(held) == totals(log)


def test_an_untouched_index_keeps_its_object(tmp_path: Path) -> None:
    """
    What did not change is shared: only the groups of replaced chunks are written again.
    """
    place = archive(str(tmp_path))
    edges = [BEGINNING, *(EPOCH + timedelta(hours=hour) for hour in range(1, 10))]
    edit = LogEdit(place, Log(), index_chunks=3)
    edit.append([chunk(lo, hi) for lo, hi in pairwise(edges)])
    log = edit.store("one")
    assert (3, 0) == (len(log.indexes), len(log.chunks))

    again = LogEdit(place, log, index_chunks=3)
    old = list(again.chunks())[4]
    again.replace(old, [chunk(old.lo, old.hi)])
    changed = again.store("two")

    assert [True, False, True] == [one == other for one, other in zip(log.indexes, changed.indexes, strict=True)]


def test_a_gap_or_overlap_is_refused(tmp_path: Path) -> None:
    """
    Nothing can be appended that does not begin where the log ends.
    """
    edit = LogEdit(archive(str(tmp_path)), Log())

    with pytest.raises(Damaged, match="the log ends at"):
        edit.append([chunk(EPOCH, EPOCH + timedelta(hours=1))])


def test_the_end_of_a_log_is_had_without_the_rest() -> None:
    """
    The newest chunks, and the ranges of all, are told without an index that nobody comes to.
    """
    edges = [EPOCH + timedelta(hours=number) for number in range(11)]
    with tempfile.TemporaryDirectory() as folder:
        place = archive(folder)
        edit = LogEdit(place, Log(), index_chunks=4)
        edit.append([chunk(lo, hi) for lo, hi in pairwise([BEGINNING, *edges[1:]])])
        log = edit.store("20260101T000000Z-00000000")
        for index in log.indexes[:1]:
            (Path(folder) / index.name).unlink()
        edit = LogEdit(place, log, index_chunks=4)

        newest = [found.hi for found in islice(edit.newest(), 6)]
        parts = [(lo, hi) for lo, hi, _ in edit.parts()]

        assert edges[:4:-1] == newest
        assert [(BEGINNING, edges[4]), (edges[4], edges[8]), (edges[8], edges[10])] == parts
        assert [4, 2] == [len(held()) for *_, held in [*edit.parts()][1:]]
        assert log == LogEdit(place, log, index_chunks=4).store("20260101T000000Z-00000000")


def test_a_log_that_grows_keeps_few_chunks_and_few_indexes() -> None:
    """
    However many chunks come one by one, a manifest names few of them itself, and few indexes hold the rest.
    """
    edges = [BEGINNING, *(EPOCH + timedelta(hours=number) for number in range(40))]
    with tempfile.TemporaryDirectory() as folder:
        place, log = archive(folder), Log()
        grown = [chunk(lo, hi) for lo, hi in pairwise(edges)]
        for number, one in enumerate(grown, 1):
            edit = LogEdit(place, log, index_chunks=9, small_chunks=3)
            edit.append([one])
            log = edit.store("20260101T000000Z-00000000")

            assert len(log.chunks) < 3
            assert len(log.indexes) <= number // 9 + 2
            assert grown[:number] == list(place.chunks(log))


def test_many_chunks_at_once_need_no_small_indexes() -> None:
    """
    A first backup of a large history writes whole indexes.
    """
    edges = [BEGINNING, *(EPOCH + timedelta(hours=number) for number in range(25))]
    with tempfile.TemporaryDirectory() as folder:
        edit = LogEdit(archive(folder), Log(), index_chunks=10, small_chunks=3)
        edit.append([chunk(lo, hi) for lo, hi in pairwise(edges)])
        log = edit.store("20260101T000000Z-00000000")

        assert [10, 10, 3] == [index.chunks for index in log.indexes]
        assert 2 == len(log.chunks)
