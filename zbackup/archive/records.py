"""
Records of what was done with an archive: verified, pruned, drilled. They tell its history; no restore needs them.

A record is an object of its own, `records/<kind>/<id>-<digest>.json`, written once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from zbackup.archive import FORMAT, codec, names
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ObjectRef
from zbackup.errors import Damaged, ObjectMissing

Kind = Literal["verify", "prune", "drill", "run"]
Figure = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Record:
    kind: Kind
    started: datetime
    ended: datetime
    ok: bool
    backup: str | None
    """the backup that it was about"""
    figures: dict[str, Figure] = field(default_factory=dict[str, Figure])
    id: str = field(default_factory=lambda: names.backup_id(datetime.now(UTC), secrets.token_hex(4)))
    format: int = FORMAT


def write(archive: Archive, record: Record) -> str:
    """Store a record; return its name. Raises StoreError."""
    body = codec.dump(record)
    name = names.record(record.kind, record.id, hashlib.sha256(body).hexdigest())
    archive.put(name, body)
    return name


def newest(
    archive: Archive,
    kind: Kind,
    most: int = 1,
    *,
    damaged: Callable[[str], None] = lambda _: None,
    wanted: Callable[[Record], bool] = lambda _: True,
) -> list[Record]:
    """
    Read the newest records of a kind, the newest first.

    Those that cannot be read are passed over, and their names told; so are those that are not wanted. A listing is as
    long as there are records.
    """
    found: list[Record] = []
    for name in sorted((stat.name for stat in archive.store.list(names.records_of(kind))), reverse=True):
        if len(found) == most:
            break
        try:
            record = read(archive, name)
        except Damaged:
            damaged(name)
        except ObjectMissing:  # pruned meanwhile
            continue
        else:
            if wanted(record):
                found.append(record)
    return found


def read(archive: Archive, name: str) -> Record:
    """Read a record and prove it. Raises ObjectMissing, Damaged."""
    digest = names.record_digest(name)
    if digest is None:
        raise Damaged(f"{name} is not the name of a record", hint="Something else wrote into this archive.")
    return codec.load(archive.get(ObjectRef(name, digest, 0)), Record, name)
