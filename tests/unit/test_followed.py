"""What `follow` says to people: each thing once, a summary now and then."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from zbackup.archive.manifest import Totals
from zbackup.cli import followed
from zbackup.cli.followed import MOST_SAID, Said, Telling
from zbackup.cli.render import Output
from zbackup.errors import SourceError, StoreUnreachable
from zbackup.follow import SMALL_TAIL, FollowOptions, interval
from zbackup.outcome import Outcome
from zbackup.progress import Warned
from zbackup.source import Blocker
from zbackup.stop import Stop

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)

QUIET = Outcome(
    time=NOW, number=1, outcome="unchanged", thorough=False, seconds=0.01, result=None, error=None, ends=False,
    failures=0, failing_since=None, last_success=NOW, last_failure=None, oldest=NOW, final=NOW, newest=NOW,
    confirmed=NOW, audited=NOW, horizon_age=10, blockers=(), tail=0, tail_bytes=0, interval=10, pause=10,
)  # fmt: skip


def failed(port: int, number: int = 1) -> Outcome:
    error = SourceError(f"source port={port}: connection refused", hint="Start it.")
    return replace(QUIET, outcome="failed", error=error, failures=number, failing_since=NOW, pause=1.5)


@pytest.fixture
def told() -> tuple[Telling, io.StringIO]:
    err = io.StringIO()
    return Telling(Output(io.StringIO(), err), FollowOptions()), err


def test_an_error_is_said_once_and_its_end_too(told: tuple[Telling, io.StringIO]) -> None:
    """
    Others like it are counted, one that is different is said; of looks without news there is no word.
    """
    telling, err = told
    for outcome in (QUIET, failed(5432), failed(5433, 2), failed(5432, 3)):
        telling.tell(outcome)
    other = StoreUnreachable("s3://x: no answer")
    telling.tell(replace(failed(1, 4), error=other))
    telling.tell(replace(QUIET, time=NOW + timedelta(seconds=90)))
    telling.tell(QUIET)

    lines = err.getvalue().splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "failed (exit code 10)",
        "  Start it.",
        "failed (exit code 20)",
        "back to normal after 1",
    ]
    assert lines[-1] == "back to normal after 1:30 min and 4 failed tries"
    assert "  looks           7: 3 unchanged, 4 failed" in telling.lines()


def test_the_interval_is_said_when_it_changes(told: tuple[Telling, io.StringIO]) -> None:
    """
    With the tail that is to blame, and the transaction.
    """
    telling, err = told
    blocker = Blocker("backend", 42, "zitadel", "report", NOW - timedelta(hours=1), "idle in transaction")
    rarer = replace(QUIET, interval=120, tail=5000, tail_bytes=8 << 20, horizon_age=3600, blockers=(blocker,))
    for outcome in (QUIET, rarer, rarer, replace(rarer, interval=130), QUIET, QUIET):
        telling.tell(outcome)

    lines = err.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("increments come every 2:00 min or later from now on")
    assert "5,000 events, 8.0 MiB" in lines[0]
    assert "held back by backend zitadel report (pid 42) since 2026-11-26T11:00:00" in lines[0]
    assert lines[1] == "increments come every 10.0 s again"


def test_a_summary_each_minute(told: tuple[Telling, io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It counts since the last one, and names what holds the horizon back for long.
    """
    telling, err = told
    telling.tell(QUIET)
    monkeypatch.setattr(followed, "SUMMARY_SECONDS", 0.0)
    telling.tell(replace(QUIET, horizon_age=3600, blockers=(Blocker("backend", 42, "z", "app", NOW, ""),)))
    telling.tell(failed(1, 7))
    lines = [line for line in err.getvalue().splitlines() if line.startswith("2026-")]

    assert lines[0].startswith("2026-11-26T12:00:00.000000Z: 2 unchanged; 0 events sealed, 0 B stored; archived up to ")
    assert "the horizon is 1:00:00 old, held back by backend z app (pid 42)" in lines[0]
    assert ": 1 failed; " in lines[1]
    assert lines[1].endswith("7 failed tries: source port=1: connection refused")


def test_what_was_said_is_bounded() -> None:
    """
    A text that differs in numbers alone is the same, for an hour; and nobody can fill the memory.
    """
    said = Said()

    assert said.is_new("chunk 12ab of 7", 0)
    assert not said.is_new("chunk 99 of 8", 10)
    assert said.is_new("chunk 99 of 8", 4000)
    words = ["".join(chr(ord("g") + int(digit)) for digit in str(number)) for number in range(2 * MOST_SAID)]
    assert all(said.is_new(word, 5000) for word in words)
    assert not said.is_new(words[-1], 5001)
    assert said.is_new(words[0], 5001)


def test_warnings_are_said_once(told: tuple[Telling, io.StringIO]) -> None:
    telling, err = told
    for pid in (1, 2):
        telling.heard(Warned(f"process {pid} is slow", "Wait."))

    assert err.getvalue() == "warning: process 1 is slow\n  Wait.\n"


@pytest.mark.parametrize(
    ("raw", "stored", "seconds", "wanted"),
    [
        (0, 0, 0.1, 10),
        (SMALL_TAIL - 1, SMALL_TAIL, 60.0, 10),
        (SMALL_TAIL, 1 << 10, 0.5, 10),
        (SMALL_TAIL, 1 << 10, 3.0, 30),
        (100 << 20, 10 << 20, 3.0, 160),
        (100 << 30, 10 << 30, 900.0, 3600),
    ],
)
def test_tails_get_a_share_of_time_and_bytes(raw: int, stored: int, seconds: float, wanted: float) -> None:
    """
    A tenth of the time, 64 KiB a second, and none that is small counts; a thorough increment is the bound.
    """
    assert interval(FollowOptions(), Totals(1, raw, stored, 1), seconds) == wanted


def test_an_interval_is_never_shorter_than_asked_for() -> None:
    options: Any = FollowOptions(every=timedelta(hours=2))

    assert interval(options, Totals(1, 100 << 30, 10 << 30, 1), 900) == 7200


def test_whoever_waits_is_woken() -> None:
    """
    What was asked before counts, and no wait is too short.
    """
    stop = Stop()

    assert not stop.wait(-1)
    assert not stop.wait(0.01)
    stop.ask()
    assert stop.wait(3600)
    assert stop.wait(3600)
