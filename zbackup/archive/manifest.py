"""
What is written down about a backup, as frozen values with one JSON form.

A manifest names its whole log: shared index objects of some 100 or 1 000 chunks each, then its own newest
chunks. Its name carries the digest of its bytes, so it needs no parent to be read and cannot be altered
unseen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import PlainSerializer, PlainValidator

from zbackup.event import parse_instant
from zbackup.source import Counters, EventTable, FileIdentity, HorizonRecord, Source

INDEX_CHUNKS = 1000
"""Chunks per index object: one listing page, about 150 kB compressed."""


def _read(text: object) -> datetime:
    return parse_instant(str(text))


def _write(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


# For ranges, of which a plan holds a hundred thousand: left to itself pydantic makes a zone for each instant, which
# takes memory and makes comparing ten times as slow.
Utc = Annotated[datetime, PlainValidator(_read), PlainSerializer(_write, return_type=str)]


@dataclass(frozen=True, slots=True)
class ObjectRef:
    name: str
    sha256: str
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """One chunk of a log or a tail."""

    name: str
    sha256: str
    """of the stored bytes"""
    stored_bytes: int
    raw_sha256: str
    """of the rows as COPY text, each ending in a newline"""
    raw_bytes: int
    rows: int
    lo: Utc
    hi: Utc
    """it holds every row with lo <= created_at < hi; the ranges of a log tile without gap or overlap"""
    first: tuple[str, ...]
    last: tuple[str, ...]
    """cursors (event.Cursor.texts)"""
    positions: tuple[Decimal, Decimal]
    """least and greatest position"""


@dataclass(frozen=True, slots=True)
class IndexRef:
    """An index object: a list of consecutive chunks of a log."""

    name: str
    sha256: str
    stored_bytes: int
    chunks: int
    rows: int
    raw_bytes: int
    chunk_bytes: int
    """stored bytes of its chunks"""
    lo: Utc
    hi: Utc


@dataclass(frozen=True, slots=True)
class Log:
    indexes: tuple[IndexRef, ...] = ()
    chunks: tuple[ChunkRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Counted:
    """Ranges whose number of rows was compared with the source at an instant."""

    lo: Utc
    hi: Utc
    at: datetime


@dataclass(frozen=True, slots=True)
class Amendment:
    """Old rows that changed, vanished or came late, as one backup found them."""

    backup: str
    at: datetime
    lo: Utc
    hi: Utc
    added: int
    removed: int
    changed: int
    rows: tuple[ChunkRef, ...]
    """the added rows, once more, for points in time that an older backup answers"""


@dataclass(frozen=True, slots=True)
class CaptureRef:
    name: str
    sha256: str
    stored_bytes: int
    tables: int
    rows: int
    raw_bytes: int
    table_bytes: int
    """stored bytes of its objects"""
    new_bytes: int
    """of these, stored by this backup"""
    schema: bool
    """whether schema text was captured"""

    @property
    def whole(self) -> bool:
        """False for the encryption keys that --no-capture leaves."""
        return self.schema or self.tables > 1


@dataclass(frozen=True, slots=True)
class Ancestry:
    """What a backup tells of its line (ancestry.py)."""

    length: int
    """how many backups the line has had, up to this one"""
    links: tuple[str, ...]
    """names of manifests of the line, the newest first; each is the last one below some round number"""
    captured: str | None
    """the newest older one of the line that may have a whole capture: none between has; None: none at all"""


@dataclass(frozen=True, slots=True)
class Lineage:
    """What is read of a manifest to go back along its line."""

    format: int
    parent: str | None = None
    ancestry: Ancestry | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    rows: int
    raw_bytes: int
    stored_bytes: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Manifest:
    format: int
    backup: str
    number: int
    generation: str
    kind: str
    """full | incremental"""
    parent: str | None
    """name of the manifest it continues, digest included: evidence, not needed to read this one"""
    zbackup: str
    started: datetime
    finished: datetime
    source: Source
    table: EventTable
    files: FileIdentity
    horizon: HorizonRecord
    snapshot: datetime
    """the source's clock when the snapshot was taken: the recovery point"""
    log: Log
    tail: tuple[ChunkRef, ...]
    sealed: Totals
    """the whole log"""
    new: Totals
    """what this backup sealed"""
    stored_bytes: int
    """of all chunks and captured objects that this backup stored"""
    counters: Counters | None
    counted: tuple[Counted, ...] = ()
    amendments: tuple[Amendment, ...] = ()
    capture: CaptureRef | None = None
    warnings: tuple[str, ...] = ()
    ancestry: Ancestry | None = None
    """None: it was written before there was such"""

    @property
    def captured(self) -> bool:
        """Whether it has a whole capture."""
        return self.capture is not None and self.capture.whole


@dataclass(frozen=True, slots=True)
class Slice:
    """A range of one run, and the name its chunks carry."""

    name: str
    lo: Utc
    hi: Utc


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run set out to do, written before its first chunk; only by this may its chunks be adopted."""

    format: int
    backup: str
    generation: str
    parent: str | None
    source: Source
    table: EventTable
    files: FileIdentity
    horizon: HorizonRecord
    snapshot: datetime
    slices: tuple[Slice, ...]
    counters: Counters | None


@dataclass(frozen=True, slots=True)
class Lease:
    """That a run is at work and wants no other beside it. It only saves work; nothing relies on it."""

    format: int
    run: str
    what: str
    """the command"""
    host: str
    process: str | None
    """names a process of a machine for ever (process.py)"""
    since: datetime
    until: datetime
    """both by the store's clock"""


@dataclass(frozen=True, slots=True)
class ArchiveRecord:
    """What makes a folder or a bucket's prefix an archive."""

    format: int
    archive: str
    created: datetime
    zbackup: str
    store: dict[str, str] = field(default_factory=dict[str, str])
    """what the store was seen to do (store/probe.py)"""


@dataclass(frozen=True, slots=True)
class CapturedTable:
    schema: str
    name: str
    columns: tuple[str, ...]
    rows: int
    raw_bytes: int
    raw_sha256: str
    parts: tuple[ObjectRef, ...]
    """in the order of the rows"""
    listed: ObjectRef | None = None
    """where the parts are listed when they are many; the record of the capture then holds none of them"""


@dataclass(frozen=True, slots=True)
class Capture:
    """State tables, derived tables and schema of one backup's snapshot."""

    format: int
    pre_data: ObjectRef | None
    post_data: ObjectRef | None
    schema_note: str
    """which pg_dump wrote the schema, or why none did"""
    tables: tuple[CapturedTable, ...]
    missing: dict[str, str] = field(default_factory=dict[str, str])
    """tables that were not captured, and why"""
