"""Rows of a source that show whether a masterkey fits: encryption keys, and payloads with encrypted values."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import psycopg
from psycopg import sql

from zbackup.database.connection import Connection
from zbackup.database.export import relation
from zbackup.source import EventTable
from zbackup.zitadel.tables import KEYS

# Enough to prove a key by one-time codes, the shortest of what is encrypted.
MOST_PAYLOADS = 20
"""per instance and event type"""

MOST_INSTANCES = 50


def read_keys(connection: Connection) -> dict[str, str]:
    """Return system.encryption_keys; nothing when there is no such table. Not to be shown."""
    if connection.execute("SELECT to_regclass(%s)", (".".join(KEYS),)).fetchone() == (None,):
        return {}
    query = sql.SQL("SELECT id, key FROM {}").format(sql.Identifier(*KEYS))
    return dict(connection.execute(query).fetchall())


def newest_payloads(
    connection: Connection,
    table: EventTable,
    aggregate_type: str,
    event_types: Iterable[str],
    *,
    timeout: timedelta,
) -> list[tuple[str, str]]:
    """
    Return type and payload of the newest events of some types, newest first; nothing where that takes too long.

    Each instance and type is one look into ZITADEL's index es_projection (instance_id, aggregate_type, event_type,
    position); it may be slow where that is missing.
    """
    query = sql.SQL(
        """WITH RECURSIVE instance (id) AS (
               (SELECT instance_id FROM {table} ORDER BY instance_id LIMIT 1)
               UNION ALL
               SELECT (SELECT instance_id FROM {table} WHERE instance_id > instance.id ORDER BY instance_id LIMIT 1)
                 FROM instance WHERE instance.id IS NOT NULL
           )
           SELECT event.event_type, event.payload::text
             FROM (SELECT id FROM instance WHERE id IS NOT NULL LIMIT %s) instance
            CROSS JOIN unnest(%s::text[]) wanted (event_type)
            CROSS JOIN LATERAL (
                   SELECT event_type, payload, created_at FROM {table}
                    WHERE instance_id = instance.id AND aggregate_type = %s AND event_type = wanted.event_type
                    ORDER BY position DESC LIMIT %s
                  ) event
            WHERE event.payload IS NOT NULL
            ORDER BY event.created_at DESC"""
    ).format(table=relation(table))
    values = (MOST_INSTANCES, list(event_types), aggregate_type, MOST_PAYLOADS)
    try:
        with connection.transaction():
            limit = max(1, timeout // timedelta(milliseconds=1))
            connection.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(limit))
            return connection.execute(query, values).fetchall()
    except psycopg.errors.QueryCanceled:
        return []
