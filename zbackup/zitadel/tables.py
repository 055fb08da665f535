"""
The tables of ZITADEL's schemas: what each is, and why it is captured or not.

    events     archived as events, row by row with a horizon; never part of a capture
    state      copied because events cannot give it back
    derived    copied because ZITADEL would need long to rebuild it from events; never needed for correctness
    metadata   what the migrators know about the schema; travels with the schema text
    ephemeral  of no use after a restore, which leaves it empty

A table that no row names is captured and counts as state. Tables of projections carry a version that grows with
ZITADEL's (users14, users14_humans); a row names all versions of one. Facts: v2.39 … v4.13.1 and main, July 2026.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["events", "state", "derived", "metadata", "ephemeral"]

SCHEMAS = ("eventstore", "system", "projections", "auth", "adminapi", "logstore", "cache", "queue", "zitadel")
"""In the order in which ZITADEL came to make them; it creates nothing in others."""

KEYS = ("system", "encryption_keys")
"""The one table without which nothing that is encrypted can be read again: part of every backup."""


@dataclass(frozen=True, slots=True)
class Known:
    """A table, or all versions of one."""

    schema: str
    name: str
    """a regular expression for the whole name"""
    kind: Kind
    why: str
    captured: bool = True


# The first row that fits counts.
TABLES = (
    Known("eventstore", "events2|events", "events", "archived as events", captured=False),
    Known(
        "eventstore",
        "events2_restoring|events2_before_restore|zbackup_ledger",
        "events",
        "zbackup's own, of a restore",
        captured=False,
    ),
    Known(
        "eventstore",
        "events_old",
        "events",
        "what the upgrade to v2.39 left behind; events2 holds the same events",
        captured=False,
    ),
    Known("eventstore", "unique_constraints", "state", "commands tell names that are not in any payload"),
    Known("eventstore", "fields", "derived", "written with the events; refilled by setup steps only"),
    Known("system", "encryption_keys", "state", "encrypts secrets in events; itself encrypted with the masterkey"),
    Known("system", "assets", "state", "events hold the names of logos, fonts and avatars only"),
    Known("projections", "current_states", "derived", "how far each handler has come"),
    Known("projections", "failed_events2?", "ephemeral", "skipped events; kept to explain, restored empty"),
    Known("projections", "locks", "ephemeral", "held by handlers that run", captured=False),
    Known("projections", "quotas_periods", "state", "usage is counted by requests, not by events"),
    Known("projections", "resource_counts", "derived", "kept by triggers on the projections"),
    Known("projections", "current_sequences", "state", "where handlers stood before v2.39; read by setup step 15"),
    Known("projections", "milestones", "state", "up to v2.64 the only place of what was reached; read by step 36"),
    Known(
        "projections",
        r"(actions|apps|auth_requests|authn_keys|custom_texts|debug_events|device_auth_requests|domain_policies"
        r"|executions|flow_triggers|groups|group_users|hosted_login_translations|idp_login_policy_links"
        r"|idp_templates|idp_user_links|idps|instance_domains|instance_features|instance_members"
        r"|instance_trusted_domains|instances|keys|label_policies|limits|lockout_policies|login_names"
        r"|login_policies|mail_templates|message_texts|milestones|notification_policies|notification_providers"
        r"|oidc_settings|org_domains|org_members|org_metadata|organization_settings|orgs|password_age_policies"
        r"|password_complexity_policies|personal_access_tokens|privacy_policies|project_grant_members"
        r"|project_grants|project_members|project_roles|projects|quotas|restrictions|saml_requests"
        r"|secret_generators|security_policies|sessions|sms_configs|smtp_configs|system_features|targets"
        r"|user_auth_methods|user_grants|user_metadata|user_schemas|users|web_keys)[0-9]*(_[a-z0-9_]+)?",
        "derived",
        "a projection of the handler with that name",
    ),
    Known(
        "auth",
        "auth_requests",
        "ephemeral",
        "logins under way, with what was typed so far",
        captured=False,
    ),
    Known("auth", "users3|user_sessions|tokens|refresh_tokens", "derived", "a view of the handler with that name"),
    Known("adminapi", "styling2", "derived", "a view of the handler with that name"),
    Known("auth|adminapi", "locks", "ephemeral", "unused since advisory locks", captured=False),
    Known(
        "auth|adminapi",
        r"(users|user_memberships|user_external_idps|idp_configs|idp_providers|org_project_mapping|styling"
        r"|current_sequences|failed_events)[0-9]*",
        "derived",
        "a view of an older version, not read any more",
    ),
    Known("logstore", ".*", "ephemeral", "logs of requests and actions, with tokens and addresses", captured=False),
    Known("cache", ".*", "ephemeral", "entries older than the restore would be served", captured=False),
    Known("queue", "river_migration", "metadata", "River's version of its own tables"),
    Known(
        "queue",
        "river_(job|queue|leader|client|client_queue|notification)",
        "ephemeral",
        "mails and webhooks under way, with one-time codes; they expire in minutes",
        captured=False,
    ),
    Known("zitadel", "migrations", "metadata", "tern's version of this schema"),
    Known("zitadel", ".*", "state", "written directly from v5 on; a replay does not give the same rows"),
)


def find(schema: str, name: str) -> Known | None:
    """Return what is known about a table, None for one that no version read so far has."""
    for known in TABLES:
        if re.fullmatch(known.schema, schema) and re.fullmatch(known.name, name):
            return known
    return None


def left_out(schema: str, name: str) -> str | None:
    """Say why a table is not part of a capture; None when it is."""
    known = find(schema, name)
    return None if known is None or known.captured else f"{known.kind}: {known.why}"
