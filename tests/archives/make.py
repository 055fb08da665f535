"""
Make the frozen archive of a format: `python -m tests.archives.make tests/archives/vN`.

To be run once per format, by hand; what is committed is never made again. It needs a PostgreSQL server.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from tests import fixture_data
from tests.fix_archive import options, source_rows
from tests.history import push
from zbackup.archive.archive import Archive
from zbackup.backup import backup
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.event import cursor_of, instant_text
from zbackup.init import init
from zbackup.store.local import LocalStore

VERSION = "v2.71.19"


def main(place: Path) -> None:
    """Write the archive and what it must give: points, numbers of rows, digests."""
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
            wanted[f"backup:{last.backup}"] = told(source_rows(dsn))
        everything = source_rows(dsn)
        for at in (first.recovery_point, second.recovery_point, datetime(2026, 11, 23, 6, 33, 52, tzinfo=UTC)):
            rows = [row for row in everything if cursor_of(row).created_at <= at]
            wanted[instant_text(at)] = told(rows)
    (place / "wanted.json").write_text(json.dumps(wanted, indent=1) + "\n")


def told(rows: list[bytes]) -> dict[str, object]:
    return {"rows": len(rows), "sha256": hashlib.sha256(b"".join(rows)).hexdigest()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
