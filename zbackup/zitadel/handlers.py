"""
ZITADEL's handlers by the names of their rows in projections.current_states: who fills which table, and who acts
on the world.

A handler that owns tables has their common beginning for a name (projections.users14 fills
projections.users14_humans). Handlers with side effects own none: without a state row they begin with the first
event and send what was sent long ago. Facts: 2.6, 2.9, 6.3, 6.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

EXECUTIONS = "projections.execution_handler"
"""Calls the targets of actions; later versions queue these calls when they push."""

SIDE_EFFECTS = (
    "projections.notifications",
    "projections.notifications_quota",
    "projections.notifications_back_channel_logout",
    "projections.telemetry",
    EXECUTIONS,
)
"""They mail, call and push; a restore sets their states so that they stay silent about the past."""

FILLED_BY = {
    "project_grant_fields": "29_init_fields_for_project_grant",
    "org_domain_verified_fields": "30_fill_fields_for_org_domain_verified",
    "membership_fields": "47_fill_membership_fields",
    "instance_domain_fields": "repeatable_fill_fields_for_instance_domains",
}
"""Handlers of eventstore.fields that a step of `zitadel setup` runs; `start` runs none."""

FIELDS = (*FILLED_BY, "permission")
"""All handlers of eventstore.fields; only `zitadel mirror projections` runs the last."""

RELATIONAL = "relational_tables"
"""Fills schema zitadel, beside the commands that write there themselves (v5 in the making)."""

# Tables whose names begin like a handler's, which it does not fill from events.
_OF_NOBODY = frozenset({"projections.quotas_periods", "zitadel.migrations", "eventstore.fields"})


def side_effects(version: str | None) -> tuple[str, ...]:
    """Return the handlers with side effects of a ZITADEL version; all when it is not known."""
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version or "")
    if found is None:
        return SIDE_EFFECTS
    major, minor, patch = (int(part or 0) for part in found.groups())
    executes = (3, 0, 0) <= (major, minor, patch) <= (3, 4, 1) or (major, minor) == (4, 0)
    return tuple(name for name in SIDE_EFFECTS if executes or name != EXECUTIONS)


def owner(schema: str, table: str, handlers: Iterable[str]) -> str | None:
    """
    Name the one of these handlers that fills a table; None where none of them does.

    Tables of schema zitadel are always RELATIONAL's. Those of eventstore.fields are of several handlers, and of
    the push itself: no one owns them.
    """
    name = f"{schema}.{table}"
    if name in _OF_NOBODY:
        return None
    if schema == "zitadel":
        return RELATIONAL
    fitting = (handler for handler in handlers if name == handler or name.startswith(f"{handler}_"))
    return max(fitting, key=len, default=None)
