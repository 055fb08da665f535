"""Nights on which a server has no room, no connection left, or pg_dump does not do its part."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from tests.cli import conftest as cli
from tests.cli.conftest import Zbackup
from tests.fault.nights import Night, failed, grow, lived_in
from tests.fix_archive import execute
from tests.fix_disk import Disk, zbackup_while
from tests.fix_whole import one
from zbackup.database.embedded import EmbeddedPostgres

bare, zbackup = cli.bare, cli.zbackup

pytestmark = pytest.mark.slow


@pytest.fixture
def night(bare: Path, zbackup: Zbackup, new_database: Callable[[], str]) -> Night:
    night = Night(zbackup, new_database, lived_in(new_database(), users=100), str(bare / "archive"))
    night.init()
    night.made()
    grow(night.source, 1000, 200)
    return night


def limited(dsn: str, **settings: str) -> str:
    """Return a DSN whose sessions have these settings."""
    return make_conninfo(dsn, options=" ".join(f"-c {name}={value}" for name, value in settings.items()))


LITTLE = {"work_mem": "64kB", "maintenance_work_mem": "1MB", "temp_file_limit": "8kB"}


def test_a_source_without_room_to_sort(night: Night) -> None:
    """
    A sort of the source that may not spill is an error of the source (10) with the limit's name in it.
    """
    # Without the index by time rows are sorted.
    execute(night.source, "DROP INDEX eventstore.es_active_instances")

    ran = night.zbackup(*night.backup, "--source", limited(night.source, **LITTLE))

    failed(ran, 10, "temp_file_limit")
    assert night.sound() == 1
    night.morning()


def test_a_source_without_connections(night: Night, postgres: EmbeddedPostgres) -> None:
    """
    Whether the first or a later connection is one too many, it is an error of the source (10) that says so.
    """
    execute(night.source, "CREATE ROLE crowded LOGIN SUPERUSER")
    try:
        execute(night.source, "ALTER ROLE crowded NOSUPERUSER")
        execute(night.source, "GRANT pg_read_all_data, pg_read_all_stats TO crowded")
        for most in (0, 1, 2):
            execute(night.source, f"ALTER ROLE crowded CONNECTION LIMIT {most}")

            ran = night.zbackup(*night.backup, "--source", make_conninfo(night.source, user="crowded"))

            failed(ran, 10, "too many connections for role")
            assert "--jobs" in ran.result["hint"]
            assert night.sound() == 1
    finally:
        execute(postgres.dsn(), "DROP ROLE crowded")
    night.morning()


FAILING = (
    ('echo "-- half of it"; exit 3', "exit code 3"),
    ("kill -9 $$", "exit code -9"),
    ("echo 'pg_dump: error: no space left' >&2; exit 1", "no space left"),
    ("", "is no pg_dump"),
)


def test_a_pg_dump_that_fails(night: Night, tmp_path: Path) -> None:
    """
    Without its schema a backup is made all the same, what failed is said, and an empty target takes an older schema.
    """
    program = tmp_path / "pg_dump"
    for does, said in FAILING:
        version = 'case "$1" in --version) echo "pg_dump (PostgreSQL) 99.1"; exit;; esac; ' if does else "exit 1"
        program.write_text(f"#!/bin/sh\n{version}{does}\n")
        program.chmod(0o755)

        ran = night.zbackup(*night.backup, "--pg-dump", str(program))

        assert (ran.code, ran.result["capture"]["schema"]) == (0, False)
        said_so = [text for text in ran.result["warnings"] if "the schema was not captured" in text]
        assert said in said_so[0]
        assert not night.ask("list").result["backups"][-1]["schema"]
    night.sound()
    night.holds_the_source()
    night.morning()


def test_a_target_without_room_to_sort(night: Night) -> None:
    """
    A target that may not spill is an error of the target (12), and the same restore works when it may.
    """
    target = night.new_database()

    failed(night.ask("restore", "--target", limited(target, **LITTLE)), 12, "temp_file_limit")

    assert one(target, "SELECT to_regclass('eventstore.events2')") is None
    assert night.ask("restore", "--target", target).code == 0


@pytest.fixture
def tablespace(postgres: EmbeddedPostgres) -> Iterator[Disk]:
    """A disk for the server's files, a tablespace named `small`: the server must see it, so it is mounted here."""
    if os.geteuid() or postgres.user is None:
        pytest.skip("only root may mount a file system that the server sees")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "disk", folder], check=False)
        if mounted.returncode:
            pytest.skip("no file system may be mounted here")
        try:
            data = Path(folder, "data")
            data.mkdir()
            shutil.chown(data, postgres.user)
            execute(postgres.dsn(), f"CREATE TABLESPACE small LOCATION '{data}'")
            yield Disk(Path(folder), folder, os.getpid())
            execute(postgres.dsn(), "DROP DATABASE IF EXISTS on_small WITH (FORCE)")
            execute(postgres.dsn(), "DROP TABLESPACE small")
        finally:
            subprocess.run(["umount", folder], check=True)


def test_a_target_whose_disk_is_full(night: Night, postgres: EmbeddedPostgres, tablespace: Disk) -> None:
    """
    Wherever the target's disk fills up, it is an error of the target (12), nothing is published, and a rerun goes on.
    """
    target = postgres.dsn("on_small")
    restore = ("restore", "--archive", night.address, "--target", target, "--jobs", "1")
    loaded = "SELECT coalesce(array_agg(DISTINCT xmin::text), '{}') FROM eventstore.events2"
    for step in ("load", "index", "tables"):
        execute(postgres.dsn(), "DROP DATABASE IF EXISTS on_small WITH (FORCE)")
        execute(postgres.dsn(), "CREATE DATABASE on_small TEMPLATE template0 TABLESPACE small")

        ran = zbackup_while(f'"name": "{step}"', partial(tablespace.leave, 0), *restore)

        failed(ran, 12, "No space left on device")
        assert one(target, "SELECT to_regclass('eventstore.events2')") is None
        tablespace.empty()
        before = set(one(target, loaded + "_restoring"))
        assert night.zbackup(*restore).code == 0
        assert before <= set(one(target, loaded))
        assert bool(before) == (step != "load")
