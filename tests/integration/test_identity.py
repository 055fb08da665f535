"""Who a server says it is, to roles with few rights, on standbys, and after promotions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from tests.fix_postgres import StartPostgres, every_version
from zbackup.database.connection import connect, same_server
from zbackup.database.embedded import EmbeddedPostgres, standby_of
from zbackup.database.identity import Identity, clock, read_identity
from zbackup.errors import SourceRefused


def who(dsn: str) -> Identity:
    with connect(dsn) as session:
        return read_identity(session)


def run(dsn: str, *statements: str) -> None:
    with closing(psycopg.connect(dsn, autocommit=True)) as session:
        for statement in statements:
            session.execute(statement.encode())


@pytest.fixture
def plain(database: str) -> Iterator[str]:
    """The DSN of a role that was granted nothing."""
    name = f"plain_{conninfo_to_dict(database)['dbname']}"
    with closing(psycopg.connect(database, autocommit=True)) as session:
        session.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(name)))
        yield make_conninfo(database, user=name)
        session.execute(SQL("DROP ROLE {}").format(Identifier(name)))


@every_version
def test_any_role_may_read_it(postgres: EmbeddedPostgres, database: str, plain: str, pg_version: int) -> None:
    """
    A role without any grant reads all of it on a primary.
    """
    found = who(plain)

    assert found == who(database)
    assert found.system_identifier in postgres.run("pg_controldata", "-D", postgres.data)
    assert found.database == conninfo_to_dict(database)["dbname"]
    assert found.database_oid > 16000
    assert found.timeline == 1
    assert found.server_version_num // 10000 == pg_version
    assert found.server_version.startswith(f"{pg_version}.")
    assert not found.in_recovery
    assert (found.encoding, found.locale_provider, found.icu_locale) == ("UTF8", "libc", None)
    assert found.collation == found.ctype
    assert found.notes == ()


@every_version
def test_the_locale_of_other_providers_is_told(postgres: EmbeddedPostgres, database: str, pg_version: int) -> None:
    """
    ICU and builtin locales are named; not every server has them.
    """
    name = f"{conninfo_to_dict(database)['dbname']}_other"
    kind, locale = ("builtin", "C.UTF-8") if pg_version >= 17 else ("icu", "und-u-ks-level2")
    try:
        run(
            postgres.dsn(),
            f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER {kind} {kind}_LOCALE '{locale}'",
        )
    except psycopg.errors.FeatureNotSupported:
        pytest.skip(f"this PostgreSQL {pg_version} is built without {kind}")
    try:
        found = who(postgres.dsn(name))
    finally:
        run(postgres.dsn(), f"DROP DATABASE {name}")

    assert (found.locale_provider, found.icu_locale) == (kind, locale)


@every_version
def test_the_timeline_moves_with_the_promotion(start_postgres: StartPostgres) -> None:
    """
    A standby tells the timeline that it follows, and the next one as soon as it is promoted.
    """
    primary = start_postgres()
    run(primary.dsn(), "CREATE ROLE plain LOGIN", "CREATE ROLE monitor LOGIN", "GRANT pg_monitor TO monitor")
    with standby_of(primary) as first, standby_of(first) as second:
        before = who(first.dsn(user="monitor"))
        plain = who(first.dsn(user="plain"))
        first.promote()
        promoted = who(first.dsn(user="plain"))
        deadline = time.monotonic() + 60
        while (following := who(second.dsn(user="monitor"))).timeline != 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    assert (before.timeline, before.in_recovery) == (1, True)
    assert (plain.timeline, plain.notes) == (
        None,
        ('the standby\'s timeline cannot be read: GRANT pg_read_all_stats TO "plain" makes it visible',),
    )
    assert (promoted.timeline, promoted.in_recovery) == (2, False)
    assert following.in_recovery
    assert len({each.system_identifier for each in (before, plain, promoted, following)}) == 1


@every_version
def test_what_was_revoked_is_named(start_postgres: StartPostgres) -> None:
    """
    Where even public functions were revoked, the message says which to grant.
    """
    server = start_postgres()
    run(
        server.dsn(),
        "CREATE ROLE plain LOGIN",
        "REVOKE EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) FROM PUBLIC",
    )
    without_timeline = who(server.dsn(user="plain"))
    run(server.dsn(), "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")

    with pytest.raises(SourceRefused, match="role plain may not read the server's system identifier") as caught:
        who(server.dsn(user="plain"))

    assert 'pg_control_system() TO "plain"' in caught.value.hint
    assert without_timeline.timeline is None
    assert "pg_walfile_name" in without_timeline.notes[0]


@every_version
def test_the_clock_runs_inside_a_transaction(database: str) -> None:
    """
    The clock is the moment of the call, in UTC, not the beginning of the transaction.
    """
    with connect(database) as session:
        session.execute("BEGIN")
        first, second = clock(session), clock(session)

    assert first < second
    assert first.tzinfo is UTC
    assert abs(first - datetime.now(UTC)) < timedelta(minutes=1)


def test_two_sessions_are_compared(postgres: EmbeddedPostgres, database: str, start_postgres: StartPostgres) -> None:
    """
    Sessions of one database of one running server belong together, others do not.
    """
    other = start_postgres()
    with (
        connect(database) as one,
        connect(database) as two,
        connect(postgres.dsn()) as elsewhere,
        connect(other.dsn()) as stranger,
    ):
        assert same_server(one, two)
        assert not same_server(one, elsewhere)
        assert not same_server(elsewhere, stranger)
