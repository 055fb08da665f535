"""
What a running load of pushes loses while the database is backed up, beside what it loses during pg_dump.

The load goes on all the time while phases come and go: alone, then beside a command, which begins anew when it ends
early and is ended with its phase, alone again, and so on. Each command is compared with the phase just before it, so
that what else goes on in the machine counts little. The order of the commands is turned around from round to round.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from scripts.load import Sample, load
from scripts.measure import machine, new_database, say
from tests.history import create_indexes, create_schema, fill_state
from tests.history.grown import fill_grown
from zbackup.database.embedded import EmbeddedPostgres, Setting

SETTINGS: dict[str, Setting] = {
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "autovacuum": False,
}

ALONE = "alone"

SHOWN = (
    "pushes_per_second", "push_median_ms", "push_p99_ms", "reads_per_second", "read_median_ms", "read_p99_ms",
)  # fmt: skip

WARM_UP_SECONDS = 1.0

# A phase with less left than this share of it begins no other run.
LEAST_SHARE = 0.1

Span = tuple[float, float]


@dataclass(frozen=True)
class Figure:
    """What the load did in one phase."""

    what: str
    round: int
    seconds: float
    """in which the command ran"""
    pushes_per_second: float
    push_median_ms: float
    push_p99_ms: float
    reads_per_second: float
    read_median_ms: float
    read_p99_ms: float
    runs: int
    """of the command that came to their end"""
    run_seconds: float
    """the median of these; 0 where none did"""


@dataclass
class Phase:
    what: str
    round: int
    spans: list[Span] = field(default_factory=list[Span])
    """while the command ran"""
    runs: list[float] = field(default_factory=list[float])
    """seconds of those that came to their end"""

    @property
    def seconds(self) -> float:
        return sum(end - begun for begun, end in self.spans)


class Bench:
    """One server under load, and a folder for what the commands write."""

    def __init__(self, server: EmbeddedPostgres, work: Path, seconds: float, rate_limit: str) -> None:
        self.dsn, self.work, self.seconds = server.dsn("source"), work, seconds
        zbackup = (sys.executable, "-m", "zbackup")
        archive, dump = work / "archive", work / "dump"
        backup = (*zbackup, "backup", "--archive", archive, "--source", self.dsn)
        self._init = [str(word) for word in (*zbackup, "init", "--archive", archive)]
        self.commands: dict[str, tuple[object, ...]] = {
            "pg_dump -Fc -Z1": (server.bindir / "pg_dump", "-Fc", "-Z1", "-f", dump, "-d", self.dsn),
            "zbackup backup": backup,
            "zbackup backup --low-impact": (*backup, "--low-impact"),
            f"zbackup backup --rate-limit {rate_limit}": (*backup, "--rate-limit", rate_limit),
        }

    def round(self, number: int) -> list[Phase]:
        phases: list[Phase] = []
        for what in list(self.commands)[:: -1 if number % 2 else 1]:
            say(f"round {number + 1}: {what}")
            for phase in (Phase(ALONE, number), Phase(what, number)):
                while (left := self.seconds - phase.seconds) > self.seconds * LEAST_SHARE:
                    self._run(phase, left)
                phases.append(phase)
        return phases

    def _run(self, phase: Phase, seconds: float) -> None:
        """Run the command of a phase until it ends, or its time is over."""
        if phase.what == ALONE:
            begun = time.monotonic()
            time.sleep(seconds)
            phase.spans.append((begun, time.monotonic()))
            return
        shutil.rmtree(self.work / "archive", ignore_errors=True)
        subprocess.run(self._init, check=True, capture_output=True)
        command = [str(word) for word in self.commands[phase.what]]
        with tempfile.TemporaryFile() as errors:
            begun = time.monotonic()
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
            try:
                code = child.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            ended = time.monotonic()
            if code is None:
                child.terminate()
                child.wait()
            elif code == 0:
                phase.runs.append(ended - begun)
            else:
                errors.seek(0)
                sys.exit(f"{phase.what} failed: {errors.read().decode()}")
        phase.spans.append((begun, ended))


def figure(phase: Phase, pushes: Iterable[Sample], reads: Iterable[Sample]) -> Figure:
    """Sum up what the load did while the command of a phase ran."""
    seconds = phase.seconds

    def within(samples: Iterable[Sample]) -> list[float]:
        return sorted(took for done, took in samples if any(begun <= done < end for begun, end in phase.spans))

    pushed, read = within(pushes), within(reads)
    return Figure(
        phase.what, phase.round, seconds,
        len(pushed) / seconds, 1000 * quantile(pushed, 0.5), 1000 * quantile(pushed, 0.99),
        len(read) / seconds, 1000 * quantile(read, 0.5), 1000 * quantile(read, 0.99),
        len(phase.runs), statistics.median(phase.runs) if phase.runs else 0.0,
    )  # fmt: skip


def quantile(ordered: list[float], part: float) -> float:
    """Return the value below which that part of them lies; 0 of none."""
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0


def medians(figures: list[Figure]) -> dict[str, Figure]:
    """Return for each phase the medians over its rounds."""
    found: dict[str, Figure] = {}
    for what in dict.fromkeys(one.what for one in figures):
        rounds = [asdict(one) for one in figures if one.what == what]
        middle = {name: statistics.median(one[name] for one in rounds) for name in ("seconds", *SHOWN)}
        whole = [one["run_seconds"] for one in rounds if one["runs"]] or [0.0]
        runs = sum(one["runs"] for one in rounds)
        found[what] = Figure(what=what, round=-1, runs=runs, run_seconds=statistics.median(whole), **middle)
    return found


def ratios(figures: list[Figure]) -> dict[str, dict[str, float]]:
    """Return what each command leaves of the phase alone before it: the medians over all rounds."""
    found: dict[str, dict[str, list[float]]] = {}
    for before, one in zip(figures[::2], figures[1::2], strict=True):
        alone, beside = asdict(before), asdict(one)
        parts = found.setdefault(one.what, {name: [] for name in SHOWN})
        for name in SHOWN:
            if alone[name]:
                parts[name].append(beside[name] / alone[name])
    return {
        what: {name: statistics.median(values) for name, values in parts.items() if values}
        for what, parts in found.items()
    }


def prepare(server: EmbeddedPostgres, events: int) -> dict[str, int]:
    say(f"generating {events:,} events")
    source = new_database(server, "source")
    end = datetime.now(UTC) - timedelta(hours=1)
    with psycopg.connect(source) as connection:
        create_schema(connection, indexes=False)
        fill_grown(connection, events=events, start=end - timedelta(days=90), end=end)
        create_indexes(connection)
        fill_state(connection)
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("VACUUM (FREEZE, ANALYZE)")
        connection.execute("CHECKPOINT")
        row = connection.execute(
            "SELECT count(*), pg_table_size('eventstore.events2') FROM eventstore.events2 e WHERE e::TEXT <> ''"
        ).fetchone()
    assert row is not None
    return {"events": row[0], "table_bytes": row[1]}


def show(figures: list[Figure]) -> None:
    print("\nmedians of the rounds\n")
    _line("", "pushes/s", "p50 ms", "p99 ms", "reads/s", "p50 ms", "p99 ms", "one run s")
    for what, one in medians(figures).items():
        values = [asdict(one)[name] for name in SHOWN]
        run = "" if what == ALONE else f"{one.run_seconds:.1f}" if one.runs else "longer"
        _line(what, *(f"{value:.2f}" for value in values), run)
    print("\nas multiples of the phase alone before it, medians\n")
    for what, found in ratios(figures).items():
        _line(what, *(f"{found[name]:.2f}" if name in found else "" for name in SHOWN))


def _line(what: str, *columns: str) -> None:
    print(f"{what:36}" + "".join(f"{column:>10}" for column in columns))


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/bench load")
    parser.add_argument("--events", type=int, default=500_000, help="that are there before the load begins")
    parser.add_argument("--seconds", type=float, default=15, help="of each phase, of which each round has eight")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--pause", type=float, default=5, help="milliseconds after each push and each read")
    parser.add_argument("--rate-limit", default="8MiB", help="of zbackup in the last phase")
    parser.add_argument("--version", type=int, help="major version of PostgreSQL")
    parser.add_argument("--work", type=Path, help="folder for dump and archive, default: the temporary one")
    parser.add_argument("--output", type=Path, default=Path(".bench/load.json"), help="where the JSON goes")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    chosen = options(arguments)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="zbackup-bench-", dir=chosen.work) as work,
        EmbeddedPostgres(version=chosen.version, settings=SETTINGS) as server,
    ):
        facts = machine(server) | {"writers": chosen.writers, "pause_ms": chosen.pause} | prepare(server, chosen.events)
        bench = Bench(server, Path(work), chosen.seconds, chosen.rate_limit)
        with load(bench.dsn, chosen.writers, chosen.pause / 1000) as running:
            time.sleep(WARM_UP_SECONDS)
            phases = [phase for number in range(chosen.rounds) for phase in bench.round(number)]
            pushes, reads = running.stop()
    figures = [figure(phase, pushes, reads) for phase in phases]
    report = {"facts": facts, "figures": [asdict(one) for one in figures], "ratios": ratios(figures)}
    chosen.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(facts))
    show(figures)
    print(f"\nAll figures: {chosen.output}")
    return 0
