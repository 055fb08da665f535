"""What backups name: every object that must be there as long as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zbackup.archive.archive import Archive
from zbackup.archive.manifest import CapturedTable, CaptureRef, IndexRef, Manifest


class NamedObjects:
    """Reads what backups name. What they share (indexes, captures, long lists) is read once, and held once."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._groups: dict[str, frozenset[str]] = {}

    def of(self, manifest: Manifest) -> Iterator[str]:
        """Yield the names of all objects that a backup names, some repeatedly. Raises ObjectMissing, Damaged."""
        yield from (chunk.name for chunk in (*manifest.log.chunks, *manifest.tail))
        yield from (chunk.name for found in manifest.amendments for chunk in found.rows)
        for index in manifest.log.indexes:
            yield from self._index(index)
        if manifest.capture is not None:
            yield from self._capture(manifest.capture)

    def of_all(self, manifests: Iterable[Manifest]) -> set[str]:
        return {name for manifest in manifests for name in self.of(manifest)}

    def _index(self, ref: IndexRef) -> Iterable[str]:
        if ref.name not in self._groups:
            self._groups[ref.name] = frozenset([ref.name, *(chunk.name for chunk in self._archive.index(ref))])
        return self._groups[ref.name]

    def _capture(self, ref: CaptureRef) -> Iterable[str]:
        if ref.name not in self._groups:
            record = self._archive.capture_record(ref)
            texts = [text.name for text in (record.pre_data, record.post_data) if text is not None]
            self._groups[ref.name] = frozenset([
                ref.name, *texts, *(part.name for table in record.tables for part in table.parts),
            ]).union(*(self._listed(table) for table in record.tables if table.listed is not None))  # fmt: skip
        return self._groups[ref.name]

    def _listed(self, table: CapturedTable) -> Iterable[str]:
        assert table.listed is not None
        name = table.listed.name
        if name not in self._groups:
            self._groups[name] = frozenset([name, *(part.name for part in self._archive.parts(table))])
        return self._groups[name]
