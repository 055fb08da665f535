"""What an archive holds: its backups, the window that can be restored, one backup in detail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import islice, takewhile

from zbackup.archive.archive import Archive
from zbackup.archive.catalog import Catalog
from zbackup.archive.log import totals_of
from zbackup.archive.manifest import ChunkRef, Manifest
from zbackup.archive.names import BackupName
from zbackup.counting import oldest
from zbackup.database.schema_text import SchemaCode
from zbackup.errors import NotSupported, OutsideWindow, UsageError
from zbackup.event import parse_instant
from zbackup.plan import with_capture
from zbackup.source import Source
from zbackup.survey import schema_code, schema_text


@dataclass(frozen=True, slots=True)
class ListedBackup:
    backup: str
    number: int
    generation: str
    kind: str
    parent: str | None
    started: datetime
    finished: datetime
    snapshot: datetime
    horizon: datetime | None
    events: int
    """sealed, the whole log"""
    new_events: int
    tail: int
    stored_bytes: int
    """what this backup added"""
    event_bytes: int
    """of these, for events that it sealed"""
    capture_bytes: int
    """of these, for its capture"""
    capture: bool
    amendments: int
    """rows amended by this backup"""
    head: bool
    """the newest of its generation"""
    stray: bool
    """raced by another run; restorable by its id"""
    schema: bool
    """whether the capture has the text of the schema, which an empty target needs"""
    warnings: tuple[str, ...]
    """of the run that made it"""


@dataclass(frozen=True, slots=True)
class Window:
    """What can be restored of one generation."""

    generation: str
    first: datetime | None
    """its first event"""
    final: datetime | None
    """up to here (the newest horizon) every answer is final"""
    last: datetime
    """the newest snapshot"""
    backups: int
    newest: bool
    source: Source
    """whose history it is, as the newest backup saw it"""


@dataclass(frozen=True, slots=True)
class Listing:
    archive: str
    address: str
    backups: tuple[ListedBackup, ...]
    windows: tuple[Window, ...]
    more: bool
    """older backups are there that are not listed"""
    oldest_uncounted: datetime | None
    """beginning of the range that was compared with the source longest ago"""
    oldest_uncounted_since: datetime | None


@dataclass(frozen=True, slots=True)
class Shown:
    manifest: Manifest
    chunks: tuple[ChunkRef, ...]


@dataclass(frozen=True, slots=True)
class ShownSchema:
    """The code that a backup holds for an empty target."""

    text: bytes
    code: SchemaCode | None
    refused: str
    """why a restore would not run it"""


def listing(archive: Archive, limit: int | None = None) -> Listing:
    """Read the manifests of the newest backups, or of all, and sum them up."""
    catalog = archive.catalog()
    heads = catalog.heads()
    entries = list(islice(catalog.newest(), None if limit is None else limit + 1))
    more = limit is not None and len(entries) > limit
    entries = entries[:limit][::-1]
    lines = {
        entry for head in heads for entry in takewhile(lambda one: one.number >= entries[0].number, catalog.line(head))
    }
    manifests = {entry: archive.manifest(entry) for entry in heads}
    backups = tuple(
        listed(manifests.get(entry) or archive.manifest(entry), head=entry in heads, stray=entry not in lines)
        for entry in entries
    )
    longest_ago = oldest(manifests[heads[0]].counted) if heads else None
    return Listing(
        archive=archive.record.archive,
        address=archive.store.address,
        backups=backups,
        windows=tuple(window(archive, catalog, head, manifests[head], walk=not more) for head in heads),
        more=more,
        oldest_uncounted=longest_ago.lo if longest_ago else None,
        oldest_uncounted_since=longest_ago.at if longest_ago else None,
    )


def shown(archive: Archive, backup: str | None, *, captured: bool = False) -> Shown:
    """Read one backup, by default the newest, or the newest of its line that has a whole capture, if any has."""
    catalog = archive.catalog()
    entry = catalog.head() if backup is None else catalog.find(backup)
    if entry is None:
        raise OutsideWindow(
            f"{archive.store.address} holds no backup", hint="Run `zbackup backup` to make the first one."
        )
    newest = with_capture(archive, catalog, entry) if captured and backup is None else iter(())
    manifest = next(newest, None) or archive.manifest(entry)
    return Shown(manifest, tuple(archive.chunks(manifest.log)))


def shown_schema(archive: Archive, manifest: Manifest) -> ShownSchema:
    """Read the schema text that a backup captured. Raises UsageError when it has none."""
    record = archive.capture(manifest.capture) if manifest.capture is not None else None
    if record is None or record.pre_data is None:
        raise UsageError(
            f"backup {manifest.backup} has captured no schema" + (f": {record.schema_note}" if record else ""),
            hint="`zbackup list` shows which backups have a capture.",
        )
    text = b"".join(schema_text(archive, record))
    try:
        return ShownSchema(text, schema_code(archive, record), "")
    except NotSupported as error:
        return ShownSchema(text, None, error.message)


def window(archive: Archive, catalog: Catalog, head: BackupName, manifest: Manifest, *, walk: bool) -> Window:
    """Return what can be restored of a head's line; its backups are counted, or taken from what the head tells."""
    told = manifest.ancestry.length if manifest.ancestry and not walk else None
    first = next(archive.chunks(manifest.log), None) or next(iter(manifest.tail), None)
    return Window(
        generation=head.generation,
        first=parse_instant(first.first[0]) if first else None,
        final=manifest.horizon.at,
        last=manifest.snapshot,
        backups=told or sum(1 for _ in catalog.line(head)),
        newest=head == catalog.head(),
        source=manifest.source,
    )


def listed(manifest: Manifest, *, head: bool, stray: bool) -> ListedBackup:
    tail = totals_of(manifest.tail)
    mine = [found for found in manifest.amendments if found.backup == manifest.backup]
    return ListedBackup(
        backup=manifest.backup,
        number=manifest.number,
        generation=manifest.generation,
        kind=manifest.kind,
        parent=BackupName.parse(manifest.parent).backup if manifest.parent else None,
        started=manifest.started,
        finished=manifest.finished,
        snapshot=manifest.snapshot,
        horizon=manifest.horizon.at,
        events=manifest.sealed.rows,
        new_events=manifest.new.rows,
        tail=tail.rows,
        stored_bytes=manifest.stored_bytes,
        event_bytes=manifest.new.stored_bytes,
        capture_bytes=manifest.capture.new_bytes if manifest.capture else 0,
        capture=manifest.captured,
        amendments=sum(found.added + found.removed + found.changed for found in mine),
        head=head,
        stray=stray,
        schema=manifest.capture is not None and manifest.capture.schema,
        warnings=manifest.warnings,
    )
