"""When a session is struck off a watch, and what it leaves behind."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from zbackup.database.sessions import SIGHTINGS, Session, Watch
from zbackup.source import Pending

CLOCK = datetime(2026, 1, 1, 12, tzinfo=UTC)
BEFORE, AFTER = CLOCK - timedelta(seconds=1), CLOCK + timedelta(seconds=1)

IDLE = Session(7, "zitadel", "zitadel", "idle", BEFORE, "none", None, locked=False)
OPEN = replace(IDLE, state="active", transaction="open", since=BEFORE, locked=True)
HIDDEN = replace(IDLE, state=None, born=None, transaction="unknown")


def watch(*looks: Session | None) -> Watch:
    """Watch process 7 over these looks; None: it is gone."""
    watch = Watch(CLOCK, [7])
    for session in looks:
        watch.observe({} if session is None else {7: session})
    return watch


def test_who_is_idle_or_gone_is_struck_off() -> None:
    """
    What an idle or ended session had begun before the clock has ended.
    """
    for last in (IDLE, None, replace(OPEN, since=AFTER)):
        done = watch(OPEN, last)

        assert (done.holding, done.hiding, done.least, done.hidden) == ((), (), CLOCK, False)


def test_who_is_open_holds() -> None:
    """
    An open transaction holds at its oldest clock.
    """
    held = watch(OPEN)

    assert (held.holding, held.hiding, held.least) == ((OPEN,), (), BEFORE)
    assert held.pending() == Pending(CLOCK, (7,))


def test_who_hides_must_be_seen_without_a_transaction_in_a_row() -> None:
    """
    One lock in between starts the count again.
    """
    quiet = [HIDDEN] * (SIGHTINGS - 1)
    locked = replace(HIDDEN, locked=True)

    assert watch(*quiet, locked, *quiet).hiding == (HIDDEN,)
    assert watch(*quiet, locked, *quiet, HIDDEN).hiding == ()
    assert watch(*quiet, IDLE).hiding == ()


def test_who_hides_after_it_was_seen_stays_with_what_it_showed() -> None:
    """
    A session that stops to report inside its transaction holds at the clock it showed.
    """
    disabled = replace(OPEN, state="disabled", transaction="unknown", since=None)
    held = watch(OPEN, *[disabled] * SIGHTINGS)

    assert (held.holding, held.hiding, held.least) == ((OPEN,), (), BEFORE)
    assert watch(OPEN, *[replace(disabled, locked=False)] * SIGHTINGS).holding == ()


def test_who_shows_itself_holds_no_longer_by_its_age() -> None:
    """
    The age of a session bounds its transactions, until one is shown.
    """
    old = CLOCK - timedelta(days=1)
    unknown = replace(IDLE, state="idle in transaction", born=old, transaction="unknown", locked=True)

    assert watch(unknown).least == old
    assert watch(unknown, OPEN).least == BEFORE
    assert watch(replace(unknown, born=None)).least is None


def test_who_is_about_to_begin_is_not_called_hidden() -> None:
    """
    An active session without a transaction is mostly one that begins.
    """
    beginning = replace(IDLE, state="active", transaction="unknown")

    assert not watch(beginning, replace(OPEN, since=AFTER)).hidden
    assert watch(HIDDEN, IDLE).hidden
