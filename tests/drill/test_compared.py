"""What a drill that compares with the source takes for a difference."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from tests import fixture_data
from tests.archived import Maker
from tests.drill.conftest import VERSION, Made
from tests.fix_archive import execute, source_rows
from tests.history import create_schema
from tests.integration.test_restore import copy_into
from tests.unit.rows import EPOCH, row
from zbackup.compare import Compared, compare_restored
from zbackup.database.edits import MOST_LISTED
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.database.pace import Pace
from zbackup.drill import DrillOptions, drill
from zbackup.errors import DrillFailed
from zbackup.event import END, cursor_of, instant_text
from zbackup.moment import Instant
from zbackup.progress import silent
from zbackup.restore import RestoreOptions


def test_withheld_events_are_no_difference(whole: Made, database: str) -> None:
    """
    Of what the source has more only those count that were not left out on purpose; nor does what setup wrote.
    """
    events = fixture_data.truths(VERSION)[0].events
    with psycopg.connect(database) as connection:
        fixture_data.load(connection, VERSION, slice(events))
        gone = connection.execute("SELECT max(created_at) FROM eventstore.events2 WHERE instance_id <> ''").fetchone()
        connection.execute("DELETE FROM eventstore.events2 WHERE created_at >= %s", gone)
    assert gone is not None
    there = source_rows(whole.source)
    withheld = {cursor_of(row).texts() for row in there if cursor_of(row).created_at == gone[0]}

    def compared(known: set[tuple[str, ...]]) -> Compared:
        return compare_restored(database, whole.source, END, known, Pace(), silent)

    assert (compared(set()).missing, compared(set()).wrong) == (len(withheld), 0)
    assert compared(set()).named[0].startswith("not restored: ")
    assert (compared(withheld).missing, compared(withheld).wrong, compared(withheld).named) == (0, 0, ())


def test_many_withheld_events_hide_no_difference(tmp_path: Path, postgres: EmbeddedPostgres, database: str) -> None:
    """
    Of more than are listed, so many may be missing; what differs, is not in the source, or is missing besides, fails.
    """
    maker = Maker.at(tmp_path / "many")
    many = [row(EPOCH + timedelta(seconds=1), order=number, sequence=number) for number in range(2, MOST_LISTED + 12)]
    rows = [row(EPOCH, aggregate="x"), *many, row(EPOCH + timedelta(seconds=3))]
    maker.backup(rows, horizon=EPOCH + timedelta(seconds=5), snapshot=EPOCH + timedelta(seconds=6))
    at = EPOCH + timedelta(seconds=2)
    point = Instant(at, instant_text(at))
    options = DrillOptions(RestoreOptions(events_only=True), target=postgres.dsn(), source=database)
    with psycopg.connect(database) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        create_schema(connection, state=False)
        copy_into(connection, rows)

    result = drill(maker.archive, point, options)

    assert (result.withheld, result.compared) == (MOST_LISTED + 10, 1)

    changes = [
        (
            "CREATE TABLE one AS SELECT * FROM eventstore.events2 WHERE aggregate_id = 'x';"
            "UPDATE one SET aggregate_id = 'z'; INSERT INTO eventstore.events2 SELECT * FROM one",
            "1 events differ from the source: not restored: ",
        ),
        # None of those that were withheld is in the source any more.
        (
            "DELETE FROM eventstore.events2 WHERE aggregate_id <> 'x'; UPDATE eventstore.events2 SET creator = 'me'",
            "1 events differ from the source: differs: i/user/x",
        ),
        (
            "UPDATE eventstore.events2 SET aggregate_id = 'y'",
            "1 events differ from the source: not in the source: i/user/x",
        ),
    ]
    for change, words in changes:
        execute(database, change)
        with pytest.raises(DrillFailed, match=words):
            drill(maker.archive, point, options)
