"""
A history of any length grown from the events of a real server: each copy of them has new ids and later times.

Unlike generated rows, these have the lengths, the mix of types and the entropy of real ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count, islice
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

    def __init__(self, version: str = "v4.13.1") -> None:
        self.full = fixture_data.full_place() is not None
        """whether the whole fixture is at hand, and not only its beginning"""
        names = fixture_data.columns(version, full=self.full)
        assert names == COLUMNS
        created, position = names.index("created_at"), names.index("position")
        rows = [row.rstrip(b"\n").split(b"\t") for row in fixture_data.rows(version, full=self.full)]
        self._first = _Template(rows, created, position)
        # What ZITADEL's setup wrote is there once.
        self._again = _Template([row for row in rows if row[0]], created, position)

    def blocks(self, events: int, start: datetime, end: datetime, first: int = 0) -> Iterator[bytes]:
        """
        Yield so many rows in the order of their commits, spread between two instants, in blocks for COPY.

        `first` is the number of the first copy: histories with different ones can be in one table.
        """
        done = 0
        for number in count(first):
            template = self._again if number else self._first
            size = min(events - done, len(template.places))
            part = (end - start) / events
            yield b"".join(islice(template.rows(number, start + part * done, start + part * (done + size)), size))
            done += size
            if done == events:
                return


@cache
def _grown() -> Grown:
    return Grown()


class _Template:
    def __init__(self, rows: list[list[bytes]], created: int, position: int) -> None:
        times = [datetime.fromisoformat(row[created].decode()) for row in rows]
        first, last = min(times), max(times)
        self.places = [(time - first) / (last - first) for time in times]
        """each row's place in time, from 0 to 1"""
        self._parts: list[list[bytes]] = []
        self._ids: list[list[int]] = []
        for row in rows:
            parts = _ID.split(
                b"\t".join([*row[:created], b"%b", *row[created + 1 : position], b"%b", *row[position + 1 :]])
            )
            self._ids.append([int(found) for found in parts[1::2]])
            self._parts.append(parts)

    def rows(self, number: int, start: datetime, end: datetime) -> Iterator[bytes]:
        """Yield the rows of a copy."""
        shift, begin = number * APART, (start - EPOCH) // timedelta(microseconds=1)
        span = (end - start) // timedelta(microseconds=1) - 1
        for place, parts, ids in zip(self.places, self._parts, self._ids, strict=True):
            second, fraction = divmod(begin + int(place * span), 1_000_000)
            parts[1::2] = [b"%d" % (found + shift) for found in ids]
            created = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M:%S}.{fraction:06d}+00".encode()
            head, between, tail = b"".join(parts).split(b"%b")
            yield b"%b%b%b%d.%06d%b\n" % (head, created, between, second, fraction, tail)


def fill_grown(
    connection: psycopg.Connection[Any], *, events: int, start: datetime, end: datetime, first: int = 0
) -> None:
    """Append such a history to eventstore.events2, and commit."""
    columns = ", ".join(f'"{column}"' for column in COLUMNS)
    statement = f"COPY eventstore.events2 ({columns}) FROM STDIN".encode()
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for block in _grown().blocks(events, start, end, first):
            copy.write(block)
    connection.commit()
