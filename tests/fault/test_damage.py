"""Damage to any object of an archive: found by verify, met by restore before anything is published."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import BinaryIO

import pytest

from tests.fix_archive import newest, restored
from tests.fix_damage import Damage, flipped, objects_of
from tests.fix_whole import one
from zbackup.archive import names
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import CaptureRef, ChunkRef, IndexRef, ObjectRef
from zbackup.archive.names import BackupName
from zbackup.errors import Damaged, ObjectMissing, StoreError
from zbackup.store.local import LocalStore
from zbackup.verify import verify

SMALL = 20 << 10
"""Of objects up to this size every byte is flipped; of larger ones a sample."""

SAMPLE = 400


class Altered(LocalStore):
    """A folder, one of whose objects is read with other bytes."""

    name = ""
    body = b""

    def get(self, name: str) -> bytes:
        return self.body if name == self.name else super().get(name)

    def open(self, name: str) -> BinaryIO:
        return io.BytesIO(self.body) if name == self.name else super().open(name)


def kind_of(name: str) -> str:
    return name.partition("/")[0] if not name.startswith(names.ROWS) else "rows"


def readers(archive: Archive) -> dict[str, Callable[[], object]]:
    """Return for each object of the archive what a restore or a verification reads it by."""
    calls: dict[str, Callable[[], object]] = {}

    def drain(read: Callable[[], Iterator[bytes]]) -> int:
        return sum(map(len, read()))

    def add_chunk(chunk: ChunkRef) -> None:
        calls[chunk.name] = partial(drain, partial(archive.read, chunk))

    def add_index(ref: IndexRef) -> None:
        calls[ref.name] = partial(archive.index, ref)

    def add_capture(ref: CaptureRef) -> None:
        calls[ref.name] = partial(archive.capture, ref)
        record = archive.capture(ref)
        for text in filter(None, (record.pre_data, record.post_data)):
            calls[text.name] = partial(archive.text, text)
        for table in record.tables:
            if table.listed is not None:
                calls[table.listed.name] = partial(archive.text, table.listed)
            for part in table.parts:
                add_part(part)

    def add_part(part: ObjectRef) -> None:
        calls[part.name] = partial(drain, partial(archive.read_object, part))

    for entry in archive.catalog().entries:
        calls[str(entry)] = partial(archive.manifest, entry)
        manifest = archive.manifest(entry)
        for index in manifest.log.indexes:
            add_index(index)
        for chunk in (*archive.chunks(manifest.log), *manifest.tail, *(c for a in manifest.amendments for c in a.rows)):
            add_chunk(chunk)
        if manifest.capture is not None:
            add_capture(manifest.capture)
    for stat in archive.store.list(names.RUNS):
        calls[stat.name] = partial(archive.run_record, stat.name)
    for stat in archive.store.list(names.ARCHIVES):
        calls[stat.name] = partial(Archive.open, archive.store)
    return calls


def test_every_flipped_byte_and_every_length_is_met_by_its_reader(damage: Damage) -> None:
    """
    Whatever byte of an object is flipped, and wherever it ends too early, reading it raises Damaged with its name.
    """
    rng = random.Random(11)
    store = Altered(damage.folder)
    calls = readers(Archive.open(store))
    seen: set[str] = set()
    tried = 0
    assert calls.keys() == set(damage.names())
    for name, read in calls.items():
        if name.startswith(names.ROWS) and kind_of(name) in seen:
            continue
        body = damage.body(name)
        small = len(body) <= SMALL and kind_of(name) not in seen
        seen.add(kind_of(name))
        some = {0, len(body) - 1, *(rng.randrange(len(body)) for _ in range(SAMPLE // 10))}
        if kind_of(name) == "events":
            some |= {rng.randrange(len(body)) for _ in range(SAMPLE // 4)}
        for at in range(len(body)) if small else sorted(some):
            for bad in (flipped(body, at, rng.randrange(8)), body[:at]):
                store.name, store.body = name, bad
                with pytest.raises(Damaged) as raised:
                    read()
                assert name in raised.value.message, (name, at, raised.value.message)
                tried += 1
        store.name = ""
        assert read()
    assert tried > 10_000


def test_verify_names_what_is_damaged(damage: Damage) -> None:
    """
    `--quick` finds what is missing or has another length, the usual depth every changed byte; each by name.
    """
    rng = random.Random(3)
    newest_name = str(damage.archive.catalog().head())
    seen: set[str] = set()
    for name in damage.names():
        kind = kind_of(name)
        if kind == "rows" and kind in seen:
            continue
        seen.add(kind)
        body = damage.body(name)
        with damage.put(name, flipped(body, rng.randrange(len(body)))):
            assert name in damage.findings("default"), name
        # What no backup names is read by its own digest only, and no digest tells that it is gone.
        unnamed = kind in {"runs", "archive", "manifests"}
        for length in {0, len(body) - 1}:
            with damage.put(name, body[:length]):
                assert name in damage.findings("default" if kind == "runs" else "quick"), (name, length)
        with damage.put(name, None):
            assert unnamed or name in damage.findings("quick"), name
    with damage.put(newest_name, None):
        assert not damage.findings("full")


BESIDE = {
    "capture", "schema before the data", "schema after the data", "keys", "list of rows", "row", "states",
    "constraints",
}  # fmt: skip
"""what a restore of the events alone never reads"""


@pytest.mark.parametrize("events_only", [True, False], ids=["events only", "whole"])
def test_a_restore_meets_damage_before_it_publishes(
    damage: Damage, new_database: Callable[[], str], events_only: bool
) -> None:
    """
    Each object that a restore reads, damaged, cut or gone, stops it with the object's name; nothing is published.
    """
    rng = random.Random(7)
    target = new_database()
    for role, name in objects_of(damage).items():
        body = damage.body(name)
        middle = rng.randrange(1, len(body) - 1)
        for bad in (flipped(body, middle), body[:middle], None):
            if bad is None and role == "manifest":
                continue
            if events_only and role in BESIDE:
                continue
            with damage.put(name, bad), pytest.raises((Damaged, ObjectMissing)) as raised:
                restored(damage.archive, target, events_only=events_only, restart=True)
            assert name in raised.value.message, (role, raised.value.message)
            assert one(target, "SELECT to_regclass('eventstore.events2') IS NULL")
    restored(damage.archive, target, events_only=events_only, restart=True)


def test_a_restore_of_events_never_needs_what_is_beside_them(damage: Damage, new_database: Callable[[], str]) -> None:
    """
    Captures, their tables, run records and older manifests may all be gone: the events come back.
    """
    head = str(damage.archive.catalog().head())
    kept = {stat.name for stat in damage.archive.store.list(names.EVENTS)} | {
        newest(damage.archive).log.indexes[0].name
    }
    for name in damage.names():
        if name not in kept | {head}:
            (damage.folder / name).unlink()
    target, backup = new_database(), BackupName.parse(head).backup

    assert newest(damage.archive).sealed.rows < restored(damage.archive, target, f"backup:{backup}").events


def test_records_put_in_each_others_place_are_met(damage: Damage, new_database: Callable[[], str]) -> None:
    """
    Two chunks swapped, and an old manifest under the newest one's name, are found by verify and by restore.
    """
    target = new_database()
    roles = objects_of(damage)
    first, last = roles["first chunk"], roles["last chunk"]
    bodies = damage.body(first), damage.body(last)
    with damage.put(first, bodies[1]), damage.put(last, bodies[0]):
        said = damage.findings("default")
        assert first in said
        assert last in said
        with pytest.raises(Damaged, match=f"{first}|{last}"):
            restored(damage.archive, target)
    old = str(damage.archive.catalog().entries[0])
    with damage.put(roles["manifest"], damage.body(old)):
        assert roles["manifest"] in damage.findings("quick")
        with pytest.raises(Damaged, match=roles["manifest"]):
            restored(damage.archive, target, restart=True)
    assert one(target, "SELECT to_regclass('eventstore.events2') IS NULL")


def test_an_older_listing_is_an_older_archive(damage: Damage, new_database: Callable[[], str]) -> None:
    """
    Without its newest manifests an archive is what it was before: it verifies, and only its leftovers tell.
    """
    entries = damage.archive.catalog().entries
    for entry in entries[1:]:
        (damage.folder / str(entry)).unlink()

    result = verify(damage.archive, level="full")

    assert result.ok
    assert result.orphans
    assert entries[0].backup == restored(damage.archive, new_database()).backup


def test_names_lead(damage: Damage) -> None:
    """
    A manifest under the name of another backup is refused even where its digest is in the name.
    """
    entry = damage.archive.catalog().entries[-1]
    other = str(replace(entry, number=entry.number + 1))
    (damage.folder / other).write_bytes(damage.body(str(entry)))

    with pytest.raises(Damaged, match=other):
        damage.archive.manifest(BackupName.parse(other))
    with pytest.raises((Damaged, StoreError), match=other):
        restored(damage.archive, "host=127.0.0.1")
