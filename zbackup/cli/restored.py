"""Plans and restores, as JSON and as lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zbackup.cli.records import Record, masterkey_word, plain
from zbackup.cli.texts import columns, count, duration, many, pairs, size, warnings, when
from zbackup.missing import warnings as damage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zbackup.archive.plan import RestorePlan
    from zbackup.constraints import Comparison, ConstraintsAt
    from zbackup.database.schema_text import SchemaCode
    from zbackup.inspect import ShownSchema
    from zbackup.missing import Missing
    from zbackup.recover import Recovered
    from zbackup.restore import RestoreResult
    from zbackup.unit import Unit
    from zbackup.zitadel.constraints import Difference
    from zbackup.zitadel.masterkey import MasterkeyCheck

_MODES = {
    "empty": "an empty database: schema and tables are made",
    "prepared": "a database that ZITADEL prepared: its tables are filled",
    "events": "the events only",
}


def plan_record(plan: RestorePlan, unit: Unit | None, masterkey: MasterkeyCheck | None = None) -> Record:
    """Sum up a plan; its chunks are counted, not listed."""
    estimate = plan.estimate
    return {
        "point": plan.point,
        "at": plain(plan.at),
        "backup": plan.backup,
        "generation": plan.generation,
        "final": plan.final,
        "snapshot": plain(plan.snapshot),
        "horizon": plain(plan.horizon),
        "events": estimate.events if estimate else None,
        "added": estimate.added if estimate else None,
        "withheld": estimate.withheld if estimate else None,
        "lost": estimate.lost if estimate else None,
        "chunks": plan.totals.chunks,
        "raw_bytes": plan.totals.raw_bytes,
        "stored_bytes": plan.totals.stored_bytes,
        "capture": plan.capture.backup if plan.capture else None,
        "others": plain(plan.others),
        "unit": _unit_record(unit) if unit else None,
        "masterkey": masterkey_word(masterkey),
        "warnings": list(plan.warnings),
    }


def restore_record(result: RestoreResult, masterkey: MasterkeyCheck | None = None) -> Record:
    return {
        "events": result.events,
        "at": plain(result.at),
        "final": result.final,
        "withheld": result.withheld,
        "withheld_events": plain(result.withheld_events),
        "added": result.added,
        "generation": result.generation,
        "backup": result.backup,
        "proof": result.proof,
        "seconds": result.seconds,
        "moved_aside": result.moved_aside,
        "mode": result.mode,
        "recovered": _recovered_record(result.recovered) if result.recovered else None,
        "next_steps": plain(result.next_steps),
        "notices": list(result.notices),
        "masterkey": masterkey_word(masterkey),
        "warnings": list(result.warnings),
        "done_before": result.done_before,
        "missing": [missing_record(one) for one in result.missing],
    }


def missing_record(found: Missing) -> Record:
    return {
        "object": found.object,
        "kind": found.kind,
        "problem": found.problem,
        "rows": found.rows,
        "spans": plain(found.spans),
        "instances": _counted(found.instances),
        "aggregate_types": _counted(found.aggregate_types),
        "events": plain(found.events),
    }


def _counted(rows: Mapping[str, int] | None) -> list[Record] | None:
    return None if rows is None else [{"name": name, "rows": number} for name, number in rows.items()]


def comparison_record(found: Comparison) -> Record:
    return {
        "captured": found.captured,
        "difference": _difference_record(found.difference),
        "doubts": list(found.doubts),
    }


def _difference_record(difference: Difference) -> Record:
    """Write how a captured table of unique constraints compares with the events."""
    return {
        "equal": difference.equal,
        "missing": plain(difference.missing),
        "explained": [{"row": plain(row), "why": why} for row, why in difference.explained],
        "unexplained": plain(difference.unexplained),
    }


def plan_lines(plan: RestorePlan, unit: Unit | None, masterkey: MasterkeyCheck | None = None) -> Iterator[str]:
    yield f"{plan.point}: from backup {plan.backup} of generation {plan.generation}"
    estimate = plan.estimate
    said = {
        "instant": when(plan.at, f"the whole backup, as of {when(plan.snapshot)}"),
        "final": "yes" if plan.final else "no: later backups may add events to it",
        "reads": f"{many(plan.totals.chunks, 'chunk')}, {size(plan.totals.stored_bytes)} "
        f"of {size(plan.totals.raw_bytes)}",
        "capture": f"of backup {plan.capture.backup}, {when(plan.capture.snapshot)}"
        if plan.capture and unit
        else "none",
    }
    if estimate is not None:
        said |= {
            "events": count(estimate.events),
            "added": f"up to {many(estimate.added, 'event')} by later amendments" if estimate.added else "",
            "withheld": f"about {many(estimate.withheld, 'event')}, so that every push stays whole"
            if estimate.withheld
            else "none",
            "lost": f"{many(estimate.lost, 'event')} after it" if estimate.lost else "nothing of this archive",
        }
    if unit is not None:
        said |= {"target": f"{_MODES[unit.survey.mode]} ({unit.survey.found})", **dict(_unit_pairs(unit))}
    said["masterkey"] = _masterkey(masterkey)
    yield from pairs(said.items())
    for other in plan.others:
        final = "final" if other.final else "not final"
        yield f"  also covered by generation {other.generation}, backup {other.backup} ({final})"
    if unit is not None:
        for problem in unit.survey.problems:
            yield f"refused: {problem.table}: {problem.why}; --without {problem.table} leaves it out"
        yield from _tables(unit)
        yield from warnings(unit.survey.warnings)
    yield from warnings(plan.warnings)


def _masterkey(found: MasterkeyCheck | None) -> str:
    proved = f": {len(found.ids('fits'))} of {len(found.keys)} keys proved" if found else ""
    return masterkey_word(found) + proved


def restore_lines(result: RestoreResult, masterkey: MasterkeyCheck | None = None) -> Iterator[str]:
    if result.done_before:
        yield "this restore was already done; nothing was changed"
    yield f"restored {many(result.events, 'event')} as of {when(result.at)}"
    said = {
        "from": f"backup {result.backup}, generation {result.generation}",
        "final": "yes" if result.final else "no: later backups may add events to it",
        "withheld": f"{many(result.withheld, 'event')}, so that every push stays whole" if result.withheld else "none",
        "added": f"{many(result.added, 'event')} by later amendments" if result.added else "",
        "moved aside": f"{many(result.moved_aside, 'event')} of the system"
        if result.moved_aside and result.mode == "events"
        else "",
        "proof": result.proof,
        "target": _MODES[result.mode],
        "time": duration(result.seconds),
    }
    found = result.recovered
    if found is not None:
        said |= dict(_unit_pairs(found.unit))
        said |= {
            "since": f"{many(found.since, 'event')} after the capture, for setup to catch up" if found.since else "",
            "constraints": _constraints(found.constraints),
            "permissions": count(found.permissions),
            "silent": f"{many(found.states, 'state')} of handlers that would mail or call",
            "ZITADEL": f"{found.zitadel_version or 'unknown'} at the instant; needed is {found.zitadel_needed} or newer"
            if found.zitadel_needed
            else "",
        }
    if masterkey is not None:
        said["masterkey"] = _masterkey(masterkey)
    yield from pairs(said.items())
    if found is not None:
        for instance in found.instances:
            yield f"  instance {instance.id} {instance.name}: {', '.join(instance.domains) or 'no domain'}"
    yield from warnings(result.warnings)
    if found is not None:
        yield ""
        yield "Changed about the events when they were published:"
        yield from _edits(found)
    if result.next_steps:
        yield from _aftermath(result)
    if result.missing:
        yield ""
        yield "NOT WHOLE:"
        yield from (f"  {text}" for text in damage(result.missing))


def comparison_lines(found: Comparison) -> Iterator[str]:
    """Write a comparison of unique constraints in full."""
    difference = found.difference
    yield f"unique constraints of backup {found.backup}: {count(found.captured)} captured, of which"
    yield f"{count(difference.equal)} are those that the events ask for"
    for title, rows in (
        ("missing in the table (serious)", difference.missing),
        ("unexplained", difference.unexplained),
    ):
        if rows:
            yield f"{count(len(rows))} {title}:"
            yield from (f"  {' '.join(map(repr, row))}" for row in rows)
    if difference.explained:
        yield f"{count(len(difference.explained))} surplus, explained:"
        yield from (f"  {' '.join(map(repr, row))}: {why}" for row, why in difference.explained)
    for doubt in found.doubts:
        yield f"not known for certain: {doubt}"


def _unit_record(unit: Unit) -> Record:
    survey = unit.survey
    return {
        "mode": survey.mode,
        "found": survey.found,
        "capture": survey.capture.backup,
        "cold": unit.cold or None,
        "fields_cold": unit.fields or None,
        "handlers": [
            {"handler": handler.name, "warm": handler.warm, "why": handler.why or None} for handler in unit.handlers
        ],
        "tables": [
            {
                "table": str(table),
                "class": table.kind,
                "action": table.action,
                "rows": table.rows,
                "why": table.why,
            }
            for table in unit.tables
        ],
        "schema": plain(survey.schema) if survey.schema else None,
        "problems": plain(survey.problems),
        "warnings": list(survey.warnings),
    }


def _recovered_record(found: Recovered) -> Record:
    constraints = found.constraints
    return {
        "unit": _unit_record(found.unit),
        "since": found.since,
        "zitadel_version": found.zitadel_version,
        "zitadel_needed": found.zitadel_needed,
        "constraints": {
            "basis": constraints.basis,
            "rows": constraints.rows,
            "added": constraints.added,
            "removed": constraints.removed,
            "difference": _difference_record(constraints.difference) if constraints.difference else None,
            "doubts": list(constraints.doubts),
        },
        "permissions": found.permissions,
        "states": found.states,
        "edits": plain(found.edits),
        "rerun": [{"step": step, "why": why} for step, why in found.rerun],
        "instances": plain(found.instances),
    }


def schema_record(shown: ShownSchema) -> Record:
    """Write a schema's text and what it is; bytes that are no UTF-8 are written out."""
    return {
        **(plain(shown.code) if shown.code else {"sha256": None, "bytes": None, "functions": None, "triggers": None}),
        "refused": shown.refused or None,
        "text": shown.text.decode(errors="backslashreplace"),
    }


def schema_lines(shown: ShownSchema) -> Iterator[str]:
    """Write the text as it is, so that its digest can be compared; only control characters are written out."""
    yield from shown.text.decode(errors="backslashreplace").removesuffix("\n").split("\n")


def _schema_line(code: SchemaCode) -> str:
    return (
        f"code from the archive: {many(code.functions, 'function')}, {many(code.triggers, 'trigger')}, "
        f"{size(code.bytes)}, sha256 {code.sha256}; it runs as the role that restores"
    )


def _unit_pairs(unit: Unit) -> Iterator[tuple[str, str]]:
    if unit.survey.schema is not None:
        yield "schema", _schema_line(unit.survey.schema)
    warm = sum(handler.warm for handler in unit.handlers)
    loaded = [table for table in unit.tables if table.action == "load"]
    rows = sum(table.rows for table in loaded)
    yield "tables", f"{count(len(loaded))} of backup {unit.survey.capture.backup}, {many(rows, 'row')}"
    if unit.cold:
        yield "projections", f"cold: {unit.cold}"
    else:
        cold = len(unit.handlers) - warm
        yield "projections", f"{many(warm, 'handler')} warm" + (f", {count(cold)} cold" if cold else "")


def _tables(unit: Unit) -> Iterator[str]:
    """List what a person should see before: state, and whatever is not as usual."""
    rows = [("TABLE", "CLASS", "ACTION", "ROWS", "WHY")]
    rows += [
        (str(table), table.kind, table.action, count(table.rows), table.why)
        for table in unit.tables
        if table.kind in {"state", "unknown", "metadata"}
        or str(table) in unit.survey.options.without
        or (table.action == "empty" and table.rows and not unit.cold)
    ]
    yield ""
    yield from columns(rows, numbers=("ROWS",))


def _constraints(found: ConstraintsAt) -> str:
    text = f"{many(found.rows, 'row')}, and those of setup's steps, from the {found.basis}"
    if found.difference is not None:
        difference = found.difference
        text += (
            f"; captured table: {count(difference.equal)} equal, {count(len(difference.missing))} missing, "
            f"{count(len(difference.explained))} explained, {count(len(difference.unexplained))} unexplained"
        )
    return text


def _edits(found: Recovered) -> Iterator[str]:
    for edit in found.edits:
        parts = [f"{count(edit.removed)} removed"] * bool(edit.removed)
        parts += [f"{count(edit.inserted)} inserted"] * bool(edit.inserted)
        yield f"  {', '.join(parts)}: {edit.why}"
    if not found.edits:
        yield "  nothing"


def _aftermath(result: RestoreResult) -> Iterator[str]:
    yield ""
    yield "Do now, in this order:"
    for number, step in enumerate(result.next_steps, 1):
        yield f"  {number}. {step.what}" + (":" if step.command else "")
        if step.command:
            yield f"       {step.command}"
    yield ""
    yield "What people will notice:"
    yield from (f"  {notice}" for notice in result.notices)
