"""
Prove the loaded events, and stage what T asks for.

The proof waits for the server; what T asks for is told by the keys of the rows after it, which are read here. So
with a T the two go on side by side.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from threading import Event, Lock

from zbackup.archive import find
from zbackup.archive.archive import Archive
from zbackup.archive.plan import RestorePlan
from zbackup.database import edits
from zbackup.database.connection import Connection
from zbackup.database.edits import Cut
from zbackup.database.load import stoppable
from zbackup.database.proof import Proof, prove
from zbackup.database.target import beside, session
from zbackup.progress import Advance, Progress, Report, Step


def prove_and_stage(
    archive: Archive,
    dsn: str,
    connection: Connection,
    plan: RestorePlan,
    *,
    jobs: int,
    proof: Proof,
    report: Report,
) -> tuple[int, Cut]:
    """
    Return the number of rows that were proven, and what T asks for, staged in the session.

    Raises TargetError for what does not hold what was loaded, Damaged.
    """
    counts = partial(find.counts, archive)
    if plan.at is None:
        rows = prove(dsn, connection, plan, counts, proof, jobs, report)
        report(Step("edits"))
        return rows, edits.stage(connection, plan, archive.read, report)
    held = _Held(report)

    def stage(stop: Event) -> Cut:
        return edits.stage(connection, plan, stoppable(archive.read, stop), held)

    with session(dsn) as other, beside(connection, stage) as staging:
        rows = prove(dsn, other, plan, counts, proof, jobs, report)
        report(Step("edits"))
        held.release()
        return rows, staging.result()


class _Held:
    """What a step reports, summed up for as long as the step before it goes on."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._lock = Lock()
        self._sum: Advance | None = Advance(0, 0)

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            if self._sum is None or not isinstance(progress, Advance):
                self._report(progress)
            else:
                rows, raw_bytes = self._sum.rows + progress.rows, self._sum.raw_bytes + progress.raw_bytes
                self._sum = replace(progress, rows=rows, raw_bytes=raw_bytes)

    def release(self) -> None:
        with self._lock:
            if self._sum is not None:
                self._report(self._sum)
            self._sum = None
