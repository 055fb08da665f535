"""
The most memory that each command takes: on a ZITADEL-like database of many events, and on one with huge rows.

Each command runs as a process of its own, which tells its own peak; those of pg_dump beside it are shown, not
counted. Exits with 1 when a peak is above its bound.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg.sql import SQL

from scripts.measure import fill_constraints, fill_derived, machine, new_database, say
from scripts.peak import high_water
from tests.history import create_indexes, create_schema, fill, fill_state
from tests.history.large import fill_large, fill_users
from zbackup.database.embedded import EmbeddedPostgres, Setting

SETTINGS: dict[str, Setting] = {
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "autovacuum": False,
    "fsync": False,
}

BOUND = 200 * 10**6
"""of every command, whatever the number of events"""
PER_LARGEST_ROW = 6
"""times its bytes more, where rows are huge"""

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Figure:
    """What one run of one command took."""

    database: str
    command: str
    round: int
    seconds: float
    peak_rss_bytes: int
    bound_bytes: int
    helpers_peak_bytes: int
    """the greatest of the programs that it started (pg_dump)"""

    @property
    def ok(self) -> bool:
        return self.peak_rss_bytes <= self.bound_bytes


class Bench:
    """One server, and a folder for what the commands write."""

    def __init__(self, server: EmbeddedPostgres, work: Path, jobs: int, users: int) -> None:
        self.server, self.work, self.jobs, self.users = server, work, jobs, users
        self.figures: list[Figure] = []

    def many(self, number: int, events: int) -> dict[str, int]:
        """Measure on a whole database of many events, a tenth of them younger than its capture."""
        source = new_database(self.server, "many")
        say(f"generating {events:,} events")
        end = datetime.now(UTC) - timedelta(hours=1)
        with psycopg.connect(source) as connection:
            create_schema(connection, indexes=False)
            fill(connection, events=events, start=end - timedelta(days=10), end=end)
            if self.users:
                fill_users(connection, self.users, start=end - timedelta(days=10), end=end)
            # What is younger than the capture waits in another schema meanwhile.
            later = SQL("created_at >= {}").format(end - timedelta(days=1))
            connection.execute(SQL("CREATE TABLE later AS SELECT * FROM eventstore.events2 WHERE {}").format(later))
            connection.execute(SQL("DELETE FROM eventstore.events2 WHERE {}").format(later))
            create_indexes(connection)
            fill_state(connection)
            fill_derived(connection)
        constraints = fill_constraints(source)
        with psycopg.connect(source, autocommit=True) as connection:
            connection.execute("VACUUM (FREEZE, ANALYZE)")
        self.zbackup("many", number, "init")
        self.zbackup("many", number, "backup", source=source)
        with psycopg.connect(source, autocommit=True) as connection:
            connection.execute("INSERT INTO eventstore.events2 SELECT * FROM later")
            connection.execute("DROP TABLE later")
            connection.execute("ANALYZE eventstore.events2")
        self.zbackup("many", number, "backup", "--no-capture", source=source)
        self.rest("many", number, source, end - timedelta(hours=6))
        return {"events": events + self.users, "constraints": constraints}

    def large(self, number: int, row_bytes: int) -> dict[str, int]:
        """Measure on events and assets whose largest rows have so many bytes of payload."""
        source = new_database(self.server, "large")
        say(f"generating rows of {row_bytes:,} bytes")
        end = datetime.now(UTC) - timedelta(hours=1)
        with psycopg.connect(source) as connection:
            create_schema(connection)
            fill(connection, events=30_000, start=end - timedelta(days=1), end=end)
            fill_state(connection)
            largest = fill_large(connection, row_bytes, start=end - timedelta(days=1), end=end)
        with psycopg.connect(source, autocommit=True) as connection:
            connection.execute("VACUUM (FREEZE, ANALYZE)")
        bound = BOUND + PER_LARGEST_ROW * largest
        self.zbackup("large", number, "init", bound=bound)
        self.zbackup("large", number, "backup", source=source, bound=bound)
        with psycopg.connect(source, autocommit=True) as connection:
            connection.execute("UPDATE eventstore.events2 SET creator = 'later' WHERE event_type = 'test.large'")
        self.rest("large", number, source, end - timedelta(hours=6), bound)
        return {"largest_row": largest}

    def rest(self, database: str, number: int, source: str, at: datetime, bound: int = BOUND) -> None:
        def run(*words: str, source: str | None = None, target: bool = False) -> None:
            place = new_database(self.server, "target") if target else None
            self.zbackup(database, number, *words, source=source, target=place, bound=bound)

        run("backup", "--audit", source=source)
        run("list")
        run("show", "--constraints")
        run("plan")
        run("plan", "--at", at.isoformat())
        run("log", "--limit", "0", "--payload")
        run("log", "--limit", "0", "--event-type", "user.*")
        run("diff", at.isoformat())
        run("export")
        run("verify")
        run("verify", "--full")
        run("verify", "--source", source)
        run("restore", target=True)
        run("restore", "--proof", "full", "--at", at.isoformat(), target=True)
        run("restore", "--events-only", target=True)

    def zbackup(
        self, database: str, number: int, command: str, *words: str,
        source: str | None = None, target: str | None = None, bound: int = BOUND,
    ) -> None:  # fmt: skip
        """Run one command on the archive of a database, and note what it took."""
        named = {"--archive": str(self.work / f"{database}-{number}"), "--source": source, "--target": target}
        given = [word for name, value in named.items() if value is not None for word in (name, value)]
        if command in ("backup", "verify", "restore"):
            given += ["--jobs", str(self.jobs)]
        shown = " ".join([command, *(word for word in words if "=" not in word)])
        say(f"{database}, round {number + 1}: {shown}")
        seconds, peak, helpers = measured([command, *words, *given], self.work)
        self.figures.append(Figure(database, shown, number, seconds, peak, bound, helpers))
        say(f"    {peak / 2**20:.0f} MiB, {seconds:.1f} s")


def measured(arguments: list[str], work: Path) -> tuple[float, int, int]:
    """Run zbackup; return its seconds, its peak, and the greatest of the programs that it started."""
    place = work / "peak"
    place.unlink(missing_ok=True)
    helpers = 0
    with tempfile.TemporaryFile() as errors:
        began = time.monotonic()
        child = subprocess.Popen(
            [sys.executable, "-m", "scripts.peak", str(place), *arguments], stdout=subprocess.DEVNULL, stderr=errors
        )
        while True:
            try:
                code = child.wait(POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                helpers = max(helpers, *(high_water(process) for process in started_by(child.pid)), 0)
        seconds = time.monotonic() - began
        if code != 0:
            errors.seek(0)
            sys.exit(f"zbackup {arguments[0]} failed: {errors.read().decode()}")
    return seconds, int(place.read_text()), helpers


def started_by(process: int) -> Iterator[int]:
    """Yield the children of a process that run another program by now."""
    program = Path(f"/proc/{process}/exe")
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            for child in map(int, listed.read_text().split()):
                if Path(f"/proc/{child}/exe").readlink() != program.readlink():
                    yield child
        except (FileNotFoundError, ProcessLookupError):
            continue


def show(figures: list[Figure]) -> None:
    print(f"\n{'':32}{'peak MiB':>10}{'bound':>8}{'':6}{'seconds':>9}{'pg_dump MiB':>13}")
    for figure in figures:
        helpers = f"{figure.helpers_peak_bytes / 2**20:.0f}" if figure.helpers_peak_bytes else ""
        print(
            f"{figure.database:6}{figure.command[:25]:26}{figure.peak_rss_bytes / 2**20:10.0f}"
            f"{figure.bound_bytes / 2**20:8.0f}{'' if figure.ok else '  OVER':6}{figure.seconds:9.1f}{helpers:>13}"
        )


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/bench memory")
    parser.add_argument("--events", type=int, default=2_000_000, help="of the database of many; 0 leaves it out")
    parser.add_argument("--users", type=int, default=0, help="who come to them, each with a unique name")
    parser.add_argument("--row-bytes", type=int, default=50_000_000, help="of the huge payloads; 0 leaves them out")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="of zbackup")
    parser.add_argument("--version", type=int, help="major version of PostgreSQL")
    parser.add_argument("--work", type=Path, help="folder for the archives, default: the temporary one")
    parser.add_argument("--output", type=Path, default=Path(".bench/memory.json"), help="where the JSON goes")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    chosen = options(arguments)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="zbackup-bench-", dir=chosen.work) as work,
        EmbeddedPostgres(version=chosen.version, settings=SETTINGS) as server,
    ):
        bench = Bench(server, Path(work), chosen.jobs, chosen.users)
        facts = machine(server) | {"jobs": chosen.jobs}
        for number in range(chosen.rounds):
            if chosen.events:
                facts |= bench.many(number, chosen.events)
            if chosen.row_bytes:
                facts |= bench.large(number, chosen.row_bytes)
    chosen.output.write_text(
        json.dumps({"facts": facts, "figures": [asdict(figure) for figure in bench.figures]}, indent=1) + "\n"
    )
    print(json.dumps(facts))
    show(bench.figures)
    print(f"\nAll figures: {chosen.output}")
    return 0 if all(figure.ok for figure in bench.figures) else 1
