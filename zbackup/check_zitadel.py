"""Check what ZITADEL's own configuration says: how it shares the server with backups, and what no backup holds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from zbackup.check import Check, fail, ok, skipped, warn
from zbackup.database.horizon import LONG
from zbackup.database.inspect_source import Room
from zbackup.zitadel.config_file import ZitadelConfig
from zbackup.zitadel.running import named

_NOT_GIVEN = "ZITADEL's configuration is not given (--zitadel-config)"

CONTROL = 3
"""Sessions of a backup beside those of its jobs: for the horizon, for the snapshot, and pg_dump's (measured)."""

# Connections that live shorter than this are made anew for what they are used for.
SHORT = timedelta(seconds=10)


def assets(zitadel: ZitadelConfig | None) -> Check:
    if zitadel is None:
        return skipped("assets", _NOT_GIVEN)
    if zitadel.asset_storage.lower() != "db":
        return warn(
            "assets",
            f"ZITADEL keeps its assets outside the database: {zitadel.asset_storage}",
            "Back that storage up too: no backup of the database holds logos, fonts and avatars.",
        )
    return ok("assets", "in the database")


def caches(zitadel: ZitadelConfig | None) -> Check:
    if zitadel is None:
        return skipped("caches", _NOT_GIVEN)
    for what, step in outliving(zitadel):
        return warn("caches", what, step)
    return ok("caches", "none outlives a restore")


def outliving(zitadel: ZitadelConfig) -> Iterator[tuple[str, str]]:
    """Say what a restore of the database leaves as it is, and what to do about it."""
    redis = zitadel.running.redis
    if redis is not None:
        names = ", ".join(named(("caches", name)) for name in redis.caches)
        yield (
            f"{names}: kept in Redis at {redis.address}, which outlives a restore and would answer with what is gone",
            f"After a restore, before ZITADEL starts, flush that Redis: FLUSHDB in databases {redis.first} and up, or "
            "FLUSHALL where it serves ZITADEL alone.",
        )


def projections(zitadel: ZitadelConfig | None) -> Check:
    if zitadel is None:
        return skipped("projections", _NOT_GIVEN)
    longest, by = zitadel.running.longest_transaction, zitadel.running.longest_by
    step = "What is younger than the oldest transaction is stored anew by every backup: keep it below 5 minutes."
    if not longest:
        return warn("projections", f"their transactions may last without a limit ({by})", step)
    what = f"their transactions last up to {longest.total_seconds():g} s ({by})"
    return warn("projections", what, step) if longest > LONG else ok("projections", what)


def connections(room: Room | None, zitadel: ZitadelConfig | None, jobs: int, version: str | None) -> Check:
    """Look whether a backup's connections fit in beside ZITADEL's."""
    if room is None:
        return skipped("connections", "the source cannot be reached")
    needed = jobs + CONTROL
    wanted = f"a backup with {jobs} {'job' if jobs == 1 else 'jobs'} needs {needed}"
    fewer = f"Take fewer --jobs, or raise {room.limited_by}."
    if room.free < needed:
        return fail("connections", f"{room.free} of {room.most} are free ({room.limited_by}), {wanted}", fewer)
    free = f"{room.free} of {room.most} are free, {wanted}"
    if zitadel is None:
        return ok("connections", free)
    running = zitadel.running
    theirs = f"each ZITADEL server opens up to {running.max_open_conns} (MaxOpenConns)"
    if running.max_open_conns + needed > room.most:
        return warn("connections", f"{theirs}, {wanted}, and {room.limited_by} allows {room.most} in all", fewer)
    lifetime = running.max_conn_lifetime
    if lifetime is None and (version or "").lstrip("v").startswith("2."):
        lifetime = timedelta(0)
    if lifetime is not None and lifetime < SHORT:
        return warn(
            "connections",
            f"MaxConnLifetime is {lifetime.total_seconds():g} s: ZITADEL makes its connections anew all the time",
            "Set Database.postgres.MaxConnLifetime to 30m; v2 has no default for it.",
        )
    return ok("connections", f"{free}; {theirs}")
