"""A source, and the archive that it has in the morning: what the tests of bad nights have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from tests.cli.conftest import Ran, Zbackup
from tests.fix_archive import archived_rows, source_rows
from tests.fix_whole import all_rows
from tests.fix_zitadel import add_user, found, set_state, zitadel
from tests.history import Command, push
from zbackup.archive.archive import Archive
from zbackup.archive.names import MANIFESTS
from zbackup.store.address import open_store

# Several chunks, one after the other.
FLAGS = ("--jobs", "1", "--chunk-bytes", "64KiB", "--horizon-margin", "0s")

KEYS, ASSETS, USERS = "system.encryption_keys", "system.assets", "projections.users14"


@dataclass(frozen=True)
class Night:
    zbackup: Zbackup
    new_database: Callable[[], str]
    source: str
    address: str
    """of the archive"""
    endpoint: str | None = None
    """of a bucket's server"""

    def at(self, address: str | Path) -> Night:
        return replace(self, address=str(address))

    def init(self) -> Ran:
        return self.zbackup("init", "--archive", self.address, "--json")

    @property
    def backup(self) -> tuple[str, ...]:
        """The command that makes one."""
        return ("backup", "--archive", self.address, "--source", self.source, *FLAGS, "--json")

    def ask(self, command: str, *flags: str) -> Ran:
        return self.zbackup(command, "--archive", self.address, *flags, "--json")

    def made(self) -> dict[str, object]:
        """Make a backup of which there is nothing to say."""
        ran = self.zbackup(*self.backup)
        assert ran.code == 0, ran.out
        return ran.result

    def archive(self) -> Archive:
        return Archive.open(open_store(self.address, s3_endpoint=self.endpoint))

    def sound(self) -> int:
        """See that nothing is half there; return how many backups there are."""
        catalog = self.archive().catalog()
        findings = self.ask("verify", "--full").result["findings"]
        assert [finding["object"] for finding in findings] == ([] if catalog.entries else [MANIFESTS])
        return len(catalog.entries)

    def morning(self) -> None:
        """See that the same command works now, and that all comes back."""
        self.made()
        self.sound()
        self.holds_the_source()
        target = self.new_database()
        ran = self.ask("restore", "--target", target)
        assert ran.code == 0, ran.out
        tables = (KEYS, ASSETS, USERS)
        assert all_rows(target, tables) == all_rows(self.source, tables)

    def holds_the_source(self) -> None:
        archive = self.archive()
        head = archive.catalog().head()
        assert head is not None
        assert archived_rows(archive, archive.manifest(head)) == source_rows(self.source)


def failed(ran: Ran, code: int, *words: str) -> None:
    """See that a command failed as it should: by its code, naming what it is about, with a next step."""
    assert ran.code == code, ran.out
    error = ran.result
    assert (error["type"], error["exit_code"]) == ("error", code)
    assert [word for word in words if word not in error["message"]] == [], error
    assert error["hint"], error
    assert "Traceback" not in ran.out + ran.err
    assert "bug" not in error["hint"]


def hidden(folder: Path) -> list[Path]:
    """Return what no listing of the archive shows."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name.startswith(".")]


def lived_in(dsn: str, users: int = 300) -> str:
    """Make a ZITADEL with a few chunks of events and a row in each of the tables."""
    zitadel(dsn)
    with psycopg.connect(dsn) as connection:
        found(connection, "i1")
        add_user(connection, "one")
        connection.execute("INSERT INTO projections.users14 VALUES ('u-one', 'i1', 'one')")
        connection.execute(
            "INSERT INTO system.assets VALUES ('i1', '4', 'o1', 'logo', 'image/png', DEFAULT, 'bytes', now())"
        )
        connection.commit()
        set_state(connection, "projections.users14")
    grow(dsn, 0, users)
    return dsn


def grow(dsn: str, first: int, users: int) -> None:
    """Add users, with payloads that fill chunks and do not shrink away."""
    with psycopg.connect(dsn) as connection:
        texts = connection.execute(
            "SELECT (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 20) WHERE n > 0)"
            "  FROM generate_series(1, %s) n",
            (users,),
        ).fetchall()
        for number, (text,) in enumerate(texts, first):
            push(connection, "i1", Command("user", f"p{number}", payload={"text": text}))
            connection.commit()
        connection.execute("ANALYZE eventstore.events2")
