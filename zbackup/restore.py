"""
Bring a point in time back into a database.

Plan, take the target, load the events, build, prove; fill the other tables; publish. A restore that was killed is
finished by running the same again; the events table has its final name only when all is done.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from zbackup.advice import NextStep, next_steps, notices
from zbackup.archive import names
from zbackup.archive.archive import Archive
from zbackup.archive.plan import RestorePlan
from zbackup.database.claim import changed_since, check_server, examine, give_up, strangers, take
from zbackup.database.connection import Connection, target_errors
from zbackup.database.identity import read_collation
from zbackup.database.mode import Target, find_target
from zbackup.database.publish import check_positions, publish
from zbackup.database.target import ASIDE, SCHEMA, Receipt, Run, lock, session, unfinished
from zbackup.dsn import masked
from zbackup.errors import NotSupported, TargetRefused, UsageError
from zbackup.event import instant_text, parse_instant
from zbackup.missing import Missing, events_of, identity
from zbackup.missing import warnings as damage
from zbackup.moment import Instant, OfBackup, RestorePoint
from zbackup.plan import resolve, with_readable, with_schema
from zbackup.progress import Report, Step, Warned, silent
from zbackup.recover import Recovered, make_room, recover
from zbackup.replay import replay
from zbackup.salvage import Salvage, fit, missing_of, persist, warn
from zbackup.source import EventTable, collation_text
from zbackup.survey import Survey, UnitOptions, refuse, survey
from zbackup.unit import Unit, decide
from zbackup.zitadel.tables import SCHEMAS

NAMED = 5
"""Tables of others named in the warning."""


DEFAULTS = UnitOptions()


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    jobs: int = 2
    """sessions that load, index and read back"""
    proof: Literal["sample", "full"] = "sample"
    generation: str | None = None
    """None: the newest"""
    restart: bool = False
    """undo first what an unfinished restore left"""
    events_only: bool = False
    """bring back the events table alone, with its key and indexes"""
    skip_damaged: bool = False
    """bring back what can be had where objects of the archive are damaged, and say what is missing"""
    unit: UnitOptions = DEFAULTS


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
    mode: str
    recovered: Recovered | None
    """what came back beside the events; None where only these were asked for, or it was done before"""
    next_steps: tuple[NextStep, ...]
    """what to do now, in order; none where only the events were asked for"""
    notices: tuple[str, ...]
    """what people will notice"""
    missing: tuple[Missing, ...] = ()
    """what could not be read, with `skip_damaged`"""


def restore(
    archive: Archive,
    target: str,
    point: RestorePoint,
    options: RestoreOptions | None = None,
    *,
    report: Report = silent,
) -> RestoreResult:
    """
    Restore a point in time into the database that `target` names.

    May be called again after any interruption; when all was done before it says so.

    Raises:
        OutsideWindow, UsageError: as for `plan`.
        TargetRefused: the target is not fit; nothing was changed.
        TargetError: the target failed, or does not hold what was loaded; nothing was published.
        Damaged, StoreError: an object of the archive could not be read; nothing was published.

    """
    options = options or RestoreOptions()
    _expect_effect(options)
    began = time.monotonic()
    archive = Salvage.of(archive) if options.skip_damaged else archive
    plan = resolve(archive, point, generation=options.generation, report=report)
    report(Step("connect"))
    with target_errors(target), session(target) as connection:
        lock(connection, report)
        _warn_of_strangers(connection, report)
        if options.restart:
            give_up(connection)
        plan = _as_begun(archive, connection, plan, options, report)
        check_positions(connection, plan)
        check_server(connection, plan)
        there, plan, found = _look(archive, connection, plan, options, report)
        for warning in plan.warnings:
            report(Warned(warning))
        warn(archive, report)
        if found is not None:
            refuse(found)
        run = _run(archive, plan, there, options)
        taken = take(connection, plan, run, _pre_data(archive, found))
        if isinstance(taken, Receipt):
            changed = changed_since(connection, taken)
            for warning in changed:
                report(Warned(warning))
            return _result(
                plan,
                taken,
                began,
                done_before=True,
                warnings=changed,
                auth_requests=options.unit.auth_requests,
                target=target,
                missing=missing_of(archive),
            )
        if taken.moved_aside and taken.mode == "events":
            report(Warned(f"{taken.moved_aside} events of the system were moved to {SCHEMA}.{ASIDE}"))
        if found is not None and found.mode == "prepared":
            make_room(connection, found)
        events = replay(
            archive, target, connection, plan, _built(plan, found),
            jobs=options.jobs, proof=options.proof, report=report,
        )  # fmt: skip
        warnings, recovered = events.warnings, None
        if found is not None:
            recovered = recover(
                archive, target, connection, plan, found, jobs=options.jobs, proof=options.proof, report=report
            )
            warnings += recovered.warnings
        receipt = publish(
            connection, plan, taken, events.rows, events.cut, options.proof, report,
            needed=recovered.zitadel_needed if recovered else None,
            external=recovered.external if recovered else None,
        )  # fmt: skip
    return _result(
        plan,
        receipt,
        began,
        withheld_events=events.cut.withheld_events,
        recovered=recovered,
        warnings=warnings,
        auth_requests=options.unit.auth_requests,
        target=target,
        missing=missing_of(archive),
    )


def preview(
    archive: Archive, target: str | None, plan: RestorePlan, options: RestoreOptions, *, report: Report = silent
) -> Unit | None:
    """
    Say what a restore would do beside the events, and change nothing; None where only these are asked for.

    Without a target an empty database is assumed.

    Raises TargetRefused, TargetError, Busy: what the restore would raise before it loads anything, but for tables
    that cannot be brought back; these the result names.
    """
    _expect_effect(options)
    if target is None:
        if options.events_only:
            return None
        assumed = Target("empty", "assumed, for no target is given", {}, ())
        fitting = with_schema(archive, plan)
        _warn_anew(plan, fitting, report)
        try:
            return decide(survey(archive, fitting, assumed, options.unit))
        except (TargetRefused, NotSupported) as error:
            report(Warned(error.message, error.hint))
            return None
    report(Step("connect"))
    with target_errors(target), session(target) as connection:
        lock(connection, report)
        _warn_of_strangers(connection, report)
        check_positions(connection, plan)
        check_server(connection, plan)
        with connection.transaction(force_rollback=True):
            if options.restart:
                give_up(connection)
            there, fitting, found = _look(archive, connection, plan, options, report)
            _warn_anew(plan, fitting, report)
            warn(archive, report)
            examine(connection, fitting, _run(archive, fitting, there, options), _pre_data(archive, found))
    return decide(found) if found is not None else None


def _warn_anew(made: RestorePlan, fitting: RestorePlan, report: Report) -> None:
    """Report what fitting a plan to its target found; who made the plan shows the rest."""
    for warning in fitting.warnings:
        if warning not in made.warnings:
            report(Warned(warning))


def _as_begun(
    archive: Archive, connection: Connection, plan: RestorePlan, options: RestoreOptions, report: Report
) -> RestorePlan:
    """
    Go on with what an unfinished restore of the same words meant by them.

    `latest` means another backup by now, and another one may answer for an instant.
    """
    begun = unfinished(connection)
    if begun is None or begun.point != plan.point or begun.archive != archive.record.archive:
        return plan
    if (begun.options, begun.mode == "events") != (str(options.unit), options.events_only) or (
        options.generation not in {None, begun.generation}
    ):
        return plan
    again = Instant(parse_instant(begun.at), begun.at) if begun.at else OfBackup(begun.backup)
    made = resolve(archive, again, generation=begun.generation, report=report)
    if made.digest == plan.digest:
        return plan
    report(Warned(f"going on with restore {begun.run}, to which {begun.point} is {begun.at or begun.backup}"))
    return replace(made, point=plan.point)


def _expect_effect(options: RestoreOptions) -> None:
    if options.events_only and options.unit != DEFAULTS:
        raise UsageError(
            "--cold, --without and --auth-requests have no effect with --events-only", hint="Leave one of them out."
        )


def _look(
    archive: Archive, connection: Connection, plan: RestorePlan, options: RestoreOptions, report: Report
) -> tuple[Target, RestorePlan, Survey | None]:
    """
    Tell what the target is and what would come back beside the events; the plan fits target and archive then.

    Raises TargetRefused, UsageError.
    """
    there = find_target(connection, events_only=options.events_only)
    if there.mode == "events" and not options.events_only:
        raise TargetRefused(
            f"the target is not fit for a whole ZITADEL: {there.found}",
            hint="Give an empty database. --events-only goes on with that, --restart gives up what is not finished.",
        )
    if there.mode == "events":
        return there, fit(archive, replace(plan, capture=None), options.jobs, report), None
    fitting, found = persist(archive, lambda: _look_beside(archive, plan, there, options, report))
    source, ours = plan.source, read_collation(connection)
    wanted = collation_text(source.locale_provider, source.collation, source.ctype, source.icu_locale)
    if ours != wanted:
        other = (
            f"the target's collation is {ours}, the source's is {wanted}: ZITADEL lower-cases names by it, and may not "
            "find some again"
        )
        fitting = replace(fitting, warnings=(*fitting.warnings, other))
    return there, fitting, found


def _look_beside(
    archive: Archive, plan: RestorePlan, target: Target, options: RestoreOptions, report: Report
) -> tuple[RestorePlan, Survey]:
    plan = with_readable(archive, plan)
    fitting = with_schema(archive, plan) if target.mode == "empty" else plan
    fitting = fit(archive, fitting, options.jobs, report)
    return fitting, survey(archive, fitting, target, options.unit)


def _pre_data(archive: Archive, found: Survey | None) -> bytes | None:
    if found is None or found.mode != "empty" or found.record.pre_data is None:
        return None
    return archive.text(found.record.pre_data)


def _built(plan: RestorePlan, found: Survey | None) -> EventTable:
    """Tell which indexes the events table gets: those of the schema that it comes with."""
    if found is None:
        return plan.table
    if found.mode == "prepared":
        return replace(plan.table, indexes=())
    return found.capture.table


def _run(archive: Archive, plan: RestorePlan, target: Target, options: RestoreOptions) -> Run:
    capture = plan.capture if target.mode != "events" else None
    missing = missing_of(archive)
    digest = plan.digest if capture is None else _digest(plan, capture.ref.sha256, options.unit)
    if missing:
        digest = hashlib.sha256(json.dumps([digest, identity(missing)]).encode()).hexdigest()
    return Run(
        run=names.backup_id(datetime.now(UTC), secrets.token_hex(4)),
        archive=archive.record.archive,
        backup=plan.backup,
        generation=plan.generation,
        point=plan.point,
        at=instant_text(plan.at) if plan.at else None,
        digest=digest,
        mode=target.mode,
        capture=capture.backup if capture else None,
        options=" ".join(filter(None, (str(options.unit), "--skip-damaged" if missing else ""))),
        damaged=len(missing),
        missing=events_of(missing),
    )


def _digest(plan: RestorePlan, capture: str, options: UnitOptions) -> str:
    """Sum up all that decides what the restored database holds."""
    identity = [plan.digest, capture, options.cold, sorted(options.without), options.auth_requests]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def _warn_of_strangers(connection: Connection, report: Report) -> None:
    if found := strangers(connection, SCHEMAS):
        named = ", ".join(found[:NAMED]) + (" …" if len(found) > NAMED else "")
        report(
            Warned(
                f"the target holds {len(found)} tables that are not ZITADEL's: {named}", hint="They stay as they are."
            )
        )


def _next_steps(receipt: Receipt, target: str) -> tuple[NextStep, ...]:
    point = f"--generation {receipt.generation} --at {receipt.at or 'backup:' + receipt.backup}"
    return next_steps(receipt.mode, receipt.needed, receipt.external, point, masked(target))


def _result(
    plan: RestorePlan,
    receipt: Receipt,
    began: float,
    *,
    withheld_events: tuple[tuple[str, ...], ...] = (),
    recovered: Recovered | None = None,
    done_before: bool = False,
    warnings: Iterable[str] = (),
    auth_requests: bool = False,
    target: str = "",
    missing: tuple[Missing, ...] = (),
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
        warnings=(*plan.warnings, *warnings, *damage(missing)),
        done_before=done_before,
        mode=receipt.mode,
        recovered=recovered,
        next_steps=_next_steps(receipt, target) if receipt.mode != "events" else (),
        notices=notices(cut=receipt.at is not None, auth_requests=auth_requests) if receipt.mode != "events" else (),
        missing=missing,
    )
