"""What a prune takes, what it leaves, and what it does when something is not as it should be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.archived import Maker
from tests.fix_append_only import AppendOnly
from tests.fix_vices import StoreWrapper
from tests.gate import Ahead
from tests.unit.rows import row
from zbackup.archive import FORMAT, names
from zbackup.archive.archive import Archive
from zbackup.archive.log import totals
from zbackup.archive.manifest import Capture, CaptureRef, Lease
from zbackup.archive.needed import KeepCaptures, Rules
from zbackup.archive.rows import split_rows
from zbackup.archive.table import TableSink
from zbackup.archive.tombstones import LEAST_GRACE, LONGEST_RUN, Watch, read_lists
from zbackup.errors import AccessDenied, Damaged, Incomplete, OutsideWindow, Overtaken, StoreError, UsageError
from zbackup.event import instant_text
from zbackup.inspect import listing
from zbackup.moment import Instant
from zbackup.plan import resolve
from zbackup.prune import PruneResult, prune
from zbackup.store.base import Stat
from zbackup.store.local import LocalStore
from zbackup.verify import verify

STEP = int(os.environ.get("ZBACKUP_INTERLEAVINGS", "33"))
"""Of the deletes of a prune it is killed before every so manieth (docs/development.md)."""

DAY = timedelta(days=1)
GRACE = timedelta(hours=2)
RULES = Rules(window=DAY * 10, captures=KeepCaptures.parse("1,1m"))
BACKUPS = 30


class Made:
    """An archive of a month: a backup a day, some with captures, one amended, one that was raced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.maker = Maker.at(path, chunk_rows=20)
        self.now = self.maker.archive.store.clock()
        self.rows = [row(self.at(hour / 6), aggregate="a", sequence=hour + 1) for hour in range(BACKUPS * 6)]
        for day in range(1, BACKUPS + 1):
            if day == 8:
                del self.rows[5:9]
            seen = self.rows[: day * 6 - 4 * (day >= 8)]
            parent = self.maker.last
            capture = self.capture(f"day {day}") if day % 7 == 1 else None
            self.maker.backup(
                seen, horizon=self.at(day - 0.4), snapshot=self.at(day), removed=4 * (day == 8), capture=capture
            )
            if day == 12:
                kept = self.maker.last
                self.maker.backup(seen, horizon=self.at(day - 0.5), snapshot=self.at(day), parent=parent)
                self.maker.last, self.maker.number = kept, self.maker.number

    def at(self, day: float) -> datetime:
        return self.now - DAY * (BACKUPS - day)

    def capture(self, text: str) -> CaptureRef:
        archive = self.maker.archive
        sink = TableSink(archive, None, "1/db")
        tables = (
            sink.write("system", "encryption_keys", ("id", "key"), [b"a\tb\n"]),
            sink.write("projections", "users", ("id",), [f"{text}\n".encode()]),
            sink.write("system", "assets", ("id",), [f"{text[:5]}\n".encode(), b"same\n"], by_row=True),
        )
        stored = archive.put_capture(Capture(FORMAT, None, None, "none", tables))
        return CaptureRef(stored.name, stored.sha256, stored.stored_bytes, 3, 4, 9, 9, 9, schema=False)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made") / "archive")


@pytest.fixture
def made(made_once: Made, tmp_path: Path) -> Made:
    copy = object.__new__(Made)
    copy.path, copy.now = tmp_path / "archive", made_once.now
    shutil.copytree(made_once.path, copy.path)
    copy.maker = replace(made_once.maker, archive=Archive.open(LocalStore(copy.path)))
    return copy


@pytest.fixture
def store(made: Made) -> Ahead:
    return Ahead(LocalStore(made.path))


@pytest.fixture
def archive(store: Ahead) -> Archive:
    return Archive.open(store)


def run(archive: Archive, rules: Rules = RULES, *, grace: timedelta = GRACE) -> PruneResult:
    return prune(archive, rules, grace=grace, yes=True)


def objects(path: Path) -> set[str]:
    return {stat.name for stat in LocalStore(path).list("")}


def sound(archive: Archive) -> None:
    found = verify(archive, level="full")
    assert found.ok, found.findings


def answers(archive: Archive, made: Made) -> dict[datetime, list[bytes]]:
    """The rows of instants all over the history, as a restore would load them."""
    instants = [made.at(day / 4) for day in range(1, BACKUPS * 4)]
    return {at: rows_at(archive, at) for at in instants}


def rows_at(archive: Archive, at: datetime) -> list[bytes]:
    planned = resolve(archive, Instant(at, instant_text(at)))
    chunks = [*(chunk.ref for chunk in planned.chunks), *planned.added]
    rows = {line for chunk in chunks for frame in archive.read(chunk) for line in split_rows(frame)}
    return sorted(line for line in rows if datetime.fromisoformat(line.split(b"\t")[0].decode()) <= at)


def test_every_instant_gives_what_it_gave(archive: Archive, store: Ahead, made: Made) -> None:
    """
    Old backups go with their tails and replaced chunks; what amendments changed, captures and the window stay.
    """
    before, there = answers(archive, made), objects(made.path)

    first = run(archive)
    listed = objects(made.path)
    waiting = run(archive)
    store.ahead.ahead += GRACE
    second = run(archive)

    assert (first.removed, waiting.removed) == (0, 0)
    assert first.listed > 40
    assert waiting.listed == 0
    assert {one.state for one in waiting.going} == {"waiting"}
    assert {name.partition("/")[0] for name in listed - there} == {"tombstones"}
    assert second.removed == first.listed == len(there) - len(objects(made.path)) + 1
    assert {one.kind for one in first.going} >= {"manifest", "tail", "chunk", "table", "capture"}
    sound(archive)
    assert verify(archive, level="quick").orphans == 0
    assert answers(archive, made) == before
    stays = [one for one in first.backups if one.stays]
    assert {one.backup for one in listing(archive).backups} == {one.backup for one in stays}
    # The amendment of day 8 and what was before; the window; captures of days 29, 22 are in it.
    assert [(one.snapshot - made.at(0)).days for one in stays] == [7, 8, *range(20, 31)]
    assert listing(archive).windows[0].backups == len(stays)
    assert [window.first for window in second.after] == [made.at(0)]
    assert run(archive).going == ()


def test_a_dry_run_changes_nothing(archive: Archive, store: Ahead, made: Made) -> None:
    """
    It says what would be done, before and after the grace.
    """
    dry = prune(archive, RULES, grace=GRACE)
    nothing = objects(made.path)
    run(archive)
    store.ahead.ahead += GRACE
    there = objects(made.path)

    due = prune(archive, RULES, grace=GRACE)

    assert {one.state for one in dry.going} == {"new"}
    assert {one.state for one in due.going} == {"due"}
    assert sum(one.objects for one in due.going) == sum(one.objects for one in dry.going)
    assert (due.done, due.removed, due.listed) == (False, 0, 0)
    assert objects(made.path) == there
    assert len(there - nothing) == 1


def test_what_became_needed_is_spared(archive: Archive, store: Ahead, made: Made) -> None:
    """
    A backup that names what is on a list, committed before it is due, keeps it.
    """
    old = next(entry for entry in archive.catalog().entries if entry.snapshot == made.at(3))
    run(archive)
    manifest, head = archive.manifest(old), archive.catalog().head()
    assert head is not None
    newest = archive.manifest(head)
    archive.commit(
        replace(newest, backup=names.backup_id(made.now, "ffffffff"), number=head.number + 1, parent=str(head),
                tail=(), log=manifest.log, sealed=totals(manifest.log), horizon=manifest.horizon)
    )  # fmt: skip
    store.ahead.ahead += GRACE

    run(archive)

    assert {chunk.name for chunk in manifest.log.chunks} <= objects(made.path)
    assert str(old) not in objects(made.path)


class Hiding(StoreWrapper):
    """Lists all but one object, and counts what is to be deleted."""

    hidden = ""
    deletes = 0

    def list(self, prefix: str, *, fold: bool = False) -> Iterator[Stat]:
        return (stat for stat in self.store.list(prefix, fold=fold) if stat.name != self.hidden)

    def delete(self, name: str) -> None:
        self.deletes += 1
        super().delete(name)


def test_a_listing_that_looks_short(archive: Archive, store: Ahead, made: Made) -> None:
    """
    Whatever of the archive is not listed, but for what waits for its removal, nothing is removed.
    """
    run(archive)
    store.ahead.ahead += GRACE
    leaving = {name for one in read_lists(archive).values() for name in one.names}
    staying = sorted(objects(made.path) - leaving)
    hiding = Hiding(store)

    for hiding.hidden in staying:
        if names.kind_of(hiding.hidden) not in {"tombstones", "probe"}:
            with pytest.raises(Incomplete, match="nothing is removed") as caught:
                run(Archive(hiding, archive.record))
            assert caught.value.exit_code == 35

    assert len(staying) > 30
    assert hiding.deletes == 0


def test_a_backup_that_is_not_listed_before_any_prune(archive: Archive, store: Ahead, made: Made) -> None:
    """
    Whatever another one continues must be there; `verify` says the same, and of what was pruned it says nothing.
    """
    hiding = Hiding(store)
    hidden = Archive(hiding, archive.record)
    for entry in [*archive.catalog().line(made.maker.last or archive.catalog().entries[-1])][1:]:
        hiding.hidden = str(entry)
        with pytest.raises(Incomplete, match=r"continues .*, which is not listed"):
            run(hidden)
        assert not verify(hidden, level="quick").ok
    hiding.hidden = ""
    run(archive)
    store.ahead.ahead += GRACE
    run(archive)
    young = next(entry for entry in archive.catalog().entries if entry.snapshot == made.at(25))

    assert verify(archive).ok
    made.maker.archive.store.delete(str(young))
    assert [found.problem for found in verify(archive).findings] == [
        f"the backup it continues ({young.backup}) is missing"
    ]


def test_the_oldest_run_that_may_commit(archive: Archive, store: Ahead) -> None:
    """
    A run that is older than lists are kept for may have missed one.
    """
    watch = Watch(archive)
    store.ahead.ahead += LONGEST_RUN - timedelta(minutes=1)
    watch.expect_young()
    store.ahead.ahead += timedelta(minutes=2)

    with pytest.raises(Overtaken, match="the oldest that may commit") as caught:
        watch.expect_young()

    assert caught.value.exit_code == 41


def test_a_list_that_cannot_be_read(archive: Archive, made: Made) -> None:
    """
    It may name anything: neither a backup nor a prune goes on, and the error says how to.
    """
    run(archive)
    (name,) = read_lists(archive)
    (made.path / str(name)).write_bytes(b"{}")

    for act in (lambda: Watch(archive), lambda: run(archive)):
        with pytest.raises(Damaged, match="tombstones/") as caught:
            act()
        assert "Remove this list by hand" in caught.value.hint
    assert [found.object for found in verify(archive).findings] == ["tombstones/"]


class Dying(StoreWrapper):
    """Deletes so many objects, and then no more."""

    left = 0

    def delete(self, name: str) -> None:
        self.left -= 1
        if self.left < 0:
            raise StoreError(f"{name}: killed")
        super().delete(name)


def test_killed_between_deletes(archive: Archive, store: Ahead, made: Made, tmp_path: Path) -> None:
    """
    However many it has removed, the archive is whole, answers as before, and the next prune ends the work.
    """
    before = answers(archive, made)
    total = run(archive).listed
    store.ahead.ahead += GRACE
    for number in range(0, total, STEP):
        path = tmp_path / f"killed{number}"
        shutil.copytree(made.path, path)
        dying = Dying(Ahead(LocalStore(path), store.ahead))
        dying.left = number
        killed = Archive(dying, archive.record)

        with pytest.raises(StoreError, match="killed"):
            run(killed)

        assert verify(killed).ok
        dying.left = total
        assert run(killed).removed == total - number
        assert answers(killed, made) == before
        assert verify(killed).ok


def test_two_at_once(archive: Archive, store: Ahead, made: Made) -> None:
    """
    Each removes what it finds; one that meets the other's work in the middle stops, and nothing needed is gone.
    """
    before = answers(archive, made)
    run(archive)
    store.ahead.ahead += GRACE

    def again(_: int) -> None:
        try:
            run(archive)
        except (Incomplete, StoreError):
            return

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(again, range(3)))

    run(archive)
    sound(archive)
    assert answers(archive, made) == before
    assert run(archive).going == ()


def test_without_the_right_to_delete(made: Made) -> None:
    """
    Lists are written, nothing is removed, and the error says which right is missing.
    """
    store = Ahead(AppendOnly(made.path))
    archive = Archive.open(store)
    run(archive)
    store.ahead.ahead += GRACE
    there = objects(made.path)

    with pytest.raises(AccessDenied, match="may not delete manifests/") as caught:
        run(archive)

    assert caught.value.exit_code == 22
    assert "the right to delete" in caught.value.hint
    assert objects(made.path) == there


def test_what_is_locked_is_skipped(archive: Archive, store: Ahead, made: Made) -> None:
    """
    A read-only file stays and is named; of a manifest that stays, all that it names does.
    """
    run(archive)
    store.ahead.ahead += GRACE
    leaving = sorted(name for one in read_lists(archive).values() for name in one.names)
    chunk = next(name for name in leaving if name.startswith(names.EVENTS))
    manifest = next(
        entry for entry in archive.catalog().entries if str(entry) in leaving and chunk[7:32] not in str(entry)
    )
    for name in (chunk, str(manifest)):
        (made.path / name).chmod(0o440)

    result = run(archive)

    assert {chunk, str(manifest)} == {one.object for one in result.skipped}
    assert all("read-only" in one.why and one.until is None for one in result.skipped)
    assert {chunk, str(manifest)} == set(leaving) & objects(made.path) - {
        one.name for one in (*archive.manifest(manifest).log.chunks, *archive.manifest(manifest).tail)
    }
    sound(archive)


def test_strangers_are_named_and_left(archive: Archive, store: Ahead, made: Made) -> None:
    """
    Objects that no zbackup of this version stores stay, however old.
    """
    strange = {"README", "events/notes.txt", "manifests/old.json", "tomorrow/page-1.json"}
    for name in strange:
        made.maker.archive.put(name, b"?")
    store.ahead.ahead += DAY * 400

    run(archive)
    store.ahead.ahead += GRACE
    result = run(archive)

    assert set(result.unknown) == strange
    assert strange <= objects(made.path)


def test_leftovers_go_when_they_are_old(archive: Archive, store: Ahead, made: Made) -> None:
    """
    Chunks and records of a run that died, ended leases, probes; not before their time.
    """
    plain = made.maker.archive
    run_id = names.backup_id(made.now, "eeeeeeee")
    lease = Lease(FORMAT, run_id, "backup", "here", None, made.now, made.now + timedelta(minutes=5))
    plain.release(plain.put_lease(lease))
    committed = plain.catalog().entries[-1].backup
    left = {
        f"{names.EVENTS}{run_id}/s000000.0000e-{'a' * 32}.zst": DAY * 10,
        names.run_record(committed, run_id, "a" * 64): DAY * 10,
        names.table_object("a" * 64): DAY * 10,
        names.run_record(None, committed, "a" * 64): timedelta(0),
        f"probes/{run_id}-object": DAY,
        **{stat.name: DAY for stat in plain.store.list(names.LEASES)},
    }
    for name in left:
        if not name.startswith(names.LEASES):
            plain.put(name, b"?")
    run(archive)
    for age in sorted(set(left.values())):
        on_lists = {name for one in read_lists(archive).values() for name in one.names}
        assert {name for name, due in left.items() if due < age} <= on_lists
        assert not {name for name, due in left.items() if due > age} & on_lists
        store.ahead.ahead = age + timedelta(hours=1, minutes=10)
        run(archive)
    store.ahead.ahead += GRACE

    run(archive)

    assert len(left) == 7
    assert not left.keys() & objects(made.path)


def test_lists_go_when_they_are_void(archive: Archive, store: Ahead, made: Made) -> None:
    """
    A list is kept for the longest run after it was due, and the newest one for ever.
    """
    run(archive)
    (first,) = read_lists(archive)
    store.ahead.ahead += GRACE
    run(archive)
    store.ahead.ahead += LONGEST_RUN
    assert run(archive).listed > 0  # the window has moved on
    assert run(archive).listed == 1
    assert set(read_lists(archive)) > {first}
    store.ahead.ahead += GRACE

    run(archive)

    assert first not in read_lists(archive)
    assert len(read_lists(archive)) == 2


def test_a_generation_that_is_forgotten(archive: Archive, store: Ahead, made: Made) -> None:
    """
    A dead one stays restorable until told; then no instant can be asked of it, and the newest is as it was.
    """
    maker = replace(made.maker, archive=archive, generation="00000002", last=None, amendments=())
    maker.backup([row(made.at(1))], horizon=made.at(30), snapshot=made.at(30))
    store.ahead.ahead += DAY * 60
    for _ in range(2):
        run(archive)
        store.ahead.ahead += GRACE
    instant = Instant(made.at(5), "")
    assert resolve(archive, instant, generation="00000001").generation == "00000001"
    told = replace(RULES, forget=frozenset({"00000001"}))
    with pytest.raises(UsageError, match="generation 00000002 is the newest"):
        run(archive, replace(RULES, forget=frozenset({"00000002"})))

    run(archive, told)
    store.ahead.ahead += GRACE
    result = run(archive, told)

    assert [window.generation for window in result.after] == ["00000002"]
    assert [window.generation for window in listing(archive).windows] == ["00000002"]
    with pytest.raises(UsageError, match="no generation 00000001"):
        resolve(archive, instant, generation="00000001")
    sound(archive)


def test_a_generation_whose_rows_live_in_the_newest_goes(archive: Archive, store: Ahead, made: Made) -> None:
    """
    Nobody has to tell: a new generation that took all chunks over holds the same rows.
    """
    maker = replace(made.maker, archive=archive, generation="00000002", last=None, amendments=())
    rows = [row(made.at(hour / 6), sequence=hour + 1) for hour in range(12)]
    first = maker.backup(rows, horizon=made.at(30), snapshot=made.at(30))
    maker.generation, maker.last = "00000003", None
    maker.backup([*rows, row(made.at(32))], horizon=made.at(31), snapshot=made.at(33))
    store.ahead.ahead += DAY * 90

    result = run(archive)

    assert [one.stays for one in result.backups if one.backup == first.backup] == [False]
    assert [window.generation for window in result.after] == ["00000003", "00000001"]


def test_amended_rows_that_are_forgotten(archive: Archive, store: Ahead, made: Made) -> None:
    """
    Told so, the backup before the amendment goes; instants whose rows it held are refused with what is left.
    """
    before = answers(archive, made)
    told = replace(RULES, forget_amended=True)
    first = run(archive, told)
    store.ahead.ahead += GRACE
    run(archive, told)

    assert [(found.removed, found.until) for found in first.forgotten] == [(4, made.at(6.6))]
    sound(archive)
    for at, rows in before.items():
        if at >= made.at(6.6):
            assert rows_at(archive, at) == rows
        else:
            with pytest.raises(OutsideWindow, match=r"rows of .* are gone: .* found 4 removed .* the window"):
                rows_at(archive, at)


def test_a_grace_that_is_no_grace(archive: Archive) -> None:
    with pytest.raises(UsageError, match="too short"):
        run(archive, grace=LEAST_GRACE - timedelta(seconds=1))


def test_a_store_without_a_clock(made: Made) -> None:
    """
    Nothing is put on a list by the time of this machine.
    """

    class NoClock(LocalStore):
        def clock(self) -> datetime:
            raise StoreError("answers without a date")

    with pytest.raises(StoreError, match="without a date"):
        run(Archive.open(NoClock(made.path)))


def test_no_backup_at_all(tmp_path: Path) -> None:
    """
    Of an archive in which the first run died its leftovers go.
    """
    store = Ahead(LocalStore(tmp_path / "archive", create=True))
    archive = Archive.create(store, Maker.at(tmp_path / "other").archive.record)
    archive.put(names.table_object("a" * 64), b"?")
    store.ahead.ahead += DAY * 31
    run(archive)
    store.ahead.ahead += GRACE

    assert run(archive).removed == 1
