"""
What `backup`, `verify` and `prune` make of the settings, in one place: `run` does the same, one after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zbackup.archive.needed import Rules
    from zbackup.backup import BackupOptions, BackupResult
    from zbackup.cli.job import Connection, Job
    from zbackup.prune import PruneResult
    from zbackup.verify import Level, VerifyResult


def backup_options(job: Job) -> BackupOptions:
    """Gather what a backup is told. Raises UsageError for flags without effect."""
    from zbackup.backup import BackupOptions

    settings = job.settings
    if settings.text("fence") is not None:
        job.no_effect("standby_lag", "the horizon is settled at the primary")
    if not settings.switch("capture"):
        job.no_effect("pg_dump", "nothing is captured")
        job.no_effect("auth_requests", "nothing is captured")
    return BackupOptions(
        jobs=job.jobs(low_impact=settings.switch("low_impact")),
        rate_limit=settings.size("rate_limit"),
        low_impact=settings.switch("low_impact"),
        capture=settings.switch("capture"),
        auth_requests=settings.switch("auth_requests"),
        audit=settings.switch("audit"),
        audit_budget=settings.duration("audit_budget"),
        margin=settings.duration("horizon_margin"),
        horizon_wait=settings.duration("horizon_wait"),
        standby_lag=settings.duration("standby_lag"),
        lock_timeout=settings.duration("lock_timeout"),
        pg_dump=settings.text("pg_dump"),
        spool=settings.text("spool"),
        chunk_bytes=settings.whole("chunk_bytes"),
    )


def back_up(job: Job, options: BackupOptions) -> BackupResult:
    """Make a backup, as the only run on its archive."""
    from zbackup import backup, lease
    from zbackup.measure import of_backup

    with job.observed("backup") as run:
        found, into = job.source(), job.archive()
        with lease.hold(into, "backup", wait=job.settings.duration("wait"), report=job.report):
            result = backup.backup(into, found.dsn, options, fence=job.settings.text("fence"), report=job.report)
        run.add(of_backup(result))
        run.done(result.fault, into)
    return result


def verify(job: Job, level: Level, against: Connection | None = None) -> VerifyResult:
    """Verify the archive; with a connection also against its source, at the pace of the settings."""
    from zbackup import verify as use_case
    from zbackup.database.pace import Pace
    from zbackup.measure import of_verify

    low = against is not None and job.settings.switch("low_impact")
    with job.observed("verify") as run:
        result = use_case.verify(
            job.archive(),
            level=level,
            source=against.dsn if against else None,
            jobs=job.jobs(low_impact=low),
            pace=Pace(job.settings.size("rate_limit"), low_impact=low),
            report=job.report,
        )
        run.add(of_verify(result, run.began, compared=against is not None))
        run.done(result.fault, job.archive())
    return result


def rules(job: Job, forget: Iterable[str] = (), *, forget_amended: bool = False) -> Rules:
    """Gather what is to be kept."""
    from zbackup.archive.needed import KeepCaptures, Rules

    return Rules(
        window=job.settings.duration("keep_window"),
        captures=KeepCaptures.parse(job.settings.text("keep_captures") or ""),
        forget=frozenset(forget),
        forget_amended=forget_amended,
    )


def prune(job: Job, keep: Rules, *, yes: bool) -> PruneResult:
    """Prune the archive, or say what a prune would do."""
    from zbackup import prune as use_case
    from zbackup.measure import of_prune

    with job.observed("prune") as run:
        run.counts = yes
        archive = job.archive()
        result = use_case.prune(archive, keep, grace=job.settings.duration("grace"), yes=yes, report=job.report)
        run.add(of_prune(result))
        run.done(None, archive)
    return result
