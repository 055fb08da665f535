"""
Increments every few seconds, in one process, until it is told to stop.

Each tick asks the source whether it has anything that the newest backup has not (`pulse`); only then an increment is
made, like any `backup` of the same archive, under a lease of its own. Captures, and counting more than the newest
ranges, come with the first increment and then once an hour: those are called full here.

An error is tried again after a pause that doubles. What no time heals ends it: at once as long as nothing has
succeeded, and later when nothing else came for some minutes, for a failover may look like a foreign server.

A long transaction keeps the horizon back, and each increment writes all that is above it again. As soon as that takes
more than a tenth of the time, or many bytes, increments become rarer; ticks do not, so the end of that transaction is
seen at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from zbackup import lease
from zbackup.archive.archive import Archive, entry_of
from zbackup.archive.log import totals_of
from zbackup.archive.manifest import Totals
from zbackup.attempt import BackupOptions, Rewritten
from zbackup.backup import BackupResult, Made, increment
from zbackup.counting import oldest
from zbackup.database.connection import source_errors
from zbackup.database.kept import Sessions
from zbackup.errors import (
    ArchiveError,
    Busy,
    CommitUnknown,
    Interrupted,
    NotSupported,
    ObjectMissing,
    Overtaken,
    SourceRefused,
    StoreFull,
    UsageError,
    ZbackupError,
)
from zbackup.outcome import Kind, Outcome
from zbackup.plan import first_instant
from zbackup.progress import Report, silent
from zbackup.pulse import Pulse, feel
from zbackup.stop import Stop
from zbackup.store.base import Store

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""
Seconds after an error; each is twice the one before. Half of it is random, so that those who were turned away together
come back apart.
"""

TAIL_SHARE = 0.1
"""Of the time: no more goes into writing tails again."""

TAIL_BYTES = 64 << 10
"""Stored bytes a second: no more go into them."""

SMALL_TAIL = 1 << 20
"""Raw bytes; it costs no more than one without rows."""

KEEP = timedelta(minutes=1)
"""How long a session is used: see kept.py."""

CAPTURE_AGAIN = timedelta(minutes=5)
"""After a thorough increment that failed, light ones go on for so long, lest events wait for a table."""

_HOPELESS = (UsageError, NotSupported, SourceRefused, ArchiveError)
"""What no time heals."""

_PASSING = (Busy, Overtaken, CommitUnknown, ObjectMissing, Rewritten, StoreFull)
"""What another attempt may find otherwise, whatever their `retry` says."""


@dataclass(frozen=True, slots=True)
class FollowOptions:
    every: timedelta = timedelta(seconds=10)
    """between the beginnings of two ticks"""
    capture_every: timedelta = timedelta(hours=1)
    """from one thorough increment to the next; no interval becomes longer"""
    count: int | None = None
    """end after so many ticks"""
    duration: timedelta | None = None
    """end after so long"""
    patience: timedelta = timedelta(minutes=5)
    """with errors that no time heals, where before all was well"""


def follow(
    store: Store,
    source: str,
    options: BackupOptions,
    following: FollowOptions,
    *,
    fence: str | None = None,
    wait: timedelta = timedelta(0),
    stop: Stop,
    on_outcome: Callable[[Outcome], None],
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
    report: Report = silent,
) -> Outcome:
    """
    Go on until stopped, or as long as `following` says; return the last outcome.

    `on_outcome` is called after each tick, in this thread; what it raises ends all. Both happen in a context that
    `around` makes.

    Raises whatever error no time heals, after its outcome was told; what is no error of ours at once.
    """
    sessions = Sessions(source, keep=KEEP), None if fence is None else Sessions(fence, keep=KEEP)
    follower = _Follower(store, *sessions, options, following, wait, report)
    end = None if following.duration is None else time.monotonic() + following.duration.total_seconds()
    try:
        while True:
            with around():
                outcome = follower.tick()
                on_outcome(outcome)
            if outcome.error is not None and outcome.ends:
                raise outcome.error
            left = outcome.pause if end is None else min(outcome.pause, end - time.monotonic())
            if outcome.number == following.count or stop.wait(left) or (end is not None and time.monotonic() >= end):
                return outcome
    finally:
        follower.close()


@dataclass(slots=True)
class _Follower:
    """What is known from tick to tick."""

    store: Store
    source: Sessions
    fence: Sessions | None
    options: BackupOptions
    following: FollowOptions
    wait: timedelta
    report: Report
    archive: Archive | None = None
    made: Made | None = None
    """the newest backup of this process"""
    name: str = ""
    """of its manifest"""
    oldest: tuple[str, datetime | None] = ("", None)
    """the first event, of which generation"""
    pulse: Pulse | None = None
    """the last one felt, unless a backup was made since"""
    number: int = 0
    interval: float = 0
    due: float = 0
    """when the next increment is, if anything is new; as all of these by the monotonic clock"""
    thorough_due: float = 0
    confirmed: datetime | None = None
    failures: int = 0
    hopeless_since: float | None = None
    """the first of the last failures that all were errors that no time heals"""
    failing_since: datetime | None = None
    last_success: datetime | None = None
    last_failure: datetime | None = None

    def tick(self) -> Outcome:
        begun = time.monotonic()
        self.number += 1
        thorough = begun >= self.thorough_due
        result, error = None, None
        try:
            kind: Kind = self._look(begun, thorough=thorough)
            if kind == "committed":
                result = self._back_up(begun, thorough=thorough)
        except Interrupted:
            raise
        except ZbackupError as failure:
            kind, error = "failed", failure
            self._failed(failure, thorough=thorough)
        else:
            self.failures, self.failing_since, self.hopeless_since = 0, None, None
            if kind != "postponed":
                self.last_success = datetime.now(UTC)
        seconds = time.monotonic() - begun
        every = self.following.every.total_seconds()
        # Others want their turn, and the source its rest, where increments take as long as the time between them.
        pause = self._pause(error) if error else max(every - seconds, min(seconds, every))
        return self._outcome(
            kind, thorough=thorough and result is not None, seconds=seconds, pause=pause, result=result, error=error
        )

    def _ends(self, error: ZbackupError) -> bool:
        """Tell whether an error, that of the last tick, ends it."""
        if self.last_success is None:
            return not error.retry and not isinstance(error, _PASSING)
        since = self.hopeless_since
        return since is not None and time.monotonic() - since >= self.following.patience.total_seconds()

    def close(self) -> None:
        self.source.close()
        if self.fence is not None:
            self.fence.close()

    def _look(self, now: float, *, thorough: bool) -> Kind:
        """Decide what to do: an increment (`committed`), or none."""
        if self.made is None or self.store.stat(self.name) is None:
            self._open()
            return "committed"
        if thorough:
            return "committed"
        with (
            source_errors(self.source.dsn),
            self.source.borrow(self.options.lock_timeout) as control,
            self.fence.borrow() if self.fence else nullcontext() as primary,
        ):
            self.pulse = feel(self.made, control, self.source, primary, self.options)
        if not self.pulse.new:
            if self.pulse.counted:
                self.confirmed = self.pulse.clock
            return "unchanged"
        return "committed" if now >= self.due or self.pulse.clears else "postponed"

    def _open(self) -> None:
        """Open the archive, for the first time or because the newest backup is not there any more."""
        found = Archive.open(self.store)
        if self.archive is not None and found.record.archive != self.archive.record.archive:
            raise ArchiveError(
                f"{self.store.address} was archive {self.archive.record.archive} and is {found.record.archive} now",
                hint="Somebody put another one in its place. Bring the first one back, or start `zbackup follow` anew.",
            )
        self.archive = self.archive or found

    def _back_up(self, begun: float, *, thorough: bool) -> BackupResult:
        assert self.archive is not None
        options = self.options
        if not thorough:
            options = replace(options, capture=False, audit_budget=timedelta(0), audit_recent=timedelta(0))
        with lease.hold(self.archive, "follow", wait=self.wait, report=self.report):
            made = increment(self.archive, self.source, options, fence=self.fence, report=self.report)
        self.made, self.name, self.pulse = made, str(entry_of(made.manifest)), None
        self.confirmed = made.manifest.snapshot
        if self.oldest[0] != made.manifest.generation or self.oldest[1] is None:
            self.oldest = made.manifest.generation, first_instant(self.archive, made.manifest)
        if thorough:
            self.thorough_due = time.monotonic() + self.following.capture_every.total_seconds()
        elif made.result.kind == "full":
            self.thorough_due = 0  # another generation, and nothing is captured of it yet
        self.interval = interval(self.following, totals_of(made.manifest.tail), made.tail_seconds)
        self.due = begun + self.interval
        return made.result

    def _failed(self, error: ZbackupError, *, thorough: bool) -> None:
        self.source.close()
        if self.fence is not None:
            self.fence.close()
        self.failures += 1
        now = time.monotonic()
        self.hopeless_since = (self.hopeless_since or now) if isinstance(error, _HOPELESS) else None
        if thorough and self.made is not None:
            self.thorough_due = now + min(CAPTURE_AGAIN, self.following.capture_every).total_seconds()
        self.last_failure = datetime.now(UTC)
        self.failing_since = self.failing_since or self.last_failure

    def _pause(self, error: ZbackupError) -> float:
        every = self.following.every.total_seconds()
        growing = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self.failures - 1, 16))
        # Nothing is broken where another run is at work: it will be done soon.
        pause = every if isinstance(error, Busy) else growing
        return pause * random.uniform(0.5, 1)  # noqa: S311  jitter, not a secret

    def _outcome(
        self,
        kind: Kind,
        *,
        thorough: bool,
        seconds: float,
        pause: float,
        result: BackupResult | None,
        error: ZbackupError | None,
    ) -> Outcome:
        manifest = self.made.manifest if self.made else None
        tail = totals_of(manifest.tail if manifest else ())
        longest_ago = oldest(manifest.counted) if manifest else None
        horizon = self.pulse.horizon if self.pulse else manifest.horizon if manifest else None
        age = None if horizon is None or horizon.at is None else (horizon.clock - horizon.at).total_seconds()
        return Outcome(
            time=datetime.now(UTC),
            number=self.number,
            outcome=kind,
            thorough=thorough,
            seconds=seconds,
            result=result,
            error=error,
            ends=error is not None and self._ends(error),
            failures=self.failures,
            failing_since=self.failing_since,
            last_success=self.last_success,
            last_failure=self.last_failure,
            oldest=self.oldest[1],
            final=manifest.horizon.at if manifest else None,
            newest=manifest.snapshot if manifest else None,
            confirmed=self.confirmed,
            audited=longest_ago.at if longest_ago else None,
            horizon_age=age,
            blockers=horizon.blockers if horizon else (),
            tail=tail.rows,
            tail_bytes=tail.stored_bytes,
            interval=self.interval or self.following.every.total_seconds(),
            pause=pause,
        )


def interval(following: FollowOptions, tail: Totals, seconds: float) -> float:
    """Return the seconds between two increments that keep tails, such as one that took so long, within their share."""
    every = following.every.total_seconds()
    if tail.raw_bytes < SMALL_TAIL:
        return every
    wanted = max(every, seconds / TAIL_SHARE, tail.stored_bytes / TAIL_BYTES)
    return min(wanted, max(every, following.capture_every.total_seconds()))
