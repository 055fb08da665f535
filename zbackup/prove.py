"""
Prove the loaded events, and stage what T asks for.

The proof waits for the server; what T asks for is told by the keys of the rows after it, which are read here. So
with a T the two go on side by side.
"""

from __future__ import annotations

from functools import partial
from threading import Event

from zbackup.archive import find
from zbackup.archive.archive import Archive
from zbackup.archive.plan import RestorePlan
from zbackup.database import edits
from zbackup.database.connection import Connection
from zbackup.database.edits import Cut
from zbackup.database.load import stoppable
from zbackup.database.proof import Proof, prove
from zbackup.database.target import beside, session
from zbackup.progress import Progress, Report, Step


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
    proven = Event()

    def later(progress: Progress) -> None:
        if proven.is_set():
            report(progress)

    def stage(stop: Event) -> Cut:
        return edits.stage(connection, plan, stoppable(archive.read, stop), later)

    with session(dsn) as other, beside(connection, stage) as staging:
        rows = prove(dsn, other, plan, counts, proof, jobs, report)
        report(Step("edits"))
        proven.set()
        return rows, staging.result()
