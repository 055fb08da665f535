"""Archives of every released format must verify and restore for ever."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.archives.make import digest, events_of, tables_of
from tests.fix_archive import restored, source_rows
from zbackup.archive.archive import Archive
from zbackup.archive.between import Order
from zbackup.archive.chunk import split_rows
from zbackup.event import cursor_of
from zbackup.moment import parse_point
from zbackup.plan import resolve
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
    The first format has its archives: of real events, and of a whole ZITADEL with a long log.
    """
    assert {"v1", "v1-unit"} <= {path.name for path in FORMATS}


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
