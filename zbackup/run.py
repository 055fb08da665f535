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

from zbackup.archive import records
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
        last = self._last_full(archive)
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
        }
        self._record(archive, "verify", began, figures, ok=result.ok)
        return result.fault

    def _last_full(self, archive: Archive) -> datetime | None:
        """Return when the last full verification began that found nothing; None when that is to be found out anew."""
        newest = max(records.newest(archive, "verify", LAST), key=lambda record: record.started, default=None)
        text = newest.figures.get(FULL_AT) if newest else None
        try:
            found = datetime.fromisoformat(str(text))
        except ValueError:
            return None
        return found if found.tzinfo else None

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
            self.warnings.append(f"{error.message}: what was done stands, and no record of it")
            self.report(Warned(self.warnings[-1], error.hint))

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
