"""
Export, verify and restore of the events table on a generated history, beside PostgreSQL's own tools.

All run on the same throw-away server, one after the other, so that ratios mean more than seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg.sql import SQL, Identifier

from scripts import bench_load, bench_memory
from tests.history import create_indexes, create_schema, fill
from zbackup.database.embedded import EmbeddedPostgres, Setting
from zbackup.event import KEY_COLUMNS, OTHER_COLUMNS

# As on a small real server; everything measured runs on the same.
SETTINGS: dict[str, Setting] = {
    "shared_buffers": "1GB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "autovacuum": False,
}

TABLE = "eventstore.events2"

# Ours first, PostgreSQL's second.
RATIOS = (
    ("export", "zbackup backup", "pg_dump -Fc -Z1"),
    ("export", "zbackup backup", "ordered COPY"),
    ("verify", "zbackup verify --full", "pg_restore to /dev/null"),
    ("restore", "zbackup restore", "pg_restore -j2"),
)


@dataclass(frozen=True)
class Figure:
    """What one run of one command cost."""

    what: str
    round: int
    seconds: float
    cpu_seconds: float
    """of the client alone, not of the server"""
    peak_rss_bytes: int
    stored_bytes: int = 0


def main() -> None:
    if sys.argv[1:2] == ["memory"]:
        sys.exit(bench_memory.main(sys.argv[2:]))
    if sys.argv[1:2] == ["load"]:
        sys.exit(bench_load.main(sys.argv[2:]))
    options = _options()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="zbackup-bench-", dir=options.work) as work,
        EmbeddedPostgres(version=options.version, settings=SETTINGS) as server,
    ):
        rows, table_bytes = _prepare(server, options.events)
        bench = Bench(server, Path(work), options.jobs)
        figures = [figure for number in range(options.rounds) for figure in bench.round(number)]
        facts = {
            "time": datetime.now(UTC).isoformat(),
            "machine": platform.platform(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "postgresql": server.version,
            "events": rows,
            "table_bytes": table_bytes,
            "jobs": options.jobs,
        }
    median = {what: _median([figure for figure in figures if figure.what == what]) for what in _names(figures)}
    ratios = {f"{ours} / {theirs}": median[ours].seconds / median[theirs].seconds for _, ours, theirs in RATIOS}
    report = {"facts": facts, "figures": [asdict(figure) for figure in figures], "ratios": ratios}
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    _print(rows, median, options.output)


class Bench:
    """One server, one source database, and a folder for what the commands write."""

    def __init__(self, server: EmbeddedPostgres, work: Path, jobs: int) -> None:
        self.server, self.work, self.jobs = server, work, jobs
        self.source = server.dsn("source")

    def round(self, number: int) -> list[Figure]:
        dump, archive, target = self.work / "dump", self.work / "archive", self.server.dsn("target")
        pg, dsn = self.server.bindir, self.source
        columns = ", ".join(f'"{column}"' for column in (*KEY_COLUMNS, *OTHER_COLUMNS))
        order = ", ".join(
            f'"{column}"' + (' COLLATE "C"' if column.endswith(("_id", "_type")) else "") for column in KEY_COLUMNS
        )
        copy = f"COPY (SELECT {columns} FROM {TABLE} ORDER BY {order}) TO STDOUT"
        zbackup = (sys.executable, "-m", "zbackup")
        at, jobs = ("--archive", str(archive)), ("--jobs", str(self.jobs))
        figures: list[Figure] = []

        def measure(what: str, *command: object, stored: Path | None = None) -> None:
            print(f"round {number + 1}: {what}", file=sys.stderr, flush=True)
            figures.append(_measured(what, number, [str(word) for word in command], stored))

        measure("ordered COPY", pg / "psql", "-XqAt", "-d", dsn, "-c", copy)
        measure("pg_dump -Fc -Z1", pg / "pg_dump", "-Fc", "-Z1", "-t", TABLE, "-f", dump, "-d", dsn, stored=dump)
        _run([*zbackup, "init", *at])
        backup = ("backup", *at, "--source", dsn, "--no-capture", *jobs)
        measure("zbackup backup", *zbackup, *backup, stored=archive)
        measure("pg_restore to /dev/null", pg / "pg_restore", "-f", os.devnull, dump)
        measure("zbackup verify", *zbackup, "verify", *at, *jobs)
        measure("zbackup verify --full", *zbackup, "verify", *at, "--full", *jobs)
        self._new_database("target")
        with psycopg.connect(target) as connection:
            connection.execute("CREATE SCHEMA eventstore")
        measure("pg_restore -j2", pg / "pg_restore", "-j2", "-d", target, dump)
        self._new_database("target")
        measure("zbackup restore", *zbackup, "restore", "--events-only", *at, "--target", target, *jobs)
        dump.unlink()
        shutil.rmtree(archive)
        return figures

    def _new_database(self, name: str) -> None:
        _new_database(self.server, name)


def _prepare(server: EmbeddedPostgres, events: int) -> tuple[int, int]:
    """Fill the source database, and read the table once so that it is as warm for the first as for the last."""
    print(f"generating {events:,} events", file=sys.stderr, flush=True)
    _new_database(server, "source")
    end = datetime.now(UTC) - timedelta(hours=1)
    with psycopg.connect(server.dsn("source")) as connection:
        create_schema(connection, indexes=False, state=False)
        fill(connection, events=events, start=end - timedelta(days=90), end=end)
        create_indexes(connection)
    with psycopg.connect(server.dsn("source"), autocommit=True) as connection:
        connection.execute(f"VACUUM (FREEZE, ANALYZE) {TABLE}".encode())
        connection.execute("CHECKPOINT")
        count = connection.execute(
            f"SELECT count(*), pg_table_size('{TABLE}') FROM {TABLE} e WHERE e::TEXT <> ''".encode()
        ).fetchone()
    assert count is not None
    return count[0], count[1]


def _new_database(server: EmbeddedPostgres, name: str) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))
        connection.execute(SQL("CREATE DATABASE {} TEMPLATE template0").format(Identifier(name)))
        connection.execute("CHECKPOINT")


def _measured(what: str, number: int, command: list[str], stored: Path | None) -> Figure:
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            errors.seek(0)
            sys.exit(f"{what} failed: {errors.read().decode()}")
    # Linux counts ru_maxrss in KiB, and a child's begins with that of the process it was forked from.
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    size = _size(stored) if stored else 0
    return Figure(what, number, seconds, usage.ru_utime + usage.ru_stime, peak, size)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[:4])} failed: {done.stderr}")


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())


def _names(figures: list[Figure]) -> list[str]:
    return list(dict.fromkeys(figure.what for figure in figures))


def _median(figures: list[Figure]) -> Figure:
    return Figure(
        figures[0].what,
        -1,
        statistics.median(figure.seconds for figure in figures),
        statistics.median(figure.cpu_seconds for figure in figures),
        max(figure.peak_rss_bytes for figure in figures),
        figures[0].stored_bytes,
    )


def _print(rows: int, median: dict[str, Figure], output: Path) -> None:
    print(f"{rows:,} events; medians of seconds, greatest peak of memory\n")
    print(f"{'':26}{'seconds':>9}{'events/s':>11}{'client CPU s':>14}{'peak MiB':>10}{'stored MiB':>12}")
    for figure in median.values():
        stored = f"{figure.stored_bytes / 2**20:.1f}" if figure.stored_bytes else ""
        print(
            f"{figure.what:26}{figure.seconds:9.1f}{rows / figure.seconds:11,.0f}{figure.cpu_seconds:14.1f}"
            f"{figure.peak_rss_bytes / 2**20:10.0f}{stored:>12}"
        )
    print()
    for kind, ours, theirs in RATIOS:
        print(f"{kind:8} {ours} takes {median[ours].seconds / median[theirs].seconds:.2f} x {theirs}")
    print("\nPeaks are not below that of this script, some 40 MiB: Linux hands it on to children.")
    print(f"All figures: {output}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/bench")
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="of zbackup")
    parser.add_argument("--version", type=int, help="major version of PostgreSQL")
    parser.add_argument("--work", type=Path, help="folder for dump and archive, default: the temporary one")
    parser.add_argument("--output", type=Path, default=Path(".bench/bench.json"), help="where the JSON goes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
