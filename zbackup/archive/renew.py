"""
Store again, under new names, what a manifest names and a tombstone list does, too.

Bytes stay as they are; of indexes, lists and captures only the names in them change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from contextlib import closing
from dataclasses import replace
from typing import BinaryIO, cast

import zstandard

from zbackup.archive import codec, names
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import CapturedTable, CaptureRef, ChunkRef, IndexRef, Manifest, ObjectRef
from zbackup.archive.names import ChunkName
from zbackup.archive.spool import Spool
from zbackup.store.base import BLOCK_BYTES


class Renewal:
    """Copies what is in `absent`; `run` is the id in the copies' names, used for nothing else."""

    def __init__(self, archive: Archive, absent: Collection[str], run: str, spool: str | None = None) -> None:
        self._archive, self._absent, self._run, self._spool = archive, absent, run, spool
        self._copies: dict[str, str] = {}
        self.stored_bytes = 0

    def manifest(self, manifest: Manifest) -> Manifest:
        """
        Return the manifest with names that are not absent; their objects are stored by then.

        Raises ObjectMissing when something of it is gone already.
        """
        log = replace(
            manifest.log,
            indexes=tuple(map(self._index, manifest.log.indexes)),
            chunks=tuple(map(self._chunk, manifest.log.chunks)),
        )
        return replace(
            manifest,
            log=log,
            tail=tuple(map(self._chunk, manifest.tail)),
            amendments=tuple(replace(found, rows=tuple(map(self._chunk, found.rows))) for found in manifest.amendments),
            capture=None if manifest.capture is None else self._capture(manifest.capture),
        )

    def _index(self, ref: IndexRef) -> IndexRef:
        held = self._archive.index(ref)
        renewed = tuple(map(self._chunk, held))
        if renewed == held and ref.name not in self._absent:
            return ref
        made = self._archive.put_index(self._run, renewed)
        self.stored_bytes += made.stored_bytes
        return made

    def _chunk(self, ref: ChunkRef) -> ChunkRef:
        name = ChunkName.parse(ref.name)
        if ref.name not in self._absent or name is None:
            return ref
        return replace(ref, name=self._copy(ref, str(replace(name, backup=self._run))))

    def _object(self, ref: ObjectRef) -> ObjectRef:
        if ref.name not in self._absent:
            return ref
        return replace(ref, name=self._copy(ref, names.of_run(ref.name, self._run)))

    def _capture(self, ref: CaptureRef) -> CaptureRef:
        record = self._archive.capture(ref)
        renewed = replace(
            record,
            pre_data=None if record.pre_data is None else self._object(record.pre_data),
            post_data=None if record.post_data is None else self._object(record.post_data),
            tables=tuple(map(self._table, record.tables)),
        )
        if renewed == record and ref.name not in self._absent:
            return ref
        made = self._archive.put_capture(renewed, lambda name: names.of_run(name, self._run))
        self.stored_bytes += made.stored_bytes
        return replace(ref, name=made.name, sha256=made.sha256, stored_bytes=made.stored_bytes)

    def _table(self, table: CapturedTable) -> CapturedTable:
        parts = tuple(map(self._object, table.parts))
        if table.listed is None or parts == table.parts:
            return replace(table, parts=parts, listed=None if table.listed is None else self._object(table.listed))
        text = codec.dump(parts, tuple[ObjectRef, ...])
        body = zstandard.ZstdCompressor(write_checksum=True).compress(text)
        digest = hashlib.sha256(body).hexdigest()
        listed = self._archive.put(names.of_run(names.table_object(digest), self._run), body)
        self.stored_bytes += listed.stored_bytes
        return replace(table, parts=parts, listed=listed)

    def _copy(self, ref: ChunkRef | ObjectRef, name: str) -> str:
        if ref.name in self._copies:
            return self._copies[ref.name]
        with Spool(self._spool) as body, closing(self._archive.store.open(ref.name)) as stream:
            while block := stream.read(BLOCK_BYTES):
                body.write(block)
            self._archive.store.put(name, cast("BinaryIO", body), size=ref.stored_bytes, sha256=ref.sha256)
        self.stored_bytes += ref.stored_bytes
        return self._copies.setdefault(ref.name, name)
