"""
What ZITADEL's configuration says of its running servers, as far as it matters to backups and restores: connections,
how long transactions of projections last, and caches outside the database.

Nothing of it is ever a reason to refuse: what cannot be read is named. Facts: ZITADEL v2.71 to main,
cmd/defaults.yaml, internal/cache/connector, internal/database/postgres.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta

Place = tuple[str, ...]
Lookup = Callable[[Place], str | None]
"""of a value by its place, in lower case"""

CACHES = (
    "instance", "milestones", "organization", "idpformcallbacks", "federatedlogouts", "webkeyactivesigningkey",
    "webkeypublickeys",
)  # fmt: skip

_CUSTOM = ("projections", "customizations")
_REDIS = ("caches", "connectors", "redis")
SECTIONS: tuple[Place, ...] = (("projections",), ("caches",))
"""what is read here beside Database"""
_BLOCKS: frozenset[Place] = frozenset((*SECTIONS, _CUSTOM, _REDIS[:2], _REDIS, *(("caches", name) for name in CACHES)))
"""which hold keys, as each of _CUSTOM does"""

_OPEN = "maxopenconns"
_DEFAULT_OPEN, _LEAST_OPEN = 10, 4
"""ZITADEL's, and what its driver takes for 0"""

# Of these ZITADEL's defaults hold a duration, so that a variable alone can set another.
_CUSTOMIZED = (
    "lockout_policy", "notificationsquotas", "org_domain_verified_fields", "password_complexities",
    "project_grant_fields",
)  # fmt: skip

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|µs|μs|ns)")


@dataclass(frozen=True, slots=True)
class Redis:
    """Where caches are that no restore of the database touches."""

    caches: tuple[str, ...]
    address: str
    """without any password"""
    first: int
    """of its databases that may hold one"""


@dataclass(frozen=True, slots=True)
class Running:
    max_open_conns: int = _DEFAULT_OPEN
    """of each server process"""
    max_conn_lifetime: timedelta | None = None
    """None: not set, which is 30 minutes since v3, and nothing before"""
    max_conn_idle_time: timedelta | None = None
    longest_transaction: timedelta = timedelta(minutes=1)
    """of a projection; zero: without a limit"""
    longest_by: str = "Projections.TransactionDuration"
    """the key that says so"""
    redis: Redis | None = None


def read_running(value: Lookup, places: Collection[Place], block: str, notes: list[str]) -> Running:
    """Read it from the values; `block` is the name of the one below Database, and `places` are all that files hold."""
    database = ("database", block)
    lifetime, idle = (_duration(value, (*database, key), notes) for key in ("maxconnlifetime", "maxconnidletime"))
    notes += [
        f"{named(place)} holds no keys and was left out of account"
        for place in sorted(places)
        if place in _BLOCKS or (place[:2] == _CUSTOM and len(place) == 3)
    ]
    longest, by = _longest(value, places, notes)
    return Running(
        max_open_conns=_whole(value, (*database, _OPEN), _DEFAULT_OPEN, notes) or _LEAST_OPEN,
        max_conn_lifetime=lifetime,
        max_conn_idle_time=idle,
        longest_transaction=longest,
        longest_by=by,
        redis=_redis(value, notes),
    )


def _longest(value: Lookup, places: Collection[Place], notes: list[str]) -> tuple[timedelta, str]:
    """Return how long a transaction of a projection may last, and the key that says so."""
    usual = ("projections", "transactionduration")
    longest = _duration(value, usual, notes)
    if longest is not None and not longest:
        return longest, named(usual)
    found = [(longest or timedelta(minutes=1), named(usual))]
    customized = {place for place in places if place[:2] == _CUSTOM and place[-1] == "transactionduration"}
    customized |= {(*_CUSTOM, name, "transactionduration") for name in _CUSTOMIZED}
    found += [(_duration(value, place, notes) or timedelta(0), named(place)) for place in sorted(customized)]
    return max(found, key=lambda one: one[0])


def _redis(value: Lookup, notes: list[str]) -> Redis | None:
    caches = tuple(name for name in CACHES if (value(("caches", name, "connector")) or "").lower() == "redis")
    if not caches:
        return None
    address = value((*_REDIS, "addr")) or "localhost:6379"
    if url := value((*_REDIS, "url")):
        address = url.rpartition("@")[2] if "@" in url else url.partition("://")[2]
    # Nothing else is shown: it may be a part of the password.
    plain = re.match(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?(?=[/?#]|$)", address)
    address = plain[0] if plain else "the address of its connector"
    return Redis(caches, address, _whole(value, (*_REDIS, "dboffset"), 10, notes) + 1)


def _whole(value: Lookup, place: Place, default: int, notes: list[str]) -> int:
    text = value(place)
    if text is None or re.fullmatch(r"[0-9]{1,9}", text):
        return default if text is None else int(text)
    notes.append(f"{named(place)} is not a whole number and was left out of account")
    return default


def _duration(value: Lookup, place: Place, notes: list[str]) -> timedelta | None:
    """Read a duration as Go does; a number alone counts nanoseconds."""
    text = value(place)
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,18}", text):
        return timedelta(microseconds=int(text) / 1000)
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text and len(text) < 40:
        try:
            return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))
        except OverflowError:
            pass
    notes.append(f"{named(place)} is not a duration and was left out of account")
    return None


_WRITTEN = {
    "database": "Database", "projections": "Projections", "customizations": "Customizations", "caches": "Caches",
    "connectors": "Connectors", "redis": "Redis", "dboffset": "DBOffset", "maxopenconns": "MaxOpenConns",
    "maxconnlifetime": "MaxConnLifetime", "maxconnidletime": "MaxConnIdleTime",
    "transactionduration": "TransactionDuration", "instance": "Instance", "milestones": "Milestones",
    "organization": "Organization", "idpformcallbacks": "IdPFormCallbacks", "federatedlogouts": "FederatedLogouts",
    "webkeyactivesigningkey": "WebkeyActiveSigningKey", "webkeypublickeys": "WebkeyPublicKeys",
}  # fmt: skip


def named(place: Place) -> str:
    """Write a place as ZITADEL's own documentation does."""
    return ".".join(_WRITTEN.get(part, part) for part in place)
