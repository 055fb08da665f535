"""
What a person may write for "when", and what it means.

    latest                              the newest recovery point
    2026-11-23T08:00:00.123456Z         an instant with Z, an offset, or
    2026-11-23T08:00 [Europe/Berlin]    an IANA zone; seconds and fraction may be left out
    2h ago, 1d 4h ago, 90 min ago       relative to now
    position:1763884800.123456          the instant of the event that holds exactly this position
    before:INSTANCE/TYPE/AGGREGATE/SEQUENCE   just before this event
    backup:ID                           exactly what this backup saw

A time that its zone skips or shows twice is refused; nothing is guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from zbackup.errors import UsageError

FORMS = (
    "latest",
    "2026-11-23T08:00:00Z",
    "2026-11-23T08:00:00.123456+01:00",
    '"2026-11-23T08:00 [Europe/Berlin]"',
    '"2h ago"',
    "position:1763884800.123456",
    "before:INSTANCE/TYPE/AGGREGATE/SEQUENCE",
    "backup:ID",
)
"""One example of each form, as a shell wants it."""

EXAMPLES = f"Write one of {', '.join(FORMS)}."


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest recovery point of the archive."""


@dataclass(frozen=True, slots=True)
class Instant:
    """Every event created at or before `at`."""

    at: datetime
    """UTC, microseconds"""
    text: str
    """as it was asked for"""


@dataclass(frozen=True, slots=True)
class Position:
    """The instant of the one event with exactly this position."""

    value: Decimal


@dataclass(frozen=True, slots=True)
class BeforeEvent:
    """The last instant that does not include this event."""

    instance: str
    """empty for system events"""
    aggregate_type: str
    aggregate_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class OfBackup:
    """Exactly the rows one backup saw."""

    backup: str


RestorePoint = Latest | Instant | Position | BeforeEvent | OfBackup

_POSITION = re.compile(r"[0-9]+(\.[0-9]+)?")
_WORD = re.compile(r"[0-9A-Za-z-]+")
_AGO = re.compile(r"(?P<parts>.*\S)\s+ago", re.IGNORECASE | re.DOTALL)
_PART = re.compile(r"\s*([0-9]{1,9})\s*([a-z]+)\s*", re.IGNORECASE)
_INSTANT = re.compile(
    r"(?P<clock>[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2})?)(\.(?P<fraction>[0-9]+))?"
    r"\s*(?P<offset>[Zz]|[+-][0-9]{2}(:?[0-9]{2})?)?\s*(\[(?P<zone>[^\[\]]*)\])?"
)
_LOOKS_LIKE_INSTANT = re.compile(r"[0-9]{4}-?[0-9]{2}|[0-9]{1,2}[:./]")

_UNITS = {
    "s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "mins": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
    "w": 604800, "week": 604800, "weeks": 604800,
}  # fmt: skip


def parse_point(text: str, now: datetime) -> RestorePoint:
    """Read a point in time as a person wrote it, relative forms counted from `now`. Raises UsageError."""
    words = text.strip()
    if words.lower() == "latest":
        return Latest()
    kind, colon, rest = words.partition(":")
    if colon and kind in _PREFIXED:
        return _PREFIXED[kind](rest)
    if match := _AGO.fullmatch(words):
        return Instant(_ago(match["parts"], words, now), words)
    if match := _INSTANT.fullmatch(words):
        return Instant(_instant(match), words)
    if words and _LOOKS_LIKE_INSTANT.match(words):
        raise UsageError(f"{words!r} is not an instant: date, time and zone are needed", hint=EXAMPLES)
    raise UsageError(f"{words!r} is not a point in time", hint=EXAMPLES)


def point_text(point: RestorePoint) -> str:
    """Write a point so that `parse_point` reads the same again."""
    match point:
        case Latest():
            return "latest"
        case Instant():
            return point.text
        case Position():
            return f"position:{point.value:f}"
        case BeforeEvent():
            return f"before:{point.instance}/{point.aggregate_type}/{point.aggregate_id}/{point.sequence}"
        case OfBackup():
            return f"backup:{point.backup}"


def _position(rest: str) -> Position:
    if not _POSITION.fullmatch(rest):
        raise UsageError(
            f"position {rest!r} is not a decimal number",
            hint="Copy it from eventstore.events2 with all its digits: position:1763884800.123456.",
        )
    return Position(Decimal(rest))


def _before(rest: str) -> BeforeEvent:
    # Aggregate ids may hold slashes: the first two parts and the last one are fixed.
    instance, _, rest_ = rest.partition("/")
    kind, _, rest_ = rest_.partition("/")
    aggregate, _, sequence = rest_.rpartition("/")
    if not kind or not aggregate or not re.fullmatch("[0-9]{1,19}", sequence):
        raise UsageError(
            f"event {rest!r} is not INSTANCE/TYPE/AGGREGATE/SEQUENCE",
            hint="For example before:840498034930840/user/840498034931841/7; "
            "system events have an empty instance: before:/system/SYSTEM/3.",
        )
    return BeforeEvent(instance, kind, aggregate, int(sequence))


def _backup(rest: str) -> OfBackup:
    if not _WORD.fullmatch(rest):
        raise UsageError(f"{rest!r} is not the id of a backup", hint="Ids are listed by `zbackup list`.")
    return OfBackup(rest)


_PREFIXED = {"position": _position, "before": _before, "backup": _backup}


def _ago(parts: str, words: str, now: datetime) -> datetime:
    seconds = 0
    seen: set[int] = set()
    at = 0
    while at < len(parts):
        match = _PART.match(parts, at)
        unit = match and _UNITS.get(match[2].lower())
        if not match or not unit or unit in seen:
            raise UsageError(
                f"{words!r} is not a time span",
                hint='Units are s, min, h, d and w, each at most once: "90 min ago", "1d 4h ago".',
            )
        seen.add(unit)
        seconds += int(match[1]) * unit
        at = match.end()
    try:
        return now.astimezone(UTC) - timedelta(seconds=seconds)
    except OverflowError:
        raise UsageError(f"{words!r} is before the calendar begins", hint=EXAMPLES) from None


def _instant(match: re.Match[str]) -> datetime:
    words = match[0]
    fraction = match["fraction"] or ""
    if len(fraction) > 6:
        raise UsageError(
            f"{words!r} has {len(fraction)} digits after the second; events have microseconds",
            hint="Give at most 6 digits.",
        )
    try:
        local = datetime.fromisoformat(match["clock"].upper())
        local += timedelta(microseconds=int(fraction.ljust(6, "0")))
        offset = _offset(match["offset"])
        if match["zone"] is not None:
            return _in_zone(local, offset, match["zone"], words)
        if offset is not None:
            return local.replace(tzinfo=offset).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{words!r} is not an instant: {error}", hint=EXAMPLES) from None
    raise UsageError(
        f"{words!r} has no time zone",
        hint=f'Add Z for UTC, an offset or a zone: {words}Z, {words}+01:00, "{words} [Europe/Berlin]".',
    )


def _offset(text: str | None) -> tzinfo | None:
    if text is None:
        return None
    if text in "Zz":
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 23 or minutes > 59:
        raise ValueError(f"no such offset {text}")
    span = timedelta(hours=hours, minutes=minutes)
    return timezone(-span if text[0] == "-" else span)


def _in_zone(local: datetime, offset: tzinfo | None, name: str, words: str) -> datetime:
    try:
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            f"{words!r}: no time zone {name!r}", hint="Zones have names like Europe/Berlin or UTC."
        ) from None
    readings = [local.replace(tzinfo=zone, fold=fold) for fold in (0, 1)]
    first, second = (reading.utcoffset() for reading in readings)
    if offset is not None:
        stated = offset.utcoffset(None)
        skipped = first is not None and second is not None and first < second
        if stated not in (first, second) or skipped:
            raise UsageError(
                f"{words!r}: the clocks of {name} do not show this time at this offset",
                hint="Leave out the offset or the zone.",
            )
        return local.replace(tzinfo=offset).astimezone(UTC)
    if first == second:
        return readings[0].astimezone(UTC)
    both = " and ".join(f"{reading.isoformat()} ({reading.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ})" for reading in readings)
    happens = "twice" if first is not None and second is not None and first > second else "never"
    raise UsageError(
        f"{words!r}: the clocks of {name} show this time {happens}; it could mean {both}",
        hint="Write the one you mean, with its offset.",
    )
