"""The calendar's periods, by which what happened over any time is summed up into few numbers. UTC, pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

from zbackup.event import END

Unit = Literal["hour", "day", "week", "month", "year", "century"]

# The least that each takes; a century more than twice divides all the years there are.
_LEAST: dict[Unit, timedelta] = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "month": timedelta(days=28),
    "year": timedelta(days=365),
    "century": timedelta(days=36524),
}


def unit_for(first: datetime, last: datetime, most: int) -> Unit:
    """Choose the shortest unit of which no more than `most` touch a span of time, the century if none will do."""
    for unit, least in _LEAST.items():
        if (last - first) / least + 2 <= most:
            return unit
    return "century"


def start_of(unit: Unit, at: datetime) -> datetime:
    """Return when the period began that an instant lies in. Weeks are ISO's: they begin on Mondays."""
    at = at.astimezone(UTC)
    if unit == "hour":
        return at.replace(minute=0, second=0, microsecond=0)
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    match unit:
        case "day":
            return day
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case "year":
            return day.replace(month=1, day=1)
        case "century":
            return day.replace(year=max(1, day.year // 100 * 100), month=1, day=1)


def end_of(unit: Unit, start: datetime) -> datetime:
    """Return when the next period begins."""
    try:
        match unit:
            case "month":
                return (start + timedelta(days=31)).replace(day=1)
            case "year":
                return start.replace(year=start.year + 1)
            case "century":
                return start.replace(year=start.year // 100 * 100 + 100)
            case _:
                return start + _LEAST[unit]
    except (OverflowError, ValueError):
        return END


def starts(unit: Unit, first: datetime, last: datetime) -> Iterator[datetime]:
    """Yield when the periods begin that a span of time touches."""
    start = start_of(unit, first)
    while start <= last:
        yield start
        after = end_of(unit, start)
        if after <= start or after == END:
            return
        start = after


def spoken(span: timedelta) -> str:
    """Write a length of time in the largest unit of which it has at least two."""
    seconds = max(0, round(span.total_seconds()))
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:,} {unit}s"
    return f"{seconds} second{'' if seconds == 1 else 's'}"
