"""What the benchmarks share: a server set up like a small real one, a grown history, and a process measured."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg.sql import SQL, Identifier

from tests.history import create_indexes, create_schema, fill_state
from tests.history.grown import fill_grown
from zbackup.database.connection import connect
from zbackup.database.embedded import EmbeddedPostgres, Setting
from zbackup.database.export import read_rows
from zbackup.database.shape import find_events_table
from zbackup.event import BEGINNING, END
from zbackup.zitadel.constraints import COLUMNS, Fold, line_of
from zbackup.zitadel.lowercase import database_lower

# As on a small real server; everything measured runs on the same.
SETTINGS: dict[str, Setting] = {
    "shared_buffers": "1GB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "autovacuum": False,
}

TABLE = "eventstore.events2"
PEAK = Path(tempfile.gettempdir()) / f"zbackup-peak-{os.getpid()}"
ZBACKUP = (sys.executable, "-m", "scripts.peak", PEAK)


@dataclass(frozen=True)
class Figure:
    """What one run of one command, or of several at once, cost."""

    what: str
    round: int
    seconds: float
    cpu_seconds: float
    """of the clients alone, not of the server"""
    peak_rss_bytes: int
    """of zbackup; 0 for others"""
    stored_bytes: int = 0


def measured(what: str, number: int, *commands: Iterable[object], stored: Path | None = None) -> Figure:
    """Run commands at the same time until the last has ended."""
    say(f"round {number + 1}: {what}")
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        children = [
            subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=errors)
            for command in commands
        ]
        cpu_seconds = 0.0
        for child in children:
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            cpu_seconds += usage.ru_utime + usage.ru_stime
            if child.returncode not in (0, 34):  # 34: done, and something of the state was not there
                errors.seek(0)
                sys.exit(f"{what} failed: {errors.read().decode()}")
        seconds = time.perf_counter() - began
    peak = int(PEAK.read_text()) if PEAK.exists() else 0
    PEAK.unlink(missing_ok=True)
    return Figure(what, number, seconds, cpu_seconds, peak, size_of(stored) if stored else 0)


def run(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    PEAK.unlink(missing_ok=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command[:4]))} failed: {done.stderr}")


def prepare(server: EmbeddedPostgres, events: int, *, whole: bool) -> dict[str, object]:
    """
    Fill the database `source`, with state and derived tables where it shall be a whole one.

    The events are read once, so that they are as warm for the first command as for the last.
    """
    say(f"growing a history of {events:,} events")
    source = new_database(server, "source")
    end = datetime.now(UTC) - timedelta(hours=1)
    with psycopg.connect(source) as connection:
        create_schema(connection, indexes=False, state=whole)
        fill_grown(connection, events=events, start=end - timedelta(days=90), end=end)
        create_indexes(connection)
        if whole:
            fill_state(connection)
            fill_derived(connection)
    facts: dict[str, object] = {"constraints": fill_constraints(source)} if whole else {}
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("VACUUM (FREEZE, ANALYZE)")
        connection.execute("CHECKPOINT")
        row = connection.execute(
            f"""SELECT count(*), pg_table_size('{TABLE}'), pg_indexes_size('{TABLE}'), sum(length(e::TEXT))
                  FROM {TABLE} e""".encode()
        ).fetchone()
    assert row is not None
    return {"events": row[0], "table_bytes": row[1], "index_bytes": row[2], "text_bytes": int(row[3])} | facts


def fill_derived(connection: psycopg.Connection) -> None:
    """Make a projection with a row for every aggregate, as most of ZITADEL's are."""
    connection.execute(
        """CREATE TABLE projections.users14 AS
           SELECT instance_id, aggregate_id AS id, min(created_at) AS creation_date, max(created_at) AS change_date,
                  max("sequence") AS "sequence", min("owner") AS resource_owner, md5(aggregate_id) AS username
             FROM eventstore.events2 GROUP BY instance_id, aggregate_id"""
    )
    connection.execute("ALTER TABLE projections.users14 ADD PRIMARY KEY (instance_id, id)")


def fill_constraints(source: str) -> int:
    """Give the database the unique constraints that its events ask for; return their number."""
    fold = Fold(database_lower("libc", "C.UTF-8", "C.UTF-8", None))
    with closing(connect(source)) as connection:
        events = find_events_table(connection).table
        for block in read_rows(connection, events, BEGINNING, END):
            fold.add(block)
    statement = f"COPY eventstore.unique_constraints ({', '.join(COLUMNS)}) FROM STDIN".encode()
    with psycopg.connect(source) as connection, connection.cursor() as cursor:
        connection.execute("TRUNCATE eventstore.unique_constraints")
        with cursor.copy(statement) as copy:
            for row in fold.rows():
                copy.write(line_of(row))
        return len(fold.rows())


def new_database(server: EmbeddedPostgres, name: str) -> str:
    """Make an empty database anew and return its DSN."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))
        connection.execute(SQL("CREATE DATABASE {} TEMPLATE template0").format(Identifier(name)))
        connection.execute("CHECKPOINT")
    return server.dsn(name)


def machine(server: EmbeddedPostgres) -> dict[str, object]:
    return {
        "time": datetime.now(UTC).isoformat(),
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "postgresql": server.version,
    }


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())


def by_name(figures: Iterable[Figure]) -> dict[str, list[Figure]]:
    """Group figures by what was measured, in the order of the first round."""
    groups: dict[str, list[Figure]] = {}
    for figure in figures:
        groups.setdefault(figure.what, []).append(figure)
    return groups


def ratios(groups: dict[str, list[Figure]], ours: str, theirs: str) -> tuple[float, float, float]:
    """Return minimum, median and maximum of the ratios of a pair, each taken within one round."""
    found = [one.seconds / other.seconds for one, other in zip(groups[ours], groups[theirs], strict=True)]
    return min(found), statistics.median(found), max(found)


def table(groups: dict[str, list[Figure]], rows: int) -> str:
    """Show medians of seconds, and the greatest peak of memory."""
    lines = [f"{'':34}{'min':>7}{'median':>8}{'max':>7}{'events/s':>11}{'client CPU s':>14}{'peak MiB':>10}{'MiB':>9}"]
    for what, figures in groups.items():
        seconds = [figure.seconds for figure in figures]
        median = statistics.median(seconds)
        cpu = statistics.median(figure.cpu_seconds for figure in figures)
        stored = f"{figures[0].stored_bytes / 2**20:.1f}" if figures[0].stored_bytes else ""
        peaks = max(figure.peak_rss_bytes for figure in figures)
        peak = f"{peaks / 2**20:.0f}" if peaks else ""
        lines.append(
            f"{what:34}{min(seconds):7.2f}{median:8.2f}{max(seconds):7.2f}{rows / median:11,.0f}{cpu:14.2f}"
            f"{peak:>10}{stored:>9}"
        )
    return "\n".join(lines)


def plain(figures: Iterable[Figure]) -> list[dict[str, object]]:
    return [asdict(figure) for figure in figures]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
