from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from tests import fixture_data
from tests.fixture_data import VERSIONS, commits, constraints_at, load, rows, truths


@pytest.mark.parametrize("version", VERSIONS)
def test_a_prefix_is_the_log_of_its_instant(database: str, version: str) -> None:
    """
    Loaded slice by slice in commit order, the events at each instant are as many as the server had.
    """
    done = 0
    with psycopg.connect(database) as connection:
        for truth in truths(version):
            load(connection, version, slice(done, truth.events))
            done = truth.events
            counts = connection.execute(
                "SELECT instance_id, count(*) FROM eventstore.events2 WHERE created_at <= %s GROUP BY 1", (truth.time,)
            ).fetchall()
            assert dict(counts) == truth.instances
        total = connection.execute('SELECT count(*), max("position") FROM eventstore.events2').fetchone()
        keys = connection.execute("SELECT count(*) FROM system.encryption_keys").fetchone()

    assert total == (len(rows(version)), truths(version)[-1].max_position)
    assert keys is not None
    assert keys[0] > 5


@pytest.mark.parametrize("version", VERSIONS)
def test_each_row_has_its_commit(version: str) -> None:
    """
    Commits stand line by line beside the rows, and never go back in time.
    """
    times = [commit.time for commit in commits(version)]

    assert len(times) == len(rows(version))
    assert times == sorted(times)
    assert all(truths(version)[index].time < truth.time for index, truth in enumerate(truths(version)[1:]))


def test_rows_can_be_shifted_in_time(database: str) -> None:
    """
    Shifted rows keep position equal to created_at, to the microsecond.
    """
    by = timedelta(days=200, microseconds=1)
    with psycopg.connect(database) as connection:
        load(connection, "v4.13.1", slice(100), tables="none", shift=by)
        wrong = connection.execute(
            'SELECT count(*) FROM eventstore.events2 WHERE "position" <> extract(epoch FROM created_at)'
        ).fetchone()
        first = connection.execute("SELECT min(created_at) FROM eventstore.events2").fetchone()

    assert wrong == (0,)
    assert first is not None
    assert str(first[0]).startswith("2027-06-11")


@pytest.mark.skipif(fixture_data.full_place() is None, reason="the full fixtures are not at hand")
def test_the_compact_data_is_a_prefix_of_the_full() -> None:
    """
    The rows in the repository are the first of the full fixtures.
    """
    for version in VERSIONS:
        compact = rows(version)
        assert rows(version, full=True)[: len(compact)] == compact
        for truth in truths(version):
            assert constraints_at(version, truth.label) == constraints_at(version, truth.label, full=True)
