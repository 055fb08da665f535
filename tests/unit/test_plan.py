"""From a point in time to a plan: any catalog, any point, and what is refused."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.archived import Maker, created, manifest_of
from tests.unit.rows import EPOCH, history, row
from zbackup.archive import find
from zbackup.archive.archive import name_of
from zbackup.archive.catalog import Catalog
from zbackup.archive.manifest import CaptureRef, ChunkRef, Log, Manifest
from zbackup.archive.names import backup_id, capture_record
from zbackup.archive.plan import RestorePlan, make_plan, read_range, tiled
from zbackup.errors import Damaged, OutsideWindow, UsageError
from zbackup.event import BEGINNING, END, MICROSECOND, cursor_of, instant_text
from zbackup.moment import BeforeEvent, Instant, Latest, OfBackup, Position, RestorePoint
from zbackup.plan import plan


def at(second: float) -> datetime:
    return EPOCH + timedelta(seconds=second)


def instant(second: float) -> Instant:
    return Instant(at(second), instant_text(at(second)))


# Made-up manifests: any cuts into chunks, any holes without rows

Times = Sequence[int]


def chunk(name: str, times: Times, lo: datetime, hi: datetime) -> ChunkRef:
    ends = [at(times[0]), at(times[-1])] if times else []
    cursors = [(instant_text(end), "1", "1", "i", "user", "a", "1") for end in ends] or [(), ()]
    size = len(times)
    return ChunkRef(name, name, size, name, size, size, lo, hi, cursors[0], cursors[1], (Decimal(0), Decimal(1)))


def tile(name: str, times: Times, edges: Times, lo: datetime, hi: datetime) -> tuple[ChunkRef, ...]:
    """Cut rows at the given edges; the last chunk may end before `hi` where nothing follows."""
    cuts = [lo, *(at(edge) for edge in sorted(set(edges)) if lo < at(edge) < hi), hi]
    return tuple(
        chunk(f"{name}.{number}", [time for time in times if begin <= at(time) < end], begin, end)
        for number, (begin, end) in enumerate(pairwise(cuts))
    )


@st.composite
def lines(draw: st.DrawFn) -> tuple[list[int], list[Manifest]]:
    """A history of event times, and backups of it that continue one another."""
    times = sorted(draw(st.lists(st.integers(0, 50), min_size=1, max_size=30)))
    manifests: list[Manifest] = []
    horizon, snapshot, parent = None, 0, None
    for number in range(1, draw(st.integers(1, 4)) + 1):
        snapshot = draw(st.integers(snapshot, 60))
        horizon = draw(st.integers(horizon or 0, snapshot)) if horizon is not None or draw(st.booleans()) else None
        border = BEGINNING if horizon is None else at(horizon)
        edges = draw(st.lists(st.integers(0, 60), max_size=6))
        seen = [time for time in times if time <= snapshot]
        sealed = [time for time in seen if at(time) < border]
        log = () if horizon is None else tile(f"log{number}", sealed, edges, BEGINNING, border)
        tail = tile(f"tail{number}", seen[len(sealed) :], edges, border, END)
        name = backup_id(at(number), f"{number:08x}")
        sealed_until = None if horizon is None else border
        manifest = manifest_of(name, number, sealed_until, at(snapshot), Log((), log), tail, parent)
        manifests.append(manifest)
        parent = str(name_of(manifest, "0" * 64))
    return times, manifests


@given(lines(), st.integers(-2, 62), st.booleans())
def test_ranges_tile_exactly(made: tuple[list[int], list[Manifest]], second: int, whole: bool) -> None:
    """
    For any catalog and any point, what is read holds each event at or before it once, and no other.
    """
    times, manifests = made
    catalog = Catalog.of(str(name_of(manifest, "0" * 64)) for manifest in manifests)
    head = catalog.head()
    assert head is not None
    found = (head, True) if whole else catalog.answering(head, at(second))
    if found is None:
        assert second > (manifests[-1].snapshot - EPOCH).total_seconds()
        return
    manifest = manifests[found[0].number - 1]
    when = None if whole else at(second)
    planned = make_plan("x", when, manifest, manifest.log.chunks, head=manifests[-1], final=found[1])

    ranges = [read_range(part, when) for part in planned.chunks]
    assert all(before[1] <= after[0] for before, after in pairwise(ranges))
    there = [time for time in times if at(time) <= manifest.snapshot]
    wanted = [time for time in there if when is None or at(time) <= when]
    assert [time for lo, hi in ranges for time in there if lo <= at(time) < hi] == wanted
    beyond = [time for time in there if any(part.lo <= at(time) < part.hi for part in planned.after)]
    assert set(there) - set(wanted) <= set(beyond)
    assert all(part.cut == (part.ref in planned.after) for part in planned.chunks)
    assert sum(part.ref.rows for part in planned.chunks if not part.cut) <= len(wanted)


@given(lines(), st.data())
def test_a_gap_or_an_overlap_is_damage(made: tuple[list[int], list[Manifest]], data: st.DataObject) -> None:
    """
    Ranges that do not tile are refused, the chunk named.
    """
    manifest = made[1][-1]
    log = list(manifest.log.chunks)
    if len(log) < 2:
        return
    number = data.draw(st.integers(1, len(log) - 1))
    shift = data.draw(st.sampled_from((-MICROSECOND, MICROSECOND)))
    log[number] = replace(log[number], lo=log[number].lo + shift)

    with pytest.raises(Damaged, match=log[number].name):
        make_plan("x", None, manifest, log, head=manifest)


def test_rows_outside_their_range_are_damage() -> None:
    """
    A chunk whose events lie outside the range it is said to hold is refused.
    """
    (part,) = tile("log", [1, 5], [], BEGINNING, at(5))
    wrong = replace(part, last=chunk("x", [5], BEGINNING, END).last)

    with pytest.raises(Damaged, match="its rows reach from"):
        tiled([wrong], [])


# Real archives

ROWS = history(40)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker.at(tmp_path / "archive", chunk_rows=7, frame_bytes=200)


def asked(maker: Maker, point: RestorePoint, generation: str | None = None) -> RestorePlan:
    return plan(maker.archive, point, generation=generation)


@pytest.fixture
def two(maker: Maker) -> tuple[Manifest, Manifest]:
    """Forty events, one a second: a backup at 20 s and one at 45 s, each with ten seconds of tail."""
    older = maker.backup(ROWS[:21], horizon=at(10), snapshot=at(20))
    return older, maker.backup(ROWS, horizon=at(35), snapshot=at(45))


def test_the_first_backup_above_the_instant_answers(maker: Maker, two: tuple[Manifest, Manifest]) -> None:
    """
    An instant is answered by the first backup whose horizon is above it; beyond the newest by its tail.
    """
    for second, number, final in ((9.5, 0, True), (10, 1, True), (34.9, 1, True), (35, 1, False), (45, 1, False)):
        made = asked(maker, instant(second))

        assert (made.backup, made.final) == (two[number].backup, final)
        assert any("not final" in warning for warning in made.warnings) != final


def test_events_are_counted_exactly(maker: Maker, two: tuple[Manifest, Manifest]) -> None:
    """
    A plan says how many events there are at T, and how many are lost.
    """
    for second in (0, 0.5, 3, 9.9, 10, 17, 34, 38.5, 39, 44):
        estimate = asked(maker, instant(second)).estimate

        assert estimate is not None
        assert estimate.events == sum(created(one) <= at(second) for one in ROWS)
        assert estimate.lost == len(ROWS) - estimate.events


def test_few_events_of_a_large_instant_are_looked_at(
    maker: Maker, two: tuple[Manifest, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Of frames with more events than an estimate may hold it takes those that are nearest to T.
    """
    monkeypatch.setattr(find, "NEAR_EVENTS", 3)
    chunks = find.chunks_of(maker.archive, two[1])
    cursors = [cursor_of(row) for row in ROWS]

    before, after = find.near(maker.archive, reversed(chunks), chunks, at(17))

    assert sorted(before) == [cursor for cursor in cursors if cursor.created_at <= at(17)][-3:]
    assert after == [cursor for cursor in cursors if cursor.created_at > at(17)][:3]


def test_whole_backups(maker: Maker, two: tuple[Manifest, Manifest]) -> None:
    """
    `latest` and `backup:ID` are exactly what a snapshot showed.
    """
    latest, older = asked(maker, Latest()), asked(maker, OfBackup(two[0].backup[-8:]))

    assert (latest.backup, latest.at, latest.totals.rows, latest.final) == (two[1].backup, None, 40, True)
    assert (older.backup, older.at, older.totals.rows, older.after) == (two[0].backup, None, 21, ())
    assert older.estimate is not None
    assert older.estimate.lost == 19
    assert asked(maker, OfBackup(two[1].backup)).digest == latest.digest


@pytest.mark.parametrize("second", [-0.000001, 45.000001, 10**6])
def test_outside_the_window(maker: Maker, two: tuple[Manifest, Manifest], second: float) -> None:
    """
    Before the first event and after the newest snapshot nothing is guessed; the window is printed.
    """
    with pytest.raises(OutsideWindow) as error:
        asked(maker, instant(second))

    assert f"{instant_text(at(0))} … {instant_text(at(45))}" in error.value.message


def test_an_archive_without_backups(maker: Maker) -> None:
    """
    Nothing can be restored from an archive that holds nothing.
    """
    with pytest.raises(OutsideWindow, match="no backup"):
        asked(maker, Latest())


def test_an_archive_without_events(maker: Maker) -> None:
    """
    A source without events gives an empty backup; an instant has nothing to mean there.
    """
    maker.backup([], horizon=at(5), snapshot=at(10))

    assert asked(maker, Latest()).totals.rows == 0
    with pytest.raises(OutsideWindow, match="holds no events"):
        asked(maker, instant(4))


def test_before_an_event(maker: Maker, two: tuple[Manifest, Manifest]) -> None:
    """
    `before:` is the microsecond before the event with this key.
    """
    made = asked(maker, BeforeEvent("i", "user", "a", 18))

    assert made.at == at(17) - MICROSECOND
    assert made.estimate is not None
    assert made.estimate.events == 17


@pytest.mark.parametrize(
    "key", [("i", "user", "a", 41), ("i", "org", "a", 1), ("j", "user", "a", 1), ("i", "user", "b", 1)]
)
def test_before_an_event_that_is_not_there(
    maker: Maker, two: tuple[Manifest, Manifest], key: tuple[str, str, str, int]
) -> None:
    """
    A key that no event has is an error with the window.
    """
    with pytest.raises(OutsideWindow, match=f"no event {'/'.join(map(str, key))} in the window"):
        asked(maker, BeforeEvent(*key))


def test_before_an_odd_event(maker: Maker) -> None:
    """
    Ids with tabs, backslashes and line breaks are found.
    """
    odd = "a\tb\\c\nd"
    maker.backup([*ROWS, row(at(7.5), aggregate=odd, sequence=3)], horizon=at(50), snapshot=at(60))

    assert asked(maker, BeforeEvent("i", "user", odd, 3)).at == at(7.5) - MICROSECOND


def test_before_an_event_that_vanished(maker: Maker) -> None:
    """
    An event that is only in older backups is found there.
    """
    maker.backup(ROWS, horizon=at(50), snapshot=at(60))
    maker.backup(ROWS[:18] + ROWS[19:], horizon=at(70), snapshot=at(80))

    assert asked(maker, BeforeEvent("i", "user", "a", 19)).at == at(18) - MICROSECOND


def test_a_position(maker: Maker, two: tuple[Manifest, Manifest]) -> None:
    """
    `position:` is the instant of the event that holds exactly it, whatever its zeros.
    """
    value = Decimal(f"{at(12).timestamp():.6f}")

    assert asked(maker, Position(value)).at == at(12)
    assert asked(maker, Position(value.normalize())).at == at(12)
    with pytest.raises(OutsideWindow, match="no event has position"):
        asked(maker, Position(value + Decimal("0.000001")))


def test_a_shared_position(maker: Maker) -> None:
    """
    A position of one push is one instant; of several, ambiguous, and they are named.
    """
    push = [row(at(50), position="5.5", sequence=number) for number in (101, 102)]
    other = row(at(51), position="5.50", aggregate="b")
    maker.backup([*ROWS, *push], horizon=at(60), snapshot=at(70))
    assert asked(maker, Position(Decimal("5.5"))).at == at(50)
    maker.backup([*ROWS, *push, other], horizon=at(60), snapshot=at(70))

    with pytest.raises(UsageError) as error:
        asked(maker, Position(Decimal("5.5")))

    assert f"{instant_text(at(50))}, {instant_text(at(51))}" in error.value.message


def test_added_rows_apply(maker: Maker) -> None:
    """
    What later amendments added is read for older instants, and counted; not for a backup by name.
    """
    first = maker.backup(ROWS[:21], horizon=at(15), snapshot=at(20))
    late = [row(at(second), aggregate="late", sequence=int(second)) for second in (5.5, 12.5, 30.5)]
    maker.backup([*ROWS, *late], horizon=at(35), snapshot=at(45), added=late)

    made = asked(maker, instant(10))

    assert made.backup == first.backup
    assert [part.rows for part in made.added] == [3]
    assert made.estimate is not None
    assert (made.estimate.events, made.estimate.added) == (11, 1)
    assert any("3 events" in warning for warning in made.warnings)
    assert asked(maker, OfBackup(first.backup)).added == ()
    assert asked(maker, instant(20)).added == ()


def test_withheld_events_are_estimated(maker: Maker) -> None:
    """
    An overlap next to T is seen in the plan.
    """
    overlap = [row(at(10), aggregate="x", sequence=2), row(at(12), aggregate="x", sequence=1)]
    maker.backup([*ROWS, *overlap], horizon=at(50), snapshot=at(60))

    counts = [asked(maker, instant(second)).estimate for second in (9, 11, 13)]

    # With event 2 of x the one of the same push goes, and with that the later ones of its aggregate.
    assert [estimate and estimate.withheld for estimate in counts] == [0, 3, 0]


def test_what_else_covers_the_instant(maker: Maker, two: tuple[Manifest, Manifest]) -> None:
    """
    Raced runs and other generations that answer for T are named; T stays a question to one line.
    """
    entries = maker.archive.catalog().entries
    raced = maker.backup(ROWS, horizon=at(38), snapshot=at(46), parent=entries[0])
    second = Maker(maker.archive, generation="00000002", number=10)
    other = second.backup(ROWS[:30], horizon=at(25), snapshot=at(29))

    made = asked(maker, instant(28), "00000001")

    assert made.backup == raced.backup
    assert [(cover.backup, cover.final) for cover in made.others] == [(two[1].backup, True), (other.backup, False)]
    with pytest.raises(OutsideWindow) as error:
        asked(maker, instant(40))
    assert "--generation 00000001" in error.value.hint
    with pytest.raises(UsageError, match="no generation"):
        asked(maker, instant(40), "00000003")
    with pytest.raises(UsageError, match="is of generation 00000001"):
        asked(maker, OfBackup(two[0].backup), "00000002")


def test_the_capture_is_the_latest_at_or_before(maker: Maker) -> None:
    """
    The schema of T is that of the latest capture at or before it, else of the first after it.
    """
    captures = [
        CaptureRef(capture_record(digest), digest, 1, 1, 1, 1, 1, 1, schema=True) for digest in ("0" * 64, "1" * 64)
    ]
    maker.backup(ROWS[:10], horizon=at(5), snapshot=at(10))
    maker.backup(ROWS[:20], horizon=at(15), snapshot=at(20), capture=captures[0])
    maker.backup(ROWS[:30], horizon=at(25), snapshot=at(30), capture=captures[1])
    maker.backup(ROWS, horizon=at(45), snapshot=at(50))

    found = [asked(maker, instant(second)).capture for second in (3, 20, 29, 30, 40)]

    assert [capture and capture.ref for capture in found] == [captures[index] for index in (0, 0, 0, 1, 1)]


def test_the_digest_tells_plans_apart(maker: Maker, two: tuple[Manifest, Manifest]) -> None:
    """
    Plans that restore the same rows have the same digest, others have another.
    """
    points: list[RestorePoint] = [Latest(), OfBackup(two[0].backup), *(instant(second) for second in (3, 4, 12, 38))]
    random.shuffle(points)

    digests = [asked(maker, point).digest for point in points]

    assert len(set(digests)) == len(points)
    assert digests == [asked(maker, point).digest for point in points]
    assert asked(maker, BeforeEvent("i", "user", "a", 13)).digest == asked(maker, instant(11.999999)).digest
