"""
What a restore reads, as data: chunks in order, where they are cut, what comes on top and what is only looked at.

Pure. An instant T includes every event with created_at <= T. Chunks that hold nothing else are loaded whole;
one that holds rows on both sides is cut; what lies after T, up to the snapshot of the backup that answers, is
read for its keys alone (withhold.py says why).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise

from zbackup.archive.log import totals_of
from zbackup.archive.manifest import CaptureRef, ChunkRef, Manifest, Totals
from zbackup.archive.names import BackupName
from zbackup.archive.needed import identity, is_lossy
from zbackup.errors import Damaged
from zbackup.event import MICROSECOND, instant_text, parse_instant
from zbackup.source import EventTable, Source


@dataclass(frozen=True, slots=True)
class PlannedChunk:
    ref: ChunkRef
    cut: bool
    """it holds rows after T; only those at or before T are wanted"""


@dataclass(frozen=True, slots=True)
class Cover:
    """Another backup that answers for the same instant: of another generation, or of a run that raced."""

    generation: str
    backup: str
    snapshot: datetime
    final: bool


@dataclass(frozen=True, slots=True)
class PlannedCapture:
    """The capture S that tells schema and state: the latest at or before T, else the first after."""

    backup: str
    snapshot: datetime
    ref: CaptureRef
    table: EventTable
    """the events table as it was then"""
    source: Source
    older: bool
    """it is not after T, so that it can be a base for what T asks for"""
    own: tuple[ChunkRef, ...]
    """of its backup, those that the plan does not load whole"""
    since: tuple[PlannedChunk, ...]
    """of the plan, those that its backup does not have"""
    keys: CaptureRef | None
    """of the backup that answers: encryption keys are part of every backup"""
    lost: int = 0
    """events that its backup held and that cannot be read any more"""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a restore would give and lose."""

    events: int
    """at or before T, exactly; `added` ones not counted"""
    added: int
    """at or before T, of later amendments; those that are there already will be left out"""
    withheld: int
    """judged from the rows next to T; the restore looks at all"""
    lost: int
    """of the newest backup of the same line, after T"""


@dataclass(frozen=True, slots=True)
class RestorePlan:
    point: str
    """as it was asked for"""
    at: datetime | None
    """None: the whole backup, exactly its snapshot"""
    backup: str
    number: int
    generation: str
    final: bool
    """False: later backups may still add events at or before T"""
    snapshot: datetime
    horizon: datetime | None
    source: Source
    table: EventTable
    chunks: tuple[PlannedChunk, ...]
    """in order: those of the log, then the tail"""
    added: tuple[ChunkRef, ...]
    """
    rows that later amendments of the line added: those at or before T apply, the keys of those up to the
    snapshot are looked at; their ranges overlap those of `chunks`
    """
    after: tuple[ChunkRef, ...]
    """hold rows after T; one that is cut is here too"""
    totals: Totals
    """of `chunks`"""
    capture: PlannedCapture | None
    others: tuple[Cover, ...]
    warnings: tuple[str, ...]
    digest: str
    """of all that decides which rows the restored table holds"""
    estimate: Estimate | None = None

    @property
    def cut_at(self) -> datetime:
        """The instant that the rows are of: T, or the snapshot."""
        return self.at or self.snapshot


def make_plan(
    point: str,
    at: datetime | None,
    manifest: Manifest,
    chunks: Iterable[ChunkRef],
    *,
    head: Manifest,
    final: bool = True,
    captured: Manifest | None = None,
    captured_chunks: Iterable[ChunkRef] = (),
    others: Iterable[Cover] = (),
) -> RestorePlan:
    """
    Plan the restore of a whole backup, or of an instant that it answers for.

    `chunks` are those of the manifest's log; `head` is the newest backup of the line, whose amendments tell
    what was added since; `captured` is the backup whose capture tells the schema, and its log and tail.

    Raises Damaged when the ranges of the chunks do not tile.
    """
    log = tuple(chunks)
    held = tuple(chunk for chunk in tiled(log, manifest.tail) if chunk.rows)
    planned = tuple(_planned(held, at))
    added = () if at is None else tuple(
        chunk for chunk in added_since(manifest, head) if first_of(chunk) <= manifest.snapshot
    )  # fmt: skip
    after = () if at is None else tuple(chunk for chunk in held if _reaches(chunk, at))
    applied = sum(chunk.rows for chunk in added if at is None or first_of(chunk) <= at)
    return RestorePlan(
        point=point,
        at=at,
        backup=manifest.backup,
        number=manifest.number,
        generation=manifest.generation,
        final=final,
        snapshot=manifest.snapshot,
        horizon=manifest.horizon.at,
        source=manifest.source,
        table=manifest.table,
        chunks=planned,
        added=added,
        after=after,
        totals=totals_of([chunk.ref for chunk in planned]),
        capture=plan_capture(captured, captured_chunks, manifest.capture, at or manifest.snapshot, planned),
        others=tuple(others),
        warnings=tuple(_warnings(manifest, at, final=final, added=applied)),
        digest=_digest(manifest, at, planned, added, after),
    )


def tiled(log: Sequence[ChunkRef], tail: Sequence[ChunkRef]) -> tuple[ChunkRef, ...]:
    """
    Return log and tail as one, proved to have no gap and no overlap.

    Between the last chunk of a log and the horizon lies nothing: a run that found no new rows moves the
    horizon alone. Raises Damaged.
    """
    for part, strict in ((log, True), (tail, True), ((*log[-1:], *tail[:1]), False)):
        for before, chunk in pairwise(part):
            if chunk.lo < before.hi or (strict and chunk.lo > before.hi):
                kind = "overlaps" if chunk.lo < before.hi else "leaves a gap after"
                raise Damaged(
                    f"{chunk.name}: begins at {instant_text(chunk.lo)} and {kind} {before.name}, "
                    f"which ends at {instant_text(before.hi)}",
                    hint="Run `zbackup verify`, and restore from another backup.",
                )
    for chunk in (*log, *tail):
        if chunk.rows and not chunk.lo <= first_of(chunk) <= last_of(chunk) < chunk.hi:
            raise Damaged(
                f"{chunk.name}: its rows reach from {chunk.first[0]} to {chunk.last[0]}, its range from "
                f"{instant_text(chunk.lo)} to {instant_text(chunk.hi)}",
                hint="Run `zbackup verify`, and restore from another backup.",
            )
    return (*log, *tail)


def plan_capture(
    captured: Manifest | None,
    chunks: Iterable[ChunkRef],
    keys: CaptureRef | None,
    at: datetime,
    planned: Sequence[PlannedChunk],
) -> PlannedCapture | None:
    """Plan to use a backup's capture; `chunks` are its log and tail, `keys` the capture of the one that answers."""
    if captured is None or captured.capture is None:
        return None
    held = tuple(chunk for chunk in chunks if chunk.rows)
    whole = {chunk.ref.raw_sha256 for chunk in planned if not chunk.cut}
    own = tuple(chunk for chunk in held if chunk.raw_sha256 not in whole)
    # Of a hundred thousand chunks each of the two takes some megabytes.
    del whole
    there = {chunk.raw_sha256 for chunk in held}
    return PlannedCapture(
        backup=captured.backup,
        snapshot=captured.snapshot,
        ref=captured.capture,
        table=captured.table,
        source=captured.source,
        older=captured.snapshot <= at,
        own=own,
        since=tuple(chunk for chunk in planned if chunk.ref.raw_sha256 not in there),
        keys=keys,
    )


def added_since(manifest: Manifest, head: Manifest) -> tuple[ChunkRef, ...]:
    """Return the chunks of rows that amendments after a backup added, oldest amendment first."""
    known = set(map(identity, manifest.amendments))
    return tuple(
        chunk for found in head.amendments if identity(found) not in known for chunk in found.rows if chunk.rows
    )


def first_of(chunk: ChunkRef) -> datetime:
    return parse_instant(chunk.first[0])


def last_of(chunk: ChunkRef) -> datetime:
    return parse_instant(chunk.last[0])


def read_range(chunk: PlannedChunk, at: datetime | None) -> tuple[datetime, datetime]:
    """Return the range [lo, hi) that holds exactly the wanted rows of a chunk."""
    cut = chunk.cut and at is not None
    return chunk.ref.lo, at + MICROSECOND if cut and at is not None else chunk.ref.hi


def _planned(chunks: Iterable[ChunkRef], at: datetime | None) -> Iterator[PlannedChunk]:
    for chunk in chunks:
        if at is None or chunk.hi <= at or (chunk.lo <= at and first_of(chunk) <= at):
            yield PlannedChunk(chunk, cut=at is not None and _reaches(chunk, at))


def _reaches(chunk: ChunkRef, at: datetime) -> bool:
    """Tell whether a chunk holds rows after an instant; for most the range tells, which is proved to hold them."""
    return chunk.hi > at and (chunk.lo > at or last_of(chunk) > at)


def _warnings(manifest: Manifest, at: datetime | None, *, final: bool, added: int) -> Iterator[str]:
    if not final:
        horizon = instant_text(manifest.horizon.at) if manifest.horizon.at else "none yet"
        yield (
            f"not final: the log is final below {horizon}; transactions that were still open at the backup may "
            "have left events at or before this instant"
        )
    if manifest.horizon.basis == "assumed" and at is not None:
        yield f"the horizon of backup {manifest.backup} is assumed: nobody saw the transactions of the primary"
    for found in manifest.amendments if at is not None else ():
        if found.backup == manifest.backup and is_lossy(found) and at is not None and found.lo <= at:
            parent = BackupName.parse(manifest.parent).backup if manifest.parent else "none"
            yield (
                f"before backup {found.backup} somebody removed {found.removed} and changed {found.changed} events "
                f"created before {instant_text(found.hi)}, and it is not known when: if that was after this instant, "
                f"backup:{parent} has them as they were"
            )
    if added:
        yield f"later amendments added {added} events to the past; those at or before this instant apply"


def _digest(
    manifest: Manifest,
    at: datetime | None,
    chunks: Iterable[PlannedChunk],
    added: Iterable[ChunkRef],
    after: Iterable[ChunkRef],
) -> str:
    identity = [
        instant_text(at) if at else None,
        manifest.generation,
        manifest.backup,
        asdict(manifest.table),
    ]
    digest = hashlib.sha256(json.dumps(identity, ensure_ascii=True).encode())
    # One by one: of a hundred thousand chunks a text of all would take tens of megabytes.
    for planned in chunks:
        digest.update(f"\n{planned.ref.raw_sha256} {planned.ref.rows} {planned.cut}".encode())
    for kind, refs in (("added", added), ("after", after)):
        for ref in refs:
            digest.update(f"\n{kind} {ref.raw_sha256}".encode())
    return digest.hexdigest()
