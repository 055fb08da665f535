"""Archives of every released format must verify and restore for ever."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.archives.make import digest, events_of, tables_of
from tests.fix_archive import restored, source_rows
from tests.gate import Ahead, Clock
from zbackup.archive.archive import Archive
from zbackup.archive.between import Order
from zbackup.archive.needed import Rules
from zbackup.archive.rows import split_rows
from zbackup.archive.tombstones import LEAST_GRACE
from zbackup.event import cursor_of
from zbackup.moment import Latest, parse_point
from zbackup.plan import resolve
from zbackup.prune import prune
from zbackup.state import State
from zbackup.store.local import LocalStore
from zbackup.verify import verify

FORMATS = sorted(path.parent for path in Path(__file__).parent.glob("v*/wanted.json"))


@pytest.fixture
def frozen(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Archive, dict[str, dict[str, object]]]:
    place: Path = request.param
    if (place / "archive.zip").exists():
        shutil.unpack_archive(place / "archive.zip", tmp_path)
    else:
        shutil.copytree(place / "archive", tmp_path / "archive")
    return Archive.open(LocalStore(tmp_path / "archive")), json.loads((place / "wanted.json").read_text())


def test_there_is_an_archive_of_each_format() -> None:
    """
    The first format has its archives: of real events, of a whole ZITADEL with a long log, and one with folders,
    records and a list of what may go.
    """
    assert {"v1", "v1-unit", "v1-tended"} <= {path.name for path in FORMATS}


@pytest.mark.parametrize("frozen", FORMATS, indirect=True, ids=lambda path: path.name)
def test_a_frozen_archive_restores(
    frozen: tuple[Archive, dict[str, dict[str, object]]], new_database: Callable[[], str]
) -> None:
    """
    Backups and instants come back as they were on the day they were written, and so do other tables.
    """
    archive, wanted = frozen

    assert verify(archive, level="full").ok
    for point, told in wanted.items():
        target = new_database()
        whole = "tables" in told
        restored(archive, target, point, proof="full", events_only=not whole)
        rows = events_of(target) if whole else source_rows(target)
        assert told == {**digest(rows), **({"tables": tables_of(target)} if whole else {})}, point
        state = State.of(archive, resolve(archive, parse_point(point, datetime.now(UTC))))
        for order in Order if not whole else ():
            alone = [row for block in state.blocks(order=order) for row in split_rows(block.rows)]
            assert sorted(alone, key=cursor_of) == rows


@pytest.mark.parametrize("days", [0, 1, 30])
@pytest.mark.parametrize("frozen", FORMATS, indirect=True, ids=lambda path: path.name)
def test_a_frozen_archive_is_pruned(frozen: tuple[Archive, dict[str, dict[str, object]]], days: int) -> None:
    """
    What is not needed goes in its two phases, whatever became of older lists, and the newest backup stays whole.
    """
    archive, _ = frozen
    rules, clock = Rules(window=timedelta(0)), Clock(timedelta(days=days))
    before = newest_rows(archive)
    store = Ahead(archive.store, clock)

    first = prune(Archive.open(store), rules, grace=LEAST_GRACE, yes=True)
    clock.ahead += LEAST_GRACE * 2
    second = prune(Archive.open(store), rules, grace=LEAST_GRACE, yes=True)

    assert first.removed + second.removed >= sum(one.objects for one in first.going) > 0
    # A list that is void now goes by the next one.
    assert {one.kind for one in prune(Archive.open(store), rules, grace=LEAST_GRACE).going} <= {"tombstones"}
    assert verify(archive, level="full").ok
    assert before == newest_rows(archive)


def newest_rows(archive: Archive) -> list[bytes]:
    state = State.of(archive, resolve(archive, Latest()))
    return [row for block in state.blocks() for row in split_rows(block.rows)]
