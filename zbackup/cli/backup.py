from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from zbackup.cli import options
from zbackup.cli.job import Job
from zbackup.errors import Findings

if TYPE_CHECKING:
    from zbackup.backup import BackupOptions


def backup(
    context: options.Context,
    archive: options.Archive = None,
    source: options.Source = None,
    zitadel_config: options.ZitadelConfig = None,
    fence: options.Fence = None,
    capture: options.Capture = None,
    auth_requests: options.AuthRequests = None,
    audit: options.Audit = None,
    audit_budget: options.AuditBudget = None,
    jobs: options.Jobs = None,
    rate_limit: options.RateLimit = None,
    low_impact: options.LowImpact = None,
    horizon_margin: options.HorizonMargin = None,
    horizon_wait: options.HorizonWait = None,
    standby_lag: options.StandbyLag = None,
    wait: options.Wait = None,
    lock_timeout: options.LockTimeout = None,
    pg_dump: options.PgDump = None,
    spool: options.Spool = None,
    chunk_bytes: options.ChunkBytes = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """
    Back up what is new.

    That is everything the first time, an increment from then on. The exit code is 34 when the backup is made but
    state, such as the encryption keys, could not be captured.
    """
    with Job(locals()) as job:
        from zbackup import backup as use_case
        from zbackup import lease
        from zbackup.cli.records import backup_record
        from zbackup.cli.texts import backup_lines

        job.refuse_idle_options()
        chosen = backup_options(job)
        found, into = job.source(), job.archive()
        with lease.hold(into, "backup", wait=job.settings.duration("wait"), report=job.report):
            result = use_case.backup(into, found.dsn, chosen, fence=job.settings.text("fence"), report=job.report)
        job.output.result("backup", backup_record(result), backup_lines(result))
        if result.not_captured:
            raise typer.Exit(Findings.exit_code)


def backup_options(job: Job) -> BackupOptions:
    from zbackup.backup import BackupOptions

    settings = job.settings
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
