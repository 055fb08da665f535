"""The steps of `zitadel setup`, held against what real servers recorded."""

from __future__ import annotations

import json
import re

import pytest

from tests import fixture_data
from zbackup.event import unescape
from zbackup.zitadel.handlers import FIELDS, SIDE_EFFECTS
from zbackup.zitadel.steps import (
    CONFIG_CHANGE,
    DATA_STEPS,
    FIELD_STEPS,
    PROJECTION_TABLES,
    find_step,
    is_projection_marker,
    is_schema_step,
)

FULL = fixture_data.full_place() is not None

# The steps that describe the schema: numbered DDL, repeatable DDL, and what is left of side-effect handlers.
SCHEMA = re.compile(
    r"01_tables|02_assets|05_last_failed|06_resource_owner_columns|07_logstore|08_auth_token_indexes"
    r"|12_auth_users_otp_columns|13_fix_quota_constraints|17_add_offset_col_to_current_states"
    r"|1[89]_add_\w+|2[0-8]_(?!correct_global)\w+|3[1-57]_\w+|40_\w+|43_create_fields_domain_index"
    r"|44_replace_current_sequences_index|46_init_permission_functions|48_\w+|49_\w+|5[0-4678]_\w+|6[1-6]_\w+"
    r"|68_\w+|69_\w+|7[0-2]_\w+|projection_tables|repeatable_migrate_river|repeatable_transactional_tables"
    r"|repeatable_\w+_trigger|projections\.notifications\w*|projections\.telemetry"
)


def recorded(version: str) -> dict[str, dict[str, object]]:
    """Return the names of all migration events, each with the keys of its last lastRun."""
    names = fixture_data.columns(version, full=FULL)
    kind, payload = names.index("event_type"), names.index("payload")
    found: dict[str, dict[str, object]] = {}
    for row in fixture_data.rows(version, full=FULL):
        fields = row.rstrip(b"\n").split(b"\t")
        if fields[kind].startswith(b"system.migration."):
            said = json.loads(unescape(fields[payload]))
            found[said["name"]] = said.get("lastRun") or found.get(said["name"], {})
    return found


@pytest.mark.parametrize("version", fixture_data.VERSIONS)
def test_every_step_of_every_version_is_known(version: str) -> None:
    """
    Each recorded name is a data step, a marker of a handler, or one that is known to describe the schema.
    """
    names = recorded(version)

    assert len(names) > 60
    for name in names:
        kinds = (find_step(name) is not None, is_projection_marker(name), is_schema_step(name))
        assert 1 == sum(kinds), name
        assert is_schema_step(name) == (SCHEMA.fullmatch(name) is not None), name


def test_data_steps_are_named_as_recorded() -> None:
    """
    Every data step was recorded by some server under exactly its name, but those of versions that none ran.
    """
    seen = {name for version in fixture_data.VERSIONS for name in recorded(version)}

    assert {step.name for step in DATA_STEPS} - seen == {
        "10_correct_creation_date",
        "36_fill_v2_milestones",
        "39_delete_stale_org_fields",
    }
    assert len({step.name for step in DATA_STEPS}) == len(DATA_STEPS)


def test_what_setup_may_do_again() -> None:
    """
    Steps that only put right what is wrong may run again; those that make something new may not.
    """
    again = {step.name.split("_")[0] for step in DATA_STEPS if step.rerun}

    assert {"16", "23", "29", "30", "36", "38", "43", "47", "55", "59", "67", "73"} == again
    assert all(step.why and step.kinds for step in DATA_STEPS)


def test_steps_that_fill_fields() -> None:
    """
    The steps to run again for eventstore.fields are data steps of that kind, and may be run again.
    """
    assert ("29", "30", "47") == tuple(name[:2] for name in FIELD_STEPS)
    for name in FIELD_STEPS:
        step = find_step(name)
        assert step is not None
        assert (("F",), True) == (step.kinds, step.rerun)


@pytest.mark.parametrize(
    ("name", "marker"),
    [
        ("projections.users14", True),
        ("projections.notification_policies", True),
        ("auth.users3", True),
        ("adminapi.styling2", True),
        ("relational_tables", True),
        *((name, False) for name in SIDE_EFFECTS),
        *((name, False) for name in FIELDS),
        ("projection_tables", False),
        ("authorization", False),
    ],
)
def test_markers(name: str, marker: bool) -> None:
    """
    Handlers that only write tables have markers that may go; setup must not run those with side effects.
    """
    assert marker == is_projection_marker(name)


@pytest.mark.parametrize("version", fixture_data.VERSIONS)
def test_what_repeatable_steps_remember(version: str) -> None:
    """
    The last run of config_change holds the external address, that of projection_tables the version.
    """
    names = recorded(version)

    assert {"externalDomain", "externalPort", "externalSecure"} == names[CONFIG_CHANGE].keys()
    assert {"version"} == names[PROJECTION_TABLES].keys()
