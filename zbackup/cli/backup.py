from __future__ import annotations

import typer

from zbackup.cli import options
from zbackup.cli.job import Job


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
    metrics_file: options.MetricsFile = None,
    config: options.Config = None,
    profile: options.Profile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """
    Back up what is new.

    That is everything the first time, an increment from then on. The exit code is 34 when the backup is made but
    state, such as the encryption keys, could not be captured.
    """
    with Job(locals()) as job:
        from zbackup.cli import steps
        from zbackup.cli.records import backup_record
        from zbackup.cli.texts import backup_lines

        result = steps.back_up(job, steps.backup_options(job))
        job.output.result("backup", backup_record(result), backup_lines(result))
        if result.fault:
            raise typer.Exit(result.fault.exit_code)
