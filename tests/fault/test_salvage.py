"""What `--skip-damaged` still gives of a damaged archive, and what it says about the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.fix_archive import Backup, archived_rows, newest, restored, source_rows
from tests.fix_damage import Damage, flipped, objects_of
from tests.fix_whole import one
from tests.history import create_schema, push
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ChunkRef
from zbackup.compact import FACTOR
from zbackup.database.target import Receipt
from zbackup.errors import Damaged, ObjectMissing, TargetRefused
from zbackup.event import cursor_of, instant_text
from zbackup.restore import RestoreResult
from zbackup.salvage import Salvage
from zbackup.survey import UnitOptions

NewDatabase = Callable[[], str]


def salvaged(damage: Damage, dsn: str, point: str = "latest", *without: str, **changes: object) -> RestoreResult:
    unit = UnitOptions(without=frozenset(without))
    return restored(damage.archive, dsn, point, **{"skip_damaged": True, "events_only": False, "unit": unit, **changes})


def spoil(damage: Damage, name: str) -> None:
    body = damage.body(name)
    (damage.folder / name).write_bytes(flipped(body, len(body) // 2))


def chunk_of(damage: Damage, name: str) -> ChunkRef:
    manifest = newest(damage.archive)
    return next(one for one in (*damage.archive.chunks(manifest.log), *manifest.tail) if one.name == name)


def test_without_damage_the_flag_changes_nothing(damage: Damage, new_database: NewDatabase) -> None:
    """
    A whole archive gives the same restore with the flag as without it, down to what identifies it.
    """
    target = new_database()
    result = salvaged(damage, target)

    again = restored(damage.archive, target, events_only=False)

    assert result.missing == ()
    assert again.done_before


@pytest.mark.parametrize("role", ["first chunk", "last chunk", "tail"])
def test_events_of_other_chunks_come_back(damage: Damage, new_database: NewDatabase, role: str) -> None:
    """
    A damaged chunk costs its events and no others; which, the result says, and receipt and exit tell of it.
    """
    name, target = objects_of(damage)[role], new_database()
    lost = chunk_of(damage, name)
    rows, frame = archived_rows(damage.archive), damage.archive.trailer(lost).frames[0]
    (damage.folder / name).write_bytes(flipped(damage.body(name), frame.offset + frame.stored_bytes // 2))

    result = salvaged(damage, target, events_only=True)

    kept = [row for row in rows if not lost.lo <= cursor_of(row).created_at < lost.hi]
    assert source_rows(target) == kept
    assert len(kept) == len(rows) - lost.rows == result.events
    (missing,) = result.missing
    assert (missing.object, missing.kind, missing.rows) == (name, "events", lost.rows)
    assert [lost.first, lost.last][: 1 if lost.first == lost.last else 2] == list(missing.events)
    assert missing.instances is not None
    assert lost.rows == sum(missing.instances.values())
    receipt = Receipt.of_text(one(target, "SELECT obj_description('eventstore.events2'::regclass)"))
    assert receipt is not None
    assert (receipt.damaged, receipt.missing) == (1, lost.rows)
    assert any("1 objects cannot be read" in text for text in result.warnings)
    assert salvaged(damage, target, events_only=True).done_before
    with pytest.raises(TargetRefused, match="restored before"):
        restored(damage.archive, target)


def test_a_gone_chunk_is_missing_as_a_whole(damage: Damage, new_database: NewDatabase) -> None:
    """
    Of a chunk that is not there the manifest tells how many events it had, and from when to when.
    """
    name = objects_of(damage)["first chunk"]
    lost = chunk_of(damage, name)
    (damage.folder / name).unlink()

    (missing,) = salvaged(damage, new_database(), events_only=True).missing

    assert missing.instances is None
    assert [(instant_text(span.first), instant_text(span.last), span.rows) for span in missing.spans] == [
        (lost.first[0], lost.last[0], lost.rows)
    ]


def test_what_the_captured_tables_know_too_much_of_starts_cold(damage: Damage, new_database: NewDatabase) -> None:
    """
    With events gone that the capture's backup held, its tables are no base: everything derived is cold.
    """
    spoil(damage, objects_of(damage)["first chunk"])

    result = salvaged(damage, new_database())

    assert result.recovered is not None
    assert "cannot be read any more" in result.recovered.unit.cold
    assert result.recovered.constraints.basis == "events"


def test_a_killed_salvage_goes_on_and_another_restore_does_not(
    damage: Damage, new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An unfinished one is finished by the same call; without the flag, or with other damage, it is another restore.
    """
    target = new_database()
    spoil(damage, objects_of(damage)["first chunk"])
    with monkeypatch.context() as patch:
        patch.setattr("zbackup.restore.publish", _killed)
        with pytest.raises(KeyboardInterrupt):
            salvaged(damage, target)
    body = damage.body(objects_of(damage)["last chunk"])
    with damage.put(objects_of(damage)["last chunk"], body[:-100]), pytest.raises(TargetRefused, match="another plan"):
        salvaged(damage, target)

    assert not salvaged(damage, target).done_before


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_damaged_manifest_is_passed_over(damage: Damage, new_database: NewDatabase) -> None:
    """
    The backup before it answers, and the result says so; a backup that was asked for by name is not exchanged.
    """
    entries = damage.archive.catalog().entries
    spoil(damage, str(entries[-1]))

    result = salvaged(damage, new_database(), events_only=True)

    assert result.backup == entries[-2].backup
    assert [(one.object, one.kind) for one in result.missing] == [(str(entries[-1]), "manifest")]
    with pytest.raises(Damaged, match=str(entries[-1])):
        salvaged(damage, new_database(), f"backup:{entries[-1].backup}")


def test_a_middle_manifest_does_not_end_the_line(damage: Damage, new_database: NewDatabase) -> None:
    """
    An instant before a damaged manifest is answered from beyond it.
    """
    first, middle, _ = damage.archive.catalog().entries
    spoil(damage, str(middle))
    assert first.horizon is not None

    result = salvaged(damage, new_database(), instant_text(first.snapshot), events_only=True)

    assert result.events > 1500
    assert not result.missing or result.missing[0].object == str(middle)


def test_the_chunks_of_a_damaged_index_are_found_elsewhere(damage: Damage, new_database: NewDatabase) -> None:
    """
    An older backup names the chunks itself; without one they are lost, and their number is told.
    """
    rows, name = archived_rows(damage.archive), objects_of(damage)["index"]
    index = newest(damage.archive).log.indexes[0]
    spoil(damage, name)
    target = new_database()

    result = salvaged(damage, target, events_only=True)

    assert source_rows(target) == rows
    assert [(one.object, one.rows) for one in result.missing] == [(name, 0)]
    for entry in damage.archive.catalog().entries[:-1]:
        (damage.folder / str(entry)).unlink()
    alone = salvaged(damage, new_database(), events_only=True)
    assert [(one.object, one.rows) for one in alone.missing] == [(name, index.rows)]
    assert alone.events == len(rows) - index.rows


def test_a_damaged_capture_gives_way_to_an_older_one(damage: Damage, new_database: NewDatabase) -> None:
    """
    A capture whose record cannot be read is passed over.
    """
    name = objects_of(damage)["capture"]
    spoil(damage, name)

    result = salvaged(damage, new_database())

    assert result.recovered is not None
    assert result.recovered.capture == damage.archive.catalog().entries[0].backup
    assert [(one.object, one.kind) for one in result.missing] == [(name, "capture")]


def test_without_any_schema_an_empty_database_is_refused(damage: Damage, new_database: NewDatabase) -> None:
    """
    Where all captures share a text of the schema that is damaged, an empty database cannot be filled.
    """
    for role in ("schema before the data", "schema after the data"):
        name = objects_of(damage)[role]
        with damage.put(name, damage.body(name)[:40]), pytest.raises((Damaged, TargetRefused), match=name):
            salvaged(damage, new_database())


@pytest.mark.parametrize(
    ("role", "table"), [("keys", "system.encryption_keys"), ("row", "system.assets"), ("list of rows", "system.assets")]
)
def test_damaged_state_is_refused_until_it_is_given_up(
    damage: Damage, new_database: NewDatabase, role: str, table: str
) -> None:
    """
    A captured table with a damaged object counts as not captured, and --without gives it up.
    """
    name, target = objects_of(damage)[role], new_database()
    spoil(damage, name)
    with pytest.raises(TargetRefused, match=f"{table}.*{name}"):
        salvaged(damage, target)

    result = salvaged(damage, target, "latest", table)

    assert name in [one.object for one in result.missing]
    assert one(target, f"SELECT count(*) FROM {table}") == 0


def test_damaged_states_leave_everything_cold(damage: Damage, new_database: NewDatabase) -> None:
    """
    Without the states of the handlers none of them is warm.
    """
    spoil(damage, objects_of(damage)["states"])

    result = salvaged(damage, new_database())

    assert result.recovered is not None
    assert "were not captured" in result.recovered.unit.cold


def test_the_archives_own_record_is_not_needed(damage: Damage) -> None:
    """
    An archive whose own record is damaged can still be read by a salvage, which names it.
    """
    name = next(name for name in damage.names() if name.startswith("archive/"))
    spoil(damage, name)
    with pytest.raises((Damaged, ObjectMissing), match=name):
        Archive.open(damage.archive.store)

    opened = Salvage.open(damage.archive.store)

    assert opened.record.archive == "a" * 8
    assert [one.object for one in opened.missing] == [name]


@pytest.mark.parametrize("gone", [False, True])
def test_a_merged_chunk_is_read_from_what_it_was_made_of(
    archive: Archive, database: str, back_up: Backup, new_database: NewDatabase, tmp_path: Path, *, gone: bool
) -> None:
    """
    Increments that were merged are still there as they were stored first: damage of the merged object loses nothing.
    """
    with psycopg.connect(database) as connection:
        create_schema(connection)
    for number in range(FACTOR + 1):
        with psycopg.connect(database) as connection:
            push(connection, "i1", ("user", f"u{number}"))
        back_up(database)
    merged = next(archive.chunks(newest(archive).log))
    assert merged.rows == FACTOR
    path = tmp_path / "archive" / merged.name
    body = bytearray(path.read_bytes())
    body[len(body) // 3] ^= 1
    path.unlink()
    if not gone:
        path.write_bytes(body)
    target = new_database()

    done = restored(Salvage.of(archive), target)

    assert source_rows(target) == source_rows(database)
    assert [(found.object, found.rows) for found in done.missing] == [(merged.name, 0)]
