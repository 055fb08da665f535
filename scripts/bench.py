"""
Backup, verify and restore of a history grown from a real one, beside PostgreSQL's own tools.

All run on the same throw-away server, one after the other, so that ratios mean more than seconds: first the events
alone on both sides, then the whole database. Others: `scripts/bench compaction`, `increments`, `load`, `memory`;
each has a --help.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg import sql

from scripts import bench_catalog, bench_compaction, bench_increments, bench_load, bench_memory
from scripts.chart import Curve, chart
from scripts.measure import (
    SETTINGS,
    TABLE,
    ZBACKUP,
    Figure,
    by_name,
    machine,
    measured,
    new_database,
    plain,
    prepare,
    ratios,
    run,
    table,
)
from tests.fix_rclone import rclone
from tests.fix_store import ACCESS_KEY, SECRET_KEY
from zbackup.archive.chunk import CHUNK_BYTES
from zbackup.database.connection import connect
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.database.export import ALONG_INDEX, cut, select_rows
from zbackup.database.shape import find_events_table
from zbackup.event import BEGINNING, END

OTHERS: dict[str, Callable[[list[str]], int]] = {
    "catalog": bench_catalog.main,
    "compaction": bench_compaction.main,
    "increments": bench_increments.main,
    "load": bench_load.main,
    "memory": bench_memory.main,
}

MIDDLE = "zbackup restore --at the middle"
MIDDLE_OF_TWO = f"{MIDDLE}, backed up then, too"

# Ours, PostgreSQL's, and what the ratio shall be at most.
RATIOS = (
    ("zbackup backup", "pg_dump -Fc -Z1", 0.70),
    ("zbackup backup", "ordered COPY, same slices", 1.25),
    ("zbackup backup to S3", "zbackup backup", 1.15),
    ("zbackup restore", "pg_restore -j2", 0.65),
    (MIDDLE, "zbackup restore", 0.60),
    (MIDDLE_OF_TWO, "zbackup restore", 0.60),
    ("zbackup backup, whole", "pg_dump, whole", None),
    ("zbackup restore, whole", "pg_restore -j2, whole", 0.80),
)


class Bench:
    """One server, one source database, and a folder for what the commands write."""

    def __init__(self, server: EmbeddedPostgres, work: Path, jobs: int) -> None:
        self.server, self.work, self.jobs = server, work, jobs
        self.source = server.dsn("source")
        self.figures: list[Figure] = []

    def events(self, number: int) -> None:
        """Measure the events table alone."""
        dump, archive, target = self.work / "dump", self.work / "archive", "target"
        at, jobs = ("--archive", archive), ("--jobs", self.jobs)
        backup = ("backup", "--source", self.source, "--no-capture", *jobs)
        restore = ("restore", "--events-only", *at, "--target", self.server.dsn(target), *jobs)
        self.measure("ordered COPY, same slices", number, *self._copies())
        self.measure("pg_dump -Fc -Z1", number, self._pg_dump(dump, "-t", TABLE), stored=dump)
        run(*ZBACKUP, "init", *at)
        self.measure("zbackup backup", number, (*ZBACKUP, *backup, *at), stored=archive)
        self._to_s3(number, backup)
        self.measure("zbackup verify", number, (*ZBACKUP, "verify", *at, *jobs))
        self.measure("zbackup verify --full", number, (*ZBACKUP, "verify", *at, "--full", *jobs))
        self.measure("pg_restore to /dev/null", number, (self.server.bindir / "pg_restore", "-f", os.devnull, dump))
        new_database(self.server, target)
        with psycopg.connect(self.server.dsn(target)) as connection:
            connection.execute("CREATE SCHEMA eventstore")
        self.measure("pg_restore -j2", number, self._pg_restore(target, dump))
        new_database(self.server, target)
        self.measure("zbackup restore", number, (*ZBACKUP, *restore))
        new_database(self.server, target)
        middle = self._middle()
        self.measure(MIDDLE, number, (*ZBACKUP, *restore, "--at", middle))
        self._backed_up_twice(number, middle)
        dump.unlink()
        shutil.rmtree(archive)

    def whole(self, number: int) -> None:
        """Measure the whole database."""
        dump, archive, target = self.work / "dump", self.work / "archive", "target"
        at, jobs = ("--archive", archive), ("--jobs", self.jobs)
        self.measure("pg_dump, whole", number, self._pg_dump(dump), stored=dump)
        run(*ZBACKUP, "init", *at)
        backup = (*ZBACKUP, "backup", *at, "--source", self.source, *jobs)
        self.measure("zbackup backup, whole", number, backup, stored=archive)
        new_database(self.server, target)
        self.measure("pg_restore -j2, whole", number, self._pg_restore(target, dump))
        new_database(self.server, target)
        restore = (*ZBACKUP, "restore", *at, "--target", self.server.dsn(target), *jobs)
        self.measure("zbackup restore, whole", number, restore)
        dump.unlink()
        shutil.rmtree(archive)

    def measure(self, what: str, number: int, *commands: tuple[object, ...], stored: Path | None = None) -> None:
        self.figures.append(measured(what, number, *commands, stored=stored))

    def _copies(self) -> list[tuple[object, ...]]:
        """Return one psql for each job; they read the slices of a backup in its order, and drop them."""
        settings = sql.SQL("; ").join(
            sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in ALONG_INDEX.items()
        )
        with closing(connect(self.source)) as connection:
            events = find_events_table(connection).table
            ranges, _ = cut(connection, events, BEGINNING, END, CHUNK_BYTES, self.jobs)
            copies = [
                sql.SQL("COPY ({}) TO STDOUT").format(select_rows(events, *part)).as_string(connection)
                for part in ranges
            ]
            first = settings.as_string(connection)
        psql = (self.server.bindir / "psql", "-XqAt", "-d", self.source, "-c", first)
        return [
            (*psql, *(word for copy in copies[job :: self.jobs] for word in ("-c", copy))) for job in range(self.jobs)
        ]

    def _to_s3(self, number: int, backup: tuple[object, ...]) -> None:
        folder = self.work / "s3"
        (folder / "bucket").mkdir(parents=True)
        with rclone(folder) as endpoint:
            os.environ |= {
                "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_ENDPOINT_URL": endpoint,
                "AWS_REGION": "us-east-1",
            }  # fmt: skip
            at = ("--archive", "s3://bucket/archive")
            run(*ZBACKUP, "init", *at)
            self.measure("zbackup backup to S3", number, (*ZBACKUP, *backup, *at))
        shutil.rmtree(folder)

    def _backed_up_twice(self, number: int, middle: str) -> None:
        """Restore the middle where it was backed up when it was the end: the target has the first half already."""
        archive, half, target = self.work / "twice", self.server.dsn("target"), "another"
        at, jobs = ("--archive", archive), ("--jobs", self.jobs)
        backup = (*ZBACKUP, "backup", *at, "--source", half, "--no-capture", *jobs)
        run(*ZBACKUP, "init", *at)
        # Events end an hour ago; what the first backup calls final begins some seconds before it.
        then = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
        run(*backup)
        self._append_rest(half, middle)
        run(*backup)
        restore = ("restore", "--events-only", *at, "--target", new_database(self.server, target), *jobs)
        self.measure(MIDDLE_OF_TWO, number, (*ZBACKUP, *restore, "--at", then))
        shutil.rmtree(archive)

    def _append_rest(self, half: str, middle: str) -> None:
        """Copy what comes after the middle, as if it had happened from now on, ten million times as fast."""
        kept = "instance_id, aggregate_type, aggregate_id, event_type, sequence, revision, payload, creator, owner"
        columns = f"{kept}, in_tx_order, created_at, position"
        rest = f"""SELECT {kept}, in_tx_order, now, extract(epoch FROM now) FROM (
                SELECT *, '{datetime.now(UTC).isoformat()}'::timestamptz + (created_at - '{middle}') / 10000000 AS now
                  FROM {TABLE} WHERE created_at > '{middle}' ORDER BY created_at, position, in_tx_order) e"""
        with (
            psycopg.connect(self.source) as source,
            psycopg.connect(half) as target,
            source.cursor().copy(f"COPY ({rest}) TO STDOUT".encode()) as coming,
            target.cursor().copy(f"COPY {TABLE} ({columns}) FROM STDIN".encode()) as going,
        ):
            for block in coming:
                going.write(block)

    def _middle(self) -> str:
        with psycopg.connect(self.source) as connection:
            row = connection.execute(
                f"SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY created_at) FROM {TABLE}".encode()
            ).fetchone()
        assert row is not None
        return row[0].isoformat()

    def _pg_dump(self, dump: Path, *words: object) -> tuple[object, ...]:
        return self.server.bindir / "pg_dump", "-Fc", "-Z1", *words, "-f", dump, "-d", self.source

    def _pg_restore(self, target: str, dump: Path) -> tuple[object, ...]:
        return self.server.bindir / "pg_restore", "-j2", "-d", self.server.dsn(target), dump


def main() -> None:
    if sys.argv[1:2] and (other := OTHERS.get(sys.argv[1])):
        sys.exit(other(sys.argv[2:]))
    options = _options()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    sizes = [events for events in (*options.curve, options.events) if events]
    with (
        tempfile.TemporaryDirectory(prefix="zbackup-bench-", dir=options.work) as work,
        EmbeddedPostgres(version=options.version, settings=SETTINGS) as server,
    ):
        facts: dict[str, object] = {}
        bench = Bench(server, Path(work), options.jobs)
        curves: dict[str, list[tuple[int, float]]] = {}
        for events in sizes:
            last = events == options.events
            facts = machine(server) | {"jobs": options.jobs} | prepare(server, events, whole=last)
            bench = Bench(server, Path(work), options.jobs)
            for number in range(options.rounds if last else 1):
                bench.events(number)
            for number in range(options.rounds if last else 0):
                bench.whole(number)
            for what, figures in by_name(bench.figures).items():
                curves.setdefault(what, []).append((events, min(figure.seconds for figure in figures)))
    groups = by_name(bench.figures)
    compared = {(ours, theirs): (ratios(groups, ours, theirs), goal) for ours, theirs, goal in RATIOS}
    report = {
        "facts": facts,
        "figures": plain(bench.figures),
        "ratios": {f"{ours} / {theirs}": found for (ours, theirs), (found, _) in compared.items()},
        "curves": curves,
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(facts))
    print(table(groups, options.events))
    print(f"\n{'':68}{'min':>6}{'median':>8}{'max':>6}{'goal':>6}")
    for (ours, theirs), ((least, median, most), goal) in compared.items():
        print(f"{ours + ' / ' + theirs:68}{least:6.2f}{median:8.2f}{most:6.2f}{goal or '':>6}")
    size = groups["zbackup backup"][0].stored_bytes / groups["pg_dump -Fc -Z1"][0].stored_bytes
    print(f"{'bytes stored, zbackup backup / pg_dump -Fc -Z1':68}{'':6}{size:8.2f}{'':6}{0.8:>6}")
    if options.picture:
        options.picture.write_text(chart("Seconds for so many events", [Curve(*item) for item in curves.items()]))
    print(options.output)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/bench")
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--curve", type=int, nargs="*", default=[], help="smaller numbers of events, one round each")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="of zbackup, and of the COPY beside it")
    parser.add_argument("--version", type=int, help="major version of PostgreSQL")
    parser.add_argument("--work", type=Path, help="folder for dump and archive, default: the temporary one")
    parser.add_argument("--output", type=Path, default=Path(".bench/bench.json"), help="where the JSON goes")
    parser.add_argument("--picture", type=Path, help="where an SVG of the curve goes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
