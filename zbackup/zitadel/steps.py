"""
The steps of `zitadel setup`, by the names under which system.migration.* events and migration_* rows record them.

Most describe the schema: their events stay with the schema that is restored. Data steps change rows, so one that
is recorded as done may have done nothing to the rows that are restored. Markers say that a handler has run once
in setup (--init-projections); without a marker setup lets it run again. Facts: 5.2-5.6, 11.2.

    E  pushes events
    R  rewrites rows
    F  fills eventstore.fields
    S  sets handler states
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zbackup.zitadel.handlers import FILLED_BY, RELATIONAL, SIDE_EFFECTS

Kind = Literal["E", "R", "F", "S"]

CONFIG_CHANGE = "config_change"
"""
Repeatable. Its lastRun holds {"externalDomain": text, "externalPort": number, "externalSecure": boolean} of the
machine where setup ran; where they differ from its own, setup adds domains and redirect URIs to all instances.
"""

PROJECTION_TABLES = "projection_tables"
"""
Repeatable. Its lastRun holds {"version": "v4.13.1"}, ZITADEL's version of the last setup; only another one makes
the tables of projections.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A step that changes rows."""

    name: str
    kinds: tuple[Kind, ...]
    rerun: bool
    """setup may and should run it again where its effect is not in the restored rows"""
    why: str


DATA_STEPS = (
    Step("03_default_instance", ("E",), False, "it would make one more instance"),
    Step("10_correct_creation_date", ("R",), False, "of the table up to v2.38; no later version runs it"),
    Step("14_events_push", ("R",), False, "it made events2 of the table up to v2.38; restored rows are beyond it"),
    Step("15_current_projection_state", ("S",), False, "it took states over from tables that nobody writes any more"),
    Step("16_unique_constraint_lower", ("R",), True, "lower-cases unique constraints that do not collide"),
    Step("23_correct_global_unique_constraints", ("R",), True, "moves domains of instances to instance ''"),
    Step("29_init_fields_for_project_grant", ("F",), True, "runs its field handler from where that stands"),
    Step("30_fill_fields_for_org_domain_verified", ("F",), True, "runs its field handler from where that stands"),
    Step("36_fill_v2_milestones", ("E",), True, "skips instances that have milestones; reads projections.milestones"),
    Step("36_fill_v3_milestones", ("E",), True, "skips instances that have milestones; reads projections.milestones"),
    Step("38_back_channel_logout_notification_start_", ("S",), True, "leaves states that are there as they are"),
    Step("39_delete_stale_org_fields", ("F",), False, "became repeatable_delete_stale_org_fields"),
    Step("43_correct_project_owners", ("R", "E"), True, "step 45: touches projects whose events differ in owner"),
    Step("47_fill_membership_fields", ("F",), True, "runs its field handler from where that stands"),
    Step("55_execution_handler_start", ("S",), True, "sets the handler to the head, where it stays silent"),
    Step("59_setup_webkeys", ("E",), True, "makes keys for instances that have none; without one nothing is signed"),
    Step("60_generate_system_id", ("E",), False, "one identity is enough: the events hold it, or setup made one"),
    Step("67_sync_member_role_fields", ("F",), True, "copies roles of members from the projections"),
    Step("73_fix_user_grant_roles", ("E",), True, "corrects grants whose roles are gone (GHSA-v859-c572-qh5p)"),
    Step(CONFIG_CHANGE, ("E",), False, "setup compares its lastRun itself"),
    Step("repeatable_delete_stale_org_fields", ("F",), False, "every setup runs it"),
    Step("repeatable_fill_fields_for_instance_domains", ("F",), False, "every setup runs it"),
    Step("repeatable_sync_role_permissions", ("E",), False, "every setup runs it"),
)
"""Known of v2.39 - v4.13.1 and main, July 2026. Others count as steps of the schema."""

FIELD_STEPS = tuple(name for name in FILLED_BY.values() if not name.startswith("repeatable_"))
"""Run once each; to be run again whenever eventstore.fields was not restored with the states of its handlers."""

_BY_NAME = {step.name: step for step in DATA_STEPS}


def find_step(name: str) -> Step | None:
    """Return the data step of this name; None for any other."""
    return _BY_NAME.get(name)


def is_projection_marker(name: str) -> bool:
    """
    Tell whether a name is the marker of a handler without side effects.

    Where it is missing, `setup --init-projections=true` lets the handler catch up. Markers of side-effect handlers
    are left as they are, so that setup runs none of those.
    """
    return name == RELATIONAL or (name.startswith(("projections.", "auth.", "adminapi.")) and name not in SIDE_EFFECTS)


def is_schema_step(name: str) -> bool:
    """Tell whether a name is neither a data step nor a marker: it stays as the schema's capture recorded it."""
    return name not in _BY_NAME and not is_projection_marker(name)
