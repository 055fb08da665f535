"""Events and differences, as JSON and as lines for people; how a selection is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zbackup.cli.records import Record, plain
from zbackup.cli.texts import columns, count, many, when
from zbackup.event import BEGINNING, END

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zbackup.archive.plan import RestorePlan
    from zbackup.cli.job import Job
    from zbackup.diff import Changes, Difference, Group, Groups, Side
    from zbackup.event_json import EventRow
    from zbackup.log import Log

_SHOWN = ("EVENTS", "ADDED", "REMOVED", "CHANGED", "AGGREGATES")


def find(
    job: Job,
    at: str,
    generation: str | None,
    *,
    instance: str | None,
    org: str | None,
    aggregate: str | None,
    event_type: str | None,
    since: str | None,
    until: str | None,
) -> Log:
    """Find the events that the options of `log` and `export` mean."""
    from zbackup.log import find_events
    from zbackup.selection import Selection, parse_aggregate

    selection = Selection(instance, org, *parse_aggregate(aggregate), event_type)
    begin, end = (job.point(text) if text is not None else None for text in (since, until))
    made = resolved(job, at, generation)
    return find_events(job.archive(), made, selection, since=begin, until=end, report=job.report)


def resolved(job: Job, at: str, generation: str | None) -> RestorePlan:
    """Make a plan, and tell what it is of and what there is to know about it, before anything is read for it."""
    from zbackup.plan import resolve

    made = resolve(job.archive(), job.point(at), generation=generation, report=job.report)
    record = {"point": at, "at": plain(made.at), "backup": made.backup, "generation": made.generation}
    job.output.note("resolved", record, f"{at} is {_answer(made)}")
    for warning in made.warnings:
        job.output.warning(warning)
    return made


def log_record(log: Log) -> Record:
    """Say what events were read of."""
    made = log.state.plan
    return {
        "point": made.point,
        "at": plain(made.at),
        "backup": made.backup,
        "generation": made.generation,
        "final": made.final,
        "snapshot": plain(made.snapshot),
        "withheld": len(log.state.withheld),
        "since": plain(log.since) if log.since > BEGINNING else None,
        "until": plain(log.until) if log.until < END else None,
        "warnings": list(made.warnings),
    }


def log_line(event: EventRow, *, payload: bool) -> str:
    """Write one event; ids may hold line ends."""
    parts = [
        when(event.created_at),
        event.position,
        event.name,
        event.event_type,
        f"by {event.creator or '-'}",
        f"of {event.owner or '-'}",
    ]
    if payload:
        parts.append(event.payload if event.payload is not None else "-")
    return "  ".join(parts).replace("\n", "\\n").replace("\t", "\\t")


def diff_record(found: Difference) -> Record:
    return {
        "first": _side_record(found.first),
        "second": _side_record(found.second),
        "changes": plain(found.changes),
        "instances": plain(found.instances),
        "organisations": plain(found.organisations),
        "aggregate_types": plain(found.aggregate_types),
    }


def diff_lines(found: Difference) -> Iterator[str]:
    changes = found.changes
    yield f"from {found.first.plan.point} to {found.second.plan.point}:"
    if not changes.events:
        yield "  no difference"
        return
    yield (
        f"  {many(changes.added, 'event')} added, {count(changes.removed)} removed, {count(changes.changed)} changed, "
        f"of {many(changes.aggregates, 'aggregate')}, created from {when(changes.first)} to {when(changes.last)}"
    )
    for side in (found.first, found.second):
        if side.withheld:
            yield f"  {side.plan.point}: {many(side.withheld, 'event')} withheld, so that every push stays whole"
    for title, groups in (
        (("INSTANCE",), found.instances),
        (("INSTANCE", "OWNER"), found.organisations),
        (("AGGREGATE TYPE",), found.aggregate_types),
    ):
        yield ""
        yield from _groups_lines(title, groups)


def _answer(made: RestorePlan) -> str:
    instant = when(made.at, f"the whole of backup {made.backup}, as of {when(made.snapshot)}")
    answered = "" if made.at is None else f", answered by backup {made.backup}"
    return f"{instant}{answered} (generation {made.generation}, {'final' if made.final else 'not final'})"


def _side_record(side: Side) -> Record:
    made = side.plan
    return {
        "point": made.point,
        "at": plain(made.at),
        "backup": made.backup,
        "generation": made.generation,
        "final": made.final,
        "snapshot": plain(made.snapshot),
        "withheld": side.withheld,
        "warnings": list(made.warnings),
    }


def _groups_lines(title: Sequence[str], groups: Groups) -> Iterator[str]:
    rows = [(*title, *_SHOWN, "FIRST", "LAST")]
    rows += [(*_names(group), *_numbers(group.changes)) for group in groups.largest]
    yield from columns(rows, numbers=_SHOWN)
    if groups.total > len(groups.largest):
        yield f"and {count(groups.total - len(groups.largest))} more with fewer events; --limit 0 shows all"


def _names(group: Group) -> Iterator[str]:
    for name in (group.instance_id, group.owner, group.aggregate_type):
        if name is not None:
            yield name or "(system)"


def _numbers(changes: Changes) -> Iterator[str]:
    yield from map(count, (changes.events, changes.added, changes.removed, changes.changed, changes.aggregates))
    yield from (when(changes.first), when(changes.last))
