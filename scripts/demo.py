"""A backup, an increment, a disaster and the way back, in under a minute: see scripts/demo."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from tests.history import create_schema, fill, fill_state, push
from zbackup.database.connection import connect
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.database.export import read_rows
from zbackup.database.identity import read_identity
from zbackup.database.shape import find_events_table
from zbackup.event import BEGINNING, END
from zbackup.zitadel.constraints import Fold, line_of
from zbackup.zitadel.lowercase import database_lower

EVENTS = 20_000

# All clocks here are one clock and nothing hides; a real source keeps the default of ten seconds.
MARGIN = "1s"

FINGERPRINT = """
SELECT count(*), md5(string_agg(md5(ROW(created_at, position, in_tx_order, instance_id, aggregate_type, aggregate_id,
        sequence, event_type, revision, creator, owner, payload)::TEXT), ''
    ORDER BY instance_id COLLATE "C", aggregate_type COLLATE "C", aggregate_id COLLATE "C", sequence))
FROM eventstore.events2 WHERE event_type NOT LIKE 'system.migration.%'
"""

# Longer output of a command is cut.
LINES = 60


def main() -> None:
    began = time.monotonic()
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix="zbackup-demo-") as work, EmbeddedPostgres() as server:
        source, target = server.dsn("zitadel"), server.dsn("restored")
        zbackup = Zbackup(archive=str(Path(work) / "archive"), source=source, target=target)
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE zitadel")
            connection.execute("CREATE DATABASE restored")
        with psycopg.connect(source) as connection:
            now = datetime.now(UTC)
            create_schema(connection)
            fill(connection, events=EVENTS, start=now - timedelta(days=90), end=now - timedelta(minutes=1))
            fill_state(connection)
        reserve_names(source)
        said.append(f"A ZITADEL-like PostgreSQL {server.version} got {EVENTS:,} events of 90 days.")

        zbackup("init")
        zbackup("backup")
        said.append("`init` made an archive in a folder, `backup` put the whole history there.")

        with late_writer(source):
            sign_in(source, times=200)
            zbackup("backup")
        said.append("200 pushes later `backup` took only what was new, while one transaction was still open.")
        moment = (datetime.now(UTC) + timedelta(seconds=1)).replace(microsecond=0)
        time.sleep(2.5)
        zbackup("backup")
        said.append("That transaction committed late, behind later events; the next `backup` has it all the same.")

        before = fingerprint(source)
        with psycopg.connect(source) as connection:
            lost = connection.execute("DELETE FROM eventstore.events2 WHERE aggregate_type = 'user'").rowcount
        said.append(f"The disaster: DELETE took {lost:,} events of all users away.")
        zbackup("verify", "--compare", exit_code=33)
        said.append("`verify` compared archive and database row for row and named what is missing.")

        at = ("--at", f"{moment:%Y-%m-%dT%H:%M:%SZ}")
        zbackup("list")
        zbackup("plan", *at)
        said.append("`list` showed what can be restored, `plan` what a restore to just before the DELETE would do.")
        zbackup("restore", *at)
        restored = tables(target)
        if restored != tables(source):
            sys.exit(f"the restored database has other tables: {sorted(tables(source) ^ restored)}")
        after = fingerprint(target)
        if after != before:
            sys.exit(f"the restored events differ: {after} instead of {before}")
        said.append(
            f"`restore` brought all {after[0]:,} events (those of setup not counted) into an empty database, with"
        )
        said.append(f"schema, keys, assets, names, {len(restored)} tables in all, and handler states that mail nobody.")
        said.append(f"They equal those before the disaster in every column of every row: digest {after[1][:12]}….")
        said.append("Only steps of `zitadel setup` were taken out, as listed: those that let the projections catch up.")
    said.append(f"Nothing is left: server stopped, files removed. All in {time.monotonic() - began:.0f} seconds.")
    print("\n=== What this showed ===")
    for number, line in enumerate(said, 1):
        print(f"{number:2}. {line}")


class Zbackup:
    """Run commands as an operator would, and show them; where things are stands in the environment."""

    def __init__(self, **addresses: str) -> None:
        self._environment = {
            **os.environ,
            **{f"ZBACKUP_{name.upper()}": value for name, value in addresses.items()},
            "ZBACKUP_HORIZON_MARGIN": MARGIN,
        }

    def __call__(self, *words: str, exit_code: int = 0) -> None:
        print(f"\n$ zbackup {shlex.join(words)}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "zbackup", *words],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        lines = done.stdout.splitlines()
        more = [f"… {len(lines) - LINES} lines more"] if len(lines) > LINES else []
        print("\n".join(lines[:LINES] + more), flush=True)
        if done.returncode != exit_code:
            sys.exit(f"zbackup {words[0]} ended with {done.returncode} instead of {exit_code}")


@contextmanager
def late_writer(dsn: str) -> Generator[None]:
    """Push an event now and commit it at the end of the block."""
    with psycopg.connect(dsn) as connection:
        push(connection, "late instance", ("user", "late"), ("org", "late"))
        yield


def reserve_names(dsn: str) -> None:
    """Write the unique constraints that ZITADEL's commands would have written with these events."""
    with connect(dsn, role="target") as connection:
        source = read_identity(connection)
        fold = Fold(database_lower(source.locale_provider, source.collation, source.ctype, source.icu_locale))
        for block in read_rows(connection, find_events_table(connection).table, BEGINNING, END):
            fold.add(block)
        connection.execute("TRUNCATE eventstore.unique_constraints")
        with connection.cursor() as cursor, cursor.copy("COPY eventstore.unique_constraints FROM STDIN") as copy:
            for found in fold.rows():
                copy.write(line_of(found))


def tables(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname !~ '^(pg_|information_schema)'"
        )
        return {name for (name,) in rows}


def sign_in(dsn: str, *, times: int) -> None:
    with psycopg.connect(dsn) as connection:
        for number in range(times):
            with connection.transaction():
                push(connection, "late instance", ("session", f"s{number}"), ("user", f"u{number % 20}"))


def fingerprint(dsn: str) -> tuple[int, str]:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(FINGERPRINT).fetchone()
    assert row is not None
    return row[0], row[1]


if __name__ == "__main__":
    main()
