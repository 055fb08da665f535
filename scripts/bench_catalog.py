"""
What it costs to find one's way in an archive of so many runs, and to plan on a log of so many chunks.

One backup every ten seconds; 3 000 000 are a year of them. Manifests are worked out when they are read
(tests/long_archive.py), requests are counted as a bucket would. Each question is asked in a process of its own, which
tells its peak. Exits with 1 when a bound is broken.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path

from scripts.peak import high_water
from tests.archived import STARTED, manifest_of
from tests.long_archive import CAPTURE, GENERATION, LongArchive, chunk_of
from zbackup.__main__ import COLLECT_AFTER
from zbackup.archive import FORMAT
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import INDEX_CHUNKS, ArchiveRecord, Log
from zbackup.archive.names import backup_id
from zbackup.continuity import choose_parent, newest_chunk
from zbackup.event import BEGINNING, instant_text
from zbackup.inspect import listing
from zbackup.moment import Instant, Latest, OfBackup
from zbackup.plan import resolve
from zbackup.store.local import LocalStore

BOUND_BYTES = 200 * 10**6
BOUND_SECONDS = 1.0

CHUNK = timedelta(hours=1)


@dataclass(frozen=True)
class Figure:
    """What one question cost."""

    archive: str
    question: str
    lists: int
    gets: int
    seconds: float
    peak_rss_bytes: int

    @property
    def ok(self) -> bool:
        within = self.seconds <= BOUND_SECONDS or not self.question.startswith("plan")
        return within and self.peak_rss_bytes <= BOUND_BYTES


def increment(archive: Archive) -> None:
    """Ask what a backup asks of the catalog and its parent; it also writes its run record, chunks and manifest."""
    catalog = archive.catalog()
    source = archive.manifest(catalog.heads()[0]).source
    found = choose_parent(archive, catalog, source)
    assert found.entry is not None
    assert found.parent is not None
    assert not list(archive.run_records(found.entry.backup))
    newest_chunk(archive, found.parent)
    archive.catalog().since(catalog.next_number())


def middle(archive: Archive) -> None:
    head = archive.catalog().head()
    assert head is not None
    at = STARTED + (head.snapshot - STARTED) / 2
    assert resolve(archive, Instant(at, instant_text(at))).capture is not None


def by_id(archive: Archive) -> None:
    head = archive.catalog().head()
    assert head is not None
    resolve(archive, OfBackup(head.backup))


QUESTIONS: dict[str, Callable[[Archive], object]] = {
    "head": lambda archive: archive.catalog().head(),
    "increment": increment,
    "plan latest": lambda archive: resolve(archive, Latest()),
    "plan middle": middle,
    "plan by id": by_id,
    "list": lambda archive: listing(archive, 100),
}

OF_CHUNKS = ("plan latest", "plan middle")


def chunked(folder: Path, chunks: int) -> Archive:
    """Make an archive of one backup with a log of so many chunks, which are not there."""
    archive = Archive.create(LocalStore(folder, create=True), ArchiveRecord(FORMAT, "a" * 8, STARTED, "bench"))
    edges = [BEGINNING, *(STARTED + number * CHUNK for number in range(1, chunks + 1))]
    held = [
        chunk_of(str(number), STARTED + (number + 0.5) * CHUNK, *edges[number : number + 2]) for number in range(chunks)
    ]
    backup = backup_id(edges[-1], "00000001")
    indexes = (archive.put_index(backup, held[at : at + INDEX_CHUNKS]) for at in range(0, chunks, INDEX_CHUNKS))
    made = manifest_of(backup, 1, edges[-1], edges[-1], Log(tuple(indexes)), (), None)
    archive.commit(replace(made, generation=GENERATION, capture=CAPTURE))
    return archive


def ask(kind: str, place: Path, count: int, question: str) -> None:
    """Answer one question in this process and print the figure."""
    gc.set_threshold(COLLECT_AFTER)
    store = LongArchive.opened(place, count) if kind == "runs" else None
    archive = store.archive if store else Archive.open(LocalStore(place))
    began = time.perf_counter()
    QUESTIONS[question](archive)
    seconds = time.perf_counter() - began
    lists, gets = (store.requests["list"], store.requests["get"]) if store else (0, 0)
    print(json.dumps(asdict(Figure(f"{count:,} {kind}", question, lists, gets, seconds, high_water()))))


def asked(kind: str, place: Path, count: int, question: str) -> Figure:
    command = [sys.executable, "-m", "scripts.bench", "catalog", "--ask", kind, str(place), str(count), question]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{question} of {count} {kind} failed: {done.stderr}")
    return Figure(**json.loads(done.stdout))


def measured(runs: list[int], chunks: list[int], work: Path) -> list[Figure]:
    figures: list[Figure] = []
    for count in runs:
        print(f"working out {count:,} manifests", file=sys.stderr, flush=True)
        place = work / f"runs-{count}"
        # In a process of its own: a child's peak begins with that of its parent.
        command = [sys.executable, "-m", "scripts.bench", "catalog", "--ask", "make", str(place), str(count), ""]
        subprocess.run(command, check=True)
        figures += [asked("runs", place, count, question) for question in QUESTIONS]
    for count in chunks:
        place = work / f"chunks-{count}"
        subprocess.run(
            [sys.executable, "-m", "scripts.bench", "catalog", "--ask", "make chunks", str(place), str(count), ""],
            check=True,
        )
        figures += [asked("chunks", place, count, question) for question in OF_CHUNKS]
    return figures


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/bench catalog")
    parser.add_argument("--runs", type=int, nargs="*", default=[1000, 100_000, 3_000_000])
    parser.add_argument("--chunks", type=int, nargs="*", default=[1000, 100_000])
    parser.add_argument("--output", type=Path, default=Path(".bench/catalog.json"), help="where the JSON goes")
    parser.add_argument("--ask", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.ask:
        kind, place, count, question = chosen.ask
        match kind:
            case "make":
                LongArchive.make(Path(place), int(count))
            case "make chunks":
                chunked(Path(place), int(count))
            case _:
                ask(kind, Path(place), int(count), question)
        return 0
    with tempfile.TemporaryDirectory(prefix="zbackup-bench-") as work:
        figures = measured(chosen.runs, chosen.chunks, Path(work))
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    print(f"{'':32}{'LIST':>6}{'GET':>6}{'seconds':>9}{'peak MB':>9}")
    for figure in figures:
        print(
            f"{figure.archive:18}{figure.question:14}{figure.lists:6}{figure.gets:6}{figure.seconds:9.3f}"
            f"{figure.peak_rss_bytes / 10**6:9.0f}{'' if figure.ok else '  OVER'}"
        )
    print(f"\nAll figures: {chosen.output}")
    return 0 if all(figure.ok for figure in figures) else 1
