"""
Shapes of the events table that zbackup reads.

`eventstore.events2` exists since v2.39.0 (facts checked on v2.39 … v4.13.1 and main, July 2026). Databases
that were migrated from `eventstore.events` have another column order and `in_tx_order` as bigint, because
setup step 14 makes the table with CREATE TABLE AS.
"""

from __future__ import annotations

from collections.abc import Mapping

from zbackup.event import KEY_COLUMNS, OTHER_COLUMNS

SCHEMA = "eventstore"
TABLE = "events2"
OLD_TABLE = "events"
"""the events table up to v2.38"""

COLUMN_ORDER = KEY_COLUMNS + OTHER_COLUMNS
"""the order of archived rows"""

COLUMN_TYPES: Mapping[str, tuple[str, ...]] = {
    "created_at": ("timestamp with time zone",),
    "position": ("numeric",),
    "in_tx_order": ("integer", "bigint"),
    "instance_id": ("text",),
    "aggregate_type": ("text",),
    "aggregate_id": ("text",),
    "sequence": ("bigint",),
    "event_type": ("text",),
    "revision": ("smallint",),
    "creator": ("text",),
    "owner": ("text",),
    "payload": ("jsonb",),
}

MAY_BE_NULL = frozenset({"payload"})

PRIMARY_KEY = ("instance_id", "aggregate_type", "aggregate_id", "sequence")

UPGRADE_EVENTS = (b"system.migration.", b"system.mirror.")
"""Event types (aggregate type `system`) after which old rows may have been rewritten or inserted."""


def shape_problems(columns: Mapping[str, tuple[str, bool]], key: tuple[str, ...]) -> list[str]:
    """Say what of a table (name: type, NOT NULL) is not a known shape of events2; empty when all is."""
    problems = [f"column {name} is missing" for name in COLUMN_ORDER if name not in columns]
    problems += [f"column {name} is unknown" for name in columns if name not in COLUMN_TYPES]
    for name, (kind, not_null) in columns.items():
        known = COLUMN_TYPES.get(name)
        if known is not None and kind not in known:
            problems.append(f"column {name} is {kind}, not {' or '.join(known)}")
        if known is not None and not not_null and name not in MAY_BE_NULL:
            problems.append(f"column {name} may be NULL")
    if sorted(key) != sorted(PRIMARY_KEY):
        problems.append(f"primary key is ({', '.join(key)}), not ({', '.join(PRIMARY_KEY)})")
    return problems
