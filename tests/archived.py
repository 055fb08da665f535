"""Archives made by hand: rows written into chunks, chunks named by manifests, without a source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from zbackup.archive import FORMAT
from zbackup.archive.ancestry import ancestry_of
from zbackup.archive.archive import Archive
from zbackup.archive.chunk import ChunkWriter, Header
from zbackup.archive.facts import inspect_frame
from zbackup.archive.log import totals
from zbackup.archive.manifest import (
    Amendment,
    Ancestry,
    ArchiveRecord,
    CaptureRef,
    ChunkRef,
    Log,
    Manifest,
)
from zbackup.archive.names import BackupName, ChunkName, backup_id
from zbackup.archive.rows import event_frames
from zbackup.event import BEGINNING, END, Cursor, cursor_of
from zbackup.source import Column, EventTable, FileIdentity, HorizonRecord, Index, Source
from zbackup.store.local import LocalStore
from zbackup.zitadel.events import COLUMN_ORDER, COLUMN_TYPES, MAY_BE_NULL

TABLE = EventTable(
    schema="eventstore",
    name="events2",
    columns=tuple(Column(name, COLUMN_TYPES[name][0], name not in MAY_BE_NULL) for name in COLUMN_ORDER),
    attributes=COLUMN_ORDER,
    key_name="events2_pkey",
    key="PRIMARY KEY (instance_id, aggregate_type, aggregate_id, sequence)",
    indexes=(
        Index("es_active_instances", False, "btree (created_at DESC, instance_id)"),
        Index(
            "active_instances_events",
            False,
            "btree (aggregate_type, event_type) WHERE ((aggregate_type = 'instance'::text) AND "
            "(event_type = ANY (ARRAY['instance.added'::text, 'instance.removed'::text])))",
        ),
    ),
)

SOURCE = Source("7577000000000000001", "zitadel", 16384, 1, "15.18", None, "UTF8", "libc", "C.UTF-8", "C.UTF-8", None)

STARTED = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass
class Maker:
    """Commits backups one after the other, each with its whole log anew."""

    archive: Archive
    table: EventTable = TABLE
    generation: str = "00000001"
    chunk_rows: int = 1000
    frame_bytes: int = 4 << 20
    writer: type[ChunkWriter] = ChunkWriter
    number: int = 0
    _parts: int = 0
    last: BackupName | None = None
    amendments: tuple[Amendment, ...] = field(default_factory=tuple[Amendment, ...])

    @classmethod
    def at(cls, path: Path, *, chunk_rows: int = 1000, frame_bytes: int = 4 << 20) -> Maker:
        store = LocalStore(path, create=True)
        return cls(
            Archive.create(store, ArchiveRecord(FORMAT, "a" * 8, STARTED, "test")),
            chunk_rows=chunk_rows,
            frame_bytes=frame_bytes,
        )

    def backup(
        self,
        rows: Iterable[bytes],
        *,
        horizon: datetime | None,
        snapshot: datetime,
        added: Sequence[bytes] = (),
        removed: int = 0,
        capture: CaptureRef | None = None,
        parent: BackupName | None = None,
    ) -> Manifest:
        """
        Commit what one snapshot shows, in any order.

        `added` are those of them that an amendment added; `removed` is how many it found removed.
        """
        self.number += 1
        backup = backup_id(STARTED + timedelta(minutes=self.number), f"{self.number:08x}")
        ordered = in_order(rows)
        border = horizon or BEGINNING
        sealed = [row for row in ordered if cursor_of(row).created_at < border]
        log = Log((), tuple(self.chunks(backup, "0000", sealed, BEGINNING, border)))
        if added or removed:
            late = tuple(self.chunks(backup, "added0000", in_order(added), BEGINNING, border))
            self.amendments += (Amendment(backup, snapshot, BEGINNING, border, len(added), removed, 0, late),)
        parent = parent or self.last
        tail = tuple(self.chunks(backup, "tail", ordered[len(sealed) :], border, END))
        manifest = replace(
            manifest_of(backup, self.number, horizon, snapshot, log, tail, str(parent) if parent else None),
            generation=self.generation,
            table=self.table,
            amendments=self.amendments,
            capture=capture,
            ancestry=self._ancestry(parent),
        )
        self.last = self.archive.commit(manifest)
        return manifest

    def _ancestry(self, parent: BackupName | None) -> Ancestry:
        before = self.archive.manifest(parent) if parent else None
        return ancestry_of(
            self.number, parent, before.ancestry if before else None, captured=before is not None and before.captured
        )

    def chunks(self, backup: str, name: str, rows: Sequence[bytes], lo: datetime, hi: datetime) -> list[ChunkRef]:
        """Store rows as chunks of about `chunk_rows` that tile a range; none when there are no rows."""
        groups: list[list[bytes]] = [[]]
        for row in rows:
            if len(groups[-1]) >= self.chunk_rows and created(row) != created(groups[-1][-1]):
                groups.append([])
            groups[-1].append(row)
        edges = [lo, *(created(group[0]) for group in groups[1:]), hi]
        return [
            self._chunk(ChunkName(backup, name, part, part == len(groups) - 1, ""), group, *edges[part : part + 2])
            for part, group in enumerate(groups)
            if group
        ]

    def _chunk(self, name: ChunkName, rows: list[bytes], lo: datetime, hi: datetime) -> ChunkRef:
        writer = self.writer(Header(FORMAT, "eventstore.events2", COLUMN_ORDER, "test"))
        last: Cursor | None = None
        positions = [cursor_of(row).position for row in rows]
        for frame in event_frames(rows, self.frame_bytes):
            facts = inspect_frame(frame.lines, last)
            writer.add_events(facts, frame)
            last = facts.last
        file = writer.close()
        full = str(ChunkName(name.backup, name.slice, name.part, name.last, file.sha256[:32]))
        self.archive.put_chunk(full, file)
        file.body.close()
        trailer = file.trailer
        return ChunkRef(
            full,
            file.sha256,
            file.stored_bytes,
            trailer.raw_sha256,
            trailer.raw_bytes,
            trailer.rows,
            lo,
            hi,
            trailer.first,
            trailer.last,
            (min(positions), max(positions)),
        )


def manifest_of(
    backup: str,
    number: int,
    horizon: datetime | None,
    snapshot: datetime,
    log: Log,
    tail: tuple[ChunkRef, ...],
    parent: str | None,
) -> Manifest:
    return Manifest(
        format=FORMAT,
        backup=backup,
        number=number,
        generation="00000001",
        kind="incremental" if parent else "full",
        parent=parent,
        zbackup="test",
        started=STARTED,
        finished=STARTED,
        source=SOURCE,
        table=TABLE,
        files=FileIdentity(1, 1),
        horizon=HorizonRecord(horizon, "seen", 10.0, snapshot),
        snapshot=snapshot,
        log=log,
        tail=tail,
        sealed=totals(log),
        new=totals(log),
        stored_bytes=0,
        counters=None,
    )


def continued(parent: Manifest, entry: BackupName) -> Manifest:
    """Return what a backup would say that adds nothing to another one; it still needs an id of its own."""
    number = parent.number + 1
    ancestry = ancestry_of(number, entry, parent.ancestry, captured=parent.captured)
    return replace(parent, number=number, parent=str(entry), kind="incremental", ancestry=ancestry)


def in_order(rows: Iterable[bytes]) -> list[bytes]:
    return sorted(rows, key=cursor_of)


def created(row: bytes) -> datetime:
    return cursor_of(row).created_at
