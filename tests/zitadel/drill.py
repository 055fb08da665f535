"""
From a fixture to a database that zbackup restored.

    mode A    restored into an empty database
    mode B    restored into one that the binary prepared
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg.sql import SQL, Identifier

from tests.zitadel.fill import replace_rows
from tests.zitadel.network import Network
from tests.zitadel.past import external, log_at, truth_named
from tests.zitadel.server import Zitadel, configuration
from zbackup.database.embedded import EmbeddedPostgres

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Case:
    version: str
    mode: Literal["A", "B"]
    instant: str
    cold: bool = False

    def __str__(self) -> str:
        return f"{self.version}-{self.mode}-{self.instant}" + ("-cold" if self.cold else "")


CASES = (
    # The capture is of the end: earlier instants are rebuilt from their events, the last one starts warm.
    Case("v4.13.1", "A", "T4-configured"),
    Case("v4.13.1", "A", "T7-end"),
    Case("v4.13.1", "B", "T6-churned"),
    Case("v4.13.1", "B", "T7-end"),
    # This fixture has handler states, but not the tables they speak of.
    Case("v2.71.19", "A", "T4-configured", cold=True),
    Case("v2.71.19", "B", "T7-end", cold=True),
    # Its relational tables are state, and cannot be rebuilt.
    Case("main", "A", "T7-end"),
    Case("main", "B", "T7-end"),
)


@dataclass
class World:
    """What the cases of one binary share."""

    version: str
    """the fixture's"""
    binary: Path
    network: Network
    server: EmbeddedPostgres
    """inside the network"""
    folder: Path
    _numbers: Iterator[int] = field(default_factory=count)

    def zitadel(self, database: str) -> Zitadel:
        folder = self.folder / database
        folder.mkdir(exist_ok=True)
        log = log_at(self.version, "T1-fresh")
        return Zitadel(self.binary, self.network, folder, configuration(self.server, database, external(log)))

    def connect(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self.server.dsn(database), autocommit=True)

    def new_database(self) -> str:
        name = f"drill{next(self._numbers)}"
        with self.connect("postgres") as connection:
            connection.execute(SQL("CREATE DATABASE {} TEMPLATE template0").format(Identifier(name)))
        return name

    def prepared(self) -> str:
        """Make a database that the binary has set up, without an instance."""
        database = self.new_database()
        zitadel = self.zitadel(database)
        zitadel.init()
        zitadel.setup("--for-mirror")
        return database

    @cached_property
    def archive(self) -> str:
        """Back up a database that holds the whole fixture."""
        database = self.prepared()
        with self.connect(database) as connection:
            replace_rows(connection, self.version)
        address = str(self.folder / "archive")
        self.zbackup("init", "--archive", address)
        self.zbackup("backup", "--archive", address, "--source", self.server.dsn(database))
        return address

    def restore(self, case: Case) -> str:
        """Restore the instant of a case; return the database."""
        archive = self.archive
        database = self.prepared() if case.mode == "B" else self.new_database()
        at = truth_named(case.version, case.instant).time.isoformat()
        flags = ["--cold"] if case.cold else []
        self.zbackup("restore", "--archive", archive, "--target", self.server.dsn(database), "--at", at, *flags)
        return database

    def zbackup(self, *arguments: str) -> str:
        """Run a command as an operator does, with nothing of this machine's settings; return its stdout."""
        kept = {name: os.environ[name] for name in ("PATH", "ZBACKUP_PG_BIN") if name in os.environ}
        done = subprocess.run(
            [sys.executable, "-m", "zbackup", *arguments],
            env={**kept, "PYTHONPATH": str(ROOT), "HOME": str(self.folder)},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"zbackup {arguments[0]}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout
