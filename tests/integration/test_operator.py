"""What a tired operator does wrong must be said, not done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from tests.fix_archive import Backup, execute, restored
from tests.history import create_schema, fill
from zbackup.archive.archive import Archive
from zbackup.errors import ArchiveError, OutsideWindow, TargetRefused, UsageError
from zbackup.init import init
from zbackup.moment import parse_point
from zbackup.plan import plan
from zbackup.progress import Progress, Warned
from zbackup.restore import RestoreOptions, preview, restore
from zbackup.store.local import LocalStore
from zbackup.verify import verify


@pytest.fixture
def source(database: str) -> str:
    with psycopg.connect(database) as connection:
        create_schema(connection)
        fill(connection, events=1000, seed=9)
    return database


def test_an_instant_before_the_first_event_is_outside(archive: Archive, source: str, back_up: Backup) -> None:
    """
    A year mistyped is an error that prints the window, also after rows came late.
    """
    back_up()
    execute(source, 'DELETE FROM eventstore.events2 WHERE "sequence" = 2')
    back_up()
    execute(
        source,
        "INSERT INTO eventstore.events2 SELECT instance_id, aggregate_type, 'late', event_type, 1, revision, "
        "created_at, payload, creator, owner, position, in_tx_order FROM eventstore.events2 LIMIT 1",
    )
    assert back_up().amended

    with pytest.raises(OutsideWindow, match="outside the window"):
        plan(archive, parse_point("2016-11-23T08:00:00Z", datetime.now(UTC)))


def test_an_archive_without_manifests_is_a_finding(
    archive: Archive, back_up: Backup, source: str, tmp_path: Path
) -> None:
    """
    Chunks that no manifest names can restore nothing: that is not "ok".
    """
    assert not verify(archive).ok
    back_up()
    assert verify(archive).ok
    for path in (tmp_path / "archive" / "manifests").rglob("*.json"):
        path.unlink()

    assert not verify(archive, level="quick").ok


def test_an_archive_is_not_made_among_other_files(tmp_path: Path) -> None:
    """
    `init` refuses a place that holds something, and leaves it as it was.
    """
    (tmp_path / "holiday.jpg").write_bytes(b"x")

    with pytest.raises(ArchiveError, match=r"not empty: it holds holiday\.jpg"):
        init(LocalStore(tmp_path))
    assert ["holiday.jpg"] == [path.name for path in tmp_path.iterdir()]


def test_a_dry_run_looks_at_the_target(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    What the restore would refuse the dry run refuses; an empty target is left empty.
    """
    back_up()
    made = plan(archive, parse_point("latest", datetime.now(UTC)))
    target = new_database()

    with pytest.raises(TargetRefused, match="events of"):
        preview(archive, source, made, RestoreOptions(events_only=True))
    assert preview(archive, target, made, RestoreOptions(events_only=True)) is None

    with psycopg.connect(target) as connection:
        assert (None,) == connection.execute("SELECT to_regnamespace('eventstore')").fetchone()


def test_tables_of_others_are_named(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    A target that holds somebody's tables is used, and they are named.
    """
    back_up()
    target = new_database()
    execute(target, "CREATE TABLE public.customers (id INT)")
    said: list[str] = []

    def report(progress: Progress) -> None:
        if isinstance(progress, Warned):
            said.append(progress.message)

    restore(archive, target, parse_point("latest", datetime.now(UTC)), RestoreOptions(events_only=True), report=report)

    assert any("public.customers" in message for message in said)


def test_a_spool_that_is_not_there_is_refused(archive: Archive, source: str, back_up: Backup) -> None:
    """
    A folder that large chunks would fail in is refused before anything is read.
    """
    with pytest.raises(UsageError, match="/nowhere"):
        back_up(spool="/nowhere")
    assert not archive.catalog().entries
    with pytest.raises(OutsideWindow):
        restored(archive, source)
