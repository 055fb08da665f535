"""
Edit a log: append chunks, replace some. The only ways a log ever changes.

Groups of 1 000 chunks become shared index objects; a group that is not touched keeps its object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from zbackup.archive.archive import Archive
from zbackup.archive.manifest import INDEX_CHUNKS, ChunkRef, IndexRef, Log, Totals
from zbackup.errors import Damaged
from zbackup.event import BEGINNING


class _Group:
    def __init__(self, index: IndexRef | None, chunks: list[ChunkRef] | None) -> None:
        self.index = index
        self.held = chunks


class LogEdit:
    """A log being changed; `store` gives the new one."""

    def __init__(self, archive: Archive, log: Log, index_chunks: int = INDEX_CHUNKS) -> None:
        self._archive = archive
        self._index_chunks = index_chunks
        self._groups = [_Group(index, None) for index in log.indexes]
        self._groups.append(_Group(None, list(log.chunks)))

    def chunks(self) -> Iterator[ChunkRef]:
        """Yield the chunks as they now stand."""
        for group in self._groups:
            yield from self._held(group)

    def newest(self) -> Iterator[ChunkRef]:
        """Yield the chunks as they now stand, the newest first; an index is read when it is come to."""
        for group in reversed(self._groups):
            yield from reversed(self._held(group))

    def parts(self) -> Iterator[tuple[datetime, datetime, Callable[[], Sequence[ChunkRef]]]]:
        """Yield, oldest first, ranges of many chunks and how to read them: what an index tells without being read."""
        for group in self._groups:
            if group.index is not None and group.held is None:
                yield group.index.lo, group.index.hi, partial(self._held, group)
            elif held := self._held(group):
                yield held[0].lo, held[-1].hi, partial(self._held, group)

    def end(self) -> datetime:
        """Return where the last chunk ends."""
        for group in reversed(self._groups):
            if group.index is not None:
                return group.index.hi
            if group.held:
                return group.held[-1].hi
        return BEGINNING

    def append(self, chunks: Sequence[ChunkRef]) -> None:
        """Add chunks whose ranges follow the end."""
        end = self.end()
        for chunk in chunks:
            if chunk.lo != end:
                raise Damaged(
                    f"{chunk.name} begins at {chunk.lo}, the log ends at {end}",
                    hint="This is a bug; report it.",
                )
            end = chunk.hi
        self._groups[-1].held = [*self._held(self._groups[-1]), *chunks]

    def replace(self, old: ChunkRef, new: Sequence[ChunkRef]) -> None:
        """
        Put chunks in the place of one. The new ones tile its range; with none, the neighbours grow over it.
        """
        for number, group in enumerate(self._groups):
            if group.index is not None and not group.index.lo <= old.lo < group.index.hi:
                continue
            held = list(self._held(group))
            if old not in held:
                continue
            at = held.index(old)
            held[at : at + 1] = new
            self._groups[number] = _Group(None, held)
            return
        raise Damaged(f"{old.name} is not in the log", hint="This is a bug; report it.")

    def store(self, backup: str) -> Log:
        """Store the groups that changed and return the log, its ranges tiling."""
        self._close_gaps()
        *full, last = self._groups
        indexes: list[IndexRef] = []
        for group in full:
            if group.index is not None:
                indexes.append(group.index)
            elif group.held:
                indexes.append(self._archive.put_index(backup, group.held))
        rest = self._held(last)
        while len(rest) >= self._index_chunks:
            indexes.append(self._archive.put_index(backup, rest[: self._index_chunks]))
            rest = rest[self._index_chunks :]
        return Log(tuple(indexes), tuple(rest))

    def _close_gaps(self) -> None:
        """Let each chunk begin where the one before it ends: a chunk that was replaced by nothing leaves a hole."""
        end = BEGINNING
        for group in self._groups:
            if group.index is not None and group.index.lo == end:
                end = group.index.hi
                continue
            held = self._held(group)
            for at, chunk in enumerate(held):
                if chunk.lo != end:
                    held[at] = extended(chunk, end)
                    group.index = None
                end = chunk.hi
            group.held = held

    def _held(self, group: _Group) -> list[ChunkRef]:
        if group.held is None:
            group.held = list(self._archive.index(group.index)) if group.index else []
        return group.held


def extended(chunk: ChunkRef, lo: datetime) -> ChunkRef:
    """Return a chunk that answers from an earlier instant on, because nothing lies between."""
    if lo > chunk.lo:
        raise Damaged(f"{chunk.name} overlaps the chunk before it", hint="This is a bug; report it.")
    return replace(chunk, lo=lo)


def totals(log: Log) -> Totals:
    """Sum up a log without reading its indexes."""
    return Totals(
        rows=sum(index.rows for index in log.indexes) + sum(chunk.rows for chunk in log.chunks),
        raw_bytes=sum(index.raw_bytes for index in log.indexes) + sum(chunk.raw_bytes for chunk in log.chunks),
        stored_bytes=sum(index.chunk_bytes for index in log.indexes) + sum(chunk.stored_bytes for chunk in log.chunks),
        chunks=sum(index.chunks for index in log.indexes) + len(log.chunks),
    )


def totals_of(chunks: Sequence[ChunkRef]) -> Totals:
    return Totals(
        rows=sum(chunk.rows for chunk in chunks),
        raw_bytes=sum(chunk.raw_bytes for chunk in chunks),
        stored_bytes=sum(chunk.stored_bytes for chunk in chunks),
        chunks=len(chunks),
    )
