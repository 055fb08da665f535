"""
The archive of a source that was backed up every ten seconds for as long as one likes.

Of each manifest only its digest lies in a file; name and content are worked out when they are asked for, so that
millions take little memory. It counts requests as a bucket would: a listing is one for each thousand entries.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from tests.archived import STARTED, manifest_of
from zbackup.archive import FORMAT, codec, names
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import Ancestry, ArchiveRecord, CaptureRef, ChunkRef, Log, Manifest
from zbackup.archive.names import THOUSAND, BackupName, ChunkName, backup_id
from zbackup.errors import ObjectMissing
from zbackup.event import BEGINNING, instant_text
from zbackup.store.base import Stat

EVERY = timedelta(seconds=10)
MARGIN = timedelta(seconds=10)

CAPTURES = 360
"""runs from one capture to the next: an hour"""

GENERATION = "00000001"
PAGE = 1000

CAPTURE = CaptureRef(names.capture_record("c" * 64), "c" * 64, 1000, 100, 1, 1, 1, 1, schema=True)


@dataclass
class LongArchive:
    """A store of so many manifests and nothing else."""

    digests: Path
    runs: int
    log: Log
    requests: Counter[str] = field(default_factory=Counter[str])
    address: str = "memory"

    @classmethod
    def opened(cls, folder: Path, runs: int) -> LongArchive:
        return cls(folder / "digests", runs, Log((), (chunk_of("0", STARTED - EVERY, BEGINNING, STARTED),)))

    @classmethod
    def make(cls, folder: Path, runs: int) -> LongArchive:
        """Work out the manifests of so many runs, all with the same log: one chunk from before the first."""
        folder.mkdir(exist_ok=True)
        made = cls.opened(folder, runs)
        template = _Template(made.log)
        known = bytearray()

        def digest_of(number: int) -> str:
            return known[32 * (number - 1) : 32 * number].hex()

        with made.digests.open("wb") as file:
            for number in range(1, runs + 1):
                digest = hashlib.sha256(template.body(number, digest_of)).digest()
                known.extend(digest)
                file.write(digest)
        return made

    def __post_init__(self) -> None:
        self._template = _Template(self.log)

    @property
    def archive(self) -> Archive:
        return Archive(self, ArchiveRecord(FORMAT, "a" * 8, STARTED, "test"))

    def shorter(self, runs: int) -> LongArchive:
        """Return the archive as it was after so many runs."""
        return replace(self, runs=runs, requests=Counter[str]())

    def name(self, number: int) -> BackupName:
        return BackupName.parse(_name(number, self._digest(number)))

    def put(self, name: str, *_: object, **__: object) -> None:
        raise AssertionError(name)

    def get(self, name: str) -> bytes:
        self.requests["get"] += 1
        number = BackupName.parse(name).number
        if not 0 < number <= self.runs or _name(number, self._digest(number)) != name:
            raise ObjectMissing(f"{name} is not there")
        return self._template.body(number, self._digest)

    def open(self, name: str) -> BinaryIO:
        return io.BytesIO(self.get(name))

    def read(self, name: str, offset: int, length: int) -> bytes:
        return self.get(name)[offset : offset + length]

    def stat(self, name: str) -> Stat | None:
        raise AssertionError(name)

    def list(self, prefix: str, *, fold: bool = False) -> Iterator[Stat]:
        parts = prefix.split("/")
        assert fold or not prefix.startswith(names.MANIFESTS), f"{prefix} is listed whole"
        found: list[str] = []
        match parts:
            case ["manifests", ""]:
                found = [f"{prefix}{GENERATION}/"]
            case ["manifests", _, ""]:
                found = [f"{prefix}{million:04d}/" for million in range(self.runs // THOUSAND**2 + 1)]
            case ["manifests", _, million, ""]:
                first = int(million) * THOUSAND
                last = min(self.runs // THOUSAND, first + THOUSAND - 1)
                found = [f"{prefix}{thousand - first:03d}/" for thousand in range(first, last + 1)]
            case ["manifests", _, million, thousand, ""]:
                first = (int(million) * THOUSAND + int(thousand)) * THOUSAND
                inside = range(max(first, 1), min(first + THOUSAND, self.runs + 1))
                found = list(map(_name, inside, self._digests(inside)))
            case _:
                pass
        self.requests["list"] += max(1, -(-len(found) // PAGE))
        return (Stat(name, 0) for name in found)

    def delete(self, name: str) -> None:
        raise AssertionError(name)

    def clock(self) -> datetime:
        return datetime.now(UTC)

    def close(self) -> None: ...

    def _digest(self, number: int) -> str:
        return next(self._digests(range(number, number + 1)))

    def _digests(self, numbers: range) -> Iterator[str]:
        with self.digests.open("rb") as file:
            file.seek(32 * (numbers.start - 1))
            yield from (file.read(32).hex() for _ in numbers)


class _Template:
    """Writes the manifest of any number; only some places of it differ."""

    def __init__(self, log: Log) -> None:
        first = manifest_of("BACKUP", 987654321, STARTED, STARTED, log, (), "PARENT")
        horizon = replace(first.horizon, at=snapshot_of(111), clock=snapshot_of(111))
        told = Ancestry(987654322, ("LINKS",), "CAPTURED")
        marked = replace(first, horizon=horizon, snapshot=snapshot_of(222), ancestry=told)
        self._bodies = [self._marked(marked), self._marked(replace(marked, capture=CAPTURE))]

    @staticmethod
    def _marked(manifest: Manifest) -> bytes:
        body = codec.dump(manifest).replace(b"%", b"%%")
        for mark, place in (
            (b'"BACKUP"', b'"%(backup)s"'),
            (b"987654321", b"%(number)d"),
            (b'"PARENT"', b"%(parent)s"),
            (_json(snapshot_of(111)), b"%(horizon)s"),
            (_json(snapshot_of(222)), b"%(snapshot)s"),
            (b"987654322", b"%(number)d"),
            (b'"LINKS"', b"%(links)s"),
            (b'"CAPTURED"', b"%(captured)s"),
        ):
            assert mark in body, mark
            body = body.replace(mark, place)
        return body

    def body(self, number: int, digest: Callable[[int], str]) -> bytes:
        def quoted(one: int) -> bytes:
            return f'"{_name(one, digest(one))}"'.encode()

        snapshot = snapshot_of(number)

        captured = (number - 2) // CAPTURES * CAPTURES + 1
        return self._bodies[number % CAPTURES == 1] % {
            b"backup": _backup(number).encode(),
            b"number": number,
            b"parent": quoted(number - 1) if number > 1 else b"null",
            b"horizon": _json(snapshot - MARGIN),
            b"snapshot": _json(snapshot),
            b"links": b",".join(map(quoted, _links(number))),
            b"captured": quoted(captured) if number > 1 else b"null",
        }


def chunk_of(name: str, at: datetime, lo: datetime, hi: datetime) -> ChunkRef:
    """Return the reference to a chunk of one row, which is not there."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    cursor = (instant_text(at), "1", "0", "i1", "user", "u1", "1")
    chunk = str(ChunkName(_backup(1), "s000000", 0, True, digest[:32]))
    return ChunkRef(chunk, digest, 1000, digest, 100, 1, lo, hi, cursor, cursor, (Decimal(1), Decimal(1)))


def snapshot_of(number: int) -> datetime:
    return STARTED + number * EVERY


def _json(instant: datetime) -> bytes:
    return f'"{instant.isoformat()[:-6]}Z"'.encode()


def _backup(number: int) -> str:
    return backup_id(snapshot_of(number), f"{number * 2654435761 % 2**32:08x}")


@lru_cache(64)
def _name(number: int, digest: str) -> str:
    parent = _backup(number - 1)[-8:] if number > 1 else None
    snapshot = snapshot_of(number)
    return str(BackupName(number, _backup(number), GENERATION, parent, snapshot - MARGIN, snapshot, digest))


def _links(number: int) -> list[int]:
    spans = [THOUSAND * 10**power for power in range(7) if THOUSAND * 10**power <= number]
    below = [number // span * span - 1 for span in spans]
    return [one for one in dict.fromkeys(below) if one > 0]
