"""
One run of a job: a backup, then what proves it, then what it makes superfluous.

A backup that fails ends the run. One that is made, but not whole, is verified still. Nothing is pruned unless all
before went well. The first failure is the run's.

A verification reads a sample until the last full one that found nothing is too old; after any that found something
the next one is full again, so that damage outside a sample is not forgotten. When that was, the newest record of a
verification tells: each carries it on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from zbackup.archive import names, records
from zbackup.archive.archive import Archive
from zbackup.archive.records import Figure, Kind, Record
from zbackup.backup import BackupResult
from zbackup.errors import Interrupted, StoreError, UsageError, ZbackupError
from zbackup.event import instant_text
from zbackup.progress import Report, Step, Warned
from zbackup.prune import PruneResult
from zbackup.verify import Level, VerifyResult

StepName = Literal["backup", "verify", "prune"]
STEPS: tuple[StepName, ...] = ("backup", "verify", "prune")
Depth = Literal["sample", "full", "none"]

# Runs do not begin at the same second each night: a full verification is due by this part of its time early.
EARLY = 24

LAST = 4
"""Records that may be the newest: their names tell the second, and clocks differ."""

FULL_AT = "full_at"
"""Figure of a verification's record: when the last full one began that found nothing, None if one is due."""


AHEAD = timedelta(days=1)
"""A record that began so much later than now was written by a wrong clock."""

SEEN_AHEAD = "seen_ahead"
"""Figure of a verification's record: the newest record of a wrong clock that was there, None if there was none."""


@dataclass(frozen=True, slots=True)
class Work:
    """What the steps do."""

    archive: Callable[[], Archive]
    backup: Callable[[], BackupResult]
    verify: Callable[[Level], VerifyResult]
    prune: Callable[[], PruneResult]


@dataclass(frozen=True, slots=True)
class RunStep:
    name: StepName
    outcome: Literal["done", "failed", "skipped"]
    reason: str
    """of a failure, or why it was skipped; empty when it was done"""
    hint: str
    exit_code: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RunResult:
    job: str | None
    ok: bool
    exit_code: int
    """of the first failure"""
    reason: str
    """of the first failure"""
    started: datetime
    ended: datetime
    steps: tuple[RunStep, ...]
    """those that were reached, in their order"""
    backup: BackupResult | None
    verify: VerifyResult | None
    prune: PruneResult | None
    warnings: tuple[str, ...]
    """of the run itself, beside those of its backup"""


class Run:
    """A run under way; what it has done so far can be asked at any time, also when it was interrupted."""

    def __init__(
        self,
        work: Work,
        *,
        job: str | None,
        verify: Depth,
        full_every: timedelta,
        prune: bool,
        now: Callable[[], datetime],
        report: Report,
    ) -> None:
        self.work, self.job, self.depth, self.full_every, self.pruning = work, job, verify, full_every, prune
        self.now, self.report = now, report
        self.started = now()
        self.steps: list[RunStep] = []
        self.failure: ZbackupError | None = None
        self.backup: BackupResult | None = None
        self.verify: VerifyResult | None = None
        self.prune: PruneResult | None = None
        self.warnings: list[str] = []

    def go(self) -> None:
        """Take the steps. What fails in one is noted; UsageError and interruptions are noted and raised."""
        self._step("backup", self._back_up)
        if self.backup is None:
            self._skip("verify", "no backup was made")
        elif self.depth == "none":
            self._skip("verify", "verify = none")
        else:
            self._step("verify", self._verify)
        if not self.pruning:
            self._skip("prune", "prune = false")
        elif self.failure is not None:
            self._skip("prune", "what came before did not go well")
        else:
            self._step("prune", self._prune)

    def fail(self, error: ZbackupError) -> None:
        """Note what ended the run outside of its steps; the first failure stays the run's."""
        self.failure = self.failure or error

    def stop(self, interrupted: Interrupted) -> None:
        """Note that the run was told to stop, whatever failed because of it."""
        self.failure = interrupted

    def result(self) -> RunResult:
        failure = self.failure
        return RunResult(
            job=self.job,
            ok=failure is None,
            exit_code=failure.exit_code if failure else 0,
            reason=failure.message if failure else "",
            started=self.started,
            ended=self.now(),
            steps=tuple(self.steps),
            backup=self.backup,
            verify=self.verify,
            prune=self.prune,
            warnings=tuple(self.warnings),
        )

    def _back_up(self) -> ZbackupError | None:
        self.backup = self.work.backup()
        return self.backup.fault

    def _verify(self) -> ZbackupError | None:
        archive, began = self.work.archive(), self.now()
        last, ahead = self._last_full(archive, began)
        due = last is None or not timedelta(0) <= began - last < self.full_every * (1 - 1 / EARLY)
        level: Level = "full" if self.depth == "full" or due else "sample"
        result = self.verify = self.work.verify(level)
        if not result.ok:
            last = None
        elif level == "full":
            last = began
        figures: dict[str, Figure] = {
            "level": level,
            "findings": len(result.findings),
            "backups": result.backups,
            "objects": result.objects,
            "read": result.read,
            "raw_bytes": result.raw_bytes,
            "seconds": result.seconds,
            FULL_AT: instant_text(last) if last else None,
            SEEN_AHEAD: ahead,
        }
        self._record(archive, "verify", began, figures, ok=result.ok)
        return result.fault

    def _last_full(self, archive: Archive, now: datetime) -> tuple[datetime | None, str | None]:
        """
        Return when the last full verification began that found nothing, and the newest record of a wrong clock.

        None when that is to be found out anew: it is, too, if nobody has looked since a record that cannot be read or
        whose moment means nothing.
        """
        damaged: list[str] = []
        ahead: list[Record] = []

        def of_now(record: Record) -> bool:
            if record.started <= now + AHEAD:
                return True
            ahead.append(record)
            return False

        found = records.newest(archive, "verify", LAST, damaged=damaged.append, wanted=of_now)
        seen_ahead = ahead[0].id if ahead else None
        for record in ahead[:1]:
            self._warn(
                f"{len(ahead)} record(s) of verifications lie in the future, such as {record.id} of "
                f"{instant_text(record.started)}, and do not count",
                "A clock was wrong then, or is now.",
            )
        second = found[0].id.partition("-")[0] if found else ""
        newer = [name for name in damaged if name >= names.records_of("verify") + second]
        for name in newer[:1]:
            self._warn(f"{name} is damaged: everything is verified", "Nobody knows what that verification found.")
        newest = max(found, key=lambda record: record.started, default=None)
        if newest is None or newer or newest.figures.get(SEEN_AHEAD) != seen_ahead:
            return None, seen_ahead
        try:
            last = datetime.fromisoformat(str(newest.figures.get(FULL_AT)))
        except ValueError:
            return None, seen_ahead
        return (last if last.tzinfo else None), seen_ahead

    def _prune(self) -> None:
        archive, began = self.work.archive(), self.now()
        result = self.prune = self.work.prune()
        figures: dict[str, Figure] = {
            "listed": result.listed,
            "removed": result.removed,
            "removed_bytes": result.removed_bytes,
            "skipped": len(result.skipped),
            "backups": sum(one.stays for one in result.backups),
        }
        self._record(archive, "prune", began, figures, ok=True)

    def _record(self, archive: Archive, kind: Kind, began: datetime, figures: dict[str, Figure], *, ok: bool) -> None:
        backup = self.backup.backup if self.backup else None
        try:
            records.write(archive, Record(kind, began, self.now(), ok, backup, figures))
        except StoreError as error:
            self._warn(f"{error.message}: what was done stands, and no record of it", error.hint)

    def _warn(self, message: str, hint: str) -> None:
        self.warnings.append(message)
        self.report(Warned(message, hint))

    def _step(self, name: StepName, take: Callable[[], ZbackupError | None]) -> None:
        """Take one step: say that it begins, and note how it ended."""
        self.report(Step("run", f"step {STEPS.index(name) + 1} of {len(STEPS)}: {name}"))
        begun = time.monotonic()
        try:
            failed = take()
        except (KeyboardInterrupt, Interrupted):
            self._note(name, Interrupted("stopped by a signal"), begun)
            raise
        except ZbackupError as error:
            failed = error
        self._note(name, failed, begun)
        if failed is not None:
            self.fail(failed)
        if isinstance(failed, UsageError):
            raise failed

    def _note(self, name: StepName, failed: ZbackupError | None, begun: float) -> None:
        self.steps.append(
            RunStep(
                name,
                "failed" if failed else "done",
                failed.message if failed else "",
                failed.hint if failed else "",
                failed.exit_code if failed else 0,
                time.monotonic() - begun,
            )
        )

    def _skip(self, name: StepName, why: str) -> None:
        self.steps.append(RunStep(name, "skipped", why, "", 0, 0.0))
