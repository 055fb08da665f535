"""
A history of any length grown from the events of a real server: each copy of them has new ids and later times.

Unlike generated rows, these have the lengths, the mix of types and the entropy of real ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from tests import fixture_data
from tests.history.generator import COLUMNS
from tests.history.world import EPOCH

# Between the ids of two copies: more than what one server gives in a minute.
APART = 1_000_003

_ID = re.compile(rb"(?<!\d)([1-9]\d{17})(?!\d)")


class Grown:
    """The rows of a real history as a text with slots, to be filled anew for each copy."""

    def __init__(self, version: str = "v4.13.1", *, full: bool = False) -> None:
        names = fixture_data.columns(version, full=full)
        assert names == COLUMNS
        self._created, self._position = names.index("created_at"), names.index("position")
        rows = fixture_data.rows(version, full=full)
        self._first = self._template(rows)
        # What ZITADEL's setup wrote is there once.
        self._again = self._template([row for row in rows if not row.startswith(b"\t")])

    def blocks(self, events: int, start: datetime, end: datetime) -> Iterator[bytes]:
        """Yield so many rows in the order of their commits, spread between two instants, in blocks for COPY."""
        span = (end - start) // timedelta(microseconds=1)
        number = done = 0
        while done < events:
            template = self._again if number else self._first
            share = (done + len(template.rows)) / max(events, done + len(template.rows))
            begin = _micros(start) + span * done // max(events, 1)
            yield template.filled(number * APART, begin, int(span * share) + _micros(start), events - done)
            done += len(template.rows)
            number += 1

    def _template(self, rows: list[bytes] | tuple[bytes, ...]) -> _Template:
        return _Template([row.rstrip(b"\n").split(b"\t") for row in rows], self._created, self._position)


class _Template:
    def __init__(self, rows: list[list[bytes]], created: int, position: int) -> None:
        times = [datetime.fromisoformat(row[created].decode()) for row in rows]
        first, last = min(times), max(times)
        self.rows = [(time - first) / ((last - first) or timedelta(1)) for time in times]
        """each row's place in time, from 0 to 1"""
        self._parts: list[list[bytes]] = []
        self._ids: list[list[int]] = []
        for row in rows:
            texts = [*row[:created], b"%b", *row[created + 1 : position], b"%b", *row[position + 1 :]]
            parts = _ID.split(b"\t".join(texts))
            self._ids.append([int(found) for found in parts[1::2]])
            self._parts.append(parts)

    def filled(self, shift: int, begin: int, end: int, most: int) -> bytes:
        lines: list[bytes] = []
        for place, parts, ids in zip(self.rows[:most], self._parts, self._ids, strict=False):
            second, fraction = divmod(begin + int(place * (end - begin - 1)), 1_000_000)
            parts[1::2] = [b"%d" % (number + shift) for number in ids]
            created = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M:%S}.{fraction:06d}+00"
            head, between, tail = b"".join(parts).split(b"%b")
            lines.append(b"%b%b%b%d.%06d%b\n" % (head, created.encode(), between, second, fraction, tail))
        return b"".join(lines)


def fill_grown(connection: psycopg.Connection[Any], *, events: int, start: datetime, end: datetime) -> None:
    """Append such a history to eventstore.events2, and commit."""
    columns = ", ".join(f'"{column}"' for column in COLUMNS)
    statement = f"COPY eventstore.events2 ({columns}) FROM STDIN".encode()
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for block in Grown().blocks(events, start, end):
            copy.write(block)
    connection.commit()


def _micros(instant: datetime) -> int:
    return (instant - EPOCH) // timedelta(microseconds=1)
