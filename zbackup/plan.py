"""
Turn a point in time into a plan: which backup answers, what it reads, what it would give and lose.

A point that no backup answers for is an error that prints the window; there is no fallback to anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import chain, takewhile
from typing import NoReturn, TypeVar

from zbackup.archive import find
from zbackup.archive.archive import Archive
from zbackup.archive.catalog import Catalog
from zbackup.archive.manifest import ChunkRef, Log, Manifest
from zbackup.archive.names import BackupName
from zbackup.archive.needed import is_lossy
from zbackup.archive.plan import Cover, Estimate, PlannedCapture, RestorePlan, first_of, make_plan, plan_capture
from zbackup.archive.withhold import withheld
from zbackup.errors import OutsideWindow, UsageError
from zbackup.event import MICROSECOND, instant_text
from zbackup.moment import BeforeEvent, Instant, Latest, OfBackup, Position, RestorePoint, point_text
from zbackup.progress import Report, Step, silent
from zbackup.salvage import Salvage, persist

T = TypeVar("T")


def plan(
    archive: Archive, point: RestorePoint, *, generation: str | None = None, report: Report = silent
) -> RestorePlan:
    """
    Plan a restore and say what it would give and lose.

    Raises:
        OutsideWindow: no backup of the line answers for the point; the message prints the window.
        UsageError: a position that several instants share, a backup or generation that is not there.

    """
    made = resolve(archive, point, generation=generation, report=report)
    return replace(made, estimate=_estimate(archive, made))


def resolve(
    archive: Archive, point: RestorePoint, *, generation: str | None = None, report: Report = silent
) -> RestorePlan:
    """Plan a restore without the estimates, which only a person needs. Raises as `plan` does."""
    report(Step("plan", point_text(point)))
    return persist(archive, lambda: _resolve(archive, point, generation))


def _resolve(archive: Archive, point: RestorePoint, generation: str | None) -> RestorePlan:
    catalog = archive.catalog()
    if isinstance(point, OfBackup):
        return _whole(archive, catalog, catalog.find(point.backup), point, generation)
    head = catalog.head(generation)
    if head is None:
        raise OutsideWindow("the archive holds no backup", hint="Run `zbackup backup` first.")
    if isinstance(point, Latest):
        return _whole(archive, catalog, head, point, generation)
    at = _instant(archive, catalog, head, point)
    manifest = archive.manifest(head)
    found = catalog.answering(head, at)
    if found is None:
        _outside(archive, catalog, head, at, point)
    entry, final = found
    answer = manifest if entry == head else archive.manifest(entry)
    _expect_rows(archive, catalog, answer, at)
    captured = _captured(archive, catalog, head, entry, at)
    chunks = tuple(archive.chunks(answer.log))
    made = make_plan(
        point_text(point),
        at,
        answer,
        chunks,
        head=manifest,
        final=final,
        captured=captured,
        captured_chunks=_chunks_beside(archive, captured, answer, chunks),
        others=_others(catalog, head, at, entry),
    )
    if not made.chunks and not any(first_of(chunk) <= at for chunk in made.added):
        _outside(archive, catalog, head, at, point)
    return made


def _whole(
    archive: Archive, catalog: Catalog, entry: BackupName, point: RestorePoint, generation: str | None
) -> RestorePlan:
    if generation is not None and entry.generation != generation:
        raise UsageError(
            f"backup {entry.backup} is of generation {entry.generation}, not {generation}",
            hint="Leave out --generation.",
        )
    manifest = archive.manifest(entry)
    captured = _captured(archive, catalog, entry, entry, entry.snapshot)
    chunks = tuple(archive.chunks(manifest.log))
    return make_plan(
        point_text(point),
        None,
        manifest,
        chunks,
        head=manifest,
        captured=captured,
        captured_chunks=_chunks_beside(archive, captured, manifest, chunks),
        others=_others(catalog, entry, entry.snapshot, entry),
    )


def _chunks_beside(
    archive: Archive, captured: Manifest | None, answer: Manifest, chunks: tuple[ChunkRef, ...]
) -> Iterator[ChunkRef]:
    """Yield the chunks of the backup whose capture serves; of indexes that the one that answers has, too, its own."""
    if captured is None:
        return
    both = zip(captured.log.indexes, answer.log.indexes, strict=False)
    shared = [index for index, _ in takewhile(lambda pair: pair[0] == pair[1], both)]
    count = sum(index.chunks for index in shared)
    if shared and (count > len(chunks) or chunks[count - 1].hi != shared[-1].hi):
        shared, count = [], 0
    rest = Log(captured.log.indexes[len(shared) :], captured.log.chunks)
    yield from (chunk for chunk in chain(chunks[:count], archive.chunks(rest), captured.tail) if chunk.rows)


def _instant(archive: Archive, catalog: Catalog, head: BackupName, point: Instant | Position | BeforeEvent) -> datetime:
    match point:
        case Instant():
            return point.at
        case Position():
            line = catalog.line(head)
            found = _search(archive, line, lambda chunks: find.with_position(archive, chunks, point.value))
            if not found:
                _not_found(f"no event has position {point.value:f}", archive, head)
            if len(found) > 1:
                raise UsageError(
                    f"position {point.value:f} is that of events at {len(found)} instants: "
                    + ", ".join(instant_text(at) for at in sorted(found)),
                    hint="Choose one of these instants.",
                )
            return next(iter(found))
        case BeforeEvent():
            key = (point.instance, point.aggregate_type, point.aggregate_id, point.sequence)
            at = _search(archive, catalog.line(head), lambda chunks: find.with_key(archive, chunks, *key))
            if at is None:
                _not_found(f"no event {'/'.join(map(str, key))}", archive, head)
            return at - MICROSECOND


def instant_of(archive: Archive, point: RestorePoint, made: RestorePlan) -> datetime:
    """
    Return the instant that a point means within what a plan answers for; a backup means its snapshot.

    Raises:
        OutsideWindow: the plan does not reach so far, or nothing is there that the point tells of.

    """
    catalog = archive.catalog()
    match point:
        case Latest():
            at = made.cut_at
        case OfBackup():
            at = catalog.find(point.backup).snapshot
        case _:
            whole = catalog.find(made.backup)
            head = whole if made.at is None else catalog.head(made.generation) or whole
            at = _instant(archive, catalog, head, point)
    if at > made.cut_at:
        raise OutsideWindow(
            f"{instant_text(at)} ({point_text(point)}) is after {instant_text(made.cut_at)}, up to which backup "
            f"{made.backup} answers",
            hint="Choose an earlier instant, or run `zbackup backup` first.",
        )
    return at


def _search(archive: Archive, line: Iterator[BackupName], look: Callable[[list[ChunkRef]], T | None]) -> T | None:
    """Look into the newest backup, then into what older ones hold besides: rows that vanished since."""
    seen: set[str] = set()
    for entry in line:
        chunks = [chunk for chunk in find.chunks_of(archive, archive.manifest(entry)) if chunk.name not in seen]
        if found := look(chunks):
            return found
        seen |= {chunk.name for chunk in chunks}
    return None


def with_schema(archive: Archive, made: RestorePlan) -> RestorePlan:
    """
    Plan with a capture that has the text of its schema, where the one that was chosen has none.

    An empty database needs one; a prepared one does better with the latest state.
    """
    if made.capture is None or made.capture.ref.schema:
        return made
    other = _recaptured(archive, made, schema=True)
    if other is None:
        return made
    passed = f"the capture of backup {made.capture.backup} has no schema; that of backup {other.backup} is used"
    return replace(made, capture=other, warnings=(*made.warnings, passed))


def with_readable(archive: Archive, made: RestorePlan) -> RestorePlan:
    """Plan with the capture that serves now: of a salvage, one whose record can be read."""
    if made.capture is None or not isinstance(archive, Salvage):
        return made
    return replace(made, capture=_recaptured(archive, made))


def _recaptured(archive: Archive, made: RestorePlan, *, schema: bool = False) -> PlannedCapture | None:
    catalog = archive.catalog()
    whole = catalog.find(made.backup)
    head = whole if made.at is None else catalog.head(made.generation) or whole
    other = _captured(archive, catalog, head, whole, made.cut_at, schema=schema)
    if other is None:
        return None
    keys = archive.manifest(whole).capture
    return plan_capture(other, find.chunks_of(archive, other), keys, made.cut_at, [*made.chunks])


def _captured(
    archive: Archive, catalog: Catalog, head: BackupName, answer: BackupName, at: datetime, *, schema: bool = False
) -> Manifest | None:
    """
    Return the backup whose capture serves: the latest at or before the instant, else the first after.

    Of the head's line, in which `answer` answers for the instant. With `schema` only those that have the text of
    their schema.
    """
    for start in dict.fromkeys((answer, head)):
        first: Manifest | None = None
        for manifest in with_capture(archive, catalog, start):
            if schema and not (manifest.capture and manifest.capture.schema):
                continue
            if manifest.snapshot <= at:
                return manifest
            first = manifest
        if first is not None:
            return first
    return None


def with_capture(archive: Archive, catalog: Catalog, head: BackupName) -> Iterator[Manifest]:
    """Yield the backups of a line that have a whole capture, the newest first."""
    line = catalog.line(head)
    entry = next(line, None)
    while entry is not None:
        manifest = archive.manifest(entry)
        if manifest.captured:
            yield manifest
        ancestry = manifest.ancestry
        if ancestry is not None and ancestry.captured is None:
            return
        told = BackupName.parse(ancestry.captured) if ancestry and ancestry.captured else None
        further = told is not None and told.generation == entry.generation and told.number < entry.number
        if told is not None and further and catalog.holds(told):
            line = catalog.line(told)
        entry = next(line, None)


def _others(catalog: Catalog, head: BackupName, at: datetime, *near: BackupName) -> Iterator[Cover]:
    """
    Yield what else covers the instant: raced backups of the same generation, lines of other ones.

    Of millions of backups, those that raced near the newest one and near the one that answers.
    """
    for stray in catalog.strays(catalog.head(head.generation) or head, *near):
        if stray.snapshot >= at and stray != head:
            yield Cover(stray.generation, stray.backup, stray.snapshot, _final(stray, at))
    for other in catalog.heads():
        if other.generation != head.generation and (found := catalog.answering(other, at)):
            entry, final = found
            yield Cover(entry.generation, entry.backup, entry.snapshot, final)


def _final(entry: BackupName, at: datetime) -> bool:
    return entry.horizon is not None and entry.horizon > at


def _outside(archive: Archive, catalog: Catalog, head: BackupName, at: datetime, point: RestorePoint) -> NoReturn:
    covers = sorted({cover.generation for cover in _others(catalog, head, at)} - {head.generation})
    hint = f"Another generation covers it: add --generation {covers[0]}." if covers else (
        "Choose an instant in the window, or `latest`."
    )  # fmt: skip
    asked = point_text(point)
    also = "" if isinstance(point, Instant) and asked == instant_text(at) else f" ({asked})"
    raise OutsideWindow(f"{instant_text(at)}{also} is outside {window(archive, archive.manifest(head))}", hint=hint)


def _expect_rows(archive: Archive, catalog: Catalog, answer: Manifest, at: datetime) -> None:
    """
    Refuse an instant whose rows a prune was told to forget.

    The backup that answered for it is gone, and the one that would now has amended rows of it since. The first that
    has is never pruned, so that it is the one.
    """
    parent = BackupName.parse(answer.parent) if answer.parent else None
    if parent is None or parent.horizon is None or parent.horizon <= at or catalog.lists(parent):
        return
    for found in answer.amendments:
        if found.backup == answer.backup and is_lossy(found) and found.lo <= at:
            raise OutsideWindow(
                f"rows of {instant_text(at)} are gone: backup {found.backup} found {found.removed} removed and "
                f"{found.changed} changed of those since {instant_text(found.lo)}, and what they were is pruned; of "
                f"{window(archive, answer)} all before that is left, and all from {instant_text(parent.horizon)} on",
                hint="Choose an instant outside of it, or a whole backup (`zbackup list`).",
            )


def _not_found(problem: str, archive: Archive, head: BackupName) -> NoReturn:
    raise OutsideWindow(
        f"{problem} in {window(archive, archive.manifest(head))}",
        hint="Check the value, or choose another generation (`zbackup list`).",
    )


def window(archive: Archive, head: Manifest) -> str:
    """Say from when to when a line of backups can be restored."""
    first = first_instant(archive, head)
    if first is None:
        return f"the window: generation {head.generation} holds no events"
    return f"the window {instant_text(first)} … {instant_text(head.snapshot)} of generation {head.generation}"


def first_instant(archive: Archive, head: Manifest) -> datetime | None:
    """Return when the first event of a line of backups was created; its window ends with the snapshot."""
    chunks = archive.index(head.log.indexes[0]) if head.log.indexes else (*head.log.chunks, *head.tail)
    return next((first_of(chunk) for chunk in chunks if chunk.rows), None)


def _estimate(archive: Archive, made: RestorePlan) -> Estimate:
    catalog = archive.catalog()
    head = catalog.head(made.generation)
    newest = archive.manifest(head) if head else None
    total = newest.sealed.rows + sum(chunk.rows for chunk in newest.tail) if newest else 0
    if made.at is None:
        return Estimate(made.totals.rows, 0, 0, max(0, total - made.totals.rows))
    at = made.at
    before = [chunk.ref for chunk in made.chunks]
    sides = find.near(archive, reversed(before), made.after, at)
    more = find.near(archive, reversed(made.added), made.added, at)
    return Estimate(
        events=find.rows_until(archive, before, at),
        added=find.rows_until(archive, made.added, at),
        withheld=len(withheld([*sides[0], *more[0]], [*sides[1], *more[1]])),
        lost=total - find.rows_at(archive, newest, at) if newest else 0,
    )
