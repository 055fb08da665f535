"""
The tables of ZITADEL's schemas: what each is, why it is captured or not, and what a restore does with it.

    events     archived as events, row by row with a horizon; never part of a capture
    state      copied because events cannot give it back
    derived    copied because ZITADEL would need long to rebuild it from events; never needed for correctness
    metadata   what the migrators know about the schema; travels with the schema text
    ephemeral  of no use after a restore, which leaves it empty

A restore to T that uses the capture S

    load       loads the rows of S
    warm       loads the rows of S when their handler (handlers.owner) starts from its state of S, else none;
               where no handler owns the table, unless all are cold
    compute    works the rows out as of T
    empty      leaves the table empty
    schema     loads the rows of S where it makes the schema itself, else keeps what ZITADEL wrote there
    never      does not touch it here: the events, and what zbackup makes itself

A table that no row names is captured and counts as state, unless it bears the name of a handler. Tables of
projections carry a version that grows with ZITADEL's (users14, users14_humans). Facts: section 2; v2.39 …
v4.13.1 and main, July 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from zbackup.zitadel.handlers import owner

Kind = Literal["events", "state", "derived", "metadata", "ephemeral"]
Restore = Literal["load", "warm", "compute", "empty", "schema", "never"]

SCHEMAS = ("eventstore", "system", "projections", "auth", "adminapi", "logstore", "cache", "queue", "zitadel")
"""In the order in which ZITADEL came to make them; it creates nothing in others."""

KEYS = ("system", "encryption_keys")
"""The one table without which nothing that is encrypted can be read again: part of every backup."""

AUTH_REQUESTS = ("auth", "auth_requests")
"""Captured and restored only on request."""


@dataclass(frozen=True, slots=True)
class Known:
    """Tables of one schema that are alike."""

    schema: str
    names: tuple[str, ...]
    """`*` for all that no earlier row names"""
    kind: Kind
    restore: Restore
    why: str
    captured: bool = True
    versioned: bool = False
    """a number and parts may follow the name: users14, users14_humans"""
    by_row: bool = False
    """each row is an object of its own in the archive: few change, and they are large"""

    def fits(self, schema: str, name: str) -> bool:
        if schema != self.schema:
            return False
        if self.versioned:
            return re.fullmatch(rf"(?:{'|'.join(self.names)})[0-9]*(?:_[a-z0-9_]+)?", name) is not None
        return name in self.names or self.names == ("*",)


_PROJECTIONS = (
    "actions", "apps", "auth_requests", "authn_keys", "custom_texts", "debug_events", "device_auth_requests",
    "device_authorizations", "domain_policies", "executions", "flow_triggers", "group_users", "groups",
    "hosted_login_translations", "idp_login_policy_links", "idp_templates", "idp_user_links", "idps",
    "instance_domains", "instance_features", "instance_members", "instance_trusted_domains", "instances", "keys",
    "label_policies", "limits", "lockout_policies", "login_names", "login_policies", "mail_templates",
    "message_texts", "milestones", "notification_policies", "notification_providers", "oidc_settings",
    "org_domains", "org_members", "org_metadata", "organization_settings", "orgs", "password_age_policies",
    "password_complexity_policies", "personal_access_tokens", "privacy_policies", "project_grant_members",
    "project_grants", "project_members", "project_roles", "projects", "quotas", "restrictions", "saml_requests",
    "secret_generators", "security_policies", "sessions", "sms_configs", "smtp_configs", "system_features",
    "targets", "user_auth_methods", "user_grants", "user_metadata", "user_schemas", "users", "web_keys",
)  # fmt: skip

_OLD_VIEWS = (
    "users", "users2", "user_memberships", "user_external_idps", "user_external_idps2", "idp_configs", "idp_configs2",
    "idp_providers", "idp_providers2", "org_project_mapping", "org_project_mapping2", "current_sequences",
    "failed_events",
)  # fmt: skip

_OF_A_HANDLER = "a view of the handler with that name"
_OUTLIVED = "a view of an older version, not read any more"
_UNUSED_LOCKS = "unused since advisory locks"

# The first row that fits counts.
TABLES = (
    Known("eventstore", ("events2", "events"), "events", "never", "archived as events", captured=False),
    Known(
        "eventstore",
        ("events2_restoring", "events2_before_restore", "zbackup_ledger"),
        "events",
        "never",
        "zbackup's own, of a restore",
        captured=False,
    ),
    Known(
        "eventstore",
        ("events_old",),
        "events",
        "never",
        "what the upgrade to v2.39 left behind; events2 holds the same events",
        captured=False,
    ),
    Known(
        "eventstore",
        ("unique_constraints",),
        "state",
        "compute",
        "commands tell names that are not in any payload: the captured rows and what events since changed",
    ),
    Known(
        "eventstore",
        ("fields",),
        "derived",
        "compute",
        "written with the events, refilled by setup steps only; those of aggregate type permission by none: they are "
        "computed, the others are warm",
    ),
    Known(
        "system",
        ("encryption_keys",),
        "state",
        "load",
        "encrypts secrets in events; itself encrypted with the masterkey",
    ),
    Known(
        "system",
        ("assets",),
        "state",
        "load",
        "events hold the names of logos, fonts and avatars only",
        by_row=True,
    ),
    Known(
        "projections",
        ("current_states",),
        "derived",
        "compute",
        "how far each handler has come: as captured for warm ones, beyond every event for those with side effects",
    ),
    Known(
        "projections",
        ("failed_events", "failed_events2"),
        "ephemeral",
        "empty",
        "skipped events; kept to explain, and counted towards the next skip if they were restored",
    ),
    Known("projections", ("locks",), "ephemeral", "empty", "held by handlers that run", captured=False),
    Known(
        "projections",
        ("quotas_periods",),
        "state",
        "load",
        "usage is counted by requests, not by events; a replay of quota.removed deletes rows",
    ),
    Known(
        "projections",
        ("resource_counts",),
        "derived",
        "warm",
        "kept by triggers on the projections; loaded for those tables that are, the triggers count what is rebuilt",
    ),
    Known(
        "projections",
        ("current_sequences",),
        "state",
        "load",
        "where handlers stood before v2.39; read by setup step 15",
    ),
    Known(
        "projections",
        ("milestones",),
        "state",
        "load",
        "up to v2.64 the only place of what was reached; read by setup step 36",
    ),
    Known("projections", _PROJECTIONS, "derived", "warm", _OF_A_HANDLER, versioned=True),
    Known(
        "auth",
        ("auth_requests",),
        "ephemeral",
        "empty",
        "logins under way, with what was typed so far; with --auth-requests captured and loaded",
        captured=False,
    ),
    Known("auth", ("users3", "user_sessions", "tokens", "refresh_tokens"), "derived", "warm", _OF_A_HANDLER),
    Known("auth", ("locks",), "ephemeral", "empty", _UNUSED_LOCKS, captured=False),
    Known("auth", _OLD_VIEWS, "derived", "warm", _OUTLIVED),
    Known("adminapi", ("styling2",), "derived", "warm", _OF_A_HANDLER),
    Known("adminapi", ("locks",), "ephemeral", "empty", _UNUSED_LOCKS, captured=False),
    Known("adminapi", ("styling", "current_sequences", "failed_events"), "derived", "warm", _OUTLIVED),
    Known(
        "logstore",
        ("*",),
        "ephemeral",
        "empty",
        "logs of requests and actions, with tokens and addresses",
        captured=False,
    ),
    Known("cache", ("*",), "ephemeral", "empty", "entries older than the restore would be served", captured=False),
    Known("queue", ("river_migration",), "metadata", "schema", "River's version of its own tables"),
    Known(
        "queue",
        ("river_job", "river_queue", "river_leader", "river_client", "river_client_queue", "river_notification"),
        "ephemeral",
        "empty",
        "mails and webhooks under way, with one-time codes; they expire in minutes",
        captured=False,
    ),
    Known("zitadel", ("migrations",), "metadata", "schema", "tern's version of this schema"),
    Known(
        "zitadel",
        ("*",),
        "state",
        "load",
        "written directly from v5 on, and by the handler relational_tables; a replay does not give the same rows",
    ),
)


def find(schema: str, name: str) -> Known | None:
    """Return what is known about a table, None for one that no version read so far has."""
    return next((known for known in TABLES if known.fits(schema, name)), None)


def left_out(schema: str, name: str, *, auth_requests: bool = False) -> str | None:
    """Say why a table is not part of a capture; None when it is."""
    known = find(schema, name)
    if known is None or known.captured or (auth_requests and (schema, name) == AUTH_REQUESTS):
        return None
    return f"{known.kind}: {known.why}"


def restore_of(schema: str, name: str, handlers: Iterable[str] = ()) -> Restore:
    """
    Say what a restore does with a table.

    An unknown one is loaded, as state, unless one of these handlers bears its name and fills it.
    """
    known = find(schema, name)
    if known is not None:
        return known.restore
    return "load" if owner(schema, name, handlers) is None else "warm"


def is_state(schema: str, name: str) -> bool:
    """Tell whether nothing but a copy brings a table's rows back; of an unknown one that must be assumed."""
    known = find(schema, name)
    return known is None or (known.kind == "state" and known.captured)


def outlived(schema: str, name: str, handlers: Iterable[str]) -> bool:
    """
    Tell whether a derived table that no handler owns is a leftover: of an older version, not read any more.

    Of a projection one of these handlers must be another version; else the state of its own is missing.
    """
    known = find(schema, name)
    if known is None or known.why == _OUTLIVED:
        return known is not None
    base = re.match(rf"({'|'.join(sorted(known.names, key=len, reverse=True))})(?![a-z_])", name)
    return (
        known.versioned
        and base is not None
        and any(re.fullmatch(rf"{schema}\.{base[1]}[0-9]*", handler) for handler in handlers)
    )


def stored_by_row(schema: str, name: str) -> bool:
    """Tell whether each row of a table is an object of its own in the archive."""
    known = find(schema, name)
    return known is not None and known.by_row
