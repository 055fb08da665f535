"""
Bring back everything beside the events, when these are loaded and proven and not yet published.

The capture is compared with the events; then the events of `zitadel setup` are staged, tables are emptied and
loaded, what a capture cannot tell is worked out, and the schema is finished.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from zbackup import advice
from zbackup.archive import find
from zbackup.archive.archive import Archive
from zbackup.archive.plan import RestorePlan
from zbackup.archive.spool import Spool
from zbackup.archive.table import read_table
from zbackup.constraints import ConstraintsAt, as_captured, captured_text, constraints_at, spooled_text
from zbackup.database import computed, edits
from zbackup.database.base import captured_system, find_base, share, system_lines
from zbackup.database.computed import Instance
from zbackup.database.connection import Connection
from zbackup.database.edits import Edit
from zbackup.database.fill import Choice, Load, Name, empty, fill
from zbackup.database.identity import clock
from zbackup.database.mode import dropped_with_aside, read_aside
from zbackup.database.proof import Proof
from zbackup.database.schema_load import finish_schema, make_indexes
from zbackup.database.target import beside, claim, note, noted, session
from zbackup.errors import TargetRefused
from zbackup.event import instant_text, parse_instant
from zbackup.progress import Report, Step, Warned
from zbackup.survey import CONSTRAINTS, COUNTS, FIELDS, STATES, Survey, captured_table, values_of
from zbackup.unit import Unit, decide
from zbackup.zitadel import handlers, migrations, tables
from zbackup.zitadel.migrations import Schedule

# The unique constraints wait in memory up to so many bytes, then in the temporary folder.
SPOOL_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Recovered:
    """What came back beside the events, and what is left to do."""

    mode: str
    capture: str
    """the backup whose capture was used"""
    since: int
    """events that its tables do not know, where they are a base"""
    zitadel_version: str | None
    """at T"""
    zitadel_needed: str | None
    """the start needs it or a newer one: the newest of what data and schema are of"""
    unit: Unit
    constraints: ConstraintsAt
    permissions: int
    states: int
    """rows that keep handlers with side effects silent"""
    edits: tuple[Edit, ...]
    """what publishing changed about the events"""
    rerun: tuple[tuple[str, str], ...]
    """steps that the next setup runs again, and why"""
    instances: tuple[Instance, ...]
    external: dict[str, object]
    """domain, port and security as setup noted them last"""
    warnings: tuple[str, ...]


def recover(
    archive: Archive,
    dsn: str,
    connection: Connection,
    plan: RestorePlan,
    found: Survey,
    *,
    jobs: int,
    proof: Proof,
    report: Report,
) -> Recovered:
    """
    Do it, up to the publication; what is done already the ledger tells.

    Raises TargetRefused, TargetError, Damaged; nothing is published then.
    """
    with Spool(None, memory=SPOOL_BYTES, way_out="set TMPDIR to another one") as spool:
        report(Step("tables", f"of backup {found.capture.backup}"))
        base = find_base(connection, plan, found.capture, archive.read, partial(find.counts, archive))
        unit = decide(found, base)
        report(Step("constraints"))
        table = captured_table(found.record, CONSTRAINTS)
        text = found.record.post_data if found.mode == "empty" else None
        post_data = archive.text(text) if text is not None else None
        with session(dsn) as other:
            share(connection, other, plan)
            # The constraints keep a core of ours busy, all else one of the server's.
            with beside(other) as works:
                coming = works.do(lambda _: constraints_at(other, archive, plan, table, base, spool))
                schedule, version, external = _system(connection, plan, found)
                needed = migrations.newest(version, migrations.zitadel_version(schedule.kept))
                unchanged = table if as_captured(base) else None
                if unchanged is not None:
                    computed.write_constraints(connection, captured_text(archive, unchanged, schedule.kept))
                instances = computed.live_instances(connection)
                fill(dsn, connection, list(_loads(archive, unit, proof)), jobs, report)
                permissions = computed.write_permissions(connection)
                silent = sorted({*handlers.side_effects(version), *handlers.side_effects(needed)})
                states = computed.write_states(connection, silent, instances)
                if post_data is not None:
                    make_indexes(connection, post_data, () if unchanged else [".".join(CONSTRAINTS)], report)
                constraints = coming.result()
        if unchanged is None:
            computed.write_constraints(connection, spooled_text(spool, schedule.kept))
        warnings = list(advice.warnings(connection, unit, constraints, instances, external))
        if found.mode == "prepared" and (lost := dropped_with_aside(connection)):
            warnings.append(
                f"events of the system that the prepared target had are replaced by the source's: {', '.join(lost)}"
            )
        if post_data is not None:
            report(Step("schema", "after the data"))
            warnings += finish_schema(connection, post_data, found.capture.table, report)
        for warning in warnings:
            report(Warned(warning))
        return Recovered(
            mode=found.mode,
            capture=found.capture.backup,
            since=base.since,
            zitadel_version=version,
            zitadel_needed=needed,
            unit=unit,
            constraints=constraints,
            permissions=permissions,
            states=states,
            edits=edits.staged(connection),
            rerun=schedule.rerun,
            instances=instances,
            external=external,
            warnings=tuple(warnings),
        )


def _system(connection: Connection, plan: RestorePlan, found: Survey) -> tuple[Schedule, str | None, dict[str, object]]:
    """Stage the events of `zitadel setup`; return them, the version at T, and the external domain as of T."""
    there = migrations.parse(system_lines(connection, plan))
    version = migrations.zitadel_version(there)
    if found.mode == "prepared":
        if migrations.is_older(found.target_version, version):
            raise TargetRefused(
                f"the target was prepared by ZITADEL {found.target_version}; at the instant it was {version}",
                hint="Prepare a database with that version or a newer one.",
            )
        fresh = migrations.parse(read_aside(connection, *migrations.SYSTEM[1:]))
        schedule = migrations.with_prepared(there, fresh, _clock(connection))
        edits.keep_prepared(connection, plan.table, read_aside(connection, "permission", "SYSTEM"))
    else:
        schedule = migrations.with_schema(there, migrations.parse(captured_system(connection, plan)))
    for why in sorted({why for _, why in schedule.gone}):
        keys = ((*migrations.SYSTEM, sequence) for sequence, reason in schedule.gone if reason == why)
        edits.let_go(connection, keys, why)
    for why in sorted({why for _, why in schedule.new}):
        edits.let_come(connection, plan.table, (line for line, reason in schedule.new if reason == why), why)
    return schedule, version, migrations.external(there)


def _clock(connection: Connection) -> datetime:
    """Return the server's clock as it stood when this restore first asked: what it dates must not change."""
    with connection.transaction():
        if claim(connection, "clock"):
            note(connection, "clock", _Clock(instant_text(clock(connection))))
        return parse_instant(_Clock(**noted(connection, "clock")).at)


@dataclass(frozen=True, slots=True)
class _Clock:
    at: str


def make_room(connection: Connection, found: Survey) -> None:
    """
    Empty the tables of a prepared target, once.

    All that this zbackup knows, and those that it does not know but has rows for. Raises TargetError when a table
    of someone else refers to one of them.
    """
    captured = {(table.schema, table.name) for table in found.record.tables}
    kinds = {"load", "warm", "compute", "empty"}
    names = (
        name
        for name in found.target
        if (tables.find(*name) is not None or name in captured) and tables.restore_of(*name, found.states) in kinds
    )
    empty(connection, sorted(set(names) - {CONSTRAINTS}))


def _loads(archive: Archive, unit: Unit, proof: Proof) -> Iterator[Load]:
    record = unit.survey.record
    warm = unit.warm_handlers
    warm_tables = frozenset(str(table) for table in unit.tables if table.action == "load" and table.handler)
    choices: dict[Name, Choice] = {
        STATES: Choice("projection_name", warm, wanted=True),
        FIELDS: Choice("aggregate_type", frozenset({"permission"}), wanted=False),
        COUNTS: Choice("table_name", warm_tables, wanted=True),
    }
    for table in unit.tables:
        name = table.schema, table.name
        captured = captured_table(record, name)
        wanted = table.action == "load" or (name == STATES and warm) or (name == FIELDS and not unit.fields)
        if name == tables.KEYS and table.action == "load":
            yield _keys(archive, unit.survey)
        elif wanted and captured is not None and captured.rows:
            yield Load(
                *name,
                columns=captured.columns,
                into=_into(unit.survey, name, captured.columns),
                rows=partial(read_table, archive, captured),
                expected=captured.rows,
                choice=choices.get(name),
                read_back=table.kind != "derived" or proof == "full",
            )


def _into(found: Survey, name: Name, columns: tuple[str, ...]) -> tuple[str, ...]:
    if found.mode != "prepared":
        return columns
    there = found.target[name]
    return tuple(name for name in columns if name in there.columns)


def _keys(archive: Archive, found: Survey) -> Load:
    """Take the keys of the backup that answers, and those that only the capture had."""
    columns = found.keys[0].columns
    rows: dict[bytes, bytes] = {}
    for table in found.keys:
        for key, *values in values_of(archive, table, ("id", *columns)):
            rows.setdefault(key, b"\t".join(values) + b"\n")
    into = _into(found, tables.KEYS, columns)
    return Load(*tables.KEYS, columns, into, lambda: iter([b"".join(rows.values())]), len(rows))
