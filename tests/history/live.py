"""
Pushes as ZITADEL makes them, one statement of a transaction each, for tests of what happens at the same time.

The caller owns the transaction: `push` neither begins nor commits, so that it can be held open, prepared, rolled
back to a savepoint or overtaken by others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import psycopg

Clock = Literal["statement_timestamp", "now", "clock_timestamp"]
"""
Where created_at and position come from: v3.4.2+/v4.2+ | v2.66 to v4.1 and main | v2.39 to v2.65, where each
event of a push has a position of its own and the order begins with 0 (facts 1.3).
"""


@dataclass(frozen=True, slots=True)
class Command:
    """What a push shall append to an aggregate."""

    aggregate_type: str
    aggregate_id: str
    event_type: str = ""
    """`TYPE.changed` when empty"""
    payload: object = None
    creator: str = "system"
    owner: str = "org"
    revision: int = 1


@dataclass(frozen=True, slots=True)
class Pushed:
    """An event that a push wrote."""

    instance_id: str
    aggregate_type: str
    aggregate_id: str
    sequence: int
    created_at: datetime
    position: Decimal
    in_tx_order: int


# The sequence is the aggregate's greatest plus one; two pushes to one aggregate meet at the primary key.
PUSH = """
WITH command AS (
    SELECT * FROM unnest(%(types)s::TEXT[], %(ids)s::TEXT[], %(events)s::TEXT[], %(payloads)s::JSONB[],
        %(creators)s::TEXT[], %(owners)s::TEXT[], %(revisions)s::SMALLINT[])
        WITH ORDINALITY AS c (kind, id, event, payload, creator, owner, revision, number)
), latest AS (
    SELECT kind, id, (SELECT max("sequence") FROM eventstore.events2 WHERE instance_id = %(instance)s
        AND aggregate_type = kind AND aggregate_id = id) AS "sequence"
    FROM (SELECT DISTINCT kind, id FROM command) AS a
)
INSERT INTO eventstore.events2 (instance_id, aggregate_type, aggregate_id, event_type, "sequence", revision,
    created_at, payload, creator, "owner", "position", in_tx_order)
SELECT %(instance)s, kind, id, event,
    coalesce(l."sequence", 0) + row_number() OVER (PARTITION BY kind, id ORDER BY number), revision,
    {created_at}, payload, creator, owner, EXTRACT(EPOCH FROM {position}), number - {first}
FROM command JOIN latest l USING (kind, id)
ORDER BY number
RETURNING instance_id, aggregate_type, aggregate_id, "sequence", created_at, "position", in_tx_order
"""

# What v3.4.2+ and v4.2+ take before each push (facts 1.7).
LOCK = "SELECT pg_advisory_xact_lock_shared('eventstore.events2'::REGCLASS::OID::INT, hashtext(%s))"


def push(
    connection: psycopg.Connection[Any],
    instance: str,
    *commands: Command | tuple[str, str],
    clock: Clock | datetime = "statement_timestamp",
    lock: bool = False,
) -> list[Pushed]:
    """
    Append events in the connection's transaction and return them in their order.

    A pair is an aggregate's type and id. A `clock` that is an instant dates them as given.
    """
    full = [command if isinstance(command, Command) else Command(*command) for command in commands]
    created = position = "statement_timestamp()" if clock == "clock_timestamp" else f"{clock}()"
    if isinstance(clock, datetime):
        created = position = "%(at)s::TIMESTAMPTZ"
    elif clock == "clock_timestamp":
        position = "clock_timestamp()"
    first = 1 if clock == "clock_timestamp" else 0
    statement = PUSH.format(created_at=created, position=position, first=first)
    values = {
        "instance": instance,
        "at": clock,
        "types": [command.aggregate_type for command in full],
        "ids": [command.aggregate_id for command in full],
        "events": [command.event_type or f"{command.aggregate_type}.changed" for command in full],
        "payloads": [None if command.payload is None else json.dumps(command.payload) for command in full],
        "creators": [command.creator for command in full],
        "owners": [command.owner for command in full],
        "revisions": [command.revision for command in full],
    }
    if lock:
        connection.execute(LOCK, (instance,))
    rows = connection.execute(statement.encode(), values).fetchall()
    return sorted((Pushed(*row) for row in rows), key=lambda event: event.in_tx_order)
