"""What `follow` says while it goes on: an error once, a summary each minute, in JSON every look."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from zbackup.cli.records import Record, error_record, plain
from zbackup.cli.render import Meter
from zbackup.cli.texts import blocker_text, count, duration, many, pairs, size, when
from zbackup.database.failures import shown
from zbackup.measure import of_outcome
from zbackup.progress import Advance, Step, Warned
from zbackup.serve_metrics import serve

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from zbackup.cli.job import Job
    from zbackup.cli.render import Output
    from zbackup.follow import FollowOptions
    from zbackup.observe import Run
    from zbackup.outcome import Outcome
    from zbackup.progress import Progress
    from zbackup.stop import Stop

SUMMARY_SECONDS = 60.0

# The same is not said again before.
AGAIN_SECONDS = 3600.0

# Remembered texts: whoever says so many different ones is not made quiet by more.
MOST_SAID = 200

# Worth a word in a summary: usual transactions are shorter.
OLD_HORIZON = 60.0

_NUMBERS = re.compile(r"[0-9a-f]*[0-9][0-9a-f]*")


class Said:
    """What was said lately. Texts that differ in numbers and digests alone are the same."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def is_new(self, text: str, now: float) -> bool:
        """Tell whether to say it, and take it for said."""
        key = _NUMBERS.sub("#", text)
        before = self._at.get(key)
        if before is not None and now - before < AGAIN_SECONDS:
            return False
        if len(self._at) >= MOST_SAID:
            del self._at[min(self._at, key=lambda one: self._at[one])]
        self._at[key] = now
        return True


class Telling:
    """One follow as people and programs see it. `heard` may be called by several threads, the rest by one."""

    def __init__(self, output: Output, following: FollowOptions) -> None:
        self._output, self._following = output, following
        self._said = Said()
        self._begun = self._told = time.monotonic()
        self._meter = Meter("", self._begun)
        self._last: Outcome | None = None
        self._trouble_told = False
        self._rarer = False
        self._counts = {"committed": 0, "unchanged": 0, "postponed": 0, "failed": 0}
        self._minute = dict(self._counts)
        self._events = self._stored = self._minute_events = self._minute_stored = 0
        self.not_captured: tuple[str, ...] = ()
        """what the last capture lacked"""

    def begin(self, dsn: str, address: str, metrics: str | None) -> None:
        every, captures = self._following.every, self._following.capture_every
        self._output.tell(
            f"following {shown(dsn)} into {address}: a look every {duration(every.total_seconds())}, "
            f"captures and counts every {duration(captures.total_seconds())}"
            + (f"; metrics at http://{metrics}/metrics" if metrics else "")
        )

    def heard(self, progress: Progress) -> None:
        """Pass warnings on; of other progress a line a minute (progress.Report)."""
        self._output.expect_wanted()
        match progress:
            case Warned(message, hint):
                if self._said.is_new(message, time.monotonic()):
                    line = f"warning: {message}" + (f"\n  {hint}" if hint else "")
                    self._output.note("warning", plain(progress), line)
            case Step(name):
                self._meter = Meter(name, time.monotonic())
            case Advance():
                self._meter.add(progress)
                if (now := time.monotonic()) - self._told >= SUMMARY_SECONDS:
                    self._told = now
                    self._output.tell(f"{self._meter.step}: {self._meter.text(now)}")
            case _:
                pass

    def tell(self, outcome: Outcome) -> None:
        """Tell what came of a look (follow's `on_outcome`)."""
        now = time.monotonic()
        self._output.note("increment", increment_record(outcome))
        for counts in (self._counts, self._minute):
            counts[outcome.outcome] += 1
        if outcome.result is not None:
            self._events += outcome.result.events
            self._stored += outcome.result.stored_bytes
            self._minute_events += outcome.result.events
            self._minute_stored += outcome.result.stored_bytes
            if outcome.thorough:
                self.not_captured = outcome.result.not_captured
        self._tell_trouble(outcome, now)
        self._tell_interval(outcome)
        self._last = outcome
        if now - self._told >= SUMMARY_SECONDS:
            self._output.tell(self._summary(outcome))
            self._told = now
            self._minute = dict.fromkeys(self._minute, 0)
            self._minute_events = self._minute_stored = 0

    def record(self) -> Record:
        """Return the result: what was done in all, and how things stand."""
        last = self._last
        return {
            **self._counts,
            "events": self._events,
            "stored_bytes": self._stored,
            "seconds": time.monotonic() - self._begun,
            "newest": plain(last.newest) if last else None,
            "confirmed": plain(last.confirmed) if last else None,
            "not_captured": list(self.not_captured),
        }

    def lines(self) -> Iterator[str]:
        counts, last = self._counts, self._last
        yield f"followed for {duration(time.monotonic() - self._begun)}"
        said = {
            "looks": f"{count(sum(counts.values()))}: {_kinds(counts)}",
            "sealed": many(self._events, "event"),
            "stored": size(self._stored),
            "recovery point": when(last.newest if last else None),
            "archived up to": when(last.confirmed if last else None),
        }
        yield from pairs(said.items())

    def _tell_trouble(self, outcome: Outcome, now: float) -> None:
        error, last = outcome.error, self._last
        if error is not None:
            if not outcome.ends and self._said.is_new(error.message, now):
                self._trouble_told = True
                again = f"trying again in {outcome.pause:.1f} s" + (f"\n  {error.hint}" if error.hint else "")
                self._output.tell(f"failed (exit code {error.exit_code}): {error.message}; {again}")
        elif last is not None and last.error is not None and self._trouble_told:
            self._trouble_told = False
            lasted = (outcome.time - last.failing_since).total_seconds() if last.failing_since else 0
            self._output.tell(f"back to normal after {duration(lasted)} and {_tries(last.failures)}")

    def _tell_interval(self, outcome: Outcome) -> None:
        rarer = outcome.interval > self._following.every.total_seconds()
        if rarer and not self._rarer:
            self._output.tell(
                f"increments come every {duration(outcome.interval)} or later from now on: each writes the tail of "
                f"{many(outcome.tail, 'event')}, {size(outcome.tail_bytes)}, again; {_holding(outcome)}"
            )
        elif self._rarer and not rarer:
            self._output.tell(f"increments come every {duration(outcome.interval)} again")
        self._rarer = rarer

    def _summary(self, outcome: Outcome) -> str:
        parts = [
            f"{when(outcome.time)}: {_kinds(self._minute) or 'nothing'}",
            f"{many(self._minute_events, 'event')} sealed, {size(self._minute_stored)} stored",
            f"archived up to {when(outcome.confirmed)}",
        ]
        if outcome.horizon_age is not None and outcome.horizon_age >= OLD_HORIZON:
            parts.append(_holding(outcome))
        if outcome.error is not None:
            parts.append(
                f"failing since {when(outcome.failing_since)}, {_tries(outcome.failures)}: {outcome.error.message}"
            )
        return "; ".join(parts)


class Measuring:
    """Each look as a run of its own in metrics and traces."""

    def __init__(self, job: Job, stop: Stop) -> None:
        self._job, self._stop = job, stop
        self._run: Run | None = None

    def serve(self, listen: str | None) -> str | None:
        """Show metrics over HTTP until the command ends; return where. Raises UsageError."""
        if listen is None:
            return None
        return self._job.enter(serve(listen, self._job.observer.board))

    @contextmanager
    def tick(self) -> Generator[None]:
        with self._job.observed() as self._run:
            try:
                yield
            except BaseException:
                # A look that was ended because all is to end did not fail.
                self._run.counts = not self._stop.asked
                raise

    def take(self, outcome: Outcome) -> None:
        assert self._run is not None
        self._run.add(of_outcome(outcome))
        self._run.done(outcome.error)


def increment_record(outcome: Outcome) -> Record:
    """Write an outcome as JSON has it: flat, its backup by the figures that change from look to look."""
    result, error = outcome.result, outcome.error
    return {
        **{name: value for name, value in plain(outcome).items() if name not in {"result", "error"}},
        "backup": result.backup if result else None,
        "generation": result.generation if result else None,
        "events": result.events if result else 0,
        "amended": result.amended if result else 0,
        "raw_bytes": result.raw_bytes if result else 0,
        "stored_bytes": result.stored_bytes if result else 0,
        "warnings": list(result.warnings) if result else [],
        "not_captured": list(result.not_captured) if result else [],
        "error": _failure(error_record(error)) if error else None,
    }


def _failure(record: Record) -> Record:
    return {name: value for name, value in record.items() if name != "type"}


def _tries(number: int) -> str:
    return f"{count(number)} failed {'try' if number == 1 else 'tries'}"


def _kinds(counts: dict[str, int]) -> str:
    return ", ".join(f"{count(number)} {kind}" for kind, number in counts.items() if number)


def _holding(outcome: Outcome) -> str:
    age = "unknown" if outcome.horizon_age is None else duration(outcome.horizon_age)
    who = f", {blocker_text(outcome.blockers[0])}" if outcome.blockers else ""
    return f"the horizon is {age} old{who}"
