"""What is shown of a connection string, and what is said when PostgreSQL refuses."""

from __future__ import annotations

import psycopg
import pytest

from zbackup.database.connection import connect, shown, source_errors, target_errors
from zbackup.errors import (
    SourceError,
    SourceRefused,
    StoreError,
    TargetError,
    TargetRefused,
    UsageError,
    ZbackupError,
)

URI = "postgresql://zitadel:s3cr%40t@db.example:5433/zitadel?sslmode=verify-full&sslpassword=k3y"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the PG variables of whoever runs the tests."""
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE", "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        (URI, "host=db.example port=5433 dbname=zitadel user=zitadel"),
        (
            "host=db.example port=5433 dbname=zitadel user=zitadel password='s3cr@t' sslkey=/k sslpassword=k3y",
            "host=db.example port=5433 dbname=zitadel user=zitadel",
        ),
        ("service=zitadel password=s3cr@t", "service=zitadel"),
        ("postgresql://u:s3cr%40t@a:1,b:2/zitadel", "host=a,b port=1,2 dbname=zitadel user=u"),
        ("host=h port=1 user=u dbname='postgresql://u:s3cr@t@h/d'", "host=h port=1 dbname=*** user=u"),
    ],
)
def test_only_the_place_is_shown(dsn: str, expected: str) -> None:
    """
    Host, port, database and user, and nothing that could be a secret.
    """
    assert shown(dsn) == expected


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://zitadel:s3cr@t@db/zitadel",
        "postgresql://zitadel:s3cr/t@db/zitadel",
        "host=db password='s3cr@t",
        "s3cr@t",
        "host=db pass word=s3cr@t",
        "password = 's3cr@t' trailing",
    ],
)
def test_nothing_of_what_cannot_be_read_is_shown(dsn: str) -> None:
    """
    A string that libpq could not read is not repeated, nor handed to libpq.
    """
    assert shown(dsn) == "(a connection string that cannot be read)"

    with pytest.raises(UsageError) as caught:
        connect(dsn)

    assert "s3cr" not in str(caught.value) + caught.value.hint


def test_the_environment_fills_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An empty string means libpq's environment, which is shown, but not its password.
    """
    monkeypatch.setenv("PGHOST", "db.example")
    monkeypatch.setenv("PGDATABASE", "zitadel")
    monkeypatch.setenv("PGUSER", "reader")
    monkeypatch.setenv("PGPASSWORD", "s3cr@t")

    assert shown("") == "host=db.example port=5432 dbname=zitadel user=reader"


def raised(error: Exception, dsn: str | None = URI, *, target: bool = False) -> ZbackupError:
    with pytest.raises(ZbackupError) as caught, target_errors(dsn) if target else source_errors(dsn):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "kind", "hint", "retry"),
    [
        (psycopg.errors.InsufficientPrivilege("permission denied for table events2"), SourceRefused, "Grant", False),
        (psycopg.errors.QueryCanceled("canceling statement"), SourceError, "cancelled", True),
        (psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"), SourceError, "lock", True),
        (psycopg.errors.AdminShutdown("terminating connection"), SourceError, "restarted", True),
        (psycopg.errors.ConnectionFailure("gone"), SourceError, "restarted", True),
        (psycopg.errors.InvalidPassword("no"), SourceError, "passfile", False),
        (psycopg.errors.InvalidCatalogName('database "x" does not exist'), SourceError, "ZITADEL's own", False),
        (psycopg.errors.TooManyConnections("sorry"), SourceError, "--jobs", True),
        (psycopg.errors.DiskFull("no space"), SourceError, "room", False),
        (psycopg.errors.SerializationFailure("conflict with recovery"), SourceError, "hot_standby_feedback", True),
        (
            psycopg.errors.InvalidParameterValue('invalid snapshot identifier: "1"'), SourceError, "same server", True
        ),
        (psycopg.errors.InvalidParameterValue("anything else"), SourceError, "", False),
        (
            psycopg.errors.InsufficientPrivilege('query would be affected by row-level security policy for table "t"'),
            SourceRefused,
            "BYPASSRLS",
            False,
        ),
        (psycopg.OperationalError("consuming input failed: server closed the connection"), SourceError, "broke", True),
        (psycopg.OperationalError("connection failed: Connection refused"), SourceError, "host and port", True),
        (psycopg.OperationalError("failed to resolve host: no service known"), SourceError, "host and port", True),
        (psycopg.OperationalError('FATAL:  password authentication failed for user "u"'), SourceError, "pg_hba", False),
        (psycopg.errors.ProtocolViolation("query_wait_timeout"), SourceError, "pool", True),
        (psycopg.errors.DivisionByZero("division by zero"), SourceError, "", False),
    ],
)  # fmt: skip
def test_each_failure_has_its_next_step(error: Exception, kind: type[ZbackupError], hint: str, *, retry: bool) -> None:
    """
    The class, the hint and whether a retry can help go by SQLSTATE, or by the text where there is none.
    """
    found = raised(error)

    assert type(found) is kind
    assert hint in found.hint
    assert bool(found.hint) == bool(hint)
    assert found.retry is retry
    assert found.message == f"source {shown(URI)}: {error}"
    assert found.__cause__ is error


def test_the_target_has_classes_of_its_own() -> None:
    """
    The same failures of a target are TargetError and TargetRefused.
    """
    assert type(raised(psycopg.errors.DiskFull("no space"), target=True)) is TargetError
    assert type(raised(psycopg.errors.ReadOnlySqlTransaction("no"), target=True)) is TargetRefused
    assert raised(psycopg.errors.DiskFull("no space"), None, target=True).message == "target: no space"


def test_errors_of_ours_pass() -> None:
    """
    What is no error of psycopg's is not touched.
    """
    error = StoreError("bucket: gone")

    assert raised(error) is error


def test_no_secret_is_repeated() -> None:
    """
    Should libpq repeat a secret, it is masked; lines that say nothing are left out.
    """
    text = 'bad value "s3cr@t" and "s3cr%40t" with k3y\n\tIs the server running on that host?\nsecond line'

    found = raised(psycopg.OperationalError(text))

    assert found.message == f'source {shown(URI)}: bad value "***" and "***" with ***; second line'
