"""What the operator must do after a restore, what people will notice, and what deserves a look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from zbackup.constraints import ConstraintsAt
from zbackup.database.computed import Instance, missing_assets
from zbackup.database.connection import Connection
from zbackup.unit import Unit
from zbackup.zitadel import handlers

NAMED = 5
"""rows or tables named in one warning"""


_EXTERNAL = {"Domain": "externalDomain", "Port": "externalPort", "Secure": "externalSecure"}


@dataclass(frozen=True, slots=True)
class NextStep:
    what: str
    command: str | None = None


def next_steps(
    mode: str, version: str | None, external: Mapping[str, object], point: str, target: str
) -> tuple[NextStep, ...]:
    """
    Say what to do, in order.

    `point` are the options that name what was restored, `target` is the database as it may be shown.
    """
    which = f"ZITADEL {version} or newer" if version else "ZITADEL of the source's version or newer"
    named = [f"External{name} {external[key]}" for name, key in _EXTERNAL.items() if key in external]
    expected = f" ({', '.join(named)})" if named else ""
    return (
        NextStep(
            "Keep every ZITADEL of the target stopped until the end of this list, and that of the source too where "
            "both would reach the same mail server and webhooks."
        ),
        NextStep(
            f"Take {which} with the configuration of the source{expected}, and its masterkey. Whether that fits says",
            f"zbackup plan {point} --masterkey-file FILE",
        ),
        NextStep(
            "For a copy beside the original set ServicePing.Enabled and Telemetry.Enabled to false: both have the same "
            "system id. Where Caches.Connectors.Redis is configured, flush that Redis."
        ),
        NextStep(
            "Let every projection catch up, also those of instances younger than the capture; without it those are "
            "never found" + ("; not with --for-mirror, which switches that off" if mode == "prepared" else ""),
            "zitadel setup --init-projections=true --masterkeyFile FILE --config FILE --steps FILE",
        ),
        NextStep("Start", "zitadel start --masterkeyFile FILE --config FILE"),
        NextStep(
            "If this database takes the source's place, end the backups of the old one and go on with this one in the "
            "same archive, where it begins a generation of its own; a copy beside the source gets its own archive",
            f"zbackup backup --source '{target}'",
        ),
    )


def notices(*, cut: bool, auth_requests: bool) -> tuple[str, ...]:
    """
    Say what people will notice.

    `cut`: an instant was asked for, not a whole backup; `auth_requests`: logins under way were loaded.
    """
    said = [
        "Mails, SMS and webhooks of the past are not sent again; those that were queued are not sent at all.",
        "Logins under way go on as far as they were captured."
        if auth_requests
        else "Logins under way must begin anew.",
        "projections.failed_events2 may name milestones3 and smtp_configs6 after the setup: ZITADEL's own replay "
        "stumbles over those events, restored or not.",
    ]
    if cut:
        said += [
            "Sessions and tokens ended after the instant are valid again until they expire; later ones are gone.",
            "Passwords, second factors and user names are those of the instant; people deleted later are back, people "
            "added later are gone while other systems may know them.",
            "One-time codes sent before the instant and used after it can be used again.",
            "Logos, fonts and avatars are those of the capture.",
        ]
    return tuple(said)


def warnings(
    connection: Connection,
    unit: Unit,
    constraints: ConstraintsAt,
    instances: Sequence[Instance],
    external: Mapping[str, object],
) -> Iterator[str]:
    """Yield what deserves a look before the start."""
    yield from unit.survey.warnings
    yield from _cold(unit)
    yield from _constraints(constraints)
    yield from _domains(instances, external)
    if "system.assets" not in unit.survey.options.without and missing_assets(connection):
        yield (
            "events speak of logos or avatars and no backup holds one: they are kept outside the database "
            "(AssetStorage); bring that storage back, too"
        )
    if not instances:
        yield "no instance lives at this instant: ZITADEL answers nobody until one is made"


def _cold(unit: Unit) -> Iterator[str]:
    if unit.cold:
        yield f"derived tables are empty and will be rebuilt by setup, which takes its time: {unit.cold}"
        if any(handler.name == handlers.RELATIONAL for handler in unit.handlers if not handler.warm):
            yield (
                "schema zitadel is empty, too: ZITADEL's own replay of it is known to fail on single events "
                "(seen on the development line of v5)"
            )
        return
    by_reason: dict[str, list[str]] = {}
    for handler in unit.handlers:
        if not handler.warm:
            by_reason.setdefault(handler.why, []).append(handler.name)
    if unit.fields:
        by_reason.setdefault(unit.fields, []).append("eventstore.fields")
    for why, names in by_reason.items():
        yield f"cold, to be rebuilt by setup: {_some(names)} ({why})"


def _constraints(constraints: ConstraintsAt) -> Iterator[str]:
    difference = constraints.difference
    if constraints.basis == "events":
        yield "unique constraints come from the events alone: no captured table could be used"
    elif difference is not None and difference.missing:
        rows = [" ".join(map(repr, row)) for row in difference.missing]
        yield (
            f"{len(rows)} unique constraints are missing in the captured table although the events ask for them: "
            f"{_some(rows)}"
        )
    if difference is not None and difference.unexplained:
        rows = [" ".join(map(repr, row)) for row in difference.unexplained]
        yield f"{len(rows)} unique constraints are in the captured table and no event explains them: {_some(rows)}"
    yield from constraints.doubts


def _domains(instances: Sequence[Instance], external: Mapping[str, object]) -> Iterator[str]:
    domain = external.get("externalDomain")
    if not isinstance(domain, str):
        return
    for instance in instances:
        if not any(one == domain or one.endswith(f".{domain}") for one in instance.domains):
            yield (
                f"instance {instance.id} has no domain under ExternalDomain {domain}: it has "
                f"{_some(instance.domains) or 'none'}; it is reached by those only"
            )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
