from __future__ import annotations

import threading
from datetime import UTC, datetime
from decimal import Decimal

import psycopg
import pytest

from tests.fix_postgres import every_version
from tests.history import Clock, Command, create_indexes, create_schema, fill, fill_state, push
from tests.history.schema import OrderType

INSTANCE = "400839037394357286"


@every_version
def test_a_generated_history_loads_into_each_version(database: str) -> None:
    """
    The tables of a ZITADEL can be made and filled on each version, with key and indexes built afterwards.
    """
    with psycopg.connect(database) as connection:
        create_schema(connection, "bigint", indexes=False)
        fill(connection, events=2000, odd=0.2, gaps=True)
        create_indexes(connection)
        fill_state(connection)

        assert connection.execute("SELECT count(*) FROM eventstore.events2").fetchone() == (2000,)
        indexes = connection.execute("SELECT count(*) FROM pg_indexes WHERE tablename = 'events2'").fetchone()
        assert indexes == (6,)


def test_a_history_can_be_written_push_by_push(database: str) -> None:
    """
    Each push is a transaction of its own then.
    """
    with psycopg.connect(database) as connection:
        create_schema(connection)
        fill(connection, events=300, transactions=True)

        transactions = connection.execute("SELECT count(DISTINCT xmin::TEXT) FROM eventstore.events2").fetchone()
    assert transactions is not None
    assert transactions[0] > 50


@pytest.mark.parametrize("in_tx_order", ["integer", "bigint"])
def test_in_tx_order_has_the_type_asked_for(database: str, in_tx_order: OrderType) -> None:
    """
    Migrated databases have bigint there.
    """
    with psycopg.connect(database) as connection:
        create_schema(connection, in_tx_order, state=False)
        kind = connection.execute("SELECT pg_typeof(in_tx_order)::TEXT FROM eventstore.events2").fetchone()
        assert kind is None
        push(connection, INSTANCE, ("org", "1"))
        kind = connection.execute("SELECT pg_typeof(in_tx_order)::TEXT FROM eventstore.events2").fetchone()

    assert kind == (in_tx_order,)


@pytest.mark.parametrize(
    ("clock", "times", "positions"),
    [("statement_timestamp", 2, 2), ("now", 1, 1), ("clock_timestamp", 2, 4)],
)
def test_two_pushes_in_a_transaction_are_dated_as_in_each_era(
    database: str, clock: Clock, times: int, positions: int
) -> None:
    """
    Two pushes share one time, have one each, or one position per event, by era.
    """
    with psycopg.connect(database) as connection:
        create_schema(connection, state=False)
        first = push(connection, INSTANCE, ("user", "1"), ("org", "1"), clock=clock)
        second = push(connection, INSTANCE, ("user", "1"), ("user", "2"), clock=clock, lock=True)

    written = first + second
    assert len({event.created_at for event in written}) == times
    assert len({event.position for event in written}) == positions
    assert [event.sequence for event in written] == [1, 1, 2, 1]
    assert [event.in_tx_order for event in first] == ([0, 1] if clock == "clock_timestamp" else [1, 2])


def test_a_push_can_be_dated(database: str) -> None:
    """
    With an instant as clock, time and position are that instant.
    """
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    with psycopg.connect(database) as connection:
        create_schema(connection, state=False)
        (event,) = push(connection, INSTANCE, Command("user", "1", "user.human.added", {"a": "ü"}), clock=at)

    assert event.created_at == at
    assert event.position == Decimal("1767323045.678901")


def test_pushes_to_one_aggregate_meet_at_the_key(database: str) -> None:
    """
    The second of two concurrent pushes to an aggregate waits for the first and fails, as in ZITADEL.
    """
    outcome: list[BaseException] = []
    with psycopg.connect(database) as one, psycopg.connect(database) as other:
        create_schema(one, state=False)
        push(one, INSTANCE, ("user", "1"))

        def second() -> None:
            try:
                push(other, INSTANCE, ("user", "1"))
            except psycopg.Error as error:
                outcome.append(error)

        thread = threading.Thread(target=second)
        thread.start()
        with psycopg.connect(database, autocommit=True) as watcher:
            while watcher.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone() is None:
                pass
        one.commit()
        thread.join()

    assert [type(error) for error in outcome] == [psycopg.errors.UniqueViolation]
