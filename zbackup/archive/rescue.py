"""
What of a damaged chunk can still be had: whole frames, each proven by itself.

A frame is an independent zstd frame with a checksum. Frames are found by their magic number, wherever in the object
they are; what was damaged, cut off or put in between is passed over. The chunk's own trailer, where it can be read,
tells what is missing; without one, frames count that lie where the manifest says that the chunk's rows are.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise

import zstandard

from zbackup.archive import codec
from zbackup.archive.chunk import TRAILER_MARK, Frame, FrameFacts, Trailer
from zbackup.archive.facts import inspect_frame
from zbackup.archive.manifest import ChunkRef
from zbackup.archive.plan import first_of, last_of
from zbackup.errors import ArchiveError
from zbackup.event import Cursor, parse_instant, unescape

_MAGIC = struct.pack("<I", zstandard.MAGIC_NUMBER)


@dataclass(frozen=True, slots=True)
class Span:
    """Events that cannot be read."""

    first: datetime
    last: datetime
    """they were created from the one instant to the other, both included"""
    rows: int
    """0: not known"""


@dataclass(frozen=True, slots=True)
class Rescued:
    ref: ChunkRef
    """the chunk as it is without what is missing; its name and range stay"""
    trailer: Trailer
    """of what is left"""
    missing: tuple[Span, ...]
    instances: dict[str, int] | None
    """missing rows per instance; None where the chunk's trailer cannot be read"""
    aggregate_types: dict[str, int] | None


@dataclass(frozen=True, slots=True)
class _Found:
    offset: int
    stored_bytes: int
    raw: bytes


_Kept = tuple[_Found, FrameFacts, Frame]


def rescue(body: bytes, ref: ChunkRef) -> Rescued:
    """Take what is whole of a chunk's bytes; nothing of those of another chunk, whichever it is."""
    found, trailer = list(_frames(body)), _trailer(body)
    everything = hashlib.sha256(b"".join(frame.raw for frame in found)).hexdigest()
    own = trailer if trailer is not None and everything != ref.raw_sha256 and _describes(trailer, ref) else None
    if own is None and trailer is not None and everything in {trailer.raw_sha256} - {ref.raw_sha256}:
        found = []
    wanted = {_mark(frame) for frame in own.frames} if own is not None else None
    kept: list[_Kept] = []
    last: Cursor | None = None
    for frame in found:
        facts = _facts(frame.raw, ref, last)
        if facts is None:
            continue
        entry = _entry(frame, facts)
        if wanted is None or _mark(entry) in wanted:
            kept.append((frame, facts, entry))
            last = facts.last
    left = _left(kept)
    spans = _lost_of(own, kept) if own is not None else tuple(_gaps(ref, kept, ref.rows - left.rows))
    return Rescued(
        ref=replace(
            ref,
            raw_sha256=left.raw_sha256,
            raw_bytes=left.raw_bytes,
            rows=left.rows,
            first=left.first,
            last=left.last,
            positions=(min(facts.least for _, facts, _ in kept), max(facts.greatest for _, facts, _ in kept))
            if kept
            else ref.positions,
        ),
        trailer=left,
        missing=spans,
        instances=_less(own.instances, left.instances) if own is not None else None,
        aggregate_types=_less(own.aggregate_types, left.aggregate_types) if own is not None else None,
    )


def _frames(body: bytes) -> Iterator[_Found]:
    at = body.find(_MAGIC)
    while at >= 0:
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        try:
            raw = decompressor.decompress(memoryview(body)[at:])
        except zstandard.ZstdError:
            raw = b""
        if raw and decompressor.eof:
            size = len(body) - at - len(decompressor.unused_data)
            yield _Found(at, size, raw)
            at = body.find(_MAGIC, at + size)
        else:
            at = body.find(_MAGIC, at + 1)


def _trailer(body: bytes) -> Trailer | None:
    if len(body) < 8 or body[-4:] != TRAILER_MARK:
        return None
    length = struct.unpack("<I", body[-8:-4])[0]
    try:
        return codec.load(body[-8 - length : -8], Trailer, "trailer")
    except ArchiveError:
        return None


def _describes(trailer: Trailer, ref: ChunkRef) -> bool:
    """Tell whether a trailer is the chunk's own, as far as it is not damaged itself."""
    try:
        rows = sum(rows for _, rows, *_ in map(_mark, trailer.frames))
    except ValueError:
        return False
    return (trailer.raw_sha256, trailer.rows, rows) == (ref.raw_sha256, ref.rows, ref.rows)


def _facts(raw: bytes, ref: ChunkRef, after: Cursor | None) -> FrameFacts | None:
    """Inspect a frame; None when its rows are not in order, or not where the chunk's are."""
    try:
        facts = inspect_frame(raw, after)
    except (ValueError, IndexError, ArithmeticError):
        return None
    within = not facts.first < Cursor.of_texts(ref.first) and not Cursor.of_texts(ref.last) < facts.last
    return facts if within else None


def _entry(found: _Found, facts: FrameFacts) -> Frame:
    raw = found.raw
    return Frame(
        found.offset,
        found.stored_bytes,
        len(raw),
        facts.rows,
        facts.first.texts()[0],
        facts.last.texts()[0],
        str(facts.least),
        str(facts.greatest),
    )


def _mark(frame: Frame) -> tuple[int, int, datetime, datetime]:
    return frame.raw_bytes, frame.rows, parse_instant(frame.first), parse_instant(frame.last)


def _left(kept: Sequence[_Kept]) -> Trailer:
    instances: Counter[bytes] = Counter()
    types: Counter[bytes] = Counter()
    digest = hashlib.sha256()
    for found, facts, _ in kept:
        digest.update(found.raw)
        instances.update(facts.instances)
        types.update(facts.aggregate_types)
    return Trailer(
        rows=sum(frame.rows for _, _, frame in kept),
        raw_bytes=sum(frame.raw_bytes for _, _, frame in kept),
        raw_sha256=digest.hexdigest(),
        first=kept[0][1].first.texts() if kept else (),
        last=kept[-1][1].last.texts() if kept else (),
        frames=tuple(frame for _, _, frame in kept),
        instances={unescape(key).decode(): rows for key, rows in sorted(instances.items())},
        aggregate_types={unescape(key).decode(): rows for key, rows in sorted(types.items())},
    )


def _lost_of(own: Trailer, kept: Sequence[_Kept]) -> tuple[Span, ...]:
    there = {_mark(frame) for _, _, frame in kept}
    return tuple(
        Span(parse_instant(frame.first), parse_instant(frame.last), frame.rows)
        for frame in own.frames
        if _mark(frame) not in there
    )


def _gaps(ref: ChunkRef, kept: Sequence[_Kept], rows: int) -> Iterator[Span]:
    """Yield the one span that holds all that is missing, as close as the frames that are left tell it."""
    if not rows:
        return
    gaps: list[tuple[datetime, datetime]] = []
    if not kept or kept[0][1].first.texts() != ref.first:
        gaps.append((first_of(ref), kept[0][1].first.created_at if kept else last_of(ref)))
    for (one, before, _), (other, after, _) in pairwise(kept):
        if one.offset + one.stored_bytes != other.offset:
            gaps.append((before.last.created_at, after.first.created_at))
    if kept and kept[-1][1].last.texts() != ref.last:
        gaps.append((kept[-1][1].last.created_at, last_of(ref)))
    yield Span(gaps[0][0], gaps[-1][1], rows) if gaps else Span(first_of(ref), last_of(ref), rows)


def _less(all_rows: dict[str, int], left: dict[str, int]) -> dict[str, int]:
    return {key: rows - left.get(key, 0) for key, rows in all_rows.items() if rows > left.get(key, 0)}
