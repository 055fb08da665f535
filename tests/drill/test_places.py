"""Where a drill restores: databases and servers of its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from tests.archived import SOURCE
from tests.fix_whole import one
from zbackup.database.connection import connect
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.database.scratch import create, expect_version, major, scratch, scratch_name
from zbackup.database.throwaway import fitting_version, warn_of_room
from zbackup.errors import NotSupported, TargetRefused
from zbackup.progress import Progress, Warned, silent
from zbackup.source import Source

LOCALE = "SELECT datcollate FROM pg_database WHERE datname = current_database()"

STRANGE = replace(SOURCE, collation="xx_YY.utf8", ctype="xx_YY.utf8")


def test_a_server_must_take_the_schema() -> None:
    """
    One of an older major version is refused by both numbers; a newer one will do.
    """
    with pytest.raises(NotSupported, match=r"schema is of PostgreSQL 99; on this machine there is "):
        fitting_version(99)
    with pytest.raises(TargetRefused, match=r"server is PostgreSQL 13\.4; the archive's schema is of PostgreSQL 15"):
        expect_version("13.4", 15)
    assert fitting_version(1) > 1
    expect_version("18beta1", 15)
    assert major("15.18 (Debian 15.18-0+deb12u1)") == 15


def test_a_small_folder_is_a_warning() -> None:
    said: list[Progress] = []

    warn_of_room(0, said.append)
    assert said == []
    warn_of_room(1 << 60, said.append)

    (warning,) = said
    assert isinstance(warning, Warned)
    assert "MiB left" in warning.message


@pytest.mark.parametrize("source", [SOURCE, STRANGE], ids=["known", "unknown"])
def test_a_scratch_database_is_as_its_source_and_open_to_nobody_else(
    postgres: EmbeddedPostgres, source: Source
) -> None:
    """
    It has the source's collation where the server knows that, else the server's; only its owner may connect.
    """
    name = scratch_name(datetime.now(UTC))

    with scratch(postgres.dsn(), name, silent) as control:
        dsn = create(control, postgres.dsn(), name, source)
        usual = one(postgres.dsn(), LOCALE) if source is STRANGE else source.collation
        assert one(dsn, LOCALE) == usual
        public = "SELECT has_database_privilege('pg_monitor', current_database(), 'CONNECT')"
        assert not one(dsn, public)

    with pytest.raises(psycopg.OperationalError, match="does not exist"), psycopg.connect(dsn):
        pass


def test_a_lost_session_does_not_keep_a_database(postgres: EmbeddedPostgres) -> None:
    """
    It is dropped with a new one.
    """
    name = scratch_name(datetime.now(UTC))

    with scratch(postgres.dsn(), name, silent) as control:
        create(control, postgres.dsn(), name, SOURCE)
        with connect(postgres.dsn(), role="target") as other:
            other.execute("SELECT pg_terminate_backend(%s)", (control.info.backend_pid,))

    names = one(postgres.dsn(), "SELECT array_agg(datname::text) FROM pg_database")
    assert name not in names
