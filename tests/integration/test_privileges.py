"""The least that a backup needs: a role that may only read, and a store that only takes new objects."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.fix_append_only import AppendOnly
from tests.fix_archive import execute, options, source_rows
from tests.fix_postgres import every_version
from tests.fix_zitadel import add_user, found, zitadel
from zbackup.archive import FORMAT
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ArchiveRecord
from zbackup.backup import backup
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.doctor import doctor
from zbackup.errors import AccessDenied
from zbackup.verify import verify

ROLE = "zbackup"


@pytest.fixture
def least(database: str, postgres: EmbeddedPostgres) -> Iterator[str]:
    """The DSN of a ZITADEL as the role of `doctor --grants` sees it, made by the SQL that it prints."""
    zitadel(database)
    with psycopg.connect(database) as connection:
        found(connection, "i1")
    printed = doctor(None, database, grants=True).grants
    assert printed is not None
    try:
        execute(database, printed)
        yield make_conninfo(database, user=ROLE)
    finally:
        execute(database, f'DROP OWNED BY "{ROLE}"')
        execute(postgres.dsn(), f'DROP ROLE "{ROLE}"')


@every_version
def test_backups_need_no_more_than_is_granted(least: str, database: str, tmp_path: Path) -> None:
    """
    Full, increment, audit and verification with nothing but these rights, in a store that refuses to overwrite and
    to delete; none of it is even tried.
    """
    store = AppendOnly(tmp_path / "archive")
    archive = Archive.create(store, ArchiveRecord(FORMAT, "20260101T000000Z-00000000", datetime.now(UTC), "test"))
    chosen = options(capture=True)

    first = backup(archive, least, chosen)
    with psycopg.connect(database) as connection:
        add_user(connection, "later")
    second = backup(archive, least, chosen)
    execute(database, "UPDATE eventstore.events2 SET creator = 'changed' WHERE event_type = 'org.added'")
    third = backup(archive, least, options(capture=True, audit=True))
    verified = verify(archive, level="full", source=least)

    assert [result.kind for result in (first, second, third)] == ["full", "incremental", "incremental"]
    assert not any("permission" in warning for result in (first, second, third) for warning in result.warnings)
    assert verified.ok, verified.findings
    assert verified.backups == 3
    assert store.refused == []
    assert len(source_rows(least)) == len(source_rows(database))


def test_the_role_can_change_nothing(least: str) -> None:
    """
    Not even after it has taken back that its sessions are read-only.
    """
    assert conninfo_to_dict(least)["user"] == ROLE
    with psycopg.connect(least, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        for statement in (
            "DELETE FROM eventstore.events2",
            "UPDATE system.encryption_keys SET key = ''",
            "CREATE TABLE eventstore.mine ()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_the_store_refuses_what_no_backup_asks_for(tmp_path: Path) -> None:
    """
    The stand-in means it: an archive there can be made once, and nothing of it removed.
    """
    store = AppendOnly(tmp_path / "archive")
    archive = Archive.create(store, ArchiveRecord(FORMAT, "20260101T000000Z-00000000", datetime.now(UTC), "test"))
    name = next(iter(archive.objects())).name

    with pytest.raises(AccessDenied):
        store.delete(name)
    with pytest.raises(AccessDenied):
        archive.put(name, b"other")
