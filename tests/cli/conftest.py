"""The program in this process and as a process, in a world without settings."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest

from tests.history.generator import fill
from tests.history.schema import create_schema, fill_state
from zbackup.cli.main import main
from zbackup.cli.render import Output

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Every line of stdout, each of which must be a JSON object."""
        records = [json.loads(line) for line in self.out.splitlines()]
        assert all(isinstance(record, dict) for record in records)
        return records

    @property
    def result(self) -> dict[str, Any]:
        """The last record."""
        return self.records[-1]


class Zbackup(Protocol):
    def __call__(self, *arguments: str) -> Ran: ...


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of this machine's settings; the working folder is the test's own."""
    for name in os.environ:
        if name.startswith(("ZBACKUP_", "ZITADEL_", "PG", "AWS_")) and name != "ZBACKUP_PG_BIN":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.fixture
def zbackup() -> Zbackup:
    """Run a command in this process."""

    def run(*arguments: str) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        output = Output(out, err, as_json="--json" in arguments, debug="--debug" in arguments)
        return Ran(main(arguments, output), out.getvalue(), err.getvalue())

    return run


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start a command as a process."""
    command = [sys.executable, "-W", "error", "-m", "zbackup", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def process() -> Zbackup:
    """Run a command as a process."""

    def run(*arguments: str) -> Ran:
        with start(*arguments) as child:
            out, err = child.communicate(timeout=120)
        return Ran(child.returncode, out, err)

    return run


@pytest.fixture
def source(new_database: Callable[[], str]) -> str:
    """The DSN of a small ZITADEL whose events are all older than the horizon."""
    dsn = new_database()
    with psycopg.connect(dsn) as connection:
        create_schema(connection)
        fill_state(connection)
        fill(connection, events=600, end=datetime.now(UTC) - timedelta(minutes=5))
    return dsn


@pytest.fixture
def archive(bare: Path, source: str, zbackup: Zbackup) -> str:
    """An archive with one backup of the source."""
    address = str(bare / "archive")
    for ran in (zbackup("init", "--archive", address), zbackup("backup", "--archive", address, "--source", source)):
        assert ran.code == 0, ran.err
    return address
