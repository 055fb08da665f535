"""What `follow` decides from look to look, told by what happens to the source in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.fix_archive import archived_rows, execute, newest, options, source_rows
from tests.history import Command, create_schema, fill, push
from zbackup.archive.archive import Archive
from zbackup.backup import backup
from zbackup.database.kept import Sessions
from zbackup.errors import ArchiveError, SourceError, ZbackupError
from zbackup.follow import FollowOptions, follow
from zbackup.outcome import Outcome
from zbackup.source import Counters
from zbackup.stop import Stop
from zbackup.store.local import LocalStore

QUICK = FollowOptions(every=timedelta(milliseconds=20))

Act = Callable[[Outcome], bool | None]


@pytest.fixture
def source(database: str) -> str:
    with psycopg.connect(database) as connection:
        create_schema(connection)
        end = datetime.now(UTC) - timedelta(days=2)
        fill(connection, events=600, start=end - timedelta(days=30), end=end)
    return database


def followed(
    archive: Archive, source: str, act: Act, following: FollowOptions = QUICK, **changes: Any
) -> list[Outcome]:
    """Follow until `act`, which sees each outcome, returns True; return all outcomes."""
    stop = Stop()
    outcomes: list[Outcome] = []

    def told(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if act(outcome):
            stop.ask()
        assert len(outcomes) < 500, outcomes[-1]

    chosen = options(**changes)
    last = follow(archive.store, source, chosen, following, stop=stop, on_outcome=told)
    assert last is outcomes[-1]
    return outcomes


def steps(*acts: Callable[[], Any], seen: bool = False) -> Act:
    """
    Do one after the other, each when the source is found unchanged; the end is when it is so again.

    With `seen` each must be what the next look finds.
    """
    left: Iterator[Callable[[], Any]] = iter(acts)
    found: list[str] = []

    def act(outcome: Outcome) -> bool:
        assert outcome.error is None, outcome.error
        if found and found.pop() == "unchanged":
            assert outcome.outcome == "committed"
        if outcome.outcome != "unchanged":
            return False
        doing = next(left, None)
        if doing is not None:
            doing()
            found.extend(["unchanged"] if seen else [])
        return doing is None

    return act


def names(archive: Archive) -> set[str]:
    return {stat.name for stat in archive.objects()}


def write(source: str, name: str, clock: Any = "statement_timestamp") -> None:
    """Push an event; the table's counters tell of it when this returns."""
    with psycopg.connect(source, autocommit=True) as connection:
        push(connection, "i1", Command("user", name), clock=clock)
        connection.execute("SELECT pg_stat_force_next_flush()")


def test_an_idle_source_makes_no_objects(archive: Archive, source: str) -> None:
    """
    Each look confirms that nothing is new, and leaves nothing behind.
    """
    seen: list[set[str]] = []

    def act(outcome: Outcome) -> bool:
        if outcome.outcome == "unchanged":
            seen.append(names(archive))
        return len(seen) == 5

    outcomes = followed(archive, source, act)

    assert all(one == seen[0] for one in seen)
    first, last = (one for one in (outcomes[-5], outcomes[-1]))
    assert first.newest == last.newest == newest(archive).snapshot
    assert first.newest is not None
    assert first.confirmed is not None
    assert last.confirmed is not None
    assert first.newest < first.confirmed < last.confirmed
    assert last.oldest == datetime.fromisoformat(next(archive.chunks(newest(archive).log)).first[0])


def test_whatever_changes_is_seen_at_the_next_look(archive: Archive, source: str) -> None:
    """
    New rows, old-dated ones, rewritten and removed ones, a rewritten table, and rows that no counter tells of.
    """

    def write_uncounted() -> None:
        with psycopg.connect(source) as connection:
            connection.execute("SET track_counts = off")
            push(connection, "i1", Command("user", "uncounted"))

    old = datetime.now(UTC) - timedelta(days=10)
    table = "eventstore.events2"
    first = f"WHERE ctid = (SELECT min(ctid) FROM {table})"

    followed(
        archive,
        source,
        steps(
            lambda: write(source, "new"),
            lambda: write(source, "old", old),
            lambda: execute(source, f"UPDATE {table} SET creator = 'me' {first}"),
            lambda: execute(source, f"DELETE FROM {table} {first}"),
            lambda: execute(source, f"VACUUM FULL {table}"),
            write_uncounted,
            seen=True,
        ),
        audit_budget=timedelta(seconds=5),
    )

    assert archived_rows(archive) == source_rows(source)


def test_rows_that_nobody_has_looked_for_are_missed_until_somebody_has(archive: Archive, source: str) -> None:
    """
    A light increment has no time to look for an old-dated row; its counters keep it in mind.
    """
    old = datetime.now(UTC) - timedelta(days=25)
    made: list[Counters | None] = []

    def push_old() -> None:
        made.append(newest(archive).counters)
        write(source, "old", old)

    followed(archive, source, steps(push_old), chunk_bytes=16 << 10)
    light = newest(archive)
    thorough = backup(archive, source, options(audit_budget=timedelta(seconds=5)))

    assert made == [light.counters]
    assert light.counters is not None
    assert thorough.amended == 1
    after = newest(archive).counters
    assert after is not None
    assert after.inserted == light.counters.inserted + 1


def test_sessions_that_the_server_ended_are_opened_anew(archive: Archive, source: str) -> None:
    """
    No look fails because of those that were kept.
    """

    def end_sessions() -> None:
        ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'zbackup'"
        execute(source, f"{ended} AND datname = current_database()")

    outcomes = followed(archive, source, steps(end_sessions, lambda: write(source, "second"), end_sessions))

    assert all(outcome.error is None for outcome in outcomes)
    assert archived_rows(archive) == source_rows(source)


def test_a_long_transaction_makes_increments_rarer_and_is_named(archive: Archive, source: str) -> None:
    """
    The interval grows with the tail, looks in between are postponed, and the end of the transaction is seen at once.
    """
    with closing(psycopg.connect(source, application_name="report")) as long:
        pid = long.info.backend_pid
        long.execute("SELECT 1")
        with psycopg.connect(source) as connection:
            text = connection.execute(
                "SELECT string_agg(md5(random()::text || n), '') FROM generate_series(1, 300000) n"
            ).fetchone()
            assert text is not None
            push(connection, "i1", Command("user", "large", payload={"text": text[0]}))

        def act(outcome: Outcome) -> bool:
            match outcome.outcome:
                case "committed" if outcome.tail == 1:
                    write(source, "late")
                case "postponed":
                    long.rollback()
                case "unchanged" if outcome.tail == 0:
                    return True
                case _:
                    pass
            return False

        outcomes = followed(archive, source, act)

    held = next(outcome for outcome in outcomes if outcome.tail)
    postponed = [outcome for outcome in outcomes if outcome.outcome == "postponed"]
    freed = outcomes[outcomes.index(postponed[-1]) + 1]
    assert held.interval > 60
    assert held.tail_bytes / held.interval <= 64 << 10
    for outcome in (held, postponed[0]):
        assert [(one.pid, one.application) for one in outcome.blockers[:1]] == [(pid, "report")]
        assert outcome.horizon_age is not None
        assert outcome.horizon_age > 0
    assert postponed[0].pause < 1
    assert (freed.outcome, freed.tail) == ("committed", 0)
    assert freed.interval == QUICK.every.total_seconds()
    assert archived_rows(archive) == source_rows(source)


def test_a_held_horizon_on_an_idle_source_makes_no_objects(archive: Archive, source: str) -> None:
    """
    A tail that cannot be sealed yet, and is the same, is not written again; it is sealed as soon as it can be.
    """
    with closing(psycopg.connect(source)) as long:
        long.execute("SELECT 1")
        write(source, "late")

        def act(outcome: Outcome) -> bool:
            if outcome.number == 4:
                long.rollback()
            return outcome.number > 4 and outcome.outcome == "unchanged"

        outcomes = followed(archive, source, act)

    assert [(outcome.outcome, outcome.tail) for outcome in outcomes] == [
        ("committed", 1),
        *[("unchanged", 1)] * 3,
        ("committed", 0),
        ("unchanged", 0),
    ]


def test_captures_and_counts_come_in_time(archive: Archive, source: str) -> None:
    """
    The first increment is thorough, and one each interval, also where nothing is new; those between are light.
    """

    def act(outcome: Outcome) -> bool:
        if outcome.number == 1:
            write(source, "second")
        return outcome.thorough and outcome.number > 1

    each = replace(QUICK, capture_every=timedelta(seconds=1))
    outcomes = followed(archive, source, act, each, capture=True)

    light = [outcome for outcome in outcomes if outcome.outcome == "committed" and not outcome.thorough]
    assert light
    assert all(one.result and one.result.capture and one.result.capture.tables <= 1 for one in light)
    for one in (outcomes[0], outcomes[-1]):
        assert one.result is not None
        assert one.result.capture is not None
        assert one.result.capture.schema


def test_another_archive_in_its_place_ends_it(archive: Archive, source: str, tmp_path: Path) -> None:
    """
    Nothing is written into an archive that is not the one it began with. It is looked at more than once.
    """
    folder = Path(archive.store.address)
    outcomes: list[Outcome] = []

    def act(outcome: Outcome) -> bool:
        outcomes.append(outcome)
        if outcome.outcome == "unchanged":
            folder.rename(tmp_path / "away")
            Archive.create(LocalStore(folder, create=True), replace(archive.record, archive="other"))
        return False

    with pytest.raises(ArchiveError, match="other"):
        followed(archive, source, act, replace(QUICK, patience=timedelta(milliseconds=50)))

    assert [(one.outcome, one.ends) for one in outcomes[-2:]] == [("failed", False), ("failed", True)]
    assert len(names(archive)) == 1


@pytest.mark.parametrize(
    ("where", "code"),
    [("dbname=none", 10), ("host=127.0.0.1 user=nobody password=wrong", 10), ("host=127.0.0.1 port=1", None)],
)
def test_what_cannot_be_right_at_first_ends_it(archive: Archive, source: str, where: str, code: int | None) -> None:
    """
    A wrong database or login shows at the start; a server that does not answer yet is waited for.
    """
    wrong = make_conninfo(source, **conninfo_to_dict(where))
    outcomes: list[Outcome] = []

    def act(outcome: Outcome) -> bool:
        outcomes.append(outcome)
        return len(outcomes) == 2

    ended: ZbackupError | None = None
    try:
        followed(archive, wrong, act)
    except SourceError as error:
        ended = error

    assert (ended.exit_code if ended else None) == code
    assert len(outcomes) == (2 if code is None else 1)
    assert outcomes[-1].failures == len(outcomes)


def test_it_ends_by_itself(archive: Archive, source: str) -> None:
    """
    After so many looks, or so long.
    """
    counted = followed(archive, source, lambda _: None, replace(QUICK, count=3))
    timed = followed(archive, source, lambda _: None, replace(QUICK, duration=timedelta(milliseconds=100)))

    assert len(counted) == 3
    assert timed[-1].time - timed[0].time < timedelta(seconds=60)


def test_sessions_are_used_again_while_they_are_sound(database: str) -> None:
    """
    A transaction left open ends, a broken session is not kept, nor an old one, nor any without being told to.
    """
    with closing(Sessions(database, keep=timedelta(hours=1))) as sessions:
        session = sessions.take(timedelta(seconds=7))
        session.execute("BEGIN")
        sessions.give(session)
        assert sessions.pids == {session.info.backend_pid}
        again = sessions.take(timedelta(seconds=9))
        assert again is session
        assert again.execute("SELECT current_setting('lock_timeout'), pg_current_xact_id_if_assigned()").fetchone() == (
            "9s",
            None,
        )
        assert again.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        sessions.give(again)
        execute(database, f"SELECT pg_terminate_backend({session.info.backend_pid}, 5000)")
        fresh = sessions.take()
        assert fresh is not session
        assert session.closed
        with pytest.raises(ZeroDivisionError), sessions.borrow() as borrowed:
            raise ZeroDivisionError
        assert borrowed.closed
    assert fresh.closed
    with closing(Sessions(database)) as sessions:
        session = sessions.take()
        sessions.give(session)
        assert session.closed


def test_what_no_server_counts_is_not_confirmed(archive: Archive, source: str) -> None:
    """
    With track_counts off nobody would see old rows change, so that no look vouches for them, and it is said.
    """
    execute(source, f"ALTER DATABASE {conninfo_to_dict(source)['dbname']} SET track_counts = off")

    outcomes = followed(archive, source, lambda outcome: outcome.number == 4)

    assert {newest(archive).snapshot} == {outcome.confirmed for outcome in outcomes}
    assert any("track_counts" in warning for warning in newest(archive).warnings)
