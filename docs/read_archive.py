"""
Print the events of an archive as COPY text: a reader of the format that shares no line with zbackup.

    python read_archive.py FOLDER [--backup ID | --at 2026-11-23T08:00:00Z]

All that the newest backup or a named one saw, or the events of an instant as a restore would bring them back. What
is printed was proved by its digests before; the exit code tells whether that is all. See archive-format.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import zstandard

NAME = re.compile(r"(\d{10})_(\d{8}T\d{6}Z-[0-9a-f]{8})_([0-9a-f]{8})_\w+?_(\w+?)_(\w+?)_([0-9a-f]{64})\.json")
NUMBER, BACKUP, GENERATION, HORIZON, SNAPSHOT, DIGEST = range(1, 7)
ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
SYSTEM = (b"", b"system", b"SYSTEM")


def part(path: Path, group: int) -> str:
    """Return what the name of a manifest tells; "none" becomes the least text."""
    found = NAME.fullmatch(path.name)
    return found[group].replace("none", "") if found else ""


def proved(path: Path, sha256: str) -> bytes:
    """Read an object; what does not have its digest is no part of the archive."""
    body = path.read_bytes()
    if hashlib.sha256(body).hexdigest() != sha256:
        sys.exit(f"{path}: its bytes do not have their digest")
    return body


def manifest_of(path: Path) -> dict:
    """Read a manifest."""
    manifest = json.loads(proved(path, part(path, DIGEST)))
    if manifest["format"] != 1:
        sys.exit(f"{path}: its format is not 1")
    return manifest


def rows_of(folder: Path, chunk: dict) -> list[bytes]:
    """Return the rows of a chunk. A decoder passes over its header and trailer, which are skippable frames."""
    body = proved(folder / chunk["name"], chunk["sha256"])
    raw = zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True).read()
    if hashlib.sha256(raw).hexdigest() != chunk["raw_sha256"] or raw.count(b"\n") != chunk["rows"]:
        sys.exit(f"{chunk['name']}: it does not hold the rows that the manifest says")
    return [row + b"\n" for row in raw.split(b"\n")[:-1]]


def chunks_of(folder: Path, manifest: dict) -> list[dict]:
    """Return the chunks of the log, which tile time from the beginning on, then those of the tail."""
    chunks, end = [], "0001-01-01T00:00:00Z"
    for index in manifest["log"]["indexes"]:
        chunks += json.loads(zstandard.decompress(proved(folder / index["name"], index["sha256"])))
    chunks += manifest["log"]["chunks"]
    for chunk in chunks:
        if chunk["lo"] != end:
            sys.exit(f"{chunk['name']}: the log has a hole or an overlap at {end}")
        end = chunk["hi"]
    return chunks + manifest["tail"]


def cursor(row: bytes) -> tuple:
    """Return the place of a row: time, position, order, and its primary key, text without COPY's escapes."""
    at, position, order, *texts, sequence = row.split(b"\t", 7)[:7]
    key = [re.sub(rb"\\(.)", lambda found: ESCAPES.get(found[1], found[1]), text, flags=re.DOTALL) for text in texts]
    return datetime.fromisoformat(at.decode()), Decimal(position.decode()), int(order), *key, int(sequence)


def answering(paths: list[Path], head: Path, at: datetime) -> dict:
    """Go back along the line of the newest backup to the first whose horizon lies above the instant."""
    stamp, answer, older = at.astimezone(UTC).strftime("%Y%m%dT%H%M%S%f"), manifest_of(head), head
    if stamp > part(head, SNAPSHOT):
        sys.exit(f"{at} is after {answer['snapshot']}, up to which the archive reaches")
    while older and part(older, HORIZON) > stamp:
        answer = manifest_of(older)
        line = [path for path in paths if part(path, GENERATION) == answer["generation"]]
        line = [path for path in line if part(path, NUMBER) < part(older, NUMBER)]
        parent = Path(answer["parent"] or "")
        # Where prune removed the parent, the one before it goes on.
        older = next((path for path in line if path.name == parent.name), line[-1] if line else None)
    parent = Path(answer["parent"] or "")
    gone = parent.name not in {path.name for path in paths} and part(parent, HORIZON) > stamp
    for found in answer["amendments"] if gone else ():
        own = found["backup"] == answer["backup"] and found["removed"] + found["changed"] > 0
        if own and datetime.fromisoformat(found["lo"]) <= at:
            sys.exit(f"what the rows of {at} were is pruned")
    return answer


def added_to(answer: dict, head: dict) -> list[dict]:
    """Return the chunks of rows that amendments after a backup added to its past."""
    known = [{**found, "rows": ()} for found in answer["amendments"]]
    return [chunk for found in head["amendments"] if {**found, "rows": ()} not in known for chunk in found["rows"]]


def withheld(before: list[tuple], after: list[tuple]) -> set[tuple]:
    """Return the events before an instant that go because of those after it: every push stays whole."""
    least, pushes, histories = {}, defaultdict(set), defaultdict(set)
    for place in after:
        least[place[3:6]] = min(place[6], least.get(place[3:6], place[6]))
    for place in before:
        if place[3:6] != SYSTEM:
            pushes[place[3], place[0]].add(place)
            histories[place[3:6]].add(place)
    todo = {place for key in least for place in histories[key] if place[6] > least[key]}
    gone = set()
    while todo:
        gone |= todo
        more = {other for place in todo for other in pushes[place[3], place[0]]}
        more |= {other for place in todo | more for other in histories[place[3:6]] if other[6] > place[6]}
        todo = more - gone
    return gone


def at_instant(folder: Path, answer: dict, head: dict, at: datetime) -> list[bytes]:
    """Return the rows of an instant: what a backup holds of it, and what was added since, without what is withheld."""
    events = {cursor(row): row for chunk in chunks_of(folder, answer) for row in rows_of(folder, chunk)}
    keys = {place[3:] for place in events if place[0] <= at}
    for chunk in added_to(answer, head):
        for row in rows_of(folder, chunk):
            place = cursor(row)
            if at < place[0] <= datetime.fromisoformat(answer["snapshot"]) or (
                place[0] <= at and place[3:] not in keys
            ):
                events[place] = row
                keys |= {place[3:]} if place[0] <= at else set()
    before, after = [place for place in events if place[0] <= at], [place for place in events if place[0] > at]
    if not before:
        sys.exit(f"{at} is before the first event")
    marks = b"\tsystem\t", b"\tsystem.migration.started\t", b'"14_events_push"'
    started = [place[0] for place in after if all(mark in events[place] for mark in marks)]
    gone = withheld(before, [place for place in after if not started or place[0] >= max(started)])
    return [events[place] for place in sorted(before) if place not in gone]


def main() -> None:
    """Read the options, and print."""
    parser = argparse.ArgumentParser(description="Print the events of an archive as COPY text.")
    parser.add_argument("folder", type=Path)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--backup", help="this one instead of the newest")
    what.add_argument("--at", type=datetime.fromisoformat, help="an instant, with its offset or Z")
    options = parser.parse_args()
    if options.at and options.at.tzinfo is None:
        parser.error("--at needs an offset or Z")
    paths = [path for path in (options.folder / "manifests").rglob("*.json") if NAME.fullmatch(path.name)]
    paths.sort(key=lambda path: [part(path, group) for group in (NUMBER, HORIZON, SNAPSHOT, BACKUP)])
    chosen = [path for path in paths if options.backup in (None, part(path, BACKUP))]
    if not chosen:
        sys.exit(f"{options.folder}: no such backup")
    head = manifest_of(chosen[-1])
    if options.at is None:
        for chunk in chunks_of(options.folder, head):
            sys.stdout.buffer.writelines(rows_of(options.folder, chunk))
    else:
        answer = answering(paths, chosen[-1], options.at)
        sys.stdout.buffer.writelines(at_instant(options.folder, answer, head, options.at))


if __name__ == "__main__":
    main()
