"""A restored ZITADEL that runs, and what it did before anybody asked for anything new."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

import psycopg

from tests.zitadel.api import Api, ApiError, eventually
from tests.zitadel.drill import Case, World
from tests.zitadel.past import Log, Token, log_at, loopback_endpoints, mail_ports, owner_tokens
from tests.zitadel.sinks import Call, Mail, MailSink, WebhookSink, serving
from tests.zitadel.tokens import OIDC_KEY, mint, open_key
from tests.zitadel.truth import Instance, differences, read_truth

QUIET_SECONDS = float(os.environ.get("ZBACKUP_ZITADEL_QUIET", "20"))
"""Without handler states 87 mails were sent within seconds of a start; handlers look every 5 s (server.py)."""

ANSWER_SECONDS = 6 * QUIET_SECONDS
"""for projections to catch up after the start"""

ALPHA = "alpha"
"""the instance of a fixture in which nearly everything happened"""

Counts = Counter[tuple[str, str]]
"""events by instance and type"""


@dataclass(frozen=True, slots=True)
class Quiet:
    by_setup: Counts
    """events that setup added"""
    by_start: Counts
    """events that were added from then on"""
    differences: dict[str, list[str]]
    """from the truth, by instance"""
    mails: tuple[Mail, ...]
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Restored:
    log: Log
    """of the fixture, up to the instant"""
    instances: dict[str, Instance]
    """of the truth, by name"""
    apis: dict[str, Api]
    """of each, for the bearer of an old token that may do everything"""
    owners: dict[str, Token]
    """that token, by name of the instance"""
    oidc_key: bytes
    mail_sinks: tuple[MailSink, ...]
    quiet: Quiet

    @property
    def alpha(self) -> Api:
        return self.apis[ALPHA]

    def mails_to(self, recipient: str) -> list[Mail]:
        return [mail for sink in self.mail_sinks for mail in sink.got if recipient in mail.recipients]


@contextmanager
def restored(world: World, case: Case) -> Generator[Restored]:
    """Restore a case, set it up and run it until the end of the block."""
    log, instances = log_at(case.version, case.instant), read_truth(case.version, case.instant)
    database = world.restore(case)
    zitadel = world.zitadel(database)
    with ExitStack() as stack:
        mail_sinks = tuple(stack.enter_context(serving(world.network, MailSink, port)) for port in mail_ports(log))
        hooks = [stack.enter_context(serving(world.network, WebhookSink, port)) for port in loopback_endpoints(log)]
        connection = stack.enter_context(world.connect(database))
        before = _count_events(connection)
        zitadel.setup("--init-projections=true")
        set_up = _count_events(connection)
        stack.enter_context(zitadel.running())
        oidc_key, tokens = _oidc_key(connection), owner_tokens(log)
        owners = {name: tokens[instance.id] for name, instance in instances.items()}
        apis = {
            name: Api(world.network, zitadel.port, instance.domain, token_of(oidc_key, owners[name]))
            for name, instance in instances.items()
        }
        found = eventually(lambda: _differences(instances, apis), lambda found: not any(found.values()), ANSWER_SECONDS)
        time.sleep(QUIET_SECONDS)
        quiet = Quiet(
            by_setup=set_up - before,
            by_start=_count_events(connection) - set_up,
            differences=found,
            mails=tuple(mail for sink in mail_sinks for mail in sink.got),
            calls=tuple(call for sink in hooks for call in sink.got),
        )
        yield Restored(log, instances, apis, owners, oidc_key, mail_sinks, quiet)


def token_of(oidc_key: bytes, old: Token) -> str:
    return mint(oidc_key, old.id, old.user)


def _differences(instances: dict[str, Instance], apis: dict[str, Api]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, instance in instances.items():
        try:
            found[name] = differences(instance.answers, apis[name].answers())
        except (ApiError, OSError, HTTPException) as exc:
            found[name] = [str(exc)]
    return found


def _count_events(connection: psycopg.Connection[Any]) -> Counts:
    rows = connection.execute("SELECT instance_id, event_type, count(*) FROM eventstore.events2 GROUP BY 1, 2")
    return Counter({(instance, event_type): number for instance, event_type, number in rows})


def _oidc_key(connection: psycopg.Connection[Any]) -> bytes:
    stored = connection.execute("SELECT key FROM system.encryption_keys WHERE id = %s", (OIDC_KEY,)).fetchone()
    assert stored is not None, f"the restored database has no {OIDC_KEY}"
    return open_key(stored[0])
