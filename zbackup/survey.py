"""
Look at what a restore has for everything beside the events: the capture, the keys, the target's tables.

Nothing is decided here and nothing is changed; what cannot be brought back is found here, before anything is
loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial

from zbackup.archive import find
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import Capture, CapturedTable, CaptureRef
from zbackup.archive.plan import PlannedCapture, RestorePlan
from zbackup.archive.rows import rows_in, rows_until, split_rows
from zbackup.archive.sound import rows_of
from zbackup.archive.table import read_table
from zbackup.archive.withhold import EXEMPT
from zbackup.capture import ELSEWHERE
from zbackup.database.base import has_system
from zbackup.database.computed import WRITTEN
from zbackup.database.fill import Name, TargetTable
from zbackup.database.mode import Target
from zbackup.database.schema_text import SchemaCode, examine_schema
from zbackup.database.target import ASIDE, LEDGER, RESTORING, Mode
from zbackup.errors import Damaged, TargetRefused, UsageError
from zbackup.event import parse_position, unescape
from zbackup.zitadel import migrations, tables
from zbackup.zitadel.masterkey import LOSS

FIELDS = ("eventstore", "fields")
STATES = ("projections", "current_states")
COUNTS = ("projections", "resource_counts")
CONSTRAINTS = ("eventstore", "unique_constraints")

OURS = frozenset({RESTORING, ASIDE, LEDGER})
"""Names of tables that a restore makes itself."""


@dataclass(frozen=True, slots=True)
class UnitOptions:
    cold: bool = False
    """leave derived tables empty"""
    without: frozenset[str] = frozenset()
    """tables to leave empty although they are state"""
    auth_requests: bool = False
    """load the logins under way"""

    def __str__(self) -> str:
        flags = ["--cold"] * self.cold + ["--auth-requests"] * self.auth_requests
        return " ".join([*flags, *(f"--without {name}" for name in sorted(self.without))])


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a table cannot be brought back."""

    table: str
    why: str


@dataclass(frozen=True, slots=True)
class Survey:
    """What archive and target say, before anything is loaded."""

    mode: Mode
    found: str
    capture: PlannedCapture
    record: Capture
    keys: tuple[CapturedTable, ...]
    """encryption keys of the backup that answers, then those of the capture"""
    target: Mapping[Name, TargetTable]
    """of a prepared target; an empty one has what the schema makes"""
    target_version: str | None
    states: Mapping[str, Mapping[str, Decimal]]
    """positions of the captured handler states by handler and instance"""
    schema: SchemaCode | None
    """the code that an empty target gets"""
    options: UnitOptions
    problems: tuple[Problem, ...]
    """those that --without does not take away"""
    warnings: tuple[str, ...]


def survey(archive: Archive, plan: RestorePlan, target: Target, options: UnitOptions) -> Survey:
    """
    Look at what there is.

    Raises:
        TargetRefused: an empty target and no schema in the capture; a target prepared by an older ZITADEL, or by
            one whose tables want what zbackup does not know.
        UsageError: an option that would have no effect on this capture.

    """
    capture = plan.capture
    if capture is None:
        raise TargetRefused(
            f"no backup of generation {plan.generation} has captured the tables beside the events",
            hint="Run `zbackup backup` without --no-capture, or restore with --events-only.",
        )
    record = archive.capture(capture.ref)
    if target.mode == "empty" and record.pre_data is None:
        raise TargetRefused(
            f"the target is empty, and backup {capture.backup} has no schema to make there: {record.schema_note}",
            hint="Run `zitadel init` and `zitadel setup --for-mirror` in the target, or restore with --events-only.",
        )
    _expect_tables(record)
    if target.mode == "prepared":
        _expect_version(archive, plan, capture, target)
        _expect_columns(target)
    found = Survey(
        mode=target.mode,
        found=target.found,
        capture=capture,
        record=record,
        keys=tuple(_keys(archive, record, capture.keys)),
        target=target.tables,
        target_version=target.zitadel_version,
        states=_states(archive, record),
        schema=schema_code(archive, record) if target.mode == "empty" else None,
        options=options,
        problems=(),
        warnings=(),
    )
    _expect_effect(found)
    problems = {problem.table: problem for problem in _problems(found) if problem.table not in options.without}
    return replace(found, problems=tuple(problems.values()), warnings=tuple(_warnings(found, plan)))


def schema_code(archive: Archive, record: Capture) -> SchemaCode | None:
    """Look at the schema text of a capture, None where it has none. Raises NotSupported, Damaged."""
    if record.pre_data is None:
        return None
    return examine_schema(*schema_text(archive, record), frozenset(tables.SCHEMAS))


def schema_text(archive: Archive, record: Capture) -> tuple[bytes, bytes]:
    """Return what of the schema comes before the data, and what after."""
    return (
        archive.text(record.pre_data) if record.pre_data else b"",
        archive.text(record.post_data) if record.post_data else b"",
    )


def refuse(found: Survey) -> None:
    """Raise TargetRefused when a state table cannot be brought back and --without does not name it."""
    if found.problems:
        listed = "; ".join(f"{problem.table}: {problem.why}" for problem in found.problems)
        names = " ".join(f"--without {problem.table}" for problem in found.problems)
        raise TargetRefused(
            f"not all state can be brought back: {listed}",
            hint="`zbackup list` shows other backups and generations, which may have it. "
            f"To leave it out, for good: {names}.",
        )


def named(names: Collection[str]) -> frozenset[str]:
    """Read --without: names of tables with their schemas. Raises UsageError."""
    for name in names:
        if name.count(".") != 1:
            raise UsageError(f"--without {name}: not SCHEMA.TABLE", hint="Such as --without system.assets.")
    return frozenset(names)


def captured_table(record: Capture, name: Name) -> CapturedTable | None:
    """Return a captured table by schema and name."""
    return next((table for table in record.tables if (table.schema, table.name) == name), None)


def values_of(archive: Archive, table: CapturedTable, columns: Collection[str]) -> Iterator[tuple[bytes, ...]]:
    """Yield these columns of a captured table's rows, as COPY text. Raises Damaged when one of them is missing."""
    if missing := [name for name in columns if name not in table.columns]:
        raise Damaged(
            f"the captured {table.schema}.{table.name} has no column {missing[0]}",
            hint="Restore from another backup, or use a newer zbackup.",
        )
    places = [table.columns.index(name) for name in columns]
    for block in read_table(archive, table):
        with rows_of(f"{table.schema}.{table.name}"):
            rows = [_picked(row, places) for row in split_rows(block)]
        yield from rows
        del block, rows


def _picked(row: bytes, places: Collection[int]) -> tuple[bytes, ...]:
    fields = row.rstrip(b"\n").split(b"\t")
    return tuple([fields[place] for place in places])


def split_name(name: str) -> Name:
    schema, _, table = name.partition(".")
    return schema, table


def _problems(found: Survey) -> Iterator[Problem]:
    for name, why in found.record.missing.items():
        known, restore = tables.find(*split_name(name)), tables.restore_of(*split_name(name), found.states)
        wanted = restore == "load" or (restore == "schema" and found.mode == "empty")
        if wanted and (known is None or known.captured) and why not in ELSEWHERE:
            yield Problem(name, f"it was not captured ({why})")
    if not found.keys and ".".join(tables.KEYS) not in found.record.missing:
        yield Problem(".".join(tables.KEYS), "no backup that could answer has captured it")
    if found.mode != "prepared":
        return
    for table in found.record.tables:
        if not table.rows or tables.restore_of(table.schema, table.name, found.states) != "load":
            continue
        name, there = f"{table.schema}.{table.name}", found.target.get((table.schema, table.name))
        if there is None:
            yield Problem(name, f"the target has no such table; {table.rows} rows were captured")
        elif unfilled := [column for column in there.required if column not in table.columns]:
            yield Problem(name, f"nothing fills its column {unfilled[0]} in the target")


def _warnings(found: Survey, plan: RestorePlan) -> Iterator[str]:
    for name in sorted(found.options.without):
        table = captured_table(found.record, split_name(name))
        lost = f"; {LOSS}" if split_name(name) == tables.KEYS else ""
        yield f"{name} is left out as asked (--without): {table.rows if table else 'no'} captured rows{lost}"
    for name, why in found.record.missing.items():
        if why in ELSEWHERE:
            yield f"{name} is {why}"
    if len(found.keys) == 1 and found.capture.keys is not None and found.capture.keys != found.capture.ref:
        yield (
            f"backup {plan.backup}, which answers, has no encryption keys: those made since backup "
            f"{found.capture.backup} are missing"
        )
    for table in found.record.tables if found.mode == "prepared" else ():
        there = found.target.get((table.schema, table.name))
        gone = [column for column in table.columns if there is not None and column not in there.columns]
        if gone and table.rows and tables.restore_of(table.schema, table.name, found.states) == "load":
            name = f"{table.schema}.{table.name}"
            yield f"{name}: the target has no column {', '.join(gone)}; its values are left out"


def _expect_effect(found: Survey) -> None:
    there = {f"{table.schema}.{table.name}" for table in found.record.tables} | found.record.missing.keys()
    for name in sorted(found.options.without):
        if name not in there:
            raise UsageError(
                f"--without {name}: the capture of backup {found.capture.backup} knows no such table",
                hint="`zbackup plan --json` lists the tables.",
            )
        restore = tables.restore_of(*split_name(name), found.states)
        if restore not in {"load", "warm", "schema"} and split_name(name) != FIELDS:
            raise UsageError(
                f"--without {name} would have no effect: its rows are not loaded ({restore})", hint="Leave it out."
            )
    if found.options.auth_requests and captured_table(found.record, tables.AUTH_REQUESTS) is None:
        raise UsageError(
            f"--auth-requests would have no effect: backup {found.capture.backup} was made without it",
            hint="Leave it out (or unset ZBACKUP_AUTH_REQUESTS).",
        )


def _expect_version(archive: Archive, plan: RestorePlan, capture: PlannedCapture, target: Target) -> None:
    """Refuse a target of an older version than the data's; the events are read where two backups disagree."""
    there, ours = target.zitadel_version, capture.source.zitadel_version
    if migrations.is_older(there, plan.source.zitadel_version):
        ours = _version_at(archive, plan) if capture.older else ours
    if migrations.is_older(there, ours):
        raise TargetRefused(
            f"the target was prepared by ZITADEL {there}; what is restored is of {ours}",
            hint="Prepare it with that version or a newer one.",
        )


def _version_at(archive: Archive, plan: RestorePlan) -> str | None:
    """Read the version at T from the newest chunk that tells one."""
    counts = partial(find.counts, archive)
    mark = b"\t" + b"\t".join(EXEMPT) + b"\t"
    for chunk in reversed(plan.chunks):
        if has_system(chunk.ref, counts):
            until = (rows_until(frame, plan.cut_at) for frame in archive.read(chunk.ref))
            with rows_of(chunk.ref.name):
                there = migrations.parse(row for row in rows_in(until) if mark in row)
            if version := migrations.zitadel_version(there):
                return version
    return None


def _expect_tables(record: Capture) -> None:
    """Refuse a capture of tables that no backup reads: they would be filled in the target."""
    for table in record.tables:
        known = tables.find(table.schema, table.name)
        if table.schema not in tables.SCHEMAS or table.name in OURS or (known is not None and known.kind == "events"):
            raise Damaged(
                f"the capture holds rows of {table.schema}.{table.name}, which no backup captures",
                hint="Find out who else can write into the archive, and restore from another copy.",
            )


def _expect_columns(target: Target) -> None:
    """Refuse computed tables that want a value which zbackup does not know."""
    for name, written in WRITTEN.items():
        there = target.tables.get(name)
        if there is not None and (unfilled := [column for column in there.required if column not in written]):
            raise TargetRefused(
                f"the target's {'.'.join(name)} wants a column {unfilled[0]} that zbackup does not know",
                hint="Use a newer zbackup, or prepare the target with the source's version of ZITADEL.",
            )


def _keys(archive: Archive, record: Capture, answering: CaptureRef | None) -> Iterator[CapturedTable]:
    """The newest rows of a key win; keys that are only in the older capture are added."""
    newer = archive.capture(answering) if answering is not None else None
    for one in (newer, record):
        table = captured_table(one, tables.KEYS) if one is not None else None
        if table is not None:
            yield table


def _states(archive: Archive, record: Capture) -> dict[str, dict[str, Decimal]]:
    table = captured_table(record, STATES)
    found: dict[str, dict[str, Decimal]] = {}
    if table is None:
        return found
    for name, instance, position in values_of(archive, table, ("projection_name", "instance_id", "position")):
        with rows_of(".".join(STATES)):
            value = Decimal(0) if position == b"\\N" else parse_position(position.decode())
            found.setdefault(unescape(name).decode(), {})[unescape(instance).decode()] = value
    return found
