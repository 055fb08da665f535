"""Archives of somebody who can write the bucket: every digest fits, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.archived import STARTED, Maker
from tests.forked import Ended, forked_together
from tests.unit.rows import history
from zbackup.archive import codec, names
from zbackup.archive.archive import name_of
from zbackup.archive.chunk import HEADER_MAGIC, TRAILER_MAGIC, TRAILER_MARK
from zbackup.archive.manifest import Capture, CapturedTable, CaptureRef, IndexRef, Manifest, ObjectRef

MOST_MEMORY = 300 << 20
"""bytes of a whole process that reads a bomb"""

Json = dict[str, Any]
Change = Callable[[Json], object]
SNAPSHOT = STARTED + timedelta(days=1)

COMMANDS = ("list", "show", "plan", "verify --full")


@dataclass
class Forger:
    """Writes whatever it likes under names whose digests are right."""

    folder: Path
    maker: Maker
    manifest: Manifest

    def put(self, name: str, body: bytes) -> ObjectRef:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return ObjectRef(name, hashlib.sha256(body).hexdigest(), len(body))

    def commit(self, change: Change) -> None:
        """Make the backup's manifest say something else."""
        plain: Json = json.loads(codec.dump(self.manifest))
        change(plain)
        self.commit_bytes(json.dumps(plain).encode())

    def commit_bytes(self, body: bytes) -> None:
        for path in (self.folder / "manifests").rglob("*.json"):
            path.unlink()
        self.put(str(name_of(self.manifest, hashlib.sha256(body).hexdigest())), body)

    def capture(self, record: Capture) -> None:
        """Let the backup have this capture."""
        body = zstandard.ZstdCompressor().compress(codec.dump(record))
        self.capture_bytes(body)

    def capture_bytes(self, body: bytes) -> None:
        digest = hashlib.sha256(body).hexdigest()
        ref = self.put(names.capture_record(digest), body)
        self.manifest = replace(
            self.manifest, capture=CaptureRef(ref.name, digest, len(body), 2, 1, 1, 1, 1, schema=True)
        )
        self.commit(lambda _: None)

    def text(self, text: bytes) -> ObjectRef:
        body = zstandard.ZstdCompressor().compress(text)
        return self.put(names.table_object(hashlib.sha256(body).hexdigest()), body)

    def chunk(self, body: bytes, **changes: Any) -> None:
        """Put something in the place of the first chunk, and let the manifest agree."""
        old = self.manifest.log.chunks[0]
        digest = hashlib.sha256(body).hexdigest()
        parsed = names.ChunkName.parse(old.name)
        assert parsed is not None
        name = str(replace(parsed, digest=digest[:32]))
        self.put(name, body)
        new = replace(old, name=name, sha256=digest, stored_bytes=len(body), **changes)
        self.manifest = replace(self.manifest, log=replace(self.manifest.log, chunks=(new,)))
        self.commit(lambda _: None)

    def run(self) -> tuple[dict[str, Ended], int]:
        """Run the commands in a process; return how each ended, and the memory used."""
        where = ("--archive", str(self.folder))
        ended, peak = forked_together(*((*command.split(), *where) for command in COMMANDS))
        return dict(zip(COMMANDS, ended, strict=True)), peak


@pytest.fixture
def forger(tmp_path: Path) -> Forger:
    maker = Maker.at(tmp_path / "archive")
    manifest = maker.backup(history(50), horizon=SNAPSHOT, snapshot=SNAPSHOT)
    return Forger(tmp_path / "archive", maker, manifest)


def refused(forger: Forger, *words: str) -> None:
    """All commands that read it say what is wrong with which object, in little memory, and change no file."""
    before = sorted(forger.folder.parent.rglob("*"))
    ran, peak = forger.run()

    for command, ended in ran.items():
        code, said = ended.code, ended.out + ended.err
        assert code == 31 or (code == 0 and not command.startswith("verify")), (command, code, said)
        assert code == 0 or any(word in said for word in words), (command, said)
    assert peak < MOST_MEMORY, peak
    assert sorted(forger.folder.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "name",
    [
        "../../outside", "/etc/passwd", "events/../../x", "a\0b", "x" * 100_000, "", ".", "archive/record.json",
        "manifests/x", "tables/aa/" + "a" * 32 + ".zst", "events/x\u202e.zst",
    ],
)  # fmt: skip
def test_a_chunk_can_only_be_a_chunk(forger: Forger, name: str) -> None:
    """
    A name that leads elsewhere, or to an object of another kind, is refused before the store sees it.
    """
    forger.commit(lambda plain: plain["log"]["chunks"][0].update(name=name))

    refused(forger, "manifests/")


NUMBERS: list[Change] = [
    lambda plain: plain.update(number=10**30),
    lambda plain: plain["log"]["chunks"][0].update(rows=-1),
    lambda plain: plain["log"]["chunks"][0].update(stored_bytes=10**15),
    lambda plain: plain["log"]["chunks"][0].update(stored_bytes=3),
    lambda plain: plain["log"]["chunks"][0].update(positions=["NaN", "1"]),
    lambda plain: plain["log"]["chunks"][0].update(positions=["1e999999999", "1e999999999"]),
    lambda plain: plain["log"]["chunks"][0].update(lo="2026-01-01T00:00:00"),
    lambda plain: plain["log"]["chunks"][0].update(hi="0001-01-01T00:00:00+14:00"),
    lambda plain: plain["log"]["chunks"][0].update(first=["x"] * 7),
    lambda plain: plain["log"]["chunks"][0].update(first=["2026-01-01T00:00:00Z", "1e999999999", *"1iaa1"]),
    lambda plain: plain["log"]["chunks"][0]["last"].pop(),
    lambda plain: plain["log"]["chunks"][0].update(sha256="0" * 63),
    lambda plain: plain["horizon"].update(margin_seconds="NaN"),
    lambda plain: plain.update(warnings="x"),
    lambda plain: plain.update(parent="../../manifest"),
    lambda plain: plain.update(ancestry={"length": 1, "links": ["../../manifest"], "captured": None}),
    lambda plain: plain.update(ancestry={"length": 1, "links": [], "captured": "../../manifest"}),
    lambda plain: plain.update(ancestry={"length": -1, "links": [], "captured": None}),
]


@pytest.mark.parametrize("change", NUMBERS)
def test_numbers_that_no_database_had(forger: Forger, change: Change) -> None:
    """
    Huge, negative, endless and odd values are refused, naming the manifest.
    """
    forger.commit(change)

    refused(forger, "manifest")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"format":' * 100_000,
        b"[" + b"[]," * 10_000_000 + b"[]]",
        b'{"format": 1, "log": [' + b"0," * 15_000_000 + b"0]}",
        b'{"format": ' + b"9" * 5_000_000 + b"}",
        b"\xff\xfe",
        b"",
        b" " * (40 << 20),
    ],
    ids=["deep", "deep objects", "lists", "numbers", "digits", "no text", "empty", "large"],
)
def test_json_that_fills_memory(forger: Forger, body: bytes) -> None:
    """
    Deep nesting, millions of values and large objects are refused in little memory.
    """
    forger.commit_bytes(body)

    refused(forger, "manifests/")


def zeros(size: int, *, told: bool = True) -> bytes:
    """Compress so many zeros into a few kilobytes per gigabyte."""
    compressor = zstandard.ZstdCompressor(level=1, write_content_size=told)
    writer = compressor.compressobj(size=size) if told else compressor.compressobj()
    block = bytes(16 << 20)
    parts = [writer.compress(block) for _ in range(size // len(block))]
    return b"".join(parts) + writer.flush()


@pytest.mark.parametrize("told", [True, False])
def test_small_objects_do_not_explode(forger: Forger, told: bool) -> None:
    """
    A capture or an index of a few kilobytes that decompresses to gigabytes is refused for what it announces, or
    for announcing nothing.
    """
    bomb = zeros(2 << 30, told=told)
    digest = hashlib.sha256(bomb).hexdigest()
    index = forger.put(names.index_object(forger.manifest.backup, digest), bomb)
    ref = IndexRef(index.name, digest, len(bomb), 1, 1, 1, 1, STARTED, STARTED)
    forger.manifest = replace(forger.manifest, log=replace(forger.manifest.log, indexes=(ref,)))
    forger.capture_bytes(bomb)

    refused(forger, "indexes/", "captures/")


def skippable(magic: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<II", magic, len(body) if length is None else length) + body


HEADER = skippable(HEADER_MAGIC, b'{"format":1,"table":"t","columns":["a"],"source":"s"}')


def trailer(**values: object) -> bytes:
    said: Json = {"rows": 1, "raw_bytes": 1, "raw_sha256": "0" * 64, "first": [], "last": [], "frames": []}
    body = json.dumps({**said, "instances": {}, "aggregate_types": {}, **values}).encode()
    return skippable(TRAILER_MAGIC, body + struct.pack("<I", len(body)) + TRAILER_MARK)


FRAME = {
    "offset": 0, "stored_bytes": 1, "raw_bytes": 1, "rows": 1, "least": "1", "greatest": "1",
    "first": "2026-01-01 00:00:00+00", "last": "2026-01-01 00:00:00+00",
}  # fmt: skip

CHUNKS = {
    "bomb": HEADER + zeros(2 << 30) + trailer(),
    "bomb of unknown size": HEADER + zeros(2 << 30, told=False) + trailer(),
    "many bombs": HEADER + zeros(256 << 20) * 8 + trailer(),
    "huge header": skippable(HEADER_MAGIC, b"x" * 100, 0xFFFFFFF0),
    "huge trailer": HEADER + skippable(TRAILER_MAGIC, b"x" * 100, 0xFFFFFFF0),
    "no header": trailer(),
    "other skippable": HEADER + skippable(0x184D2A55, b"x" * 64) + trailer(),
    "huge window": HEADER + b"\x28\xb5\x2f\xfd\x00\xb8" + b"\x01\x00\x00" + trailer(),
    "reserved block": HEADER + b"\x28\xb5\x2f\xfd\x00\x58" + b"\x07\x00\x00" + trailer(),
    "billions of rows": HEADER + trailer(rows=10**12, raw_bytes=10**15),
    "offsets beyond": HEADER + trailer(frames=[{**FRAME, "offset": 10**12, "stored_bytes": 10**12}]),
    "odd frames": HEADER + trailer(frames=[{**FRAME, "first": "x", "least": "1e999999999"}]),
    "trailer that lies": HEADER + zstandard.ZstdCompressor().compress(b"row\n") + trailer(rows=7, raw_bytes=4),
    "nothing": b"\0" * 64,
}


@pytest.mark.parametrize("kind", CHUNKS)
@pytest.mark.parametrize("raw_bytes", [1, 1 << 40])
def test_chunks_that_lie(forger: Forger, kind: str, raw_bytes: int) -> None:
    """
    Bombs, huge frames and trailers that lie are named as damage, whatever size the manifest gives them.
    """
    first, last = forger.manifest.log.chunks[0].first, forger.manifest.log.chunks[0].last
    forger.chunk(CHUNKS[kind], raw_bytes=raw_bytes, first=first, last=last)

    refused(forger, "events/")


@pytest.mark.parametrize(
    "ref",
    [
        ObjectRef("../../x", "0" * 64, 1),
        ObjectRef("events/20260101T000000Z-00000000/0000.0000e-" + "0" * 32 + ".zst", "0" * 64, 1),
        ObjectRef("tables/00/" + "1" * 32 + ".zst", "0" * 64, 1),
    ],
)
def test_a_capture_names_only_tables(forger: Forger, ref: ObjectRef) -> None:
    """
    Schema text, parts and lists of parts must be what such objects are called, with their digest.
    """
    table = CapturedTable("system", "assets", ("a",), 1, 1, "0" * 64, (ref,))
    for record in (
        Capture(1, ref, None, "", ()),
        Capture(1, None, None, "", (table,)),
        Capture(1, None, None, "", (replace(table, parts=(), listed=ref),)),
    ):
        forger.capture(record)
        refused(forger, "captures/")
