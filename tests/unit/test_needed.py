"""Which backups a prune keeps: for any archive, everything that somebody may still ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.archived import manifest_of
from zbackup.archive.archive import name_of
from zbackup.archive.catalog import Catalog
from zbackup.archive.manifest import Amendment, CaptureRef, Log, Manifest
from zbackup.archive.names import BackupName, backup_id, capture_record
from zbackup.archive.needed import KeepCaptures, Rules, identity, is_lossy, missing_parents, needed
from zbackup.errors import UsageError

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
CAPTURE = CaptureRef(capture_record("0" * 64), "0" * 64, 1, 9, 1, 1, 1, 1, schema=True)

Backups = dict[BackupName, Manifest]


def make(
    backups: Backups,
    day: float,
    parent: BackupName | None,
    *,
    generation: str = "00000001",
    captured: bool = True,
    changed: int = 0,
    added: int = 0,
) -> BackupName:
    """Add a backup made on a day that continues another one; `changed` and `added` rows are its amendment's."""
    at = START + DAY * day
    ident = backup_id(at, f"{len(backups):08x}")
    found = backups[parent].amendments if parent else ()
    if changed or added:
        assert parent
        found += (Amendment(ident, at, START - DAY, parent.horizon or START, added, 0, changed, ()),)
    number = max((entry.number for entry in backups), default=0) + 1 if parent is None else parent.number + 1
    made = replace(
        manifest_of(ident, number, at - DAY / 24, at, Log(), (), str(parent) if parent else None),
        generation=generation,
        amendments=found,
        capture=CAPTURE if captured else None,
    )
    entry = name_of(made, "0" * 64)
    backups[entry] = made
    return entry


@st.composite
def archives(draw: st.DrawFn) -> Backups:
    """Generations of backups, some raced, some with amendments, about one a day."""
    backups: Backups = {}
    day = 0.0
    for number in range(draw(st.integers(1, 3))):
        head: BackupName | None = None
        generation = f"{number + 1:08x}"
        for _ in range(draw(st.integers(1, 12))):
            day += draw(st.sampled_from((0.1, 1, 1, 9)))
            changed, added = draw(st.sampled_from(((0, 0), (0, 0), (0, 2), (3, 0)))) if head else (0, 0)
            captured = draw(st.booleans())
            made = make(backups, day, head, generation=generation, captured=captured, changed=changed, added=added)
            if head is not None and draw(st.integers(0, 4)) == 0:
                # It came second and was later still, or the other way round.
                other = make(backups, day + 0.01, head, generation=generation, captured=captured)
                made = draw(st.sampled_from((made, other)))
                made = max(made, other, key=lambda entry: (entry.number, entry.horizon, entry.snapshot, entry.backup))
            head = made
    return backups


def catalog_of(backups: Mapping[BackupName, Manifest]) -> Catalog:
    return Catalog.of(map(str, backups))


def later_changes(backups: Mapping[BackupName, Manifest], entry: BackupName) -> set[object]:
    return {identity(found) for found in backups[entry].amendments if is_lossy(found)}


rules_ = st.builds(
    Rules,
    window=st.integers(0, 40).map(lambda days: DAY * days),
    captures=st.sampled_from(("0", "1", "3", "2,2w", "1,2d,1m", "7,4w,12m")).map(KeepCaptures.parse),
)


@given(archives(), rules_, st.integers(0, 40))
def test_what_is_asked_for_is_kept(backups: Backups, rules: Rules, later: int) -> None:
    """
    For any archive and rules: the heads stay, what was the newest in the window, the newest capture of each line, and
    for each instant a backup that knows of no change that the one which answered did not know.
    """
    catalog = catalog_of(backups)
    now = max(entry.snapshot for entry in backups) + DAY * later

    found = needed(catalog, backups, rules, now, covered=())

    left = {entry: manifest for entry, manifest in backups.items() if entry in found.kept}
    after = catalog_of(left)
    assert found.kept.keys() | found.gone.keys() == backups.keys()
    assert not found.kept.keys() & found.gone.keys()
    assert found.lost == ()
    assert {entry for entry in backups if entry.snapshot >= now - rules.window} <= found.kept.keys()
    assert after.heads() == catalog.heads()
    for head in catalog.heads():
        line = tuple(catalog.line(head))
        assert tuple(after.line(head)) == tuple(entry for entry in line if entry in left)
        captured = [entry for entry in line if backups[entry].capture]
        assert set(captured[:1]) <= found.kept.keys()
        older = [entry for entry in line if entry.snapshot < now - rules.window]
        assert head.snapshot < now - rules.window or set(older[:1]) <= found.kept.keys()
        for at in {instant for entry in line for instant in (entry.horizon, entry.snapshot) if instant}:
            before, since = catalog.answering(head, at), after.answering(head, at)
            assert before is not None
            assert since is not None
            assert before[1] == since[1]
            assert later_changes(backups, before[0]) == later_changes(backups, since[0])
    assert not list(missing_parents(after, {e: m.parent for e, m in left.items()}, now - rules.window))


@given(archives(), rules_)
def test_nothing_is_decided_twice(backups: Backups, rules: Rules) -> None:
    """
    What is left of an archive is kept for the same reasons: a prune that follows another finds nothing new.
    """
    now = max(entry.snapshot for entry in backups) + DAY
    once = needed(catalog_of(backups), backups, rules, now, covered=())
    left = {entry: manifest for entry, manifest in backups.items() if entry in once.kept}

    assert needed(catalog_of(left), left, rules, now, covered=()).gone == {}


def test_captures_by_age() -> None:
    """
    The newest, then one a week, then one a month, each rule from where the one before ended.
    """
    entries: Backups = {}
    parent = None
    for day in range(100):
        parent = make(entries, day, parent)

    chosen = [entry for entry, _ in KeepCaptures.parse("3,2w,2m").choose(reversed(list(entries)))]

    # 2026-04-10, a Friday, is day 99; its week and March have days left after the newest three.
    assert sorted({(entry.snapshot - START).days for entry in chosen}) == [58, 87, 94, 96, 97, 98, 99]


@pytest.mark.parametrize("text", ["", "x", "7,", "7,4h", "-1", "7;4w", "7,4 w"])
def test_what_does_not_say_how_many(text: str) -> None:
    with pytest.raises(UsageError, match="does not say how many"):
        KeepCaptures.parse(text)


def test_the_newest_capture_always_stays() -> None:
    """
    Also where none is asked for, and where newer backups have none.
    """
    backups: Backups = {}
    first = make(backups, 0, None)
    make(backups, 90, make(backups, 1, first, captured=False), captured=False)

    found = needed(catalog_of(backups), backups, Rules(timedelta(0), KeepCaptures.parse("0")), START + DAY * 91, ())

    assert found.kept[first] == "its capture is the newest"
    assert len(found.gone) == 1


def test_rows_that_an_amendment_changed_stay_until_told() -> None:
    """
    The last backup before it stays, and with --forget-amended it goes and the amendment is named as lost.
    """
    backups: Backups = {}
    first = make(backups, 0, None, captured=False)
    before = make(backups, 1, first, captured=False)
    amending = make(backups, 2, before, captured=False, changed=1)
    make(backups, 3, amending, captured=False, added=5)
    rules, now = Rules(timedelta(0)), START + DAY * 50

    kept = needed(catalog_of(backups), backups, rules, now, ())
    told = needed(catalog_of(backups), backups, replace(rules, forget_amended=True), now, ())

    assert set(kept.gone) == {first}
    assert set(told.gone) == {first, before}
    assert [(found.backup, found.until) for found in told.lost] == [(amending.backup, before.horizon)]


def test_a_dead_generation_stays_until_told() -> None:
    """
    Its newest backup and its newest capture; told, all of it goes, but not before the window has passed, and the
    newest generation never does.
    """
    backups: Backups = {}
    dead = make(backups, 1, make(backups, 0, None, captured=False), captured=False)
    alive = make(backups, 2, None, generation="00000002")
    catalog, now = catalog_of(backups), START + DAY * 30
    forget = frozenset({"00000001", "00000002"})

    assert dead in needed(catalog, backups, Rules(timedelta(0)), now, ()).kept
    assert dead in needed(catalog, backups, Rules(DAY * 40, forget=forget), now, ()).kept
    assert set(needed(catalog, backups, Rules(timedelta(0), forget=forget), now, ()).kept) == {alive}
    assert set(needed(catalog, backups, Rules(timedelta(0)), now, {"00000001"}).kept) == {alive}
