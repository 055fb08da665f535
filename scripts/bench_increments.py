"""
Increments of 10 000 events on tables of different sizes: what one costs must not grow with the table.

Each is a process of its own, its start included: once with the events alone, once with captures and the audit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import psycopg

from scripts.measure import SETTINGS, ZBACKUP, Figure, by_name, machine, measured, plain, prepare, run, table
from tests.history.grown import fill_grown
from zbackup.database.embedded import EmbeddedPostgres

EVENTS = 10_000

# Copies of the history with numbers from here on are not in the table yet.
LATER = 1_000_000

PLAIN, ALL = "increment", "increment, captures and audit"


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    found: dict[int, list[Figure]] = {}
    facts: dict[str, object] = {}
    for size in options.sizes:
        with (
            tempfile.TemporaryDirectory(prefix="zbackup-bench-", dir=options.work) as work,
            EmbeddedPostgres(version=options.version, settings=SETTINGS) as server,
        ):
            facts = machine(server) | prepare(server, size, whole=True)
            found[size] = list(_figures(server, Path(work), options.rounds))
        print(f"\n{size:,} events\n{table(by_name(found[size]), EVENTS)}")
    report = {"facts": facts, "figures": {size: plain(figures) for size, figures in found.items()}}
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    smallest, largest = min(found), max(found)
    for what in (PLAIN, ALL):
        small, large = (
            statistics.median(figure.seconds for figure in by_name(found[size])[what]) for size in (smallest, largest)
        )
        print(f"{what}: {large:.2f} s with {largest:,} events, {large / small:.2f} x that with {smallest:,}")
    print(options.output)
    return 0


def _figures(server: EmbeddedPostgres, work: Path, rounds: int) -> list[Figure]:
    source = server.dsn("source")
    figures: list[Figure] = []
    copies = count(LATER)
    at = ("--archive", work / "archive")
    run(*ZBACKUP, "init", *at)
    backup = (*ZBACKUP, "backup", *at, "--source", source)
    figures.append(measured("full backup", 0, (*backup, "--no-capture")))
    figures.append(measured("verify --full", 0, (*ZBACKUP, "verify", "--full", *at)))
    figures.append(measured("first capture", 0, backup))
    for number in range(rounds):
        for what, words in ((PLAIN, ("--no-capture", "--audit-budget", "0s")), (ALL, ())):
            now = datetime.now(UTC)
            with psycopg.connect(source) as connection:
                begin = now - timedelta(milliseconds=100)
                fill_grown(connection, events=EVENTS, start=begin, end=now, first=next(copies))
            # All of them are sealed, as those of the night before are.
            figures.append(measured(what, number, (*backup, "--horizon-margin", "0s", *words)))
    return figures


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/bench increments")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000_000, 20_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--version", type=int, help="major version of PostgreSQL")
    parser.add_argument("--work", type=Path, help="folder for the archives, default: the temporary one")
    parser.add_argument("--output", type=Path, default=Path(".bench/increments.json"), help="where the JSON goes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
