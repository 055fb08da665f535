"""
Make the frozen archives of a format: `python -m tests.archives.make tests/archives/vN`.

One of real events in vN, and one of a whole small ZITADEL with a log long enough for an index object in vN-unit,
where the many objects are zipped; `… vN-tended tended` makes one whose names lie in folders, with a list of what may go
and records. To be run once per format, by hand; what is committed is never made again. It needs a PostgreSQL server.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from tests import fixture_data
from tests.fix_archive import options, source_rows
from tests.fix_whole import all_rows
from tests.fix_zitadel import add_user, found, set_state, zitadel
from tests.history import push
from zbackup.archive import names, records
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import INDEX_CHUNKS
from zbackup.archive.needed import Rules
from zbackup.archive.records import Record
from zbackup.archive.tombstones import LEAST_GRACE
from zbackup.backup import backup
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.event import cursor_of, instant_text
from zbackup.init import init
from zbackup.prune import prune
from zbackup.store.local import LocalStore

VERSION = "v2.71.19"


TABLES = (
    "eventstore.unique_constraints", "system.encryption_keys", "system.assets", "projections.users14",
    "projections.users14_humans", "projections.orgs1",
)  # fmt: skip


def main(place: Path) -> None:
    """Write the archives, each with what it must give: points, numbers of rows, digests."""
    events(place)
    unit(place.with_name(f"{place.name}-unit"))


def unit(place: Path, pushes: int = INDEX_CHUNKS + 10, *, tended: bool = False) -> None:
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(settings={"fsync": False}) as server:
        store = LocalStore(Path(folder) / "archive", create=True)
        init(store)
        archive, dsn = Archive.open(store), server.dsn()
        # Every frame is a chunk of its own.
        usual = options(chunk_bytes=1, capture=True)
        wanted: dict[str, dict[str, object]] = {}
        zitadel(dsn)
        with psycopg.connect(dsn) as connection:
            found(connection, "i1")
            for number in range(pushes):
                push(connection, "i1", ("user", f"u{number}"))
                connection.commit()
        for name in ("first", "second"):
            with psycopg.connect(dsn) as connection:
                add_user(connection, name)
                connection.execute("INSERT INTO projections.users14 VALUES (%s, 'i1', %s)", (f"u-{name}", name))
                connection.execute(
                    "INSERT INTO system.assets VALUES ('i1', '4', 'o1', %s, 'image/png', DEFAULT, %s, now())",
                    (f"logo of {name}", name.encode()),
                )
                connection.commit()
                set_state(connection, "projections.users14")
            last = backup(archive, dsn, usual)
            wanted[f"backup:{last.backup}"] = {**digest(events_of(dsn)), "tables": tables_of(dsn)}
        log = archive.manifest(archive.catalog().entries[-1]).log
        assert bool(log.indexes) == (pushes > INDEX_CHUNKS)
        if tended:
            tend(archive)
        place.mkdir()
        shutil.make_archive(str(place / "archive"), "zip", folder, "archive")
        (place / "wanted.json").write_text(json.dumps(wanted, indent=1) + "\n")


def tend(archive: Archive) -> None:
    """Do what is done with an archive beside backups: leave a record, and a list of what may go."""
    now = datetime.now(UTC)
    records.write(archive, Record("drill", now, now, ok=True, backup=None, figures={"seconds": 1.5}))
    archive.put(f"{names.EVENTS}{names.backup_id(now, '0' * 8)}/s000000.0000e-{'0' * 32}.zst", b"nobody's")
    assert prune(archive, Rules(window=timedelta(0)), grace=LEAST_GRACE, yes=True).listed


def tables_of(dsn: str) -> dict[str, dict[str, object]]:
    """Sum up tables, without the constraints of steps of setup, which a restore may let run again."""
    rows = {name: found or [] for name, found in sorted(all_rows(dsn, TABLES).items())}
    return {name: digest([row.encode() for row in rows[name] if ",migration_" not in row]) for name in rows}


def events_of(dsn: str) -> list[bytes]:
    """Read the events without those of setup, which a restore dates anew."""
    return [row for row in source_rows(dsn) if b"\tSYSTEM\t" not in row]


def events(place: Path) -> None:
    store = LocalStore(place / "archive", create=True)
    init(store)
    archive = Archive.open(store)
    wanted: dict[str, dict[str, object]] = {}
    with EmbeddedPostgres(settings={"fsync": False}) as server, psycopg.connect(server.dsn()) as connection:
        dsn = server.dsn()
        usual = options(chunk_bytes=512 << 10)
        fixture_data.load(connection, VERSION, slice(0, 800), tables="state")
        first = backup(archive, dsn, replace(usual, capture=True))
        fixture_data.load(connection, VERSION, slice(800, 1000))
        second = backup(archive, dsn, usual)
        push(connection, "frozen", ("user", "sealed"), ("user", "tab\tand\\backslash"))
        connection.commit()
        backup(archive, dsn, usual)
        with psycopg.connect(dsn) as held:
            push(held, "frozen", ("user", "held"))
            push(connection, "frozen", ("user", "tail"))
            connection.commit()
            last = backup(archive, dsn, usual)
            wanted[f"backup:{last.backup}"] = digest(source_rows(dsn))
        everything = source_rows(dsn)
        for at in (first.recovery_point, second.recovery_point, datetime(2026, 11, 23, 6, 33, 52, tzinfo=UTC)):
            rows = [row for row in everything if cursor_of(row).created_at <= at]
            wanted[instant_text(at)] = digest(rows)
    (place / "wanted.json").write_text(json.dumps(wanted, indent=1) + "\n")


def digest(rows: list[bytes]) -> dict[str, object]:
    return {"rows": len(rows), "sha256": hashlib.sha256(b"".join(rows)).hexdigest()}


if __name__ == "__main__":
    if sys.argv[2:] == ["tended"]:
        unit(Path(sys.argv[1]), 20, tended=True)
    else:
        main(Path(sys.argv[1]))
