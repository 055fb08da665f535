"""
The tables of a ZITADEL (v4.13.1) that matter to a backup, reduced to one or two of each kind.

Functions and triggers are left out; a view, an enum, a sequence, generated columns, a partitioned and an unlogged
table are there because each of them is a way for a capture to go wrong.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any, Literal

import psycopg
from psycopg.sql import SQL

OrderType = Literal["integer", "bigint"]

EVENTS = """
CREATE SCHEMA IF NOT EXISTS eventstore;
CREATE TABLE eventstore.events2 (
    instance_id TEXT NOT NULL,
    aggregate_type TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    "sequence" BIGINT NOT NULL,
    revision SMALLINT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    payload JSONB,
    creator TEXT NOT NULL,
    "owner" TEXT NOT NULL,
    "position" NUMERIC NOT NULL,
    in_tx_order {in_tx_order} NOT NULL
);
"""

KEY = """
ALTER TABLE eventstore.events2
    ADD CONSTRAINT events2_pkey PRIMARY KEY (instance_id, aggregate_type, aggregate_id, "sequence");
"""

INDEXES = """
CREATE INDEX es_active_instances ON eventstore.events2 (created_at DESC, instance_id);
CREATE INDEX es_wm ON eventstore.events2 (instance_id, aggregate_id, aggregate_type, event_type, "position");
CREATE INDEX es_projection ON eventstore.events2 (instance_id, aggregate_type, event_type, "position");
CREATE INDEX active_instances_events ON eventstore.events2 (aggregate_type, event_type)
    WHERE aggregate_type = 'instance' AND event_type IN ('instance.added', 'instance.removed');
CREATE INDEX events2_current_sequence2
    ON eventstore.events2 (aggregate_id, aggregate_type, instance_id, "sequence" DESC);
"""

STATE = """
CREATE SCHEMA system; CREATE SCHEMA projections; CREATE SCHEMA auth; CREATE SCHEMA queue; CREATE SCHEMA cache;
CREATE TABLE system.encryption_keys (id TEXT PRIMARY KEY, key TEXT NOT NULL);
CREATE TABLE system.assets (
    instance_id TEXT, asset_type TEXT, resource_owner TEXT, name TEXT, content_type TEXT,
    hash TEXT GENERATED ALWAYS AS (md5(data)) STORED, data BYTEA, updated_at TIMESTAMPTZ,
    PRIMARY KEY (instance_id, resource_owner, name)
);
CREATE TABLE eventstore.unique_constraints (
    instance_id TEXT, unique_type TEXT, unique_field TEXT, PRIMARY KEY (instance_id, unique_type, unique_field)
);
CREATE TABLE eventstore.fields (
    id TEXT NOT NULL DEFAULT gen_random_uuid(),
    instance_id TEXT NOT NULL, resource_owner TEXT NOT NULL, aggregate_type TEXT NOT NULL,
    aggregate_id TEXT NOT NULL, object_type TEXT NOT NULL, object_id TEXT NOT NULL, object_revision SMALLINT,
    field_name TEXT NOT NULL, value JSONB NOT NULL,
    number_value NUMERIC GENERATED ALWAYS AS (
        CASE WHEN should_index AND jsonb_typeof(value) = 'number' THEN value::NUMERIC END) STORED,
    text_value TEXT GENERATED ALWAYS AS (
        CASE WHEN should_index AND jsonb_typeof(value) = 'string' THEN value #>> '{}' END) STORED,
    bool_value BOOLEAN GENERATED ALWAYS AS (
        CASE WHEN should_index AND jsonb_typeof(value) = 'boolean' THEN value::BOOLEAN END) STORED,
    value_must_be_unique BOOLEAN, should_index BOOLEAN, PRIMARY KEY (instance_id, id)
);
CREATE UNIQUE INDEX f_text_unique_idx ON eventstore.fields (instance_id, field_name, text_value)
    WHERE value_must_be_unique;
CREATE TABLE projections.current_states (
    projection_name TEXT, instance_id TEXT, last_updated TIMESTAMPTZ, aggregate_id TEXT, aggregate_type TEXT,
    "sequence" BIGINT, event_date TIMESTAMPTZ, "position" NUMERIC, filter_offset INTEGER,
    PRIMARY KEY (projection_name, instance_id)
);
CREATE TABLE projections.failed_events2 (
    projection_name TEXT, instance_id TEXT, aggregate_type TEXT, aggregate_id TEXT,
    event_creation_date TIMESTAMPTZ NOT NULL, failed_sequence BIGINT, failure_count SMALLINT DEFAULT 0,
    error TEXT, last_failed TIMESTAMPTZ,
    PRIMARY KEY (projection_name, instance_id, aggregate_type, aggregate_id, failed_sequence)
);
CREATE TABLE projections.instances (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, creation_date TIMESTAMPTZ NOT NULL, "sequence" BIGINT NOT NULL
);
CREATE TABLE projections.quotas_periods (
    instance_id TEXT, unit SMALLINT, start TIMESTAMPTZ, usage BIGINT NOT NULL, PRIMARY KEY (instance_id, unit, start)
);
CREATE VIEW projections.instance_names AS SELECT id, lower(name) AS name FROM projections.instances;
CREATE TABLE auth.auth_requests (
    id TEXT, request JSONB, code TEXT, request_type SMALLINT, creation_date TIMESTAMPTZ, change_date TIMESTAMPTZ,
    instance_id TEXT NOT NULL, PRIMARY KEY (instance_id, id)
);
CREATE TABLE queue.river_migration (
    line TEXT, version BIGINT, created_at TIMESTAMPTZ NOT NULL DEFAULT now(), PRIMARY KEY (line, version)
);
CREATE TYPE queue.river_job_state AS ENUM ('available', 'running', 'completed');
CREATE TABLE queue.river_job (
    id BIGSERIAL PRIMARY KEY, state queue.river_job_state NOT NULL DEFAULT 'available', args JSONB NOT NULL
);
CREATE UNLOGGED TABLE cache.objects (
    cache_name VARCHAR NOT NULL, id UUID NOT NULL DEFAULT gen_random_uuid(), payload JSONB NOT NULL,
    PRIMARY KEY (cache_name, id)
) PARTITION BY LIST (cache_name);
CREATE UNLOGGED TABLE cache.objects_default PARTITION OF cache.objects DEFAULT;
"""

# Unlogged partitioned tables are refused from PostgreSQL 18 on; their partitions may be unlogged.
STATE_18 = STATE.replace("CREATE UNLOGGED TABLE cache.objects (", "CREATE TABLE cache.objects (")

KEYS = (
    "domainVerificationKey", "idpConfigKey", "oidcKey", "samlKey", "otpKey", "smsKey", "smtpKey", "userKey",
    "targetKey", "csrfCookieKey", "userAgentCookieKey",
)  # fmt: skip


def create_schema(
    connection: psycopg.Connection[Any],
    in_tx_order: OrderType = "integer",
    *,
    indexes: bool = True,
    state: bool = True,
) -> None:
    """Create the events table, with key and indexes unless they shall follow a bulk load, and the other tables."""
    connection.execute(SQL(EVENTS).format(in_tx_order=SQL(in_tx_order)))
    if indexes:
        create_indexes(connection)
    if state:
        connection.execute(STATE_18 if connection.info.server_version >= 180000 else STATE)
    connection.commit()


def create_indexes(connection: psycopg.Connection[Any]) -> None:
    connection.execute(KEY)
    connection.execute(INDEXES)
    connection.commit()


def fill_state(connection: psycopg.Connection[Any], *, seed: int = 0, assets: int = 3) -> None:
    """Put some rows into each state table, awkward ones among them."""
    rng = random.Random(seed)
    instance = str(400839037394357286 + seed)
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    rows: dict[str, list[tuple[object, ...]]] = {
        "system.encryption_keys (id, key)": [(name, rng.randbytes(60).hex()) for name in KEYS],
        "system.assets (instance_id, asset_type, resource_owner, name, content_type, data, updated_at)": [
            (instance, "4", "org", f"users/{number}/avätar", "image/png", rng.randbytes(5000), moment)
            for number in range(assets)
        ],
        "eventstore.unique_constraints (instance_id, unique_type, unique_field)": [
            *((instance, "secret_generator", chr(number)) for number in range(1, 13)),
            *((instance, "usernames", name) for name in ("jörg", "back\\slash", "two words", "line\nbreak")),
            ("", "instance_domain", "login.example.com"),
        ],
        "eventstore.fields (instance_id, resource_owner, aggregate_type, aggregate_id, object_type, object_id,"
        " object_revision, field_name, value, value_must_be_unique, should_index)": [
            (instance, instance, "org", "1", "org", "1", 1, "name", '"Größe"', False, True),
            (instance, instance, "org", "1", "org", "1", 1, "count", "12.50", False, True),
            (instance, instance, "org", "1", "org", "1", 1, "flag", "true", True, True),
        ],
        'projections.current_states (projection_name, instance_id, last_updated, "position", filter_offset)': [
            (name, instance, moment, "1772366400.123456", 0)
            for name in ("projections.users14", "projections.notifications", "auth.users3")
        ],
        "projections.failed_events2 (projection_name, instance_id, aggregate_type, aggregate_id,"
        " event_creation_date, failed_sequence, failure_count, error)": [
            ("projections.milestones3", instance, "milestone", "1", moment, 1, 5, "duplicate\tkey"),
        ],
        'projections.instances (id, name, creation_date, "sequence")': [(instance, "ZITADEL", moment, 9)],
        "projections.quotas_periods (instance_id, unit, start, usage)": [(instance, 1, moment, 4711)],
        "queue.river_migration (line, version)": [("main", version) for version in range(1, 7)],
        "queue.river_job (args)": [('{"to": "a@example.com"}',)],
        "cache.objects (cache_name, payload)": [("instance", '{"id": 1}')],
    }
    with connection.cursor() as cursor:
        for table, values in rows.items():
            marks = ", ".join(["%s"] * len(values[0]))
            cursor.executemany(f"INSERT INTO {table} VALUES ({marks})".encode(), values)
    connection.commit()
