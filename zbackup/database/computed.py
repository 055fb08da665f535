"""
Work out what a capture cannot tell about T, from the events as they will be published.

Rows of eventstore.fields for permissions, states of the handlers with side effects, unique constraints; each is
written in one transaction with its entry in the ledger.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from psycopg import sql

from zbackup.database.edits import EVENTS, same_key
from zbackup.database.export import ORDER, copy_blocks
from zbackup.database.target import Connection, claim, columns, note, noted, one_row
from zbackup.source import EventTable

# A row that no event exceeds: the next position that a microsecond clock can give.
EPSILON = Decimal("0.000001")

_FIELD_COLUMNS = (
    "id", "instance_id", "resource_owner", "aggregate_type", "aggregate_id", "object_type", "object_id",
    "object_revision", "field_name", "value", "value_must_be_unique", "should_index",
)  # fmt: skip
_STATE_COLUMNS = (
    "projection_name", "instance_id", "last_updated", "sequence", "event_date", "position", "filter_offset",
)  # fmt: skip
_CONSTRAINT_COLUMNS = ("instance_id", "unique_type", "unique_field")

WRITTEN = {
    ("eventstore", "fields"): _FIELD_COLUMNS,
    ("eventstore", "unique_constraints"): _CONSTRAINT_COLUMNS,
    ("projections", "current_states"): _STATE_COLUMNS,
    ("projections", "resource_counts"): (
        "id", "instance_id", "table_name", "parent_type", "parent_id", "resource_name", "updated_at", "amount",
    ),
}  # fmt: skip
"""Tables whose rows are worked out or chosen, and the columns that these rows have."""


@dataclass(frozen=True, slots=True)
class Computed:
    """What the ledger says about computed rows."""

    rows: int


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance that lives at T."""

    id: str
    name: str
    domains: tuple[str, ...]


def live_instances(connection: Connection) -> tuple[Instance, ...]:
    """Return the instances that were added and not removed, with their domains."""
    rows = connection.execute(
        sql.SQL(
            """SELECT i.instance_id, coalesce(i.name, ''), coalesce(d.domains, '{{}}') FROM (
                   SELECT DISTINCT ON (instance_id) instance_id, event_type, payload->>'name' AS name FROM {events}
                    WHERE aggregate_type = 'instance' AND event_type IN ('instance.added', 'instance.removed')
                    ORDER BY instance_id, "sequence" DESC) i
                LEFT JOIN LATERAL (
                   SELECT array_agg(domain ORDER BY domain) AS domains FROM (
                       SELECT DISTINCT ON (payload->>'domain') event_type, payload->>'domain' AS domain FROM {events} e
                        WHERE e.instance_id = i.instance_id AND aggregate_type = 'instance'
                          AND event_type IN ('instance.domain.added', 'instance.domain.removed')
                        ORDER BY payload->>'domain', "sequence" DESC) l
                    WHERE event_type = 'instance.domain.added' AND domain IS NOT NULL) d ON true
                WHERE i.event_type = 'instance.added' ORDER BY i.instance_id"""
        ).format(events=EVENTS)
    )
    return tuple(Instance(instance, name, tuple(domains)) for instance, name, domains in rows)


def write_permissions(connection: Connection) -> int:
    """
    Add the live permissions to eventstore.fields, as ZITADEL's push writes them (facts 11.6).

    No command of ZITADEL refills them, and without them setup pushes every permission anew. Versions before v2.56
    have no such table.
    """
    if not exists(connection, "eventstore.fields"):
        return 0
    return _once(
        connection,
        "fields of permissions",
        sql.SQL(
            """INSERT INTO eventstore.fields ({names})
               SELECT gen_random_uuid()::text, instance_id, owner, 'permission', aggregate_id,
                      'role_permission', role, 1, 'permission', to_jsonb(permission), false, true
                 FROM (SELECT DISTINCT ON
                              (instance_id, aggregate_id, payload->>'role', payload->>'permission')
                              instance_id, owner, aggregate_id, payload->>'role' AS role,
                              payload->>'permission' AS permission, event_type, created_at
                         FROM {events} WHERE aggregate_type = 'permission'
                          AND event_type IN ('permission.added', 'permission.removed')
                        ORDER BY instance_id, aggregate_id, payload->>'role', payload->>'permission',
                              "sequence" DESC) p
                WHERE event_type = 'permission.added' AND role IS NOT NULL AND permission IS NOT NULL
                  AND NOT EXISTS (SELECT FROM {events} r WHERE r.instance_id = p.instance_id AND r.instance_id <> ''
                          AND r.aggregate_type = 'instance' AND r.event_type = 'instance.removed'
                          AND r.created_at >= p.created_at)"""
        ).format(names=sql.SQL(", ").join(map(sql.Identifier, _FIELD_COLUMNS)), events=EVENTS),
    )


def write_states(connection: Connection, handlers: Collection[str], instances: Iterable[Instance]) -> int:
    """
    Set handlers to the head in every instance, so that they act on nothing of the past.

    The position is beyond every event, since at an equal one the handler would act once more (facts 6.4).
    """
    there = {
        name
        for (name,) in connection.execute(
            """SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass('projections.current_states')
                  AND attnum > 0 AND NOT attisdropped"""
        )
    }
    if not there:
        return 0
    values: dict[str, sql.Composable] = {
        "projection_name": sql.SQL("h.name"),
        "instance_id": sql.SQL("i.id"),
        "last_updated": sql.SQL("now()"),
        "sequence": sql.SQL("0"),
        "event_date": sql.SQL("e.created_at"),
        "position": sql.SQL('e."position" + {}').format(sql.Literal(EPSILON)),
        "filter_offset": sql.SQL("0"),
    }
    values = {name: value for name, value in values.items() if name in there}
    return _once(
        connection,
        "states of handlers with side effects",
        sql.SQL(
            """INSERT INTO projections.current_states ({names}) SELECT {values}
                 FROM unnest({handlers}::text[]) AS h (name), unnest({instances}::text[]) AS i (id),
                      (SELECT max("position") AS "position", max(created_at) AS created_at FROM {events}) e"""
        ).format(
            names=sql.SQL(", ").join(map(sql.Identifier, values)),
            values=sql.SQL(", ").join(values.values()),
            handlers=sql.Literal(list(handlers)),
            instances=sql.Literal([instance.id for instance in instances]),
            events=EVENTS,
        ),
    )


def write_constraints(connection: Connection, text: Iterable[bytes]) -> int:
    """Write the rows of unique_constraints, given as COPY text, in the place of what is there."""
    item = "unique constraints"
    if not exists(connection, "eventstore.unique_constraints"):
        return 0
    with connection.transaction():
        if not claim(connection, item):
            return _noted(connection, item)
        connection.execute("TRUNCATE eventstore.unique_constraints")
        rows = 0
        names = sql.SQL(", ").join(map(sql.Identifier, _CONSTRAINT_COLUMNS))
        statement = sql.SQL("COPY eventstore.unique_constraints ({}) FROM STDIN").format(names)
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            for block in text:
                copy.write(block)
                rows += block.count(b"\n")
        note(connection, item, Computed(rows))
    return rows


def read_events(
    connection: Connection,
    table: EventTable,
    kinds: Collection[str],
    *,
    lo: datetime | None = None,
    hi: datetime | None = None,
    known: bool = False,
) -> Iterator[bytes]:
    """
    Yield the events of these types that will be published, in the archive's order, some rows at a time.

    With lo <= created_at < hi; of `known` ones only those that the capture's backup held.
    """
    conditions: list[sql.Composable] = [sql.SQL("event_type = ANY ({})").format(sql.Literal(sorted(kinds)))]
    if lo is not None:
        conditions.append(sql.SQL("created_at >= {}").format(sql.Literal(lo)))
    if hi is not None:
        conditions.append(sql.SQL("created_at < {}").format(sql.Literal(hi)))
    if known:
        conditions.append(sql.SQL("NOT EXISTS (SELECT FROM zbackup_since s WHERE {})").format(same_key("s", "e")))
    query = sql.SQL("SELECT {} FROM {} e WHERE {} ORDER BY {}").format(
        columns(table), EVENTS, sql.SQL(" AND ").join(conditions), ORDER
    )
    with connection.transaction():
        connection.execute("SELECT set_config('work_mem', '128MB', true)")
        yield from copy_blocks(connection, sql.SQL("COPY ({}) TO STDOUT").format(query))


def missing_assets(connection: Connection) -> bool:
    """Tell whether events speak of assets although the table holds none: they are kept outside the database."""
    return (
        exists(connection, "system.assets")
        and one_row(
            connection,
            sql.SQL(
                """SELECT NOT EXISTS (SELECT FROM system.assets)
                  AND EXISTS (SELECT FROM {} WHERE event_type LIKE '%.label.%.added' AND payload ? 'storeKey')"""
            ).format(EVENTS),
        )[0]
    )


def removed_since(connection: Connection, since: datetime) -> frozenset[str]:
    """Name the instances that were removed at or after an instant."""
    rows = connection.execute(
        sql.SQL(
            "SELECT DISTINCT instance_id FROM {} WHERE event_type = 'instance.removed' AND created_at >= {}"
        ).format(EVENTS, sql.Literal(since))
    )
    return frozenset(instance for (instance,) in rows)


def exists(connection: Connection, name: str) -> bool:
    """Tell whether the target has a table."""
    return one_row(connection, "SELECT to_regclass(%s) IS NOT NULL", name)[0]


def _once(connection: Connection, item: str, statement: sql.Composed) -> int:
    with connection.transaction():
        if not claim(connection, item):
            return _noted(connection, item)
        rows = connection.execute(statement).rowcount
        note(connection, item, Computed(rows))
    return rows


def _noted(connection: Connection, item: str) -> int:
    """Return how many rows a run before this one wrote."""
    return Computed(**noted(connection, item)).rows
