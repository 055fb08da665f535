"""The drill as a whole, on a stand-in for the binary: that its tests can pass, and that they find what is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from tests import fixture_data
from tests.fixture_data import EVENTS
from tests.zitadel.conftest import BINARY, Program, needs_full
from tests.zitadel.drill import ROOT
from tests.zitadel.fill import replace_rows
from tests.zitadel.network import Network


@needs_full
def test_a_prepared_database_takes_all_rows_of_a_fixture(database: str) -> None:
    """
    Its own rows are gone, and no trigger counted anew.
    """
    with psycopg.connect(database, autocommit=True) as connection:
        fixture_data.load(connection, "v4.13.1-prepared", tables="all", full=True)
        connection.execute(
            """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''counted''; END';
               CREATE TRIGGER count BEFORE INSERT OR TRUNCATE ON projections.users14 EXECUTE FUNCTION refuse();
               ALTER TABLE projections.users14_humans
                   ADD FOREIGN KEY (instance_id, user_id) REFERENCES projections.users14 (instance_id, id)"""
        )
        replace_rows(connection, "v4.13.1")

        counted: dict[str, int] = {}
        for name in fixture_data.shapes("v4.13.1-prepared", full=True):
            counting = SQL("SELECT count(*) FROM {}").format(Identifier(*name.split(".")))
            counted[name] = connection.execute(counting).fetchall()[0][0]

    expected = {name: len(fixture_data.table("v4.13.1", name, full=True)) for name in counted}
    assert counted == expected | {EVENTS: len(fixture_data.rows("v4.13.1", full=True))}


@needs_full
@pytest.mark.slow
@pytest.mark.parametrize("case", ["A-T4", "B-T7"])
def test_the_whole_drill_passes_on_a_stand_in(closed: Network, program: Program, case: str) -> None:
    """
    Prepared, filled, backed up, restored, set up, started, asked: every test of a case passes.
    """
    ran = run_suite(program(stand_in()), f"v4.13.1-{case}")

    assert re.search(r"^\d+ passed", ran.splitlines()[-1]), ran
    assert "skipped" not in ran


@needs_full
@pytest.mark.slow
def test_the_drill_finds_a_server_that_talks_adds_and_forgets(closed: Network, program: Program) -> None:
    ran = run_suite(program(f"export STAND_IN_FAULTY=1\n{stand_in()}"), "v4.13.1-A-T7")

    assert set(re.findall(r"^FAILED \S+::(\w+)\[", ran, re.MULTILINE)) == {
        "test_nothing_of_the_past_is_sent",
        "test_organisations_users_and_projects_are_those_of_the_instant",
        "test_setup_adds_nothing_but_its_own_records",
    }, ran


def test_without_a_binary_every_test_says_why_it_is_skipped() -> None:
    ran = run_suite(None, "v4.13.1")

    assert f"{BINARY} names no binary" in ran
    assert re.search(r"^\d+ skipped", ran.splitlines()[-1]), ran


def test_a_version_without_a_fixture_is_named(program: Program) -> None:
    ran = run_suite(program("echo zitadel version v3.4.9"), "v4.13.1-A-T4")

    assert "no fixture of ZITADEL v3.4.9; there are those of v4.13.1, v2.71.19, v5.0.0-main" in ran


def stand_in() -> str:
    """Return a script that runs the stand-in."""
    place = fixture_data.full_place()
    return f'PYTHONPATH={ROOT} ZBACKUP_FIXTURES={place} exec {sys.executable} -m tests.zitadel.stand_in "$@"'


def run_suite(binary: Path | None, case: str) -> str:
    """Run test_restored.py on a binary as a person would, with little patience; return what pytest says."""
    kept = ("PATH", "HOME", "TMPDIR", "ZBACKUP_PG_BIN", "ZBACKUP_FIXTURES")
    environment = {name: os.environ[name] for name in kept if name in os.environ} | {"ZBACKUP_ZITADEL_QUIET": "1"}
    if binary is not None:
        environment[BINARY] = str(binary)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-rfEs",
        "tests/zitadel/test_restored.py",
        "-k",
        case,
    ]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False).stdout
