"""
One backup: settle the horizon, take a snapshot, seal what lies between the last horizon and this one, carry
the rest as the tail, compare old rows, capture the other tables, commit.

Nothing of it is visible before the manifest, the last object, is stored; a run that dies leaves objects that
nothing names.
"""

from __future__ import annotations

import os
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from zbackup.archive.archive import Archive
from zbackup.archive.log import totals_of
from zbackup.archive.manifest import (
    Amendment,
    CaptureRef,
    Manifest,
)
from zbackup.attempt import Attempt, BackupOptions, Rewritten
from zbackup.database.connection import source_errors
from zbackup.database.kept import Sessions
from zbackup.database.sessions import naming_lockers
from zbackup.errors import Findings, UsageError, ZbackupError
from zbackup.progress import Report, Warned, silent
from zbackup.source import Blocker, Counters
from zbackup.zitadel import events

# A table rewritten while it is read is read again under a new snapshot this often: setup rewrites it at most
# once, and a backup that meets more should say so.
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class BackupResult:
    backup: str
    generation: str
    kind: str
    events: int
    """rows newly sealed"""
    tail: int
    horizon: datetime | None
    horizon_basis: str
    recovery_point: datetime
    amended: int
    """rows added, removed or changed by amendments"""
    raw_bytes: int
    """of all events that this run wrote: sealed, tail and amended"""
    stored_bytes: int
    """of all objects that this run wrote"""
    seconds: float
    blockers: tuple[Blocker, ...]
    amendments: tuple[Amendment, ...]
    capture: CaptureRef | None
    warnings: tuple[str, ...]
    not_captured: tuple[str, ...]
    """tables that should be, and that nothing else brings back"""

    @property
    def fault(self) -> ZbackupError | None:
        """Why the backup is not whole, None when it is."""
        if not self.not_captured:
            return None
        return Findings(
            f"backup {self.backup} is made, without {', '.join(self.not_captured)}",
            hint="`zbackup doctor` says what the role may not read.",
        )


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was committed, and what whoever goes on from there wants to know."""

    manifest: Manifest
    result: BackupResult
    counters: Counters | None
    """as they were read before its snapshot"""
    tail_seconds: float
    """that the tail took"""


def backup(
    archive: Archive,
    source: str,
    options: BackupOptions,
    *,
    fence: str | None = None,
    report: Report = silent,
) -> BackupResult:
    """
    Make one backup of a source and commit it.

    Raises:
        UsageError: the spool folder cannot be used.
        SourceRefused: the source is not fit to be backed up.
        SourceError: it failed on the way; nothing was committed, and the next run starts over.
        CommitUnknown: the store did not say whether the manifest is stored.

    """
    there = None if fence is None else Sessions(fence)
    with closing(Sessions(source)) as sessions, closing(there) if there else nullcontext():
        return increment(archive, sessions, options, fence=there, report=report).result


def increment(
    archive: Archive,
    source: Sessions,
    options: BackupOptions,
    *,
    fence: Sessions | None = None,
    report: Report = silent,
) -> Made:
    """Do what `backup` does, on sessions of the caller's. Raises as it does."""
    begun = time.monotonic()
    _expect_spool(options.spool)
    with (
        source_errors(source.dsn),
        source.borrow(options.lock_timeout) as control,
        fence.borrow() if fence else nullcontext() as primary,
        naming_lockers(control, f"{events.SCHEMA}.{events.TABLE}"),
    ):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                run = Attempt(archive, source, options, report, control, primary)
                manifest = run.make()
            except Rewritten as error:
                if attempt == ATTEMPTS:
                    raise
                report(Warned(f"{error.message}; reading it again"))
            else:
                raced = _raced(archive, manifest)
                for warning in raced:
                    report(Warned(warning))
                result = _result(manifest, run, raced, time.monotonic() - begun)
                return Made(manifest, result, run.counters, run.tail_seconds)
    raise AssertionError


def _raced(archive: Archive, manifest: Manifest) -> tuple[str, ...]:
    """Look whether another run committed at the same time."""
    others = [entry.backup for entry in archive.catalog().since(manifest.number) if entry.backup != manifest.backup]
    if not others:
        return ()
    return (
        f"another run committed at the same time ({', '.join(others)}): both are restorable, one will be continued",
    )


def _expect_spool(spool: str | None) -> None:
    if spool is not None and not (Path(spool).is_dir() and os.access(spool, os.W_OK)):
        raise UsageError(f"spool {spool} is not a folder that can be written", hint="Make it, or choose another.")


def _result(manifest: Manifest, run: Attempt, raced: tuple[str, ...], seconds: float) -> BackupResult:
    mine = tuple(found for found in manifest.amendments if found.backup == manifest.backup)
    tail = totals_of(manifest.tail)
    captured = manifest.capture
    return BackupResult(
        backup=manifest.backup,
        generation=manifest.generation,
        kind=manifest.kind,
        events=manifest.new.rows,
        tail=tail.rows,
        horizon=manifest.horizon.at,
        horizon_basis=manifest.horizon.basis,
        recovery_point=manifest.snapshot,
        amended=sum(found.added + found.removed + found.changed for found in mine),
        raw_bytes=run.written.raw_bytes,
        stored_bytes=manifest.stored_bytes,
        seconds=seconds,
        blockers=manifest.horizon.blockers,
        amendments=mine,
        capture=captured,
        warnings=(*manifest.warnings, *raced),
        not_captured=run.lacking,
    )
