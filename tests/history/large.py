"""Rows as large as nobody's should be: events and assets of many megabytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Json


@dataclass(frozen=True, slots=True)
class Large:
    """How many huge rows, and where."""

    apart: int = 4
    """events a second apart"""
    together: int = 2
    """of one instant"""
    spread: int = 3
    """hours apart"""
    assets: int = 3

    def instants(self, start: datetime, end: datetime) -> Iterator[datetime]:
        middle = start + (end - start) / 2
        for number in range(self.apart):
            yield middle + timedelta(seconds=number)
        for _ in range(self.together):
            yield middle + timedelta(minutes=1)
        for number in range(self.spread):
            yield start + (end - start) * (number + 1) / (self.spread + 1)


def fill_large(
    connection: psycopg.Connection[Any], row_bytes: int, *, start: datetime, end: datetime, large: Large | None = None
) -> int:
    """
    Append events with payloads of so many bytes, and assets of half as many, whose text has two digits a byte.

    Commits. Returns the bytes of the largest payload as text.
    """
    large = large or Large()
    rng = random.Random(1)
    statement = b"""INSERT INTO eventstore.events2 VALUES ('large', 'test', %s, 'test.large', 1, 1, %s, %s, 'test', 'o',
        extract(epoch FROM %s::timestamptz), %s)"""
    for number, at in enumerate(large.instants(start, end)):
        # Digits of hexadecimal shrink to the half: less than that a real payload would hardly do.
        payload = Json({"text": rng.randbytes(row_bytes // 2).hex()})
        connection.execute(statement, (str(number), at, payload, at, number))
    for number in range(large.assets):
        connection.execute(
            """INSERT INTO system.assets (instance_id, asset_type, resource_owner, name, content_type, data, updated_at)
               VALUES ('large', '4', 'org', %s, 'image/png', %s, now())""",
            (str(number), rng.randbytes(row_bytes // 2)),
        )
    connection.commit()
    row = connection.execute(
        "SELECT max(octet_length(payload::text)) FROM eventstore.events2 WHERE event_type = 'test.large'"
    ).fetchone()
    assert row is not None
    return row[0]


def fill_many(connection: psycopg.Connection[Any], events: int, *, start: datetime, end: datetime) -> None:
    """Append so many events of 1 kB each that hold no name, faster than a generated history. Commits."""
    connection.execute(
        """INSERT INTO eventstore.events2
           SELECT 'many', 'session', n::text, 'session.added', 1, 1, at,
                  jsonb_build_object('agent', repeat(md5(n::text), 30)), 'system', '1', extract(epoch FROM at), 1
             FROM (SELECT n, %s::timestamptz + n * (%s::timestamptz - %s) / %s AS at
                     FROM generate_series(1, %s) n) s""",
        (start, end, start, events, events),
    )
    connection.commit()


def fill_users(connection: psycopg.Connection[Any], users: int, *, start: datetime, end: datetime) -> None:
    """Append the events of so many users, each of whom holds a name, one after the other. Commits."""
    connection.execute(
        """INSERT INTO eventstore.events2
           SELECT 'users', 'user', (400839037394357286 + n::bigint * 1048576)::text, 'user.human.added', 1, 2, at,
                  jsonb_build_object('userName', 'first.last' || n || '@example.com', 'firstName', 'First',
                                     'lastName', 'Last', 'email', 'first.last' || n || '@example.com'),
                  'system', '400839037394357287', extract(epoch FROM at), 1
             FROM (SELECT n, %s::timestamptz + n * (%s::timestamptz - %s) / %s AS at
                     FROM generate_series(1, %s) n) s""",
        (start, end, start, users, users),
    )
    connection.commit()
