"""What the events of a fixture say about one of its instants, as far as the tests need it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests import fixture_data
from tests.fixture_data import Truth
from zbackup.event import unescape
from zbackup.zitadel.copy import External

Log = Sequence["Event"]
"""all events up to an instant, in commit order"""


@dataclass(frozen=True, slots=True)
class Event:
    instance: str
    aggregate: str
    type: str
    owner: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Token:
    """A personal access token of a machine user."""

    id: str
    user: str
    instance: str


@dataclass(frozen=True, slots=True)
class User:
    id: str
    instance: str
    organisation: str
    name: str


def truth_named(version: str, label: str, *, full: bool = True) -> Truth:
    return next(truth for truth in fixture_data.truths(version, full=full) if truth.label == label)


def log_at(version: str, label: str, *, full: bool = True) -> Log:
    return _events(version, full=full)[: truth_named(version, label, full=full).events]


def zitadel_version(log: Log) -> str:
    """Return the version as ZITADEL says it itself."""
    return _last_run(log, "projection_tables")["version"]


def external(log: Log) -> External:
    run = _last_run(log, "config_change")
    return External(run["externalDomain"], run["externalPort"], run["externalSecure"])


def living_tokens(log: Log) -> list[Token]:
    gone = {event.aggregate for event in log if event.type in {"instance.removed", "user.removed"}}
    revoked = {token.id for token in revoked_tokens(log)}
    return [
        token
        for token in _tokens(log, "user.pat.added")
        if token.id not in revoked and not {token.instance, token.user} & gone
    ]


def revoked_tokens(log: Log) -> list[Token]:
    return _tokens(log, "user.pat.removed")


def owner_tokens(log: Log) -> dict[str, Token]:
    """Return for each instance a token that may do everything there."""
    owners = {
        event.payload["userId"]
        for event in log
        if event.type == "instance.member.added" and "IAM_OWNER" in event.payload["roles"]
    }
    return {token.instance: token for token in living_tokens(log) if token.user in owners}


def removed_users(log: Log) -> list[User]:
    """Return users that are gone from organisations that are there, with the only name they ever had."""
    there: set[str] = set()
    for event in log:
        if event.type == "org.added":
            there.add(event.aggregate)
        elif event.type == "org.removed":
            there.discard(event.aggregate)
    added = {event.aggregate: event for event in log if event.type in {"user.human.added", "user.machine.added"}}
    renamed = {event.aggregate for event in log if event.type in {"user.username.changed", "user.domain.claimed"}}
    return [
        User(event.aggregate, event.instance, event.owner, added[event.aggregate].payload["userName"])
        for event in log
        if event.type == "user.removed" and event.aggregate in added.keys() - renamed and event.owner in there
    ]


def mail_servers(log: Log) -> set[str]:
    """Return every SMTP server that was ever configured, as host:port."""
    return {
        event.payload["host"]
        for event in log
        if event.type.startswith("instance.smtp.config.") and "host" in event.payload
    }


def mail_ports(log: Log) -> set[int]:
    """Return the ports of all SMTP servers on 127.0.0.1 but 1, at which the fixtures' servers found nobody."""
    found = (re.fullmatch(r"127\.0\.0\.1:(\d+)", server) for server in mail_servers(log))
    return {int(match[1]) for match in found if match} - {1}


def loopback_endpoints(log: Log) -> set[int]:
    """Return the ports of all HTTP endpoints on 127.0.0.1."""
    found = (re.findall(r"http://127\.0\.0\.1:(\d+)", json.dumps(event.payload)) for event in log)
    return {int(port) for ports in found for port in ports}


def _tokens(log: Log, event_type: str) -> list[Token]:
    return [
        Token(event.payload["tokenId"], event.aggregate, event.instance) for event in log if event.type == event_type
    ]


def _last_run(log: Log, name: str) -> dict[str, Any]:
    return next(
        event.payload["lastRun"]
        for event in reversed(log)
        if event.type == "system.migration.repeatable.done" and event.payload["name"] == name
    )


@cache
def _events(version: str, *, full: bool) -> tuple[Event, ...]:
    return tuple(_parsed(version, full=full))


def _parsed(version: str, *, full: bool) -> Iterator[Event]:
    names = fixture_data.columns(version, full=full)
    for row in fixture_data.rows(version, full=full):
        fields = dict(zip(names, row.removesuffix(b"\n").split(b"\t"), strict=True))
        payload = fields["payload"]
        yield Event(
            instance=fields["instance_id"].decode(),
            aggregate=fields["aggregate_id"].decode(),
            type=fields["event_type"].decode(),
            owner=fields["owner"].decode(),
            payload={} if payload == rb"\N" else json.loads(unescape(payload)),
        )
