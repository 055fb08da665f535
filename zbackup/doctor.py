"""
Look at an archive, a source and this machine before they are needed, and say what to do about what is found.

Nothing that is found raises an error; a check that cannot be made says so.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from zbackup import check_zitadel
from zbackup.archive import names
from zbackup.archive.archive import Archive
from zbackup.archive.facts import numpy_fields
from zbackup.archive.table import PART_BYTES
from zbackup.check import Check, Verdict, fail, failed, ok, sized, skipped, tried, warn
from zbackup.check_source import SourceChecks
from zbackup.errors import ZbackupError
from zbackup.masterkey import check_archive, judged
from zbackup.progress import Report, Step, silent
from zbackup.store.base import Store
from zbackup.store.probe import Probes, probe, utc_now
from zbackup.zitadel.config_file import ZitadelConfig

__all__ = ["Check", "DoctorResult", "Verdict", "doctor"]

# The horizon goes by the server's clock alone; but people compare times, and S3 refuses 15 minutes.
WORTH_A_WARNING = 5.0
FAR_OFF = 600.0


@dataclass(frozen=True, slots=True)
class DoctorResult:
    checks: tuple[Check, ...]
    ok: bool
    """whether no check failed"""
    grants: str | None
    """SQL for a role with no more rights than a backup needs, if asked for"""


def doctor(
    store: Store | None,
    source: str | None,
    *,
    fence: str | None = None,
    zitadel: ZitadelConfig | None = None,
    pg_dump: str | None = None,
    spool: str | None = None,
    jobs: int = 2,
    grants: bool = False,
    masterkey: bytes | None = None,
    now: Callable[[], datetime] = utc_now,
    report: Report = silent,
) -> DoctorResult:
    """
    Make every check that can be made with what is given; an archive is probed with objects of its own.

    A masterkey is held against the source if there is one, else against the newest backup.
    """
    checks: list[Check] = []
    probes: Probes | None = None
    if store is None:
        checks.append(skipped("store", "no archive is given"))
    else:
        report(Step("probe", store.address))
        probes, found = _probe(store, now)
        checks += found
        checks.append(tried("archive", lambda: _archive(store)))
    sql: str | None = None
    skew, size, room, version = None, None, None, None
    fit = skipped("masterkey", "no masterkey is given (--masterkey-file)")
    if masterkey is not None and source is None:
        fit = tried("masterkey", lambda: _masterkey(store, masterkey, report))
    if source is None:
        checks.append(skipped("source", "no source is given"))
    else:
        report(Step("connect", "the source"))
        looks = SourceChecks(source, fence, pg_dump)
        try:
            checks += looks.run()
            if masterkey is not None:
                fit = looks.masterkey(masterkey, report)
            try:
                skew, size = looks.skew(now), looks.events_bytes()
                room, version = looks.room(), looks.version()
                sql = looks.grants() if grants else None
            except ZbackupError as error:
                checks.append(failed("source", error))
        finally:
            looks.close()
    checks.append(_numpy())
    checks.append(_spool(spool, jobs, size))
    checks.append(_clocks(skew, probes.clock_skew if probes else None))
    if source is not None:
        checks.append(check_zitadel.connections(room, zitadel, jobs, version))
    checks += (check_zitadel.projections(zitadel), check_zitadel.caches(zitadel), check_zitadel.assets(zitadel), fit)
    return DoctorResult(tuple(checks), all(check.verdict != "fail" for check in checks), sql)


def _probe(store: Store, now: Callable[[], datetime]) -> tuple[Probes | None, list[Check]]:
    try:
        found = probe(store, names.backup_id(now(), secrets.token_hex(4)), now=now)
    except ZbackupError as error:
        return None, [failed("store", error)]
    left = f"; {len(found.left)} objects of this probe cannot be removed, which no backup needs" if found.left else ""
    return found, [ok("store", f"{store.address} takes objects{left}"), *_verdicts(found)]


def _verdicts(found: Probes) -> Iterator[Check]:
    """Turn what a store was seen to do into checks: backups need the first three."""
    notes = "; ".join(found.notes) or "not seen"
    for name, verdict, what in (
        ("read-back", found.read_back, "objects read as they were written"),
        ("listing", found.listing, "an object is listed as soon as it is stored"),
        ("range read", found.range_read, "a part of an object can be read"),
    ):
        if verdict == "yes":
            yield ok(name, what)
        else:
            yield fail(name, f"not so: {what} ({notes})", "Check the rights to get and list, or use another store.")
    match found.create_only:
        case "yes":
            yield ok("create-only", "a name is never written twice, whoever races")
        case "unknown":
            yield warn("create-only", f"could not be seen: {notes}", "Check the right to put objects.")
        case "racy" | "no":
            yield warn(
                "create-only",
                "the store does not keep a name from being written twice"
                + (" when writers race" if found.create_only == "racy" else ""),
                "zbackup does not rely on it. Turn on versioning where it is to be had.",
            )
    if found.checksum == "yes":
        yield ok("checksum", "bytes that are not those announced are refused")
    else:
        yield warn(
            "checksum",
            "the store does not compare what it gets with the checksum sent along",
            "Run `zbackup verify` after backups: it reads everything back.",
        )


def _archive(store: Store) -> Check:
    archive = Archive.open(store)
    head = archive.catalog().head()
    if head is None:
        return ok("archive", f"{archive.record.archive}, no backup yet")
    return ok(
        "archive",
        f"{archive.record.archive}, the newest backup is number {head.number}, of {head.snapshot:%Y-%m-%d %H:%M:%S}Z",
    )


def _masterkey(store: Store | None, masterkey: bytes, report: Report) -> Check:
    if store is None:
        return skipped("masterkey", "there is neither source nor archive to hold it against")
    archive = Archive.open(store)
    head = archive.catalog().head()
    if head is None:
        return skipped("masterkey", "the archive holds no backup yet")
    return judged(check_archive(archive, archive.manifest(head), masterkey, report))


def _numpy() -> Check:
    if numpy_fields() is None:
        return warn(
            "numpy",
            "numpy cannot be loaded here: rows are read one by one, which takes longer",
            "`python -c 'import numpy'` says why; its wheels need a processor with x86-64-v2.",
        )
    return ok("numpy", "rows are read many at a time")


def _spool(spool: str | None, jobs: int, events_bytes: int | None) -> Check:
    """Look for room for what is on its way: a part of a table per job, whatever the size of the table."""
    place = spool or tempfile.gettempdir()
    needed = jobs * PART_BYTES
    try:
        with tempfile.TemporaryFile(dir=place):
            free = shutil.disk_usage(place).free
    except OSError as error:
        step = "Name a folder that can be written to with --spool."
        return fail("spool", f"{place}: {error.strerror or error}", step)
    table = "" if events_bytes is None else f"; the events table has {sized(events_bytes)}"
    what = f"{sized(free)} free in {place}, {jobs} jobs need up to {sized(needed)}{table}"
    if free < needed:
        return fail("spool", what, "Make room, or name another folder with --spool.")
    return ok("spool", what)


def _clocks(database: float | None, store: float | None) -> Check:
    """Compare three clocks; a store's may be known to the second only."""
    ahead = {"database": database, "store": store}
    known = {name: value for name, value in ahead.items() if value is not None}
    if not known:
        return skipped("clocks", "no other clock can be read")
    what = ", ".join(f"{name} {value:+.1f} s" for name, value in known.items()) + " against this machine"
    spread = max(*known.values(), 0.0) - min(*known.values(), 0.0)
    if spread >= WORTH_A_WARNING:
        verdict = fail if spread >= FAR_OFF else warn
        return verdict("clocks", what, "Let all of them follow the same time servers (NTP).")
    return ok("clocks", what)
