"""Archives into databases: round trips, states of a target, resuming, the proof, the publication."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Timer
from typing import Any

import psycopg
import pytest

from tests.archived import TABLE, Maker, created, in_order
from tests.fix_postgres import every_version
from tests.fix_whole import one
from tests.forked import killed_restore
from tests.history import COLUMNS, History, create_schema
from tests.unit.rows import EPOCH, history, row
from zbackup.archive import find
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ChunkRef
from zbackup.database.proof import prove
from zbackup.database.shape import find_events_table
from zbackup.database.target import Loaded, claim, lock, note
from zbackup.errors import Busy, Damaged, TargetError, TargetRefused
from zbackup.event import instant_text
from zbackup.moment import Instant, Latest, OfBackup, RestorePoint
from zbackup.plan import resolve
from zbackup.progress import Progress, Step, Warned, silent
from zbackup.restore import RestoreOptions, RestoreResult, restore
from zbackup.state import State
from zbackup.zitadel.events import COLUMN_ORDER

ROWS = history(60)
SELECT = ", ".join(f'"{name}"' for name in COLUMN_ORDER)


def at(second: float) -> datetime:
    return EPOCH + timedelta(seconds=second)


def instant(when: datetime) -> Instant:
    return Instant(when, instant_text(when))


def connected(dsn: str) -> psycopg.Connection[Any]:
    connection = psycopg.connect(dsn, autocommit=True)
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def dumped(dsn: str, table: str = "eventstore.events2") -> list[bytes]:
    """All rows of a table, in the archive's order."""
    with connected(dsn) as connection, connection.cursor() as cursor:
        with cursor.copy(f"COPY (SELECT {SELECT} FROM {table}) TO STDOUT".encode()) as copy:
            rows = b"".join(bytes(block) for block in copy).splitlines(keepends=True)
        return in_order(rows)


def copy_into(
    connection: psycopg.Connection[Any],
    rows: Iterable[bytes],
    columns: Iterable[str] = COLUMN_ORDER,
    table: str = "events2",
) -> None:
    names = ", ".join(f'"{name}"' for name in columns)
    statement = f"COPY eventstore.{table} ({names}) FROM STDIN"
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.write(b"".join(rows))


def relations(dsn: str) -> set[str]:
    with connected(dsn) as connection:
        rows = connection.execute(
            """SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = 'eventstore' AND c.relkind = 'r'"""
        )
        return {name for (name,) in rows}


def run_sql(dsn: str, *statements: str) -> None:
    with connected(dsn) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker.at(tmp_path / "archive", chunk_rows=10, frame_bytes=200)


@pytest.fixture
def sixty(maker: Maker) -> Archive:
    """Sixty events, one a second, in six chunks, two of them in the tail."""
    maker.backup(ROWS, horizon=at(40), snapshot=at(100))
    return maker.archive


def go(archive: Archive, dsn: str, point: RestorePoint | None = None, **options: Any) -> RestoreResult:
    return restore(archive, dsn, point or Latest(), RestoreOptions(events_only=True, **options))


# Round trips


@every_version
def test_a_history_comes_back(maker: Maker, database: str, new_database: Callable[[], str]) -> None:
    """
    Rows, key and indexes of a whole backup are those of the source, byte by byte.
    """
    lines = list(History(3000, seed=1, huge=1).lines())
    with connected(database) as connection:
        create_schema(connection, state=False)
        copy_into(connection, lines, COLUMNS)
        table = find_events_table(connection).table
    maker.table, maker.chunk_rows, maker.frame_bytes = table, 500, 20_000
    rows = dumped(database)
    last = max(map(created, rows))
    maker.backup(rows, horizon=last - timedelta(minutes=5), snapshot=last + timedelta(seconds=1))
    target = new_database()

    result = go(maker.archive, target, proof="full")

    assert dumped(target) == rows
    with connected(target) as connection:
        assert find_events_table(connection).table == table
    assert (result.events, result.withheld, result.done_before) == (3000, 0, False)
    assert relations(target) == {"events2"}


def test_an_instant_comes_back(sixty: Archive, new_database: Callable[[], str]) -> None:
    """
    At any instant there are exactly the events created until then, whether it cuts a chunk or not.
    """
    for second in (0, 9, 9.5, 10, 33, 39.999999, 40, 47, 59, 100):
        target = new_database()

        result = go(sixty, target, instant(at(second)), proof="full")

        wanted = [one for one in ROWS if created(one) <= at(second)]
        assert dumped(target) == wanted
        assert (result.events, result.at, result.final) == (len(wanted), at(second), second < 40)


def test_an_empty_backup_comes_back(maker: Maker, database: str) -> None:
    """
    A source without events is restored as one: the table is there.
    """
    maker.backup([], horizon=at(1), snapshot=at(2))

    assert go(maker.archive, database).events == 0
    assert dumped(database) == []


def test_added_rows_come_back(maker: Maker, database: str, new_database: Callable[[], str]) -> None:
    """
    Rows that a later amendment added apply to older instants; what is there already stays as it was.
    """
    maker.backup(ROWS[:30], horizon=at(25), snapshot=at(30))
    late = [row(at(second), aggregate="late", sequence=int(second)) for second in (3, 8, 25)]
    # Between T and the snapshot an added row is a cause; the answering backup could not see what came later.
    torn = [row(at(4.5), instance="k", sequence=2), row(at(26), instance="k", sequence=1)]
    beyond = row(at(55), aggregate="late", sequence=1)
    again = row(at(4), sequence=5, payload='{"rewritten": true}')
    added = [*late, *torn, beyond, again]
    maker.backup([*ROWS[:4], *ROWS[5:], *added], horizon=at(58), snapshot=at(60), added=added)

    result = go(maker.archive, database, instant(at(20)))

    assert dumped(database) == in_order([*ROWS[:21], *late[:2]])
    alone = State.of(maker.archive, resolve(maker.archive, instant(at(20))))
    assert b"".join(block.rows for block in alone.blocks()) == b"".join(dumped(database))
    assert (result.events, result.added, result.withheld) == (23, 3, 1)
    assert result.withheld_events[0][3] == "k"
    other = new_database()
    go(maker.archive, other, OfBackup(maker.archive.catalog().entries[0].backup))
    assert dumped(other) == ROWS[:30]


# States of a target


def prepared(dsn: str, *rows: bytes) -> None:
    with connected(dsn) as connection:
        create_schema(connection, state=False)
        copy_into(connection, rows)


def system(second: int) -> bytes:
    return row(at(second), instance="", kind="system", aggregate="SYSTEM", sequence=second, event="system.x")


def test_a_prepared_target_keeps_its_table(sixty: Archive, database: str) -> None:
    """
    What depends on the table by OID follows it; rows of the system are moved aside, indexes stay.
    """
    prepared(database, system(1), system(2))
    run_sql(
        database,
        """CREATE FUNCTION eventstore.push(aggregate text) RETURNS SETOF eventstore.events2 LANGUAGE plpgsql AS $$
           BEGIN RETURN QUERY INSERT INTO eventstore.events2
             (instance_id, aggregate_type, aggregate_id, event_type, "sequence", revision, created_at, creator, owner,
              "position", in_tx_order)
             VALUES ('i', 'user', aggregate, 'user.added', 1, 1, now(), '', '', extract(epoch FROM now()), 1)
             RETURNING *; END $$""",
    )
    warned: list[Progress] = []

    result = restore(sixty, database, Latest(), RestoreOptions(events_only=True), report=warned.append)

    assert result.moved_aside == 2
    assert any(isinstance(one, Warned) and "events2_before_restore" in one.message for one in warned)
    assert dumped(database) == ROWS
    assert dumped(database, "eventstore.events2_before_restore") == [system(1), system(2)]
    with connected(database) as connection:
        assert len(connection.execute("SELECT * FROM eventstore.push('new')").fetchall()) == 1
        names = {index.name for index in find_events_table(connection).table.indexes}
    assert names > {index.name for index in TABLE.indexes}
    assert len(dumped(database)) == len(ROWS) + 1


def test_a_second_run_says_done(sixty: Archive, database: str) -> None:
    """
    The receipt is recognised: the same plan is done, another one is refused by name.
    """
    first = go(sixty, database, instant(at(33)))
    before = dumped(database)

    again = go(sixty, database, instant(at(33)))

    assert again.done_before
    assert replace(again, seconds=0, done_before=False) == replace(first, seconds=0)
    assert dumped(database) == before
    with pytest.raises(TargetRefused, match="was restored before") as error:
        go(sixty, database, instant(at(34)))
    assert instant_text(at(33)) in error.value.message


def test_the_receipt_tells_what_was_done(sixty: Archive, database: str) -> None:
    """
    The table's comment is JSON with run, archive, backup, instant, plan and numbers.
    """
    go(sixty, database, instant(at(33)))

    with connected(database) as connection:
        found = connection.execute("SELECT obj_description('eventstore.events2'::regclass)").fetchone()
    assert found is not None
    receipt = json.loads(found[0])["zbackup"]
    entry = sixty.catalog().entries[0]
    assert receipt["archive"] == sixty.record.archive
    assert (receipt["backup"], receipt["at"], receipt["events"]) == (entry.backup, instant_text(at(33)), 34)
    assert len(receipt["digest"]) == 64


REFUSED: dict[str, tuple[Callable[[str], object], str]] = {
    "events of instances": (
        lambda dsn: prepared(dsn, *ROWS[:3], system(1), row(at(1), instance="other")),
        "4 events of 2 instances in eventstore.events2",
    ),
    "the older table": (
        lambda dsn: run_sql(
            dsn,
            "CREATE SCHEMA eventstore",
            "CREATE TABLE eventstore.events (instance_id text, event_sequence bigint)",
            "INSERT INTO eventstore.events VALUES ('i', 1), ('j', 2)",
        ),
        "eventstore.events, 2 events of 2 instances",
    ),
    "the migrated table": (
        lambda dsn: run_sql(dsn, "CREATE SCHEMA eventstore", "CREATE TABLE eventstore.events_old (instance_id text)"),
        "eventstore.events_old, 0 events",
    ),
    "a view": (
        lambda dsn: run_sql(
            dsn, "CREATE SCHEMA eventstore", "CREATE VIEW eventstore.events2 AS SELECT ''::text AS instance_id"
        ),
        "eventstore.events2 is a view",
    ),
    "a partitioned table": (
        lambda dsn: run_sql(
            dsn,
            "CREATE SCHEMA eventstore",
            "CREATE TABLE eventstore.events2 (instance_id text) PARTITION BY LIST (instance_id)",
        ),
        "eventstore.events2 is a partitioned table",
    ),
    "other columns": (
        lambda dsn: (
            prepared(dsn),
            run_sql(
                dsn,
                "ALTER TABLE eventstore.events2 ALTER revision TYPE bigint, ADD extra text NOT NULL, ADD more text",
                "ALTER TABLE eventstore.events2 ALTER owner DROP NOT NULL",
            ),
        ),
        "column revision is bigint NOT NULL, archived is smallint NOT NULL; column owner is text, archived is "
        "text NOT NULL; column extra is text NOT NULL, archived is none",
    ),
    "another key": (
        lambda dsn: (
            prepared(dsn),
            run_sql(
                dsn,
                "ALTER TABLE eventstore.events2 DROP CONSTRAINT events2_pkey",
                'ALTER TABLE eventstore.events2 ADD PRIMARY KEY ("position", instance_id)',
            ),
        ),
        "its key events2_pkey is PRIMARY KEY",
    ),
    "triggers": (
        lambda dsn: (
            prepared(dsn),
            run_sql(
                dsn,
                "CREATE TRIGGER t BEFORE UPDATE ON eventstore.events2 FOR EACH ROW "
                "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            ),
        ),
        "a table with triggers",
    ),
    "taken index names": (
        lambda dsn: run_sql(
            dsn,
            "CREATE SCHEMA eventstore",
            "CREATE TABLE eventstore.other (a int CONSTRAINT events2_pkey PRIMARY KEY)",
        ),
        "eventstore.events2_pkey of eventstore.other",
    ),
    "a strange half": (
        lambda dsn: run_sql(dsn, "CREATE SCHEMA eventstore", "CREATE TABLE eventstore.events2_restoring (a int)"),
        "events2_restoring without eventstore.zbackup_ledger",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_refused_by_name(sixty: Archive, database: str, name: str) -> None:
    """
    A target with content of its own is named, counted, and left as it is.
    """
    make, message = REFUSED[name]
    make(database)
    there = relations(database)

    with pytest.raises(TargetRefused) as error:
        go(sixty, database)

    assert message in error.value.message
    assert error.value.hint
    assert relations(database) == there


def test_another_encoding_is_refused(sixty: Archive, database: str, postgres: Any) -> None:
    """
    A database of another encoding cannot hold the same events.
    """
    run_sql(database, "CREATE DATABASE zb_latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(TargetRefused, match="encoding is LATIN1"):
            go(sixty, postgres.dsn("zb_latin"))
    finally:
        run_sql(database, "DROP DATABASE zb_latin WITH (FORCE)")


def test_an_index_of_another_shape_is_left(sixty: Archive, database: str) -> None:
    """
    A prepared target's own form of an index stays, and is reported.
    """
    prepared(database)
    run_sql(
        database,
        "DROP INDEX eventstore.es_active_instances",
        "CREATE INDEX es_active_instances ON eventstore.events2 (created_at)",
    )
    warned: list[Progress] = []

    restore(sixty, database, Latest(), RestoreOptions(events_only=True), report=warned.append)

    assert any(isinstance(one, Warned) and "es_active_instances" in one.message for one in warned)


# Interrupted


def killed_at(moment: int, where: Path, target: str, point: str, jobs: int = 1) -> bool:
    """Restore in a process that kills itself at its n-th progress record; False when it finished before."""
    return killed_restore(moment, where, target, point, RestoreOptions(jobs=jobs, proof="full", events_only=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["empty", "prepared"])
def test_a_killed_restore_goes_on(tmp_path: Path, sixty: Archive, database: str, kind: str) -> None:
    """
    Killed at any moment and run again, over and over, it ends as if it had never been killed.
    """
    if kind == "prepared":
        prepared(database, system(1))
    moment = 2 if kind == "empty" else 3

    while killed_at(moment, tmp_path / "archive", database, instant_text(at(47))):
        moment += 3
        if "events2" in relations(database):
            assert kind == "prepared"
            assert dumped(database) == [system(1)]
    result = go(sixty, database, instant(at(47)))

    assert moment > 6
    assert result.done_before
    assert dumped(database) == ROWS[:48]
    assert result.moved_aside == (kind == "prepared")
    assert relations(database) - {"events2_before_restore"} == {"events2"}


@pytest.mark.slow
def test_each_kill_is_survived_on_its_own(tmp_path: Path, sixty: Archive, new_database: Callable[[], str]) -> None:
    """
    One kill at a random moment of a parallel restore, then one run to the end.
    """
    for moment in sorted(random.sample(range(3, 39), 4)):
        target = new_database()
        killed = killed_at(moment, tmp_path / "archive", target, instant_text(at(47)), jobs=3)

        assert killed
        assert "events2" not in relations(target)
        assert go(sixty, target, instant(at(47)), proof="full").done_before is False
        assert dumped(target) == ROWS[:48]


class Stops(Exception):
    pass


def stopped(archive: Archive, dsn: str, point: RestorePoint, step: str, detail: str = "") -> None:
    """Restore until a step begins, then break off with an exception."""

    def report(progress: Progress) -> None:
        if isinstance(progress, Step) and progress.name == step and detail in progress.detail:
            raise Stops

    with pytest.raises(Stops):
        restore(archive, dsn, point, RestoreOptions(events_only=True), report=report)


@pytest.mark.parametrize(("step", "detail"), [("load", ""), ("index", ""), ("proof", ""), ("publish", "commit")])
def test_what_is_done_is_not_done_again(sixty: Archive, database: str, step: str, detail: str) -> None:
    """
    A restore that went on loads only what the ledger does not name.
    """
    stopped(sixty, database, Latest(), step, detail)
    seen: list[Progress] = []

    restore(sixty, database, Latest(), RestoreOptions(events_only=True), report=seen.append)

    (found,) = [one.detail for one in seen if isinstance(one, Step) and one.name == "load"]
    assert found == ("6 chunks" if step == "load" else "6 chunks, 6 of them loaded before")
    assert dumped(database) == ROWS


def test_a_chunk_in_the_last_breath_of_a_killed_run_is_not_loaded_twice(sixty: Archive, database: str) -> None:
    """
    A session that a killed restore left behind may still commit its chunk; it is waited for, and counts.
    """
    stopped(sixty, database, Latest(), "load")
    ref = resolve(sixty, Latest()).chunks[2].ref
    with psycopg.connect(database) as stale:
        assert claim(stale, ref.name)
        copy_into(stale, sixty.read(ref), table="events2_restoring")
        note(stale, ref.name, Loaded(ref.rows, ref.raw_sha256, ref.last, {}, {}))
        commit = Timer(1, stale.commit)
        commit.start()

        result = go(sixty, database, proof="full")

        commit.join()
    assert (result.events, dumped(database)) == (60, ROWS)


@pytest.mark.parametrize("kind", ["empty", "prepared"])
def test_another_plan_is_refused_until_restarted(sixty: Archive, database: str, kind: str) -> None:
    """
    An unfinished restore of another plan is named, with what would undo it; --restart undoes just that.
    """
    if kind == "prepared":
        prepared(database, system(1), system(2))
    stopped(sixty, database, instant(at(30)), "proof")

    with pytest.raises(TargetRefused, match="unfinished restore of another plan") as error:
        go(sixty, database, instant(at(47)))
    assert instant_text(at(30)) in error.value.message
    result = go(sixty, database, instant(at(47)), restart=True)

    assert dumped(database) == ROWS[:48]
    assert result.moved_aside == (2 if kind == "prepared" else 0)


@pytest.mark.parametrize("kind", ["empty", "prepared"])
def test_the_hint_undoes_it(sixty: Archive, database: str, kind: str) -> None:
    """
    The statements in the hint bring the target back to where it was.
    """
    if kind == "prepared":
        prepared(database, system(1), system(2))
    there = relations(database)
    stopped(sixty, database, instant(at(30)), "proof")
    with pytest.raises(TargetRefused) as error:
        go(sixty, database, instant(at(47)))

    run_sql(database, *error.value.hint.partition("which does: ")[2].split(";"))

    assert relations(database) == there
    assert kind == "empty" or dumped(database) == [system(1), system(2)]


def test_restart_of_nothing_is_a_plain_restore(sixty: Archive, database: str) -> None:
    """
    With nothing to undo --restart changes nothing, not even a finished restore.
    """
    go(sixty, database, restart=True)

    assert go(sixty, database, restart=True).done_before


def test_two_at_once_do_not_meet(sixty: Archive, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A second restore into the same database waits for the first, then says so.
    """
    monkeypatch.setattr("zbackup.database.target.LOCK_TIMEOUT", timedelta(seconds=0.2))
    with connected(database) as connection:
        lock(connection)
        with pytest.raises(Busy, match="another restore is running"):
            go(sixty, database)


# The proof


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ('DELETE FROM eventstore.events2_restoring WHERE "sequence" = 25', "the target has 9 rows, the archive 10"),
        (
            'UPDATE eventstore.events2_restoring SET payload = \'{"a": 1}\' WHERE "sequence" = 25',
            "the target has 10 rows, digest",
        ),
        (
            "UPDATE eventstore.events2_restoring SET aggregate_type = 'org' WHERE \"sequence\" = 25",
            "aggregate type 'org' has 1 rows in the target, 0 in the archive",
        ),
        ('UPDATE eventstore.events2_restoring SET in_tx_order = 2 WHERE "sequence" = 1', "as its first event"),
        ('UPDATE eventstore.events2_restoring SET in_tx_order = 2 WHERE "sequence" = 60', "as its last event"),
    ],
)
def test_the_proof_finds_what_differs(sixty: Archive, database: str, statement: str, message: str) -> None:
    """
    A row that is missing or altered is found, its chunk named, and nothing is published.

    With one job rows are counted before any are read back.
    """
    stopped(sixty, database, Latest(), "proof")
    run_sql(database, statement)

    with pytest.raises(TargetError) as error:
        go(sixty, database, proof="full", jobs=1)

    assert message in error.value.message
    assert relations(database) == {"events2_restoring", "zbackup_ledger"}


def test_a_chunk_that_differs_ends_the_proof(tmp_path: Path, database: str) -> None:
    """
    What a chunk should hold is not asked of the others any more when one was found to differ.
    """
    maker = Maker.at(tmp_path / "archive", chunk_rows=1)
    maker.backup(ROWS, horizon=at(40), snapshot=at(100))
    stopped(maker.archive, database, Latest(), "proof")
    run_sql(database, "UPDATE eventstore.events2_restoring SET creator = 'x' WHERE \"sequence\" = 1")
    asked: list[str] = []
    found = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ~ '^COPY'"

    def counts(ref: ChunkRef) -> tuple[dict[str, int], dict[str, int]]:
        asked.append(ref.name)
        while not one(database, f"{found} AND state = 'idle'"):
            pass
        return find.counts(maker.archive, ref)

    plan = resolve(maker.archive, Latest())
    with connected(database) as connection, pytest.raises(TargetError, match="digest"):
        prove(database, connection, plan, counts, "sample", 2, silent)

    assert len(asked) < len(plan.chunks)


def test_a_flipped_row_in_a_cut_chunk_is_found_by_a_sample(sixty: Archive, database: str) -> None:
    """
    Chunks that were cut are always read back.
    """
    stopped(sixty, database, instant(at(47)), "proof")
    run_sql(database, "UPDATE eventstore.events2_restoring SET creator = 'x' WHERE \"sequence\" = 45")

    with pytest.raises(TargetError, match="digest"):
        go(sixty, database, instant(at(47)))


def test_a_damaged_chunk_is_not_loaded(sixty: Archive, database: str, tmp_path: Path) -> None:
    """
    A chunk that does not prove itself leaves nothing behind; the others may be there.
    """
    victim = sorted((tmp_path / "archive" / "events").rglob("*.zst"))[2]
    body = bytearray(victim.read_bytes())
    body[len(body) // 2] ^= 1
    victim.chmod(0o600)
    victim.write_bytes(body)

    with pytest.raises(Damaged, match=victim.name):
        go(sixty, database)

    assert "events2" not in relations(database)
    with connected(database) as connection:
        rows = connection.execute(
            'SELECT count(*) FROM eventstore.events2_restoring WHERE "sequence" BETWEEN 21 AND 30'
        ).fetchone()
    assert rows == (0,)


# The publication


@pytest.mark.parametrize("position", [4_000_000_000, 4_000_000_000_000_000_000])
@pytest.mark.parametrize("point", [Latest(), instant(at(55))], ids=["whole", "instant"])
def test_positions_ahead_of_the_clock_are_refused(
    maker: Maker, database: str, position: int, point: RestorePoint
) -> None:
    """
    Positions that the target's clock has not reached, in seconds or nanoseconds, are refused.
    """
    ahead = row(at(50.5), position=f"{position}.000001", aggregate="x")
    maker.backup([*ROWS, ahead], horizon=at(40), snapshot=at(100))

    with pytest.raises(TargetRefused, match="ahead of the target's clock"):
        go(maker.archive, database, point)

    assert "events2" not in relations(database)


def test_added_positions_ahead_of_the_clock_are_refused(maker: Maker, database: str) -> None:
    """
    So are those of rows that amendments added, also where T cuts no chunk.
    """
    maker.backup(ROWS[:30], horizon=at(25), snapshot=at(30))
    ahead = row(at(3.5), position="4000000000.000001", aggregate="x")
    maker.backup([*ROWS, ahead], horizon=at(58), snapshot=at(60), added=[ahead])
    point = instant(at(9))
    assert not any(chunk.cut for chunk in resolve(maker.archive, point).chunks)

    with pytest.raises(TargetRefused, match="ahead of the target's clock"):
        go(maker.archive, database, point)


def test_nanoseconds_of_the_past_are_fine(maker: Maker, database: str) -> None:
    """
    Positions of CockroachDB, nanoseconds since the epoch, are compared as such.
    """
    seconds = [int(at(number).timestamp()) for number in range(5)]
    rows = [
        row(at(number), position=f"{second}000000000.0000000001", sequence=number + 1)
        for number, second in enumerate(seconds)
    ]
    maker.backup([*rows, row(at(9), aggregate="x")], horizon=at(40), snapshot=at(100))

    assert go(maker.archive, database).events == 6


def test_a_table_that_came_in_between_stops_the_publication(sixty: Archive, database: str) -> None:
    """
    Somebody's events2 beside the unfinished restore is not touched.
    """
    stopped(sixty, database, Latest(), "publish")
    run_sql(database, "CREATE TABLE eventstore.events2 (instance_id text)")

    with pytest.raises(TargetRefused, match="beside the unfinished restore"):
        go(sixty, database)
    run_sql(database, "DROP TABLE eventstore.events2")

    assert go(sixty, database).events == 60
