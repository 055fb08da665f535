"""
Bring a point in time back into a database.

Plan, take the target, load, build, prove, publish. A restore that was killed is finished by running the same
again; the events table has its final name only when all is done.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from zbackup.archive import find, names
from zbackup.archive.archive import Archive
from zbackup.archive.plan import RestorePlan
from zbackup.database.claim import changed_since, examine, strangers, take
from zbackup.database.connection import Connection, target_errors
from zbackup.database.load import build, load
from zbackup.database.proof import prove
from zbackup.database.publish import check_positions, publish
from zbackup.database.target import ASIDE, SCHEMA, Receipt, Run, lock, session
from zbackup.event import instant_text
from zbackup.moment import RestorePoint
from zbackup.plan import resolve
from zbackup.progress import Report, Step, Warned, silent
from zbackup.zitadel.tables import SCHEMAS

NAMED = 5
"""Tables of others named in the warning."""


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    jobs: int = 2
    """sessions that load, index and read back"""
    proof: Literal["sample", "full"] = "sample"
    generation: str | None = None
    """None: the newest"""
    restart: bool = False
    """undo first what an unfinished restore left"""


@dataclass(frozen=True, slots=True)
class RestoreResult:
    events: int
    """in the restored table"""
    at: datetime
    """T; the snapshot where a whole backup was asked for"""
    final: bool
    withheld: int
    withheld_events: tuple[tuple[str, ...], ...]
    """cursors of the first 1 000; none when it was done before"""
    added: int
    """by later amendments"""
    generation: str
    backup: str
    proof: str
    seconds: float
    moved_aside: int
    warnings: tuple[str, ...]
    done_before: bool


def restore(
    archive: Archive,
    target: str,
    point: RestorePoint,
    options: RestoreOptions | None = None,
    *,
    report: Report = silent,
) -> RestoreResult:
    """
    Restore the events of a point in time into the database that `target` names.

    May be called again after any interruption; when all was done before it says so.

    Raises:
        OutsideWindow, UsageError: as for `plan`.
        TargetRefused: the target is not fit; nothing was changed.
        TargetError: the target failed, or does not hold what was loaded; nothing was published.
        Damaged, StoreError: an object of the archive could not be read; nothing was published.

    """
    options = options or RestoreOptions()
    began = time.monotonic()
    plan = resolve(archive, point, generation=options.generation, report=report)
    for warning in plan.warnings:
        report(Warned(warning))
    run = _run(archive, plan)
    report(Step("connect"))
    with target_errors(target), session(target) as connection:
        lock(connection)
        _warn_of_strangers(connection, report)
        check_positions(connection, plan)
        taken = take(connection, plan, run, restart=options.restart)
        if isinstance(taken, Receipt):
            changed = changed_since(connection, taken)
            for warning in changed:
                report(Warned(warning))
            return _result(plan, taken, began, done_before=True, warnings=changed)
        if taken.moved_aside:
            report(Warned(f"{taken.moved_aside} events of the system were moved to {SCHEMA}.{ASIDE}"))
        load(target, connection, plan, archive.read, options.jobs, report)
        left_out = build(target, connection, plan.table, options.jobs, report)
        counts = partial(find.counts, archive)
        rows = prove(target, connection, plan, counts, options.proof, options.jobs, report)
        published = publish(connection, plan, taken, rows, options.proof, archive.read, report)
    return _result(plan, published.receipt, began, withheld_events=published.withheld, warnings=left_out)


def check_target(archive: Archive, target: str, plan: RestorePlan, *, report: Report = silent) -> None:
    """
    Find out whether a plan could be restored into a target, and change nothing there.

    Raises TargetRefused, TargetError, Busy: what the restore would raise before it loads anything.
    """
    report(Step("connect"))
    with target_errors(target), session(target) as connection:
        lock(connection)
        _warn_of_strangers(connection, report)
        check_positions(connection, plan)
        examine(connection, plan, _run(archive, plan))


def _run(archive: Archive, plan: RestorePlan) -> Run:
    return Run(
        run=names.backup_id(datetime.now(UTC), secrets.token_hex(4)),
        archive=archive.record.archive,
        backup=plan.backup,
        generation=plan.generation,
        point=plan.point,
        at=instant_text(plan.at) if plan.at else None,
        digest=plan.digest,
    )


def _warn_of_strangers(connection: Connection, report: Report) -> None:
    if found := strangers(connection, SCHEMAS):
        named = ", ".join(found[:NAMED]) + (" …" if len(found) > NAMED else "")
        report(
            Warned(
                f"the target holds {len(found)} tables that are not ZITADEL's: {named}", hint="They stay as they are."
            )
        )


def _result(
    plan: RestorePlan,
    receipt: Receipt,
    began: float,
    *,
    withheld_events: tuple[tuple[str, ...], ...] = (),
    done_before: bool = False,
    warnings: Iterable[str] = (),
) -> RestoreResult:
    return RestoreResult(
        events=receipt.events,
        at=plan.cut_at,
        final=receipt.final,
        withheld=receipt.withheld,
        withheld_events=withheld_events,
        added=receipt.added,
        generation=receipt.generation,
        backup=receipt.backup,
        proof=receipt.proof,
        seconds=round(time.monotonic() - began, 3),
        moved_aside=receipt.moved_aside,
        warnings=(*plan.warnings, *warnings),
        done_before=done_before,
    )
