"""Poolers and servers that are refused when they are met."""

from __future__ import annotations

from typing import IO

import pytest

from tests.pooler import greeting, listening, pack, pooled, startup, unpack
from zbackup.database.connection import connect
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.errors import NotSupported, SourceRefused, TargetRefused, ZbackupError


@pytest.mark.parametrize("rotate", [False, True], ids=["last first", "in turn"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_pooler_of_transactions_is_refused(
    postgres: EmbeddedPostgres, database: str, size: int, *, rotate: bool
) -> None:
    """
    A pooler that shares server processes is recognised, whichever it gives next, and nothing is left set in them.
    """
    with pooled(postgres, database, size, "transaction", rotate=rotate) as (dsn, pool):
        with pytest.raises(SourceRefused, match="a pooler shares server processes between sessions") as caught:
            connect(dsn)
        with pytest.raises(TargetRefused):
            connect(dsn, role="target")

        assert "session mode" in caught.value.hint
        for process in pool.processes:
            process.send(pack(b"Q", b"SHOW search_path\0"))
            rows = [body for kind, body in process.answers() if kind == b"D"]

            assert b"public" in rows[0]


def test_a_pooler_of_statements_is_refused(postgres: EmbeddedPostgres, database: str) -> None:
    """
    A pooler that allows no transactions is of no use.
    """
    with (
        pooled(postgres, database, 2, "statement") as (dsn, _),
        pytest.raises(SourceRefused, match="a pooler refuses transactions"),
    ):
        connect(dsn)


def test_a_pooler_of_sessions_is_fine(postgres: EmbeddedPostgres, database: str) -> None:
    """
    Where a session keeps its process, all is well.
    """
    with pooled(postgres, database, 3, "session") as (dsn, _), connect(dsn) as one, connect(dsn) as two:
        found = [session.execute("SHOW search_path").fetchone() for session in (one, two)]

    assert found == [("pg_catalog, pg_temp",)] * 2


@pytest.mark.parametrize(
    ("parameters", "kind", "message"),
    [
        ({"server_version": "13.0.0", "crdb_version": "CockroachDB CCL v25.2.0"}, NotSupported, "is CockroachDB"),
        ({"server_version": "15.12-YB-2025.1.0.0-b0"}, NotSupported, "is YugabyteDB"),
        ({"server_version": "12.22"}, SourceRefused, "is of version 12.22; zbackup needs PostgreSQL 13 or later"),
        ({"server_version": "1.18.0/bouncer"}, SourceRefused, "is of version 1.18.0/bouncer"),
    ],
)
def test_servers_that_are_not_known_are_refused(
    parameters: dict[str, str], kind: type[ZbackupError], message: str
) -> None:
    """
    CockroachDB is recognised by its greeting, old servers and a pooler's console by their version.
    """

    def greet(client: IO[bytes]) -> None:
        startup(client)
        client.write(greeting({"client_encoding": "UTF8", **parameters}))
        client.flush()
        unpack(client)

    with listening(greet) as dsn, pytest.raises(kind, match=message):
        connect(dsn)
