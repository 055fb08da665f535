"""
Bring the events back, up to the publication: load them, give them key and indexes, prove them, stage what T asks for.

What T asks for is told by the keys of the rows after it. They are read while the server builds; which events to
withhold is asked beside the proof.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from threading import Event, Lock

from zbackup.archive import find
from zbackup.archive.archive import Archive
from zbackup.archive.plan import RestorePlan
from zbackup.database import edits
from zbackup.database.connection import Connection
from zbackup.database.edits import Cut
from zbackup.database.load import analyze, build, load, stoppable
from zbackup.database.proof import Proof, prove
from zbackup.database.target import beside, session
from zbackup.progress import Advance, Progress, Report, Step
from zbackup.source import EventTable


@dataclass(frozen=True, slots=True)
class Replayed:
    """The events as they were loaded and proven, and what publishing is to change about them."""

    rows: int
    cut: Cut
    warnings: tuple[str, ...]


def replay(
    archive: Archive,
    dsn: str,
    connection: Connection,
    plan: RestorePlan,
    table: EventTable,
    *,
    jobs: int,
    proof: Proof,
    report: Report,
) -> Replayed:
    """
    Do it, but for what the ledger says is done; what T asks for is staged in the session.

    `table` tells key and indexes. Raises TargetError for a table that does not hold what was loaded, Damaged.
    """
    held = _Held(report)

    def prepare(stop: Event) -> None:
        edits.prepare(connection, plan, stoppable(archive.read, stop), held)

    def stage(stop: Event) -> Cut:
        prepared.result()
        analyze(connection, plan.table)
        return edits.stage(connection, plan, stoppable(archive.read, stop))

    load(dsn, connection, plan, archive.read, jobs, report)
    with session(dsn) as other, beside(connection) as works:
        prepared = works.do(prepare)
        warnings = build(dsn, other, table, jobs, report)
        staged = works.do(stage)
        rows = prove(dsn, other, plan, partial(find.counts, archive), proof, jobs, report)
        report(Step("edits"))
        held.release()
        return Replayed(rows, staged.result(), tuple(warnings))


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
