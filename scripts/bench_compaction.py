"""
Many small increments of one source, with compaction and without: objects, and what reading them costs.

Both archives hold the same events; a plan and a restore of each are processes of their own.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from scripts.measure import SETTINGS, ZBACKUP, by_name, machine, measured, new_database, run, say
from tests.history import create_schema
from tests.history.grown import fill_grown
from zbackup import compact
from zbackup.archive.archive import Archive
from zbackup.archive.log import totals
from zbackup.attempt import BackupOptions
from zbackup.backup import backup
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.store.local import LocalStore

NEVER = 1 << 60


@dataclass(frozen=True)
class Outcome:
    """What one archive is after its runs."""

    seconds: float
    """of all runs"""
    events: int
    chunks: int
    """of the newest log"""
    plan: float
    restore: float
    verify: float


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    with (
        tempfile.TemporaryDirectory(prefix="zbackup-bench-", dir=options.work) as work,
        EmbeddedPostgres(version=options.version, settings=SETTINGS) as server,
    ):
        facts = machine(server) | {"runs": options.runs, "events_a_run": options.events}
        merging = compact.FACTOR
        for name, factor in (("without", NEVER), ("with", merging)):
            compact.FACTOR = factor
            outcomes[name] = _outcome(server, Path(work) / name, options.runs, options.events)
    report = {"facts": facts, "outcomes": {name: asdict(outcome) for name, outcome in outcomes.items()}}
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{options.runs:,} runs of {options.events} events each")
    print(f"{'compaction':12}{'chunks':>8}{'s a run':>9}{'plan s':>8}{'restore s':>11}{'verify --full s':>17}")
    for name, found in outcomes.items():
        print(
            f"{name:12}{found.chunks:8,}{found.seconds / options.runs:9.3f}{found.plan:8.2f}{found.restore:11.2f}"
            f"{found.verify:17.2f}"
        )
    print(options.output)
    return 0


def _outcome(server: EmbeddedPostgres, path: Path, runs: int, events: int) -> Outcome:
    source = new_database(server, "source")
    with psycopg.connect(source) as connection:
        create_schema(connection, state=False)
    run(*ZBACKUP, "init", "--archive", path)
    archive = Archive.open(LocalStore(path))
    options = BackupOptions(jobs=1, capture=False, margin=timedelta(0), audit_budget=timedelta(0))
    say(f"{runs} runs, {path.name} compaction")
    began = datetime.now(UTC)
    for number in range(runs):
        now = datetime.now(UTC)
        with psycopg.connect(source) as connection:
            fill_grown(connection, events=events, start=now - timedelta(milliseconds=5), end=now, first=number + 1)
        backup(archive, source, options)
    seconds = (datetime.now(UTC) - began).total_seconds()
    head = archive.catalog().head()
    assert head is not None
    log = totals(archive.manifest(head).log)
    new_database(server, "target")
    at = ("--archive", path)
    figures = [
        measured("plan", 0, (*ZBACKUP, "plan", *at)),
        measured("restore", 0, (*ZBACKUP, "restore", "--events-only", *at, "--target", server.dsn("target"))),
        measured("verify", 0, (*ZBACKUP, "verify", "--full", *at)),
    ]
    found = {what: figure.seconds for what, [figure] in by_name(figures).items()}
    return Outcome(seconds, log.rows, log.chunks, found["plan"], found["restore"], found["verify"])


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/bench compaction")
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--events", type=int, default=50, help="of each run")
    parser.add_argument("--version", type=int, help="major version of PostgreSQL")
    parser.add_argument("--work", type=Path, help="folder for the archives, default: the temporary one")
    parser.add_argument("--output", type=Path, default=Path(".bench/compaction.json"), help="where the JSON goes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
