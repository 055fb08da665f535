"""
See before the disaster whether a masterkey fits: the keys of a backup or a source, and events encrypted with them.

What fitting means stands in zitadel/masterkey.py. Here the values are found, newest first and within bounds, so
that a look costs seconds however large the log is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice

from zbackup.archive import find
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ChunkRef, Manifest
from zbackup.archive.rows import rows_in
from zbackup.archive.sound import rows_of
from zbackup.check import Check, fail, ok, warn
from zbackup.database import encrypted
from zbackup.database.connection import Connection
from zbackup.event import unescape
from zbackup.progress import Report, Step, silent
from zbackup.source import EventTable
from zbackup.zitadel.events import COLUMN_ORDER
from zbackup.zitadel.masterkey import CARRIERS, LOSS, MARK, Encrypted, KeyCheck, MasterkeyCheck, check, encrypted_in
from zbackup.zitadel.tables import KEYS

# Frames (about 1 MiB of rows each) that are read of one chunk, and of all.
CHUNK_FRAMES = 8
MOST_FRAMES = 32

# Chunks whose trailers are looked at, should hardly any hold what is looked for.
MOST_CHUNKS = 100

# A source that takes longer is busy or lacks ZITADEL's index; milliseconds are usual.
SOURCE_TIME = timedelta(seconds=10)

_EVENT_TYPE = COLUMN_ORDER.index("event_type")
_PAYLOAD = COLUMN_ORDER.index("payload")


def check_archive(archive: Archive, manifest: Manifest, masterkey: bytes, report: Report = silent) -> MasterkeyCheck:
    """
    Check a masterkey against the keys that a backup captured and events of its log.

    Without captured keys it is unproven. Raises StoreError, Damaged.
    """
    report(Step("masterkey", f"keys and events of backup {manifest.backup}"))
    chunks = find.chunks_of(archive, manifest)
    return check(masterkey, _captured_keys(archive, manifest), _archived_values(archive, chunks))


def check_source(
    connection: Connection,
    table: EventTable | None,
    masterkey: bytes,
    report: Report = silent,
    *,
    within: timedelta = SOURCE_TIME,
) -> MasterkeyCheck:
    """
    Check a masterkey against the keys of a source and its newest events.

    To be used within `source_errors`. After `within` it judges by what was seen so far.
    """
    report(Step("masterkey", "keys and events of the source"))
    values = _source_values(connection, table, within) if table is not None else ()
    return check(masterkey, encrypted.read_keys(connection), values)


def judged(found: MasterkeyCheck) -> Check:
    """Turn what was seen into a check of `zbackup doctor`."""
    what = summary(found)
    match found.verdict:
        case "does_not_fit":
            step = f"Find the masterkey that this ZITADEL runs with, and keep it safe: {LOSS}."
            return fail("masterkey", what, step)
        case "unproven":
            step = "Nothing speaks against it. Look again when ZITADEL has encrypted more (a signing key, codes)."
            return warn("masterkey", what, step)
        case "fits" if found.absent or any(key.garbled or key.verdict == "unreadable" for key in found.keys):
            step = (
                "The masterkey is right, but ZITADEL cannot read all it encrypted: find out what became of these keys."
            )
            return warn("masterkey", what, step)
        case "fits":
            return ok("masterkey", what)


def summary(found: MasterkeyCheck) -> str:
    """Say of each key what was seen, worst first; no secret is among it."""
    if not found.keys:
        return "there are no encryption keys to hold it against"
    parts = (
        ("does not fit", [f"{key.id} ({_refuted(key)})" for key in found.keys if key.verdict == "does_not_fit"]),
        ("fits", [f"{key.id} ({_proved(key)})" for key in found.keys if key.verdict == "fits"]),
        ("damaged", found.ids("unreadable")),
        ("named by events, but missing", found.absent),
        ("too little was seen of", found.ids("unproven")),
    )
    return "; ".join(f"{title}: {', '.join(ids)}" for title, ids in parts if ids)


def _refuted(key: KeyCheck) -> str:
    tried = key.decrypted + key.garbled
    return f"{key.garbled} of {tried} values are garbled, as in {key.event_type}"


def _proved(key: KeyCheck) -> str:
    proof = key.event_type or "by its own form"
    return f"{proof}, though {key.garbled} values are garbled" if key.garbled else proof


def _captured_keys(archive: Archive, manifest: Manifest) -> dict[str, str]:
    if manifest.capture is None:
        return {}
    keys: dict[str, str] = {}
    for table in archive.capture(manifest.capture).tables:
        if (table.schema, table.name) == KEYS:
            with rows_of(".".join(KEYS)):
                key_id, key = table.columns.index("id"), table.columns.index("key")
                for part in table.parts:
                    for row in rows_in(archive.read_object(part)):
                        fields = row.rstrip(b"\n").split(b"\t")
                        keys[unescape(fields[key_id]).decode()] = unescape(fields[key]).decode()
    return keys


def _archived_values(archive: Archive, chunks: tuple[ChunkRef, ...]) -> Iterator[Encrypted]:
    for frame, backwards in islice(_frames(archive, chunks), MOST_FRAMES):
        rows = [row for row in frame.split(b"\n") if MARK in row]
        for row in reversed(rows) if backwards else rows:
            fields = row.split(b"\t")
            with rows_of("a chunk of events"):
                values = tuple(encrypted_in(unescape(fields[_EVENT_TYPE]).decode(), unescape(fields[_PAYLOAD])))
            yield from values


def _frames(archive: Archive, chunks: tuple[ChunkRef, ...]) -> Iterator[tuple[bytes, bool]]:
    """
    Yield frames of chunks that hold what may be encrypted, and whether their rows are wanted backwards.

    Newest first; but second comes the oldest chunk, from its beginning: there instances were made, with their
    signing keys, of which there may be none since.
    """
    order = [(chunk, True) for chunk in reversed(chunks)]
    if len(order) > 2:
        order.insert(1, (order.pop()[0], False))
    for chunk, backwards in order[:MOST_CHUNKS]:
        trailer = archive.trailer(chunk)
        if trailer.aggregate_types.keys() & CARRIERS.keys():
            frames = reversed(trailer.frames) if backwards else trailer.frames
            for frame in islice(frames, CHUNK_FRAMES):
                for piece in archive.frame(chunk, frame):
                    yield piece, backwards


def _source_values(connection: Connection, table: EventTable, within: timedelta) -> Iterator[Encrypted]:
    deadline = time.monotonic() + within.total_seconds()
    for kind, event_types in CARRIERS.items():
        left = timedelta(seconds=deadline - time.monotonic())
        if left <= timedelta(0):
            return
        for event_type, payload in encrypted.newest_payloads(connection, table, kind, event_types, timeout=left):
            yield from encrypted_in(event_type, payload)
