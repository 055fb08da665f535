"""Nights on which a source does not let the backup's role read what it read the night before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.cli import conftest as cli
from tests.cli.conftest import Ran, Zbackup
from tests.fault.nights import ASSETS, KEYS, USERS, Night, failed, grow, lived_in
from tests.fix_archive import execute
from tests.fix_disk import zbackup_while
from tests.fix_zitadel import zitadel
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.database.grants import grants
from zbackup.database.inspect_source import existing
from zbackup.zitadel.tables import SCHEMAS

bare, zbackup = cli.bare, cli.zbackup

pytestmark = pytest.mark.slow

ROLE = "zbackup_night"

EVENTS = "eventstore.events2"

NOT_WHOLE = 34


@pytest.fixture
def owner(new_database: Callable[[], str]) -> str:
    """The DSN of a ZITADEL, as its owner."""
    return lived_in(new_database(), users=100)


def grant(owner: str) -> None:
    """Do what doctor tells the owner to do."""
    with psycopg.connect(owner, autocommit=True) as connection:
        text = grants(ROLE, connection.info.dbname, "postgres", existing(connection, SCHEMAS))
        connection.execute(text.encode())


@pytest.fixture
def night(
    bare: Path, zbackup: Zbackup, owner: str, new_database: Callable[[], str], postgres: EmbeddedPostgres
) -> Iterator[Night]:
    """Backups by a role of their own, the first of which is made."""
    grant(owner)
    try:
        night = Night(zbackup, new_database, make_conninfo(owner, user=ROLE), str(bare / "archive"))
        night.init()
        night.made()
        grow(owner, 1000, 10)
        yield night
    finally:
        execute(owner, f"DROP OWNED BY {ROLE}")
        execute(postgres.dsn(), f"DROP ROLE {ROLE}")


def warned(ran: Ran, *words: str) -> bool:
    """Tell whether one warning holds all the words, in its message or its hint."""
    texts = [f"{record['message']} {record['hint']}" for record in ran.records if record["type"] == "warning"]
    return any(all(word in text for word in words) for text in texts)


def prepared(night: Night) -> str:
    """Make a target as `zitadel setup --for-mirror` does."""
    target = night.new_database()
    zitadel(target)
    return target


def test_state_that_cannot_be_read(night: Night, owner: str) -> None:
    """
    The events are backed up, and that the backup is not whole is said by everything that looks at it.
    """
    new = "zitadel.new_in_this_version"
    execute(owner, "CREATE SCHEMA IF NOT EXISTS zitadel")
    execute(owner, f"GRANT USAGE ON SCHEMA zitadel TO {ROLE}")
    execute(owner, f"CREATE TABLE {new} AS SELECT 1 AS id")
    for backups, table in enumerate((new, ASSETS, KEYS), 2):
        execute(owner, f"REVOKE ALL ON {table} FROM {ROLE}")

        ran = night.zbackup(*night.backup)

        assert (ran.code, ran.result["not_captured"]) == (NOT_WHOLE, [table])
        assert warned(ran, f"not captured (permission denied): {table}", "doctor --grants")
        night.holds_the_source()
        assert night.sound() == backups
        assert warned(night.ask("verify", "--quick"), "made without", table)
        assert table in " ".join(night.ask("list").result["backups"][-1]["warnings"])
        assert table in " ".join(night.ask("show").result["warnings"])
        doctor = night.zbackup("doctor", "--source", night.source, "--json")
        assert (doctor.code, doctor.result["ok"]) == (NOT_WHOLE, False)
        assert table in str([check for check in doctor.result["checks"] if check["verdict"] == "fail"])
        failed(night.ask("restore", "--target", prepared(night)), 13, table, "permission denied")
        grant(owner)
    assert warned(night.ask("restore", "--target", night.new_database()), "has no schema", "is used")
    night.morning()


def test_a_view_that_cannot_be_read(night: Night, owner: str) -> None:
    """
    A derived table is told, and no failure: ZITADEL fills it again after a restore.
    """
    execute(owner, f"REVOKE ALL ON {USERS} FROM {ROLE}")

    ran = night.zbackup(*night.backup)

    assert (ran.code, ran.result["not_captured"]) == (0, [])
    assert warned(ran, f"not captured (permission denied): {USERS}", "doctor --grants")
    assert warned(ran, "the schema was not captured", "doctor --grants")
    assert night.sound() == 2
    assert not night.ask("list").result["backups"][-1]["schema"]
    assert night.ask("restore", "--target", prepared(night)).code == 0
    grant(owner)
    night.morning()


def test_a_schema_that_cannot_be_read(night: Night, owner: str) -> None:
    """
    Without a schema of the others all its tables are named, and the events are backed up.
    """
    execute(owner, f"REVOKE USAGE ON SCHEMA system FROM {ROLE}")

    ran = night.zbackup(*night.backup)

    assert (ran.code, sorted(ran.result["not_captured"])) == (NOT_WHOLE, [ASSETS, KEYS])
    night.holds_the_source()
    grant(owner)
    night.morning()


def test_events_that_cannot_be_read(night: Night, owner: str) -> None:
    """
    Without the events there is no backup: the source is refused (11), by the name of what is denied.
    """
    for revoked, named in ((f"SELECT ON {EVENTS}", "table events2"), ("USAGE ON SCHEMA eventstore", "eventstore")):
        revoke = f"REVOKE {revoked} FROM {ROLE}"
        during = zbackup_while('"name": "snapshot"', partial(execute, owner, revoke), *night.backup)
        for ran in (during, night.zbackup(*night.backup)):
            failed(ran, 11, "permission denied", named)
            assert "doctor --grants" in ran.result["hint"]
        grant(owner)
    assert night.sound() == 1
    night.morning()


def test_a_table_denied_during_the_run(night: Night, owner: str) -> None:
    """
    What is revoked while events are read is what is missing; nothing is empty instead.
    """
    ran = zbackup_while('"name": "export"', lambda: execute(owner, f"REVOKE ALL ON {KEYS} FROM {ROLE}"), *night.backup)

    assert (ran.code, ran.result["not_captured"]) == (NOT_WHOLE, [KEYS])
    night.holds_the_source()
    grant(owner)
    night.morning()


def test_nothing_but_keys_is_wanted_and_they_are_denied(night: Night, owner: str) -> None:
    """
    `--no-capture` still wants the encryption keys.
    """
    execute(owner, f"REVOKE ALL ON {KEYS} FROM {ROLE}")

    ran = night.zbackup(*night.backup, "--no-capture")

    assert (ran.code, ran.result["not_captured"]) == (NOT_WHOLE, [KEYS])
    text = night.zbackup(*night.backup[:-1], "--no-capture").out
    assert text.splitlines()[-2:] == ["NOT WHOLE:", f"  {KEYS} was not captured: nothing else brings its rows back"]
    grant(owner)
    night.morning()
