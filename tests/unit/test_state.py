"""The events as of a plan, read from the archive alone, against plain sets of rows."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import fixture_data
from tests.archived import Maker, created, in_order
from tests.unit.rows import EPOCH, row
from zbackup import withheld as withheld_module
from zbackup.archive.archive import Archive
from zbackup.archive.between import Order
from zbackup.archive.manifest import ChunkRef
from zbackup.archive.rows import split_rows
from zbackup.archive.withhold import withheld
from zbackup.diff import Changes, Difference, diff
from zbackup.event import COLUMNS, MICROSECOND, cursor_of, instant_text
from zbackup.moment import Instant, Latest, OfBackup, RestorePoint
from zbackup.plan import resolve
from zbackup.state import State

Key = tuple[bytes, bytes, bytes, int]


def key_of(line: bytes) -> Key:
    cursor = cursor_of(line)
    return cursor.instance_id, cursor.aggregate_type, cursor.aggregate_id, cursor.sequence


@dataclass
class World:
    """An archive, what each of its backups saw, and what amendments added after each of them."""

    maker: Maker
    seen: dict[str, list[bytes]] = field(default_factory=dict[str, list[bytes]])
    late: dict[str, list[list[bytes]]] = field(default_factory=dict[str, list[list[bytes]]])
    horizon: datetime | None = None
    last: str = ""

    def back_up(self, rows: list[bytes], horizon: datetime, snapshot: datetime) -> None:
        """Back up what is there now; what is new below the last horizon is an amendment."""
        horizon = max(horizon, self.horizon or horizon)
        before = {key_of(line) for line in self.seen.get(self.last, ())}
        added = [line for line in rows if self.horizon and created(line) < self.horizon and key_of(line) not in before]
        made = self.maker.backup(rows, horizon=horizon, snapshot=snapshot, added=added)
        for late in self.late.values():
            late.append(in_order(added))
        self.seen[made.backup], self.late[made.backup] = in_order(rows), []
        self.horizon, self.last = horizon, made.backup

    def expected(self, backup: str, at: datetime | None, snapshot: datetime) -> list[bytes]:
        """Return the rows that a restore of an instant brings back, as design.md has it."""
        rows = self.seen[backup]
        if at is None:
            return rows
        there = {key_of(line): line for line in rows if created(line) <= at}
        after = [line for line in rows if created(line) > at]
        for added in self.late[backup]:
            for line in added:
                if created(line) <= at:
                    there.setdefault(key_of(line), line)
                elif created(line) <= snapshot:
                    after.append(line)
        gone = withheld(map(cursor_of, there.values()), map(cursor_of, after))
        return in_order(line for line in there.values() if cursor_of(line) not in gone)

    def check(self, point: RestorePoint) -> tuple[State, list[bytes]]:
        made = resolve(self.maker.archive, point)
        state = State.of(self.maker.archive, made)
        wanted = self.expected(made.backup, made.at, made.snapshot)
        for order in Order:
            assert read(state, order) == wanted
        return state, wanted


def read(state: State, order: Order = Order.FORWARDS) -> list[bytes]:
    blocks = (split_rows(block.rows) for block in state.blocks(order=order))
    if order is Order.FORWARDS:
        return [line for rows in blocks for line in rows]
    return [line for rows in blocks for line in reversed(rows)][::-1]


def instant(at: datetime) -> Instant:
    return Instant(at, instant_text(at))


def point_of(state: State) -> RestorePoint:
    return Latest() if state.plan.at is None else instant(state.plan.at)


def compared(world: World, first: RestorePoint, second: RestorePoint) -> Difference:
    archive = world.maker.archive
    return diff(archive, resolve(archive, first), resolve(archive, second), largest=0)


def difference(one: list[bytes], other: list[bytes]) -> tuple[int, int, int]:
    """Count what is added, removed and changed, by plain sets."""
    before, after = ({cursor_of(line): line for line in rows} for rows in (one, other))
    both = before.keys() & after.keys()
    return len(after) - len(both), len(before) - len(both), sum(before[key] != after[key] for key in both)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[list[bytes]], list[tuple[int, int]]]:
    """
    Pushes in the order of their commits, and after how many of them a backup is made, at which horizon.

    Their times are those of the beginning of their transactions, the sequences follow the commits; the clock may be
    set back in between.
    """
    pushes: list[list[bytes]] = []
    times: list[int] = []
    sequences: dict[tuple[str, str], int] = {}
    number, clock = draw(st.integers(3, 25)), 0
    for commit in range(number):
        clock += draw(st.integers(0, 2))
        if draw(st.integers(0, 20)) == 0:
            clock = max(0, clock - draw(st.integers(1, 20)))
        at = max(0, clock - draw(st.sampled_from((0, 0, 0, 1, 3, 9))))
        times.append(at)
        instance = draw(st.sampled_from("ij"))
        push: list[bytes] = []
        for order in range(draw(st.integers(1, 3))):
            aggregate = draw(st.sampled_from("abc"))
            sequence = sequences[instance, aggregate] = sequences.get((instance, aggregate), 0) + 1
            stamp = EPOCH + timedelta(seconds=at)
            position = f"{stamp.timestamp():.6f}"
            push.append(
                row(
                    stamp,
                    position,
                    100 * commit + order,
                    instance,
                    "user",
                    aggregate,
                    sequence,
                    payload=f'{{"n": {commit}}}',
                )
            )
        pushes.append(push)
    cuts = sorted(draw(st.sets(st.integers(1, number), max_size=4)) | {number})
    # A horizon that is too high makes amendments of what comes below it.
    return pushes, [(cut, min(times[cut:], default=clock + 1) + draw(st.sampled_from((0, 0, 5)))) for cut in cuts]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A place where nothing is synced to a disk, if there is one: many archives are made."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        yield Path(name)


@settings(deadline=None, max_examples=20)
@given(worlds())
def test_the_state_is_what_a_restore_brings_back(
    folder: Path, made: tuple[list[list[bytes]], list[tuple[int, int]]]
) -> None:
    """
    For overlapping transactions, clocks that go back and amendments, at any instant and of any backup.
    """
    pushes, cuts = made
    world = World(Maker.at(Path(tempfile.mkdtemp(dir=folder)) / "a", chunk_rows=4, frame_bytes=200))
    for cut, horizon in cuts:
        rows = [line for push in pushes[:cut] for line in push]
        last = max(*map(created, rows), EPOCH + timedelta(seconds=horizon))
        world.back_up(rows, EPOCH + timedelta(seconds=horizon), last)

    instants = sorted({created(line) for push in pushes for line in push})
    states = [world.check(instant(at)) for at in instants]
    latest = world.check(Latest())
    middle = len(instants) // 2
    for second, wanted in (latest, states[-1], states[middle - 1]):
        one, before = states[middle]
        found = compared(world, point_of(one), point_of(second)).changes
        assert (found.added, found.removed, found.changed) == difference(before, wanted)


def at(second: float) -> datetime:
    return EPOCH + timedelta(seconds=second)


def event(second: float, aggregate: str, sequence: int, order: int = 1, owner: bytes = b"o") -> bytes:
    line = row(at(second), order=order, aggregate=aggregate, sequence=sequence)
    return line.replace(b"\tc\to\t", b"\tc\t" + owner + b"\t")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Maker.at(tmp_path / "archive", chunk_rows=3, frame_bytes=100))


def test_what_is_withheld_may_lie_below_the_horizon_of_an_earlier_backup(world: World) -> None:
    """
    An event that the earlier backup sealed goes with one that it saw above its horizon; it is no witness then.
    """
    rows = [event(1, "z", 1), event(9, "x", 2, 1), event(10, "x", 1, 2)]
    world.back_up(rows, at(10), at(12))
    world.back_up([*rows, event(20, "y", 1, 3), event(10, "y", 2, 4)], at(30), at(31))

    state, wanted = world.check(instant(at(15)))

    assert wanted == rows[:1]
    assert len(state.withheld) == 3


def test_a_backup_that_an_amendment_corrected_is_no_witness(world: World) -> None:
    """
    What came below its horizon later may have to be withheld.
    """
    rows = [event(1, "z", 1), event(2, "z", 2)]
    world.back_up(rows, at(10), at(12))
    world.back_up([*rows, event(20, "x", 1, 3), event(9, "x", 2, 4)], at(30), at(31))

    assert world.check(instant(at(15)))[1] == rows


def test_only_what_can_matter_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    For the difference to the newest backup neither sealed chunks that both have nor older ones are read.
    """
    rows = [event(second, "z", second) for second in range(1, 40)]
    world.back_up(rows[:30], at(31), at(31))
    world.back_up(rows, at(50), at(51))
    read_names: set[str] = set()

    def note(archive: Archive, ref: ChunkRef, *rest: Any) -> Any:
        read_names.add(ref.name)
        return originals[len(rest)](archive, ref, *rest)

    originals = [Archive.read, Archive.frame]
    monkeypatch.setattr(Archive, "read", note)
    monkeypatch.setattr(Archive, "frame", note)

    assert compared(world, instant(at(35)), Latest()).changes.added == 4
    chunks = {chunk.ref.name: chunk.ref for chunk in resolve(world.maker.archive, Latest()).chunks}
    assert read_names
    assert all(chunks[name].hi > at(31) for name in read_names & chunks.keys())


def test_few_aggregates_at_once_find_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The keys after the instant are worked through in parts.
    """
    monkeypatch.setattr(withheld_module, "AGGREGATES_AT_ONCE", 1)
    early, later = ([event(second, name, 11 - second) for name in "abc"] for second in (2, 9))
    world.back_up([event(1, "z", 1), *early, *later], at(20), at(21))

    assert len(world.check(instant(at(4)))[0].withheld) == 3


def test_what_an_amendment_changed_or_removed_is_told(world: World) -> None:
    """
    Between two backups, by their ids: a rewritten owner is a change, an event that vanished is removed.
    """
    rows = [event(second, "abc"[second % 3], second) for second in range(1, 10)]
    world.back_up(rows, at(20), at(21))
    world.back_up([event(1, "b", 1, owner=b"p"), *rows[1:4], *rows[5:], event(30, "d", 1)], at(40), at(41))
    first, second = (OfBackup(name) for name in world.seen)

    found = compared(world, first, second)

    assert found.changes == Changes(1, 1, 1, 3, at(1), at(30))
    assert compared(world, second, first).changes == Changes(1, 1, 1, 3, at(1), at(30))
    assert [(group.owner, group.changes.events) for group in found.organisations.largest] == [("o", 2), ("p", 1)]
    assert compared(world, first, first).changes == Changes(0, 0, 0, 0, None, None)


def test_an_aggregate_counts_once_for_each_of_its_owners(world: World) -> None:
    """
    As a whole it is one, whatever owners its events have.
    """
    rows = [event(second, "x", second, owner=b"op"[second % 2 :][:1]) for second in range(1, 8)]
    world.back_up([event(0, "z", 1), *rows, event(9, "y", 1)], at(20), at(21))

    found = compared(world, instant(at(0)), Latest())

    assert found.changes.aggregates == found.instances.largest[0].changes.aggregates == 2
    assert [(group.owner, group.changes.aggregates) for group in found.organisations.largest] == [("o", 2), ("p", 1)]


@pytest.mark.parametrize("version", ["v2.71.19", "main"])
def test_real_histories(version: str, folder: Path) -> None:
    """
    Real transactions, many of them late, as three backups saw them: states and differences are those of plain sets.
    """
    names = fixture_data.columns(version)
    places = [names.index(name) for name in COLUMNS]
    split = (line.rstrip(b"\n").split(b"\t") for line in fixture_data.rows(version))
    commits = [b"\t".join(fields[place] for place in places) + b"\n" for fields in split]
    world = World(Maker.at(folder / version, chunk_rows=200, frame_bytes=16 << 10))
    for part in (3, 2, 1):
        cut = len(commits) // part
        rest = [created(line) for line in commits[cut:]]
        last = max(map(created, commits[:cut]))
        world.back_up(commits[:cut], min(rest, default=last + MICROSECOND), last)

    late = len(commits) // 2 + 1
    _, whole = world.check(Latest())
    for line in (commits[late], commits[len(commits) // 3], commits[-20]):
        state, wanted = world.check(instant(created(line)))
        found = compared(world, point_of(state), Latest())
        lost = set(whole) - set(wanted)
        assert (found.changes.added, found.changes.removed) == (len(lost), 0)
        owners = Counter((key_of(line)[0], line.split(b"\t")[10]) for line in lost)
        assert {(group.instance_id, group.owner): group.changes.added for group in found.organisations.largest} == {
            (one.decode(), other.decode()): count for (one, other), count in owners.items()
        }
