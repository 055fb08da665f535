"""Who fills which table, held against the state rows and tables of real servers."""

from __future__ import annotations

import pytest

from tests import fixture_data
from zbackup.zitadel.handlers import EXECUTIONS, FIELDS, FILLED_BY, RELATIONAL, SIDE_EFFECTS, owner, side_effects

FULL = fixture_data.full_place() is not None

# Of handlers as such, of requests, and of versions before v2.39.
NOT_FILLED = {
    "projections.current_states", "projections.failed_events2", "projections.resource_counts",
    "projections.quotas_periods", "projections.locks", "projections.current_sequences", "projections.failed_events",
}  # fmt: skip

# Tables that upgrades left behind: a server that runs has no handler for them.
LEFT_BEHIND = {
    "projections.instance_features2", "projections.smtp_configs5", "projections.smtp_configs5_http",
    "projections.smtp_configs5_smtp", "projections.system_features",
}  # fmt: skip


def handlers_of(version: str) -> set[str]:
    rows = fixture_data.table(version, "projections.current_states", full=FULL)
    return {row["projection_name"] for row in rows}


def owner_of(table: str, handlers: set[str]) -> str | None:
    schema, _, name = table.partition(".")
    return owner(schema, name, handlers)


@pytest.mark.parametrize("version", fixture_data.VERSIONS)
def test_every_table_of_a_projection_has_a_handler(version: str) -> None:
    """
    Each table of a projection of a real server is filled by a handler whose state was there, and each handler
    but those of side effects and fields fills one.
    """
    handlers = handlers_of(version)
    owners = {table: owner_of(table, handlers) for table in fixture_data.shapes(version, full=FULL)}

    unowned = {table for table, one in owners.items() if one is None and table.startswith("projections.")}
    assert unowned <= NOT_FILLED | LEFT_BEHIND
    assert {table for table, one in owners.items() if one == RELATIONAL} == {
        table for table in owners if table.startswith("zitadel.") and table != "zitadel.migrations"
    }
    if FULL:
        assert handlers - set(owners.values()) == handlers & {*SIDE_EFFECTS, *FIELDS}


@pytest.mark.parametrize(
    ("table", "handler"),
    [
        ("projections.users14", "projections.users14"),
        ("projections.users14_humans", "projections.users14"),
        ("projections.users13_humans", None),
        ("projections.user_metadata5", "projections.user_metadata5"),
        ("projections.login_names3_policies", "projections.login_names3"),
        ("projections.project_grant_members4", "projections.project_grant_members4"),
        ("projections.notification_policies", "projections.notification_policies"),
        ("projections.quotas", "projections.quotas"),
        ("projections.quotas_notifications", "projections.quotas"),
        ("projections.quotas_periods", None),
        ("projections.resource_counts", None),
        ("projections.current_states", None),
        ("auth.user_sessions", "auth.user_sessions"),
        ("auth.users2", None),
        ("adminapi.styling2", "adminapi.styling2"),
        ("eventstore.fields", None),
        ("eventstore.unique_constraints", None),
        ("system.assets", None),
        ("zitadel.users", RELATIONAL),
        ("zitadel.migrations", None),
    ],
)
def test_who_fills_what(table: str, handler: str | None) -> None:
    """
    A table belongs to the handler it is named for, whole words only; counters, fields and keys to none.
    """
    assert handler == owner_of(table, handlers_of("v4.13.1"))


def test_the_longest_name_wins() -> None:
    """
    Of two handlers whose names begin a table's, the nearer one fills it.
    """
    handlers = {"projections.idps", "projections.idps_templates"}

    assert "projections.idps_templates" == owner_of("projections.idps_templates_oidc", handlers)


@pytest.mark.parametrize("version", fixture_data.VERSIONS)
def test_real_states_are_of_handlers_known(version: str) -> None:
    """
    The names of side-effect and field handlers are those that real servers write.
    """
    others = {name for name in handlers_of(version) if "." not in name} - {RELATIONAL}

    assert others == set(FILLED_BY)
    assert set(SIDE_EFFECTS[:3]) <= handlers_of(version)


@pytest.mark.parametrize(
    ("version", "executes"),
    [
        ("v2.71.19", False),
        ("v3.0.0", True),
        ("v3.0.0-rc.1", True),
        ("3.4.1", True),
        ("v3.4.2", False),
        ("v4.0.3", True),
        ("v4.1.0", False),
        ("v4.13.1", False),
        ("v5.0.0-main", False),
        ("dev", True),
        ("", True),
        (None, True),
    ],
)
def test_side_effects_of_a_version(version: str | None, executes: bool) -> None:
    """
    Every version mails; executions were handled in v3.0 - v3.4.1 and v4.0; what is not known may do all.
    """
    found = side_effects(version)

    assert SIDE_EFFECTS[:4] == found[:4]
    assert executes == (EXECUTIONS in found)
