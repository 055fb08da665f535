"""An instant at random: of the window, of all of it, and never one whose rows are gone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.archived import Maker
from tests.unit.rows import EPOCH, history
from zbackup.anytime import plan_any
from zbackup.errors import OutsideWindow
from zbackup.moment import Instant
from zbackup.plan import resolve
from zbackup.store.local import LocalStore

HOUR = timedelta(hours=1)

# By chance none of so many lies in a given quarter: 0.75 ^ 80, less than one in a thousand million.
DRAWS = 80


def test_every_part_of_the_window_comes_up(tmp_path: Path) -> None:
    """
    From the first event to the newest recovery point, and nothing beyond; each means the same with --at.
    """
    maker = Maker.at(tmp_path)
    maker.backup(history(11, step=HOUR), horizon=EPOCH + 10 * HOUR, snapshot=EPOCH + 12 * HOUR)

    plans = [plan_any(maker.archive, None) for _ in range(DRAWS)]

    drawn = [plan.cut_at for plan in plans]
    assert all(EPOCH <= at <= EPOCH + 12 * HOUR for at in drawn)
    assert {(at - EPOCH) // (3 * HOUR) for at in drawn} >= {0, 1, 2, 3}
    assert len(set(drawn)) == DRAWS
    again = resolve(maker.archive, Instant(drawn[0], plans[0].point))
    assert again == plans[0]


def test_instants_whose_rows_are_gone_do_not_come_up(tmp_path: Path) -> None:
    """
    Where a prune was told to forget what an amendment found changed, the rest of the window is left.
    """
    maker = Maker.at(tmp_path)
    rows = history(11, step=HOUR)
    first = maker.backup(rows[:6], horizon=EPOCH + 6 * HOUR, snapshot=EPOCH + 6 * HOUR)
    forgotten = maker.last
    maker.backup(rows[1:], horizon=EPOCH + 11 * HOUR, snapshot=EPOCH + 12 * HOUR, removed=1)
    store = maker.archive.store
    assert isinstance(store, LocalStore)
    store.delete(str(forgotten))
    assert first.horizon.at is not None

    drawn = [plan_any(maker.archive, None).cut_at for _ in range(DRAWS)]

    assert min(drawn) >= first.horizon.at


def test_an_archive_without_events_has_no_window(tmp_path: Path) -> None:
    maker = Maker.at(tmp_path)
    with pytest.raises(OutsideWindow, match="holds no events"):
        plan_any(maker.archive, None)
    maker.backup([], horizon=EPOCH, snapshot=EPOCH)

    with pytest.raises(OutsideWindow, match="holds no events"):
        plan_any(maker.archive, None)


def test_a_generation_has_a_window_of_its_own(tmp_path: Path) -> None:
    maker = Maker.at(tmp_path)
    maker.backup(history(3, step=HOUR), horizon=EPOCH + 3 * HOUR, snapshot=EPOCH + 3 * HOUR)
    other = replace(maker, generation="00000002", last=None)
    other.backup(history(3, start=EPOCH + 99 * HOUR), horizon=EPOCH + 100 * HOUR, snapshot=EPOCH + 100 * HOUR)

    assert plan_any(maker.archive, None).cut_at > EPOCH + 90 * HOUR
    assert plan_any(maker.archive, "00000001").cut_at <= EPOCH + 3 * HOUR
