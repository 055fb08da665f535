"""
Which events of `zitadel setup` a restored database holds, so that what they say is done is done there.

Setup decides by the events system.migration.* alone (facts 5.2): no event of a name, and the step runs; done, and
it never does; started and nothing after, and it waits for ever. They describe the schema, so they come with it:
from the capture whose schema is made anew, or from the target that ZITADEL prepared. Steps that write data are
told apart (steps.py): what they wrote is in the restored data or it is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from zbackup.event import instant_text, unescape
from zbackup.zitadel import steps
from zbackup.zitadel.events import COLUMN_ORDER

SYSTEM = ("", "system", "SYSTEM")
"""instance, aggregate type and id of these events"""

PREFIX = "system.migration."
STARTED, DONE, FAILED, REPEATED = (PREFIX + end for end in ("started", "done", "failed", "repeatable.done"))
ID_GENERATED = "system.id.generated"
SYSTEM_ID = "60_generate_system_id"

_PLACE = {name: place for place, name in enumerate(COLUMN_ORDER)}


@dataclass(frozen=True, slots=True)
class SystemEvent:
    """An event of the aggregate system/SYSTEM."""

    line: bytes
    """as COPY text"""
    sequence: int
    kind: str
    step: str
    """name of the setup step; empty for other events"""
    last_run: str
    """what a repeatable step noted, as canonical JSON; empty where nothing"""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The events that go and come so that the next setup runs what it must, and nothing else."""

    gone: tuple[tuple[int, str], ...]
    """sequence and why, of those that are there"""
    new: tuple[tuple[bytes, str], ...]
    """line and why"""
    rerun: tuple[tuple[str, str], ...]
    """steps that the next setup runs again, and why"""
    kept: tuple[SystemEvent, ...]
    """all that there will be"""


def parse(lines: Iterable[bytes]) -> tuple[SystemEvent, ...]:
    """Read events of system/SYSTEM from lines of COPY text."""
    return tuple(map(_event, lines))


def with_schema(there: Iterable[SystemEvent], captured: Iterable[SystemEvent]) -> Schedule:
    """Decide for a schema that a capture describes: `there` are the events of T, `captured` those it held."""
    at_t, at_s = _by_step(there), _by_step(captured)
    others = tuple(event for event in there if not event.step)
    has_id = any(event.kind == ID_GENERATED for event in others)
    kept: dict[int, SystemEvent] = {}
    reasons: dict[str, str] = {}
    rerun: dict[str, str] = {}
    for name in sorted({*at_t, *at_s}):
        chosen, why, again = _choose(name, at_t.get(name, {}), at_s.get(name, {}), has_id=has_id)
        chosen = dict(chosen)
        dangling = _dangling(chosen)
        if dangling is not None:
            del chosen[dangling]
            why, again = "it was started and not ended: setup would wait for ever", True
        kept |= chosen
        reasons[name] = why
        if again:
            rerun[name] = why
    loaded = {event.sequence: event for events in at_t.values() for event in events.values()}
    return Schedule(
        gone=tuple((seq, f"setup: {reasons[loaded[seq].step]}") for seq in sorted(loaded.keys() - kept.keys())),
        new=tuple((kept[seq].line, f"setup: {reasons[kept[seq].step]}") for seq in sorted(kept.keys() - loaded.keys())),
        rerun=tuple(rerun.items()),
        kept=_in_order((*kept.values(), *others)),
    )


def with_prepared(there: Iterable[SystemEvent], fresh: Iterable[SystemEvent], now: datetime) -> Schedule:
    """Decide for a target that ZITADEL prepared: `fresh` are the events it had, `now` dates one that may be added."""
    at_t, prepared = _by_step(there), _by_step(fresh)
    kept = {event.sequence: event for event in fresh if not event.step}
    rerun: dict[str, str] = {}
    for name, events in sorted(prepared.items()):
        why = _again(name)
        step = steps.find_step(name)
        if not why and step is not None and step.rerun and _is_done(events) and not _is_done(at_t.get(name, {})):
            why = "what it writes is not in the restored data"
        if why:
            rerun[name] = why
        else:
            kept |= events
    new = [(event.line, "setup: the prepared target's own steps") for event in _in_order(kept.values())]
    told = _last_run(at_t.get(steps.CONFIG_CHANGE, {}))
    if told and told != _last_run(prepared.get(steps.CONFIG_CHANGE, {})):
        line = _line(max(kept, default=0) + 1, steps.CONFIG_CHANGE, json.loads(told), now)
        new.append((line, "setup: the external domain that the restored instances were made for"))
        kept |= {event.sequence: event for event in parse([line])}
    return Schedule(
        gone=tuple((event.sequence, "setup: the steps of the source, whose schema this is not") for event in there),
        new=tuple(new),
        rerun=tuple(rerun.items()),
        kept=_in_order(kept.values()),
    )


def constraints(events: Iterable[SystemEvent]) -> frozenset[tuple[str, str, str]]:
    """Return the rows of unique_constraints that go with these events (facts 3.2: global, instance '')."""
    rows: set[tuple[str, str, str]] = set()
    for event in events:
        started = ("", "migration_started", event.step.lower())
        if event.kind == STARTED:
            rows.add(started)
        elif event.kind in {FAILED, REPEATED}:
            rows.discard(started)
        elif event.kind == DONE:
            rows.add(("", "migration_done", event.step.lower()))
    return frozenset(rows)


def zitadel_version(events: Iterable[SystemEvent]) -> str | None:
    """Return what the last setup said it was, such as v4.13.1 (seen on v2.71.19, v4.13.1, main)."""
    told = _last_run(_by_step(events).get(steps.PROJECTION_TABLES, {}))
    version = json.loads(told).get("version") if told else None
    return version if isinstance(version, str) else None


def external(events: Iterable[SystemEvent]) -> dict[str, Any]:
    """Return externalDomain, externalPort and externalSecure as the last setup had them; empty when unknown."""
    told = _last_run(_by_step(events).get(steps.CONFIG_CHANGE, {}))
    return json.loads(told) if told else {}


def unfinished(events: Iterable[SystemEvent]) -> tuple[str, ...]:
    """Name the steps that were started and have not ended."""
    return tuple(name for name, found in sorted(_by_step(events).items()) if _dangling(found) is not None)


def newest(*versions: str | None) -> str | None:
    """Return the newest of these versions of ZITADEL; those that do not say count least."""
    return max(filter(None, versions), key=lambda version: _numbers(version) or (), default=None)


def is_older(version: str | None, than: str | None) -> bool | None:
    """Tell whether a version of ZITADEL is older than another; None when one of them does not say."""
    one, other = _numbers(version), _numbers(than)
    return None if one is None or other is None else one < other


def _choose(
    name: str, at_t: dict[int, SystemEvent], at_s: dict[int, SystemEvent], *, has_id: bool
) -> tuple[dict[int, SystemEvent], str, bool]:
    """Return the events of a step to keep, why, and whether setup runs it again."""
    if why := _again(name):
        return {}, why, True
    if name == steps.CONFIG_CHANGE:
        return at_t or dict(_until_done(at_s)), "the external domain as of the instant", False
    if name == SYSTEM_ID and not has_id:
        return {}, "its event came after the instant", True
    step = steps.find_step(name)
    if step is None:
        return dict(at_s), "the steps that made the captured schema", not at_s
    if not step.rerun:
        return {**at_s, **at_t}, "done once, never again", False
    if _is_done(at_t) and _is_done(at_s):
        return dict(at_t), "done", False
    return {}, "what it writes is not in the restored data", True


def _again(name: str) -> str:
    if steps.is_projection_marker(name):
        return "projections catch up"
    return "fields catch up" if name in steps.FIELD_STEPS else ""


def _by_step(events: Iterable[SystemEvent]) -> dict[str, dict[int, SystemEvent]]:
    found: dict[str, dict[int, SystemEvent]] = {}
    for event in events:
        if event.step:
            found.setdefault(event.step, {})[event.sequence] = event
    return found


def _is_done(events: dict[int, SystemEvent]) -> bool:
    return any(event.kind in {DONE, REPEATED} for event in events.values())


def _dangling(events: dict[int, SystemEvent]) -> int | None:
    last = max(events, default=None)
    return last if last is not None and events[last].kind == STARTED else None


def _until_done(events: dict[int, SystemEvent]) -> Iterator[tuple[int, SystemEvent]]:
    for sequence in sorted(events):
        yield sequence, events[sequence]
        if events[sequence].kind == REPEATED:
            return


def _last_run(events: dict[int, SystemEvent]) -> str:
    return next((events[seq].last_run for seq in sorted(events, reverse=True) if events[seq].kind == REPEATED), "")


def _in_order(events: Iterable[SystemEvent]) -> tuple[SystemEvent, ...]:
    return tuple(sorted(events, key=lambda event: event.sequence))


def _numbers(version: str | None) -> tuple[int, ...] | None:
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version or "")
    return tuple(map(int, found.groups())) if found else None


def _event(line: bytes) -> SystemEvent:
    fields = line.rstrip(b"\n").split(b"\t")
    kind = unescape(fields[_PLACE["event_type"]]).decode()
    payload = fields[_PLACE["payload"]]
    said: Any = json.loads(unescape(payload)) if payload != b"\\N" else None
    told = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    last_run: Any = told.get("lastRun")
    return SystemEvent(
        line=line,
        sequence=int(fields[_PLACE["sequence"]]),
        kind=kind,
        step=str(told.get("name", "")) if kind.startswith(PREFIX) else "",
        last_run=json.dumps(last_run, sort_keys=True) if isinstance(last_run, dict) else "",
    )


def _line(sequence: int, step: str, last_run: object, now: datetime) -> bytes:
    """Write an event as setup does, as a line of COPY text."""
    payload = json.dumps({"name": step, "lastRun": last_run}, ensure_ascii=False).replace("\\", "\\\\")
    position = Decimal(int(now.timestamp())) + Decimal(now.microsecond).scaleb(-6)
    values = {
        "created_at": instant_text(now), "position": f"{position:f}", "in_tx_order": "1",
        "instance_id": SYSTEM[0], "aggregate_type": SYSTEM[1], "aggregate_id": SYSTEM[2], "sequence": str(sequence),
        "event_type": REPEATED, "revision": "1", "creator": "system", "owner": "SYSTEM", "payload": payload,
    }  # fmt: skip
    return "\t".join(values[name] for name in COLUMN_ORDER).encode() + b"\n"
