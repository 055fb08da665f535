"""Work beside the restore's own thread: it ends with it, however that ends."""

from __future__ import annotations

from concurrent.futures import CancelledError, wait
from decimal import Decimal
from threading import Event

import psycopg
import pytest

from tests.fix_whole import one
from zbackup.archive.manifest import ChunkRef
from zbackup.database.load import stoppable
from zbackup.database.target import Connection, beside, each, session
from zbackup.event import BEGINNING, END

LONG = "SELECT pg_sleep(30)"
"""so long only a broken program waits"""


class Stops(Exception):
    pass


def test_what_breaks_off_ends_the_statement_beside_it(database: str) -> None:
    """
    An error of the block is raised when the server has ended what the other session was at.
    """
    failed: list[psycopg.Error] = []
    with session(database) as other:
        pid = other.info.backend_pid
        running = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query = '{LONG}' AND state = 'active'"

        with pytest.raises(Stops), beside(other) as works:
            works.do(lambda _: sleeping(other, failed))
            while not one(database, running):
                assert not failed
            raise Stops

        assert "user request" in str(failed[0])
        assert one(database, running) == 0


def test_what_breaks_off_between_two_statements_ends_the_next_one(database: str) -> None:
    """
    Work that was between two statements when it was to end is stopped in the second.
    """
    failed: list[psycopg.Error] = []

    def work(stop: Event) -> None:
        assert stop.wait(100)
        # Meanwhile a first cancellation comes, and finds nothing to end.
        one(database, "SELECT 1")
        sleeping(other, failed)

    with session(database) as other:
        with pytest.raises(Stops), beside(other) as works:
            works.do(work)
            raise Stops

        assert "user request" in str(failed[0])


def test_what_the_work_raises_is_raised_to_who_asks(database: str) -> None:
    """
    The result is the future's, and so is the error.
    """
    with (
        session(database) as other,
        pytest.raises(psycopg.errors.DivisionByZero),
        beside(other) as works,
    ):
        works.do(lambda _: other.execute("SELECT 1 / 0")).result()


def test_what_has_not_begun_never_begins(database: str) -> None:
    """
    Works follow one another; those that wait when the block breaks off are forgotten.
    """
    done: list[str] = []
    failed: list[psycopg.Error] = []
    with session(database) as other:
        with pytest.raises(Stops), beside(other) as works:
            works.do(lambda _: done.append("first")).result()
            works.do(lambda _: sleeping(other, failed))
            works.do(lambda _: done.append("third"))
            raise Stops

        assert done == ["first"]


def test_nothing_more_is_asked_for_when_something_failed(database: str) -> None:
    """
    What failed is told to who asks for the next work, and that does not begin.
    """
    done: list[str] = []
    with (
        session(database) as other,
        pytest.raises(psycopg.errors.DivisionByZero),
        beside(other) as works,
    ):
        wait([works.do(lambda _: other.execute("SELECT 1 / 0"))])
        works.do(lambda _: done.append("second"))

    assert not done


def test_an_error_ends_each_statement_of_the_other_sessions(database: str) -> None:
    """
    A session that goes on with another statement when its first was cancelled is cancelled again.
    """
    failed: list[psycopg.Error] = []

    def work(connection: Connection, item: str) -> None:
        if item == "sleep":
            sleeping(connection, failed)
            sleeping(connection, failed)
            return
        while not one(database, f"SELECT count(*) FROM pg_stat_activity WHERE query = '{LONG}' AND state = 'active'"):
            assert not failed
        raise Stops

    with pytest.raises(Stops):
        each(database, 2, ["sleep", "stop"], work)

    assert ["user request" in str(error) for error in failed] == [True, True]


def test_a_reader_stops_at_the_next_frame() -> None:
    """
    Frames come until it is told to stop; the one that was under way then is not handed on.
    """
    stop = Event()
    chunk = ChunkRef("c", "", 1, "", 1, 3, BEGINNING, END, (), (), (Decimal(0), Decimal(0)))
    frames = stoppable(lambda _: iter([b"one", b"two", b"three"]), stop)(chunk)

    assert next(frames) == b"one"
    stop.set()
    with pytest.raises(CancelledError):
        next(frames)


def sleeping(connection: Connection, failed: list[psycopg.Error]) -> None:
    try:
        connection.execute(LONG)
    except psycopg.Error as error:
        failed.append(error)
