"""What is known about ZITADEL's tables, held against those of real servers."""

from __future__ import annotations

import pytest

from tests import fixture_data
from zbackup.zitadel.tables import (
    AUTH_REQUESTS,
    KEYS,
    SCHEMAS,
    TABLES,
    Known,
    Restore,
    find,
    left_out,
    restore_of,
    stored_by_row,
)

FULL = fixture_data.full_place() is not None

PREPARED = "v4.13.1-prepared"
"""an empty database after `init` and `setup --for-mirror`; only among the full fixtures"""


def tables_of(version: str) -> list[tuple[str, str]]:
    names = fixture_data.shapes(version, full=FULL)
    return [(schema, name) for schema, _, name in (table.partition(".") for table in names)]


@pytest.mark.parametrize("version", [*fixture_data.VERSIONS, *([PREPARED] if FULL else [])])
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


@pytest.mark.parametrize("version", fixture_data.VERSIONS)
def test_every_version_can_be_restored(version: str) -> None:
    """
    What a restore does with the tables of a real server: state comes back, what runs does not, no table is left
    to chance.
    """
    by: dict[Restore, set[str]] = {}
    for schema, name in tables_of(version):
        by.setdefault(restore_of(schema, name), set()).add(f"{schema}.{name}")

    assert by["never"] == {"eventstore.events2"}
    assert by["compute"] | {"eventstore.fields"} == {
        "eventstore.unique_constraints",
        "eventstore.fields",
        "projections.current_states",
    }
    assert by["load"] >= {"system.encryption_keys", "system.assets", "projections.quotas_periods"}
    assert by["schema"] == {"queue.river_migration"} | ({"zitadel.migrations"} if version == "main" else set())
    for table in by["load"]:
        known = find(*table.split(".", 1))
        assert known is not None
        assert known.kind == "state"


@pytest.mark.parametrize(
    ("table", "restore"),
    [
        ("eventstore.events2", "never"),
        ("eventstore.events", "never"),
        ("eventstore.events_old", "never"),
        ("eventstore.events2_restoring", "never"),
        ("eventstore.zbackup_ledger", "never"),
        ("eventstore.unique_constraints", "compute"),
        ("eventstore.fields", "compute"),
        ("system.encryption_keys", "load"),
        ("system.assets", "load"),
        ("projections.current_states", "compute"),
        ("projections.failed_events2", "empty"),
        ("projections.locks", "empty"),
        ("projections.quotas_periods", "load"),
        ("projections.quotas", "warm"),
        ("projections.milestones", "load"),
        ("projections.milestones3", "warm"),
        ("projections.current_sequences", "load"),
        ("projections.resource_counts", "warm"),
        ("projections.users8_humans", "warm"),
        ("projections.device_authorizations1", "warm"),
        ("auth.users3", "warm"),
        ("auth.auth_requests", "empty"),
        ("adminapi.styling2", "warm"),
        ("logstore.access", "empty"),
        ("cache.objects_default", "empty"),
        ("queue.river_job", "empty"),
        ("queue.river_migration", "schema"),
        ("zitadel.migrations", "schema"),
        ("zitadel.users", "load"),
        ("projections.novelty", "load"),
        ("auth.users4", "load"),
    ],
)
def test_what_a_restore_does(table: str, restore: Restore) -> None:
    """
    Each class has its treatment; a table nobody knows is loaded.
    """
    schema, _, name = table.partition(".")

    assert restore == restore_of(schema, name)


def test_an_unknown_table_of_a_handler_is_derived() -> None:
    """
    A table that bears the name of a handler is filled by it: loaded only with the handler's state, or its rows
    would be there when it begins anew.
    """
    handlers = ["projections.novelty1", "auth.users4"]

    assert "warm" == restore_of("projections", "novelty1_parts", handlers)
    assert "warm" == restore_of("auth", "users4", handlers)
    assert "load" == restore_of("projections", "novelty", handlers)


def test_login_requests_are_captured_on_request() -> None:
    """
    Logins under way are left out, unless asked for; nothing else changes with that.
    """
    assert left_out(*AUTH_REQUESTS) is not None
    assert left_out(*AUTH_REQUESTS, auth_requests=True) is None
    assert left_out("queue", "river_job", auth_requests=True) is not None


def test_assets_are_stored_one_by_one() -> None:
    """
    One changed logo must not store all assets again.
    """
    assert {"system.assets"} == {f"{known.schema}.{name}" for known in TABLES if known.by_row for name in known.names}
    assert stored_by_row("system", "assets")
    assert not stored_by_row("projections", "novelty")


def test_rows_are_in_order() -> None:
    """
    Each row names an existing schema and a reason, and each of its names is found by it: no row before swallows it.
    """
    assert find(*KEYS) is not None
    for known in TABLES:
        assert known.schema in SCHEMAS
        assert known.why
        for name in known.names:
            assert find(known.schema, "anything" if name == "*" else name) is known or is_older(known, name)


def is_older(known: Known, name: str) -> bool:
    """The projection of milestones has the name of the table it replaced; only its versions are told apart."""
    return name == "milestones" and find(known.schema, f"{name}3") is known
