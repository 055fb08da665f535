"""What is known about ZITADEL's tables, held against those of real servers."""

from __future__ import annotations

import json
import re

import pytest

from tests import fixture_data
from zbackup.zitadel.tables import KEYS, SCHEMAS, TABLES, find, left_out


def tables_of(version: str) -> list[tuple[str, str]]:
    full = fixture_data.full_place() is not None
    shapes = json.loads((fixture_data.place_of(version, full=full) / "tables.json").read_text())
    return [(schema, name) for schema, _, name in (table.partition(".") for table in shapes)]


@pytest.mark.parametrize("version", fixture_data.VERSIONS)
def test_every_table_of_every_version_is_known(version: str) -> None:
    """
    No table of a real server is unknown, and none lies outside ZITADEL's schemas.
    """
    tables = tables_of(version)

    assert [".".join(table) for table in tables if find(*table) is None] == []
    assert {schema for schema, _ in tables} <= set(SCHEMAS)


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ("system.encryption_keys", "state"),
        ("system.assets", "state"),
        ("eventstore.unique_constraints", "state"),
        ("projections.quotas_periods", "state"),
        ("projections.milestones", "state"),
        ("zitadel.settings", "state"),
        ("queue.river_migration", "metadata"),
        ("zitadel.migrations", "metadata"),
        ("eventstore.fields", "derived"),
        ("projections.current_states", "derived"),
        ("projections.milestones3", "derived"),
        ("projections.quotas", "derived"),
        ("projections.quotas_notifications", "derived"),
        ("projections.users14_humans", "derived"),
        ("projections.users99", "derived"),
        ("projections.idp_templates6_oauth2", "derived"),
        ("projections.failed_events2", "ephemeral"),
        ("auth.users3", "derived"),
        ("auth.users2", "derived"),
    ],
)
def test_what_is_captured(table: str, kind: str) -> None:
    """
    State, derived tables and the migrators' versions are captured.
    """
    schema, _, name = table.partition(".")
    known = find(schema, name)

    assert known is not None
    assert (known.kind, left_out(schema, name)) == (kind, None)


@pytest.mark.parametrize(
    "table",
    [
        "eventstore.events2",
        "eventstore.events",
        "eventstore.events_old",
        "eventstore.zbackup_ledger",
        "auth.auth_requests",
        "cache.objects_default",
        "logstore.access",
        "queue.river_job",
        "projections.locks",
        "adminapi.locks",
    ],
)
def test_what_is_left_out(table: str) -> None:
    """
    What is archived otherwise, or would harm a restore, is left out with a reason.
    """
    schema, _, name = table.partition(".")
    known = find(schema, name)

    assert known is not None
    assert left_out(schema, name) == f"{known.kind}: {known.why}"


@pytest.mark.parametrize(
    "table", ["projections.novelty", "projections.userss14", "projections.Users14", "system.new", "public.users14"]
)
def test_what_is_unknown_is_captured(table: str) -> None:
    """
    A table that no row names is captured.
    """
    schema, _, name = table.partition(".")

    assert find(schema, name) is None
    assert left_out(schema, name) is None


def test_rows_are_in_order() -> None:
    """
    Each row names existing schemas and can be reached: no row before it swallows all that it names.
    """
    assert find(*KEYS) is not None
    for number, known in enumerate(TABLES):
        assert set(known.schema.split("|")) <= set(SCHEMAS)
        assert known.why
        assert not any(
            re.fullmatch(earlier.schema, known.schema) and earlier.name in {".*", known.name}
            for earlier in TABLES[:number]
        )
