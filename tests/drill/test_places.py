"""Where a drill restores: databases and servers of its own."""

from __future__ import annotations

import pkgutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.archived import SOURCE
from tests.drill.conftest import ROOT
from tests.fix_whole import one
from zbackup.database.connection import connect
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.database.scratch import create, expect_version, major, scratch, scratch_name
from zbackup.database.throwaway import fitting_version, sweep, throwaway, warn_of_room
from zbackup.errors import NotSupported, TargetRefused
from zbackup.progress import Progress, Warned, silent
from zbackup.source import Source

LOCALE = "SELECT datcollate FROM pg_database WHERE datname = current_database()"

DIES = """
import os, pkgutil, signal, sys
from zbackup.database.throwaway import fitting_version, throwaway
from zbackup.progress import silent
version = fitting_version(1)
module, _, name = sys.argv[1].rpartition(".")
place = pkgutil.resolve_name(module.replace(".Path", ":Path"))
setattr(place, name, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
with throwaway(version, None, silent):
    pass
"""

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


@pytest.mark.parametrize(
    "step", ["pathlib.Path.open", "fcntl.flock", "pathlib.Path.rename", "zbackup.database.throwaway._admit"]
)
def test_a_drill_that_dies_at_once_leaves_nothing_for_long(temporary: Path, step: str) -> None:
    """
    Killed before its folder has an owner, or right after: the next drill removes the folder.
    """
    done = subprocess.run([sys.executable, "-c", DIES, step], check=False, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert len(list(temporary.iterdir())) == 1

    sweep(silent)

    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("step", ["pathlib.Path.open", "fcntl.flock", "pathlib.Path.rename"])
def test_a_drill_that_begins_is_not_swept(temporary: Path, step: str) -> None:
    """
    Another drill that begins in the same moment leaves its folder alone, or it takes another one.
    """
    module, _, name = step.rpartition(".")
    place = pkgutil.resolve_name(module.replace(".Path", ":Path"))
    real, version, swept = getattr(place, name), fitting_version(1), list[Path]()
    with pytest.MonkeyPatch.context() as patch:

        def overtaken(*arguments: Any) -> Any:
            patch.undo()
            swept.extend(temporary.iterdir())
            sweep(silent)
            return real(*arguments)

        patch.setattr(place, name, overtaken)
        with throwaway(version, None, silent) as begun:
            sweep(silent)
            assert list(temporary.iterdir()) == [begun.folder]
            assert (begun.folder == swept[0]) == (name == "rename")
            assert begun.server.running

    assert list(temporary.iterdir()) == []


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
