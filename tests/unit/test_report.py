"""The facts of a report: right where they can be counted, and few and small whatever an archive holds."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.archived import STARTED, Maker
from tests.fix_lived import END_OF_IT
from tests.long_archive import LongArchive, snapshot_of
from tests.unit.rows import row
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import Manifest
from zbackup.archive.names import BackupName, backup_id
from zbackup.archive.records import Record
from zbackup.cadence import MOST_PERIODS, cadence
from zbackup.cli.page.page import page
from zbackup.condition import condition
from zbackup.event import BEGINNING, END
from zbackup.growth import growth
from zbackup.periods import end_of, spoken, start_of, starts, unit_for
from zbackup.report import AMENDMENTS, Facts, take_facts
from zbackup.store.local import LocalStore

DAY = timedelta(days=1)
ROWS = 100

instants = st.datetimes(BEGINNING.replace(tzinfo=None), END.replace(tzinfo=None), timezones=st.just(UTC))


@given(instants, instants, st.integers(110, 400))
@example(BEGINNING, END, 110)
@example(END, END, 110)
def test_periods_tile_any_span_and_are_few(one: datetime, other: datetime, most: int) -> None:
    """
    The first period holds the first instant, each begins where the one before ends, the last holds the last instant.
    """
    first, last = sorted((one, other))
    unit = unit_for(first, last, most)

    found = list(starts(unit, first, last))

    assert 0 < len(found) <= most
    assert found[0] <= first
    assert found[1:] == [end_of(unit, start) for start in found[:-1]]
    assert last < end_of(unit, found[-1]) or end_of(unit, found[-1]) == END
    assert found == [start_of(unit, start) for start in found]


def history(days: int, seed: int) -> list[bytes]:
    """Make events of some types and instances, more and more of them, on some days."""
    chance = random.Random(seed)
    made: list[bytes] = []
    for number in range(ROWS):
        at = STARTED - days * DAY * (chance.random() ** 2) - timedelta(seconds=number % 50)
        kind = chance.choice(["user", "user", "org", "session", "project"])
        made.append(row(at, instance=chance.choice("ab"), kind=kind, sequence=number + 1))
    return made


@pytest.mark.parametrize(("days", "unit"), [(3, "hour"), (80, "day"), (500, "week"), (3000, "month")])
def test_growth_is_what_the_rows_say(tmp_path: Path, days: int, unit: str) -> None:
    """
    Where chunks are small enough, the events of each type up to the end of each period are those that are there.
    """
    rows = history(days, days)
    maker = Maker.at(tmp_path / "archive", chunk_rows=1)
    manifest = maker.backup(rows, horizon=STARTED - timedelta(seconds=30), snapshot=STARTED)

    found = growth(maker.archive, manifest)

    assert found is not None
    assert unit == found.unit
    kinds = [(datetime.fromisoformat(fields[0].decode()), fields[4].decode(), fields[3].decode())
             for fields in (one.split(b"\t") for one in rows)]  # fmt: skip
    for one in found.types:
        of_type = [start_of(found.unit, at) for at, kind, _ in kinds if kind == one.aggregate_type]
        assert one.events == len(of_type)
        assert one.total == tuple(sum(at <= start for at in of_type) for start in found.starts)
    assert {one.aggregate_type for one in found.types} == {kind for _, kind, _ in kinds}
    assert {one.instance: one.events for one in found.instances} == Counter(instance for *_, instance in kinds)
    assert (ROWS, 0, found.chunks) == (found.events, found.unread, found.trailers)
    assert found.total[-1] == ROWS


def test_growth_reads_only_so_many_trailers(tmp_path: Path) -> None:
    """
    Of older chunks than the newest few only the number of events is told; the sum of all stays right.
    """
    maker = Maker.at(tmp_path / "archive", chunk_rows=10)
    manifest = maker.backup(history(80, 1), horizon=STARTED, snapshot=STARTED)
    counted = [chunk.rows for chunk in (*manifest.log.chunks, *manifest.tail)]
    whole, part = growth(maker.archive, manifest), growth(maker.archive, manifest, most=3)

    assert whole is not None
    assert part is not None
    assert (3, sum(counted[:-3]), ROWS) == (part.trailers, part.unread, part.events)
    assert sum(one.events for one in part.types) == sum(counted[-3:])
    assert part.total[-1] == whole.total[-1] == ROWS


def name(number: int, at: datetime, parent: BackupName | None, generation: str = "00000001") -> BackupName:
    backup = backup_id(at, f"{number:08x}")
    return BackupName(number, backup, generation, parent.random if parent else None, at, at, f"{number:064x}")


@given(st.lists(st.integers(1, 10**4), min_size=1, max_size=120), st.sampled_from([1, 60, 3600, 86400]))
def test_every_backup_is_in_one_period(steps: list[int], seconds: int) -> None:
    """
    However many backups over whatever time: the periods are few, and add up to them.
    """
    entries: list[BackupName] = []
    at = STARTED
    for number, step in enumerate(steps, 1):
        at += timedelta(seconds=step * seconds)
        entries.append(name(number, at, entries[-1] if number % 30 and entries else None))

    seen = cadence(reversed(entries), 10)

    assert len(seen.periods) <= MOST_PERIODS
    assert (len(entries), sum(entry.parent is None for entry in entries)) == (
        sum(tally.backups for tally in seen.periods.values()),
        sum(tally.full for tally in seen.periods.values()),
    )
    for start, tally in seen.periods.items():
        held = [entry for entry in entries if start <= entry.snapshot < end_of(seen.unit, start)]
        assert (len(held), held[-1]) == (tally.backups, tally.last)
    assert tuple(reversed(entries))[:10] == seen.newest


def test_what_was_pruned_between_is_no_pause() -> None:
    """
    A long time from one backup to the one that continues it is a pause; where others were between, it is none.
    """
    entries: list[BackupName] = []
    for number in range(1, 40):
        late = 3 * DAY if number > 25 else timedelta(0)
        entries.append(name(number, STARTED + number * DAY + late, entries[-1] if entries else None))
    del entries[9:15]

    seen = cadence(reversed(entries), 10)

    assert [(STARTED + 25 * DAY, STARTED + 29 * DAY)] == [(pause.since, pause.until) for pause in seen.pauses]
    assert seen.usual == DAY


def test_a_whole_history_is_told(lived: Path) -> None:
    """
    Two generations, their windows, what was amended, done and found, and that all is in order.
    """
    facts = take_facts(Archive.open(LocalStore(lived)), END_OF_IT + timedelta(hours=1))

    newest, dead = facts.generations
    assert (True, END_OF_IT) == (newest.newest, newest.last)
    assert (False, END_OF_IT - 17 * DAY) == (dead.newest, dead.last)
    assert newest.first == dead.first
    assert [(END_OF_IT - 13 * DAY, END_OF_IT - 8 * DAY)] == [(pause.since, pause.until) for pause in facts.pauses]
    assert facts.total_backups == len(facts.backups) == newest.backups + dead.backups == 29
    assert ["full"] + ["incremental"] * 15 == [one.kind for one in facts.backups if one.generation == dead.generation]
    assert 2 == facts.total_amendments == len(facts.amendments)
    assert Counter(verify=4, prune=4, drill=1) == Counter(one.kind for one in facts.records)
    assert {"ok"} == {check.verdict for check in facts.checks}
    assert [("backup", 2), ("verify", 1)] == [(one.about.split()[0], one.times) for one in facts.findings]
    assert facts.log is not None
    assert facts.growth is not None
    assert facts.growth.events == facts.log.rows + facts.backups[-1].tail


def test_moments_whose_rows_are_gone_are_told(tmp_path: Path) -> None:
    """
    Rows were found removed, and the backup that held what they were is pruned: from when until when nothing answers.
    """
    maker = Maker.at(tmp_path / "archive")
    rows = history(2, 5)
    made: list[BackupName | None] = []
    for number in range(3):
        at = STARTED + number * DAY
        maker.backup(rows, horizon=at, snapshot=at, removed=number % 2)
        made.append(maker.last)

    assert () == facts_of(maker).generations[0].lost
    (tmp_path / "archive" / str(made[0])).unlink()
    (newest,) = facts_of(maker).generations

    assert [(STARTED, 1)] == [(one.until, one.removed) for one in newest.lost]
    assert "but for 1 range of time" in page(facts_of(maker))


def test_what_came_late_does_not_hide_what_is_gone(tmp_path: Path) -> None:
    """
    Behind more amendments that only added than are told, one that removed is looked at still.
    """
    maker = Maker.at(tmp_path / "archive")
    rows = history(2, 5)
    maker.backup(rows, horizon=STARTED, snapshot=STARTED)
    first = str(maker.last)
    for number in range(1, AMENDMENTS + 2):
        at = STARTED + number * timedelta(hours=1)
        maker.backup(rows, horizon=at, snapshot=at, removed=int(number == 1), added=rows[:1] if number > 1 else ())
    (tmp_path / "archive" / first).unlink()
    facts = facts_of(maker)

    assert [(STARTED, 1)] == [(one.until, one.removed) for one in facts.generations[0].lost]
    assert (AMENDMENTS, AMENDMENTS + 1) == (len(facts.amendments), facts.total_amendments)


def test_what_is_not_looked_at_is_told(tmp_path: Path) -> None:
    """
    Of more amendments that removed rows than can be looked at, of all generations, the rest is counted.
    """
    maker = Maker.at(tmp_path / "archive")
    rows = history(2, 5)
    maker.backup(rows, horizon=STARTED, snapshot=STARTED)
    maker.backup(rows, horizon=STARTED + DAY, snapshot=STARTED + DAY, removed=1)
    maker.generation, maker.last, maker.amendments = "00000002", None, ()
    for number in range(AMENDMENTS + 4):
        at = STARTED + 2 * DAY + number * timedelta(minutes=1)
        maker.backup(rows, horizon=at, snapshot=at, removed=int(number > 0))
    newest, dead = facts_of(maker).generations

    assert (3, 1) == (newest.more_lossy, dead.more_lossy)
    assert "Not looked at: 4 older amendments that removed or changed rows." in page(facts_of(maker))
    assert "there may be more moments that cannot" in page(facts_of(maker))


def test_a_dead_generation_does_not_claim_what_is_gone(tmp_path: Path) -> None:
    """
    Its bar shows the gap, and the newest generation's own has none.
    """
    maker = Maker.at(tmp_path / "archive")
    rows = history(2, 5)
    maker.backup(rows, horizon=STARTED, snapshot=STARTED)
    first = str(maker.last)
    maker.backup(rows, horizon=STARTED + DAY, snapshot=STARTED + DAY, removed=1)
    maker.generation, maker.last, maker.amendments = "00000002", None, ()
    maker.backup(rows, horizon=STARTED + 2 * DAY, snapshot=STARTED + 2 * DAY)
    (tmp_path / "archive" / first).unlink()
    newest, dead = facts_of(maker).generations

    assert ((), [(STARTED, 1)]) == (newest.lost, [(one.until, one.removed) for one in dead.lost])
    assert page(facts_of(maker)).count('class="bar gone"') == 1
    assert "but for" not in page(facts_of(maker))


def facts_of(maker: Maker) -> Facts:
    return take_facts(maker.archive, STARTED + 3 * DAY)


def test_a_hundred_thousand_are_as_few_as_a_thousand(tmp_path: Path) -> None:
    """
    Whatever the number of backups: one listing for each thousand, as many objects read, a page as large.
    """
    long = LongArchive.make(tmp_path / "long", 12_000)
    read: list[int] = []
    sizes: list[int] = []
    for runs in (1_500, 12_000):
        archive = long.shorter(runs)
        facts = take_facts(archive.archive, snapshot_of(runs))
        assert runs == facts.total_backups == sum(period.backups for period in facts.periods)
        read.append(archive.requests["get"])
        assert archive.requests["list"] <= runs / 1000 + 10
        sizes.append(len(page(facts).encode()))

    assert max(read) <= 100 + MOST_PERIODS + 10
    assert max(sizes) < 200_000


@pytest.mark.parametrize(
    ("later", "verdicts"),
    [
        (timedelta(hours=20), {"verify": "ok", "drill": "ok", "backup": "ok"}),
        (timedelta(days=3), {"verify": "ok", "drill": "ok", "backup": "warn"}),
        (timedelta(days=200), {"verify": "warn", "drill": "warn", "backup": "warn"}),
    ],
)
def test_what_is_late_deserves_a_look(tmp_path: Path, later: timedelta, verdicts: dict[str, str]) -> None:
    """
    A backup after twice the usual time, a verify after a week, a drill after a quarter; a failure is wrong at once.
    """
    maker = Maker.at(tmp_path / "archive")
    head = maker.backup(history(2, 5), horizon=STARTED, snapshot=STARTED)
    kinds = ("verify", "drill")
    good = [Record(kind, STARTED, STARTED, ok=True, backup=None) for kind in kinds]

    assert verdicts == {name: verdict for name, verdict in told(head, later, good).items() if name in verdicts}
    bad = [Record(kind, STARTED, STARTED, ok=False, backup=None) for kind in kinds]
    assert ["fail", "fail"] == [told(head, later, bad)[kind] for kind in kinds]
    assert ["warn", "warn"] == [told(head, later, [])[kind] for kind in kinds]


def told(head: Manifest, later: timedelta, records: list[Record]) -> dict[str, str]:
    found = condition(
        head,
        now=head.snapshot + later,
        usual=DAY,
        captured=head,
        counted=None,
        records=records,
        unreadable=0,
    )
    return {check.name: check.verdict for check in found}


def test_lengths_are_written_in_a_unit_that_tells() -> None:
    said = [spoken(timedelta(seconds=seconds)) for seconds in (-5, 1, 119, 120, 7199, 7200, 172_799, 172_800, 10**9)]

    assert ["0 seconds", "1 second", "119 seconds", "2 minutes", "119 minutes", "2 hours", "47 hours", "2 days",
            "11,574 days"] == said  # fmt: skip
