"""Records of what was done with an archive."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from tests.fix_archive import Backup
from tests.history import create_schema, fill
from zbackup.archive import records
from zbackup.archive.archive import Archive
from zbackup.archive.needed import Rules
from zbackup.archive.records import Record
from zbackup.prune import prune
from zbackup.verify import verify

AT = datetime(2026, 1, 1, tzinfo=UTC)


def drill(hours: int) -> Record:
    at = AT + timedelta(hours=hours)
    return Record("drill", at, at, ok=True, backup=None, figures={"seconds": 1.5, "hours": hours, "at": None},
                  id=f"{at:%Y%m%dT%H%M%SZ}-00000000")  # fmt: skip


def test_the_newest_records_of_a_kind_come_first(archive: Archive) -> None:
    """
    Records read back as they were written; other kinds are not among them.
    """
    for hours in (2, 1, 3):
        records.write(archive, drill(hours))
    records.write(archive, replace(drill(4), kind="verify"))

    assert [drill(3), drill(2)] == records.newest(archive, "drill", 2)


def test_a_damaged_record_is_passed_over_and_found(archive: Archive, tmp_path: Path) -> None:
    """
    One that does not read back hides no other, and `verify` names it.
    """
    records.write(archive, drill(1))
    name = records.write(archive, drill(2))
    path = tmp_path / "archive" / name
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"true", b"null"))
    damaged: list[str] = []

    assert [drill(1)] == records.newest(archive, "drill", 2, damaged=damaged.append)
    assert [name] == damaged
    assert name in {found.object for found in verify(archive, level="full").findings}


def test_old_records_are_pruned(archive: Archive, database: str, back_up: Backup, tmp_path: Path) -> None:
    """
    A record goes after a year, and not before the window lets it.
    """
    with psycopg.connect(database) as connection:
        create_schema(connection)
        fill(connection, events=100, seed=7)
    back_up()
    old, young = (records.write(archive, drill(hours)) for hours in (1, 2))
    for name, days in ((old, 367), (young, 365)):
        stamp = (datetime.now(UTC) - timedelta(days=days)).timestamp()
        os.utime(tmp_path / "archive" / name, (stamp, stamp))

    def going(days: int) -> dict[str, int]:
        rules = Rules(window=timedelta(days=days))
        return {one.kind: one.objects for one in prune(archive, rules, grace=timedelta(hours=24)).going}

    assert 1 == going(30)["record"]
    assert "record" not in going(400)
