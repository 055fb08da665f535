"""The world that a page is executed in: databases and roles of a real server, an archive in a folder, a shell."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from scripts import playground
from tests import fixture_data
from tests.encrypted import MASTERKEY, OTHER
from tests.fix_archive import options
from tests.history import Command, push
from zbackup.archive.archive import Archive
from zbackup.archive.chunk import CHUNK_BYTES
from zbackup.backup import BackupResult, backup
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.init import init
from zbackup.store.local import LocalStore
from zbackup.zitadel.constraints import COLUMNS

ROOT = Path(__file__).parents[2]

VERSION, TRUTH = "v4.13.1", "T2-people"
INSTANCE, ORGANISATION = "400839037394357286", "400839060563758118"
"""of that history: its first instance, and Org 003 in it"""

ROLE = "zitadel"

CREATE = SQL("CREATE DATABASE {} OWNER zitadel TEMPLATE {} LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'")

SERVICES = {
    "admin": ("postgres", "postgres"),
    "zitadel": ("zitadel", ROLE),
    "restored": ("zitadel_restored", ROLE),
}
"""libpq's services of the pages: database and role"""


@dataclass
class World:
    """What a scenario prepares, and what is gone when it ends."""

    folder: Path
    server: EmbeddedPostgres
    environment: dict[str, str] = field(default_factory=dict[str, str])
    services: list[str] = field(default_factory=list[str])
    tutorial: Path | None = None
    """a folder that every user may enter, which pytest's own are not"""

    @property
    def places(self) -> Mapping[str, str]:
        """Folders that the pages name, and where they are."""
        return {
            "/mnt/backup": str(self.folder / "backup"),
            "/etc/zitadel": str(self.folder / "etc"),
            **({"/tmp/zbackup-tutorial": str(self.tutorial)} if self.tutorial else {}),
        }

    def prepare(self) -> None:
        """Make programs, secrets and settings that every page may count on."""
        for name in ("bin", "etc", "backup", "work"):
            (self.folder / name).mkdir()
        program = self.folder / "bin" / "zbackup"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -W error -m zbackup "$@"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        (self.folder / "etc" / "masterkey").write_bytes(MASTERKEY)
        (self.folder / "etc" / "masterkey.old").write_bytes(OTHER)
        foreign = ("ZBACKUP_", "ZITADEL_", "PG", "AWS_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        binaries = (self.folder / "bin", Path(sys.executable).parent, self.server.bindir)
        self.environment |= {
            **kept,
            "PATH": os.pathsep.join([*map(str, binaries), os.environ["PATH"]]),
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "PGSERVICEFILE": str(self.folder / "services"),
            "PSQLRC": "/dev/null",
            # All clocks here are one clock, and nothing hides.
            "ZBACKUP_HORIZON_MARGIN": "0s",
        }

    def service(self, name: str, server: EmbeddedPostgres, database: str, role: str) -> None:
        """Let a service name of libpq lead to a database."""
        where = conninfo_to_dict(server.dsn(database, user=role))
        self.services += [f"[{name}]", *(f"{key}={value}" for key, value in where.items()), ""]
        (self.folder / "services").write_text("\n".join(self.services))

    def dsn(self, database: str = "zitadel") -> str:
        return self.server.dsn(database, user=ROLE)

    def execute(self, statement: str, database: str = "zitadel") -> None:
        with psycopg.connect(self.server.dsn(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def push(self, *commands: Command) -> None:
        """Let ZITADEL write one push into the first instance."""
        with psycopg.connect(self.dsn()) as connection:
            push(connection, INSTANCE, *commands)

    def sign_up(self, name: str, organisation: str = ORGANISATION) -> None:
        """Let somebody new choose a name, which nobody else may have then."""
        user = f"4008399999999{sum(name.encode()):05d}"
        self.push(Command("user", user, "user.human.added", {"userName": name}, creator=user, owner=organisation))
        with psycopg.connect(self.dsn()) as connection:
            row = (INSTANCE, "usernames", name)
            connection.execute("INSERT INTO eventstore.unique_constraints VALUES (%s, %s, %s)", row)

    def back_up(self, place: str = "zitadel") -> BackupResult:
        """Back the database up into an archive in /mnt/backup, which is made when it is not there."""
        folder = self.folder / "backup" / place
        store = LocalStore(folder, create=True)
        if not any(folder.iterdir()):
            init(store)
        result = backup(Archive.open(store), self.dsn(), options(capture=True, chunk_bytes=CHUNK_BYTES))
        store.close()
        return result

    def copy(self, place: str, to: str) -> None:
        shutil.copytree(self.folder / "backup" / place, self.folder / "backup" / to)

    def remove(self, place: str) -> None:
        shutil.rmtree(self.folder / "backup" / place)


@contextmanager
def world(server: EmbeddedPostgres, other: EmbeddedPostgres, folder: Path) -> Generator[World]:
    """
    Make a world with the database of a real ZITADEL, and another server to move to.

    Every database that a page makes is dropped at the end.
    """
    made = World(folder, server)
    made.prepare()
    with _gone_afterwards(server), _gone_afterwards(other):
        provide(server)
        provide(other)
        base = _base(server)
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(CREATE.format(Identifier("zitadel"), Identifier(base)))
        for name, (database, role) in SERVICES.items():
            made.service(name, server, database, role)
        made.service("new-admin", other, "postgres", "postgres")
        made.service("new", other, "zitadel_moved", ROLE)
        try:
            yield made
        finally:
            if made.tutorial:
                playground.stop(made.tutorial)


def provide(server: EmbeddedPostgres) -> None:
    """Make the role that owns ZITADEL's databases."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (ROLE,)).fetchall():
            connection.execute("CREATE ROLE zitadel LOGIN IN ROLE pg_read_all_stats")


def _base(server: EmbeddedPostgres) -> str:
    """Return the database that is copied for each page; it stays as long as the server."""
    name = "zitadel_base"
    if name in _databases(server):
        return name
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(CREATE.format(Identifier(name), Identifier("template0")))
    truth = next(truth for truth in fixture_data.truths(VERSION) if truth.label == TRUTH)
    with psycopg.connect(server.dsn(name, user=ROLE)) as connection:
        fixture_data.load(connection, VERSION, slice(0, truth.events), tables="state")
        connection.execute("TRUNCATE eventstore.unique_constraints")
        rows = b"".join(fixture_data.constraints_at(VERSION, TRUTH))
        fixture_data.copy(connection, fixture_data.CONSTRAINTS, COLUMNS, rows)
    return name


@contextmanager
def _gone_afterwards(server: EmbeddedPostgres) -> Generator[None]:
    before = {*_databases(server), "zitadel_base"}
    try:
        yield
    finally:
        drop(server, set(_databases(server)) - before)


def drop(server: EmbeddedPostgres, names: Iterable[str]) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for name in names:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


def _databases(server: EmbeddedPostgres) -> list[str]:
    with psycopg.connect(server.dsn()) as connection:
        return [name for (name,) in connection.execute("SELECT datname FROM pg_database")]
