"""Nights on which the archive's file system is read-only, or its folder is not ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.cli import conftest as cli
from tests.cli.conftest import Ran, Zbackup
from tests.fault.nights import Night, failed, grow, lived_in
from tests.fix_disk import NewDisk, zbackup_while
from zbackup.database.embedded import EmbeddedPostgres

bare, zbackup = cli.bare, cli.zbackup

pytestmark = pytest.mark.slow


@pytest.fixture
def night(bare: Path, zbackup: Zbackup, new_database: Callable[[], str]) -> Night:
    return Night(zbackup, new_database, lived_in(new_database()), str(bare / "archive"))


@pytest.mark.parametrize("moment", ["at the start", "in the middle"])
def test_a_read_only_archive(night: Night, new_disk: NewDisk, moment: str) -> None:
    """
    A file system that is or turns read-only denies (22), and reading from it goes on.
    """
    disk = new_disk()
    there = night.at(disk.folder / "archive")
    there.init()
    there.made()
    grow(night.source, 1000, 100)
    if moment == "at the start":
        disk.remount("ro")
        ran = night.zbackup(*there.backup)
    else:
        ran = zbackup_while('"type": "stored"', lambda: disk.remount("ro"), *there.backup)

    failed(ran, 22, there.address, "Read-only file system")

    assert there.sound() == 1
    for command in ("list", "show", "plan"):
        assert there.ask(command, *(("--at", "latest") if command == "plan" else ())).code == 0
    assert there.ask("restore", "--target", night.new_database()).code == 0
    disk.remount("rw")
    there.morning()


def test_no_archive_on_a_read_only_disk(night: Night, new_disk: NewDisk) -> None:
    """
    No archive is made on a read-only file system, and it says so.
    """
    disk = new_disk()
    there = night.at(disk.folder / "archive")
    disk.remount("ro")

    failed(there.init(), 22, there.address, "Read-only file system")

    disk.remount("rw")
    assert there.init().code == 0


@dataclass
class Folder:
    """An archive's folder, and the program without the rights that root has over any folder."""

    night: Night
    path: Path

    def run(self, *arguments: str) -> Ran:
        done = subprocess.run(
            [*_WITHOUT_ROOTS_RIGHTS, sys.executable, "-m", "zbackup", *arguments, "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Ran(done.returncode, done.stdout, done.stderr)


_ROOTS_RIGHTS = "-dac_override,-dac_read_search"

_WITHOUT_ROOTS_RIGHTS = () if os.geteuid() else ("setpriv", f"--bounding-set={_ROOTS_RIGHTS}", "--inh-caps=-all")


@pytest.fixture
def folder(night: Night, postgres: EmbeddedPostgres) -> Folder:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("nothing is denied to root, and there is no setpriv (util-linux)")

    def over_tcp(dsn: str) -> str:  # the socket is another user's
        return postgres.dsn(str(conninfo_to_dict(dsn)["dbname"]), tcp=True)

    new_database = night.new_database
    night = replace(night, source=over_tcp(night.source), new_database=lambda: over_tcp(new_database()))
    night.init()
    night.made()
    grow(night.source, 1000, 20)
    return Folder(night, Path(night.address))


def test_an_archive_that_may_not_be_written(folder: Folder) -> None:
    """
    A folder without the right to write denies a backup (22) and no restore.
    """
    denied = [path for path in (folder.path, *folder.path.rglob("*")) if path.is_dir()]
    for path in denied:
        path.chmod(0o500)
    try:
        failed(folder.run(*folder.night.backup[:-1]), 22, str(folder.path), "Permission denied")

        assert folder.night.sound() == 1
        restore = ("restore", "--archive", str(folder.path), "--events-only", "--target", folder.night.new_database())
        assert folder.run(*restore).code == 0
    finally:
        for path in denied:
            path.chmod(0o700)
    folder.night.morning()


def test_an_archive_that_may_not_be_read(folder: Folder) -> None:
    """
    A folder or an object without the right to read denies (22) whoever needs it, and is never taken for missing.
    """
    folder_of, chunk = folder.path / "manifests", next((folder.path / "events").rglob("*.zst"))
    archive = ("--archive", str(folder.path))
    restore = ("restore", *archive, "--events-only", "--target", folder.night.new_database())
    for path, commands in {
        folder_of: (folder.night.backup[:-1], ("list", *archive)),
        chunk: (("verify", *archive), restore),
    }.items():
        before = path.stat().st_mode
        path.chmod(0)
        try:
            for command in commands:
                failed(folder.run(*command), 22, str(path), "Permission denied")
        finally:
            path.chmod(before)
    assert folder.run(*restore).code == 0
    folder.night.morning()
