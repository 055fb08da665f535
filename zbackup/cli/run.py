from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, cast

import typer

from zbackup.cli import options
from zbackup.cli.job import Job
from zbackup.errors import Interrupted, ZbackupError

if TYPE_CHECKING:
    from zbackup.cli.announce import Announcer
    from zbackup.run import Run

Name = Annotated[str | None, typer.Argument(metavar="[JOB]", help="A job of the TOML file, whose values hold.")]


def run(
    context: options.Context,
    job: Name = None,
    archive: options.Archive = None,
    source: options.Source = None,
    zitadel_config: options.ZitadelConfig = None,
    fence: options.Fence = None,
    capture: options.Capture = None,
    auth_requests: options.AuthRequests = None,
    audit: options.Audit = None,
    audit_budget: options.AuditBudget = None,
    verify: options.Verify = None,
    verify_full_every: options.VerifyFullEvery = None,
    prune: options.Prune = None,
    keep_window: options.KeepWindow = None,
    keep_captures: options.KeepCaptures = None,
    grace: options.Grace = None,
    ping_url: options.PingUrl = None,
    on_success: options.OnSuccess = None,
    on_failure: options.OnFailure = None,
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
    Back up, verify, prune, and say how it went: what a night needs.

    With source and archive alone it is a backup and a verification, of a sample or, once a week, of everything. The
    exit code is that of the first step that failed.
    """
    with Job(locals(), job) as work, work.observed():
        from zbackup.cli.announce import Announcer
        from zbackup.cli.ran import run_lines, run_record

        if not work.settings.switch("prune"):
            for name in ("keep_window", "keep_captures", "grace"):
                work.no_effect(name, "prune = false")
        if work.settings.text("verify") != "sample":
            work.no_effect("verify_full_every", f"verify = {work.settings.text('verify')}")
        announcer = Announcer(work)
        under_way = _prepared(work, job)
        _take(work, under_way, announcer)
        result = under_way.result()
        announcer.ended(result)
        work.output.result("run", run_record(result, announcer.warnings), run_lines(result))
        if result.exit_code:
            work.output.tell(f"error: {result.reason}")
            raise typer.Exit(result.exit_code)


def _prepared(work: Job, name: str | None) -> Run:
    from zbackup.cli import steps
    from zbackup.run import Depth, Run, Work

    chosen, keep = steps.backup_options(work), steps.rules(work)
    return Run(
        Work(
            archive=work.archive,
            backup=lambda: steps.back_up(work, chosen),
            verify=lambda level: steps.verify(work, level),
            prune=lambda: steps.prune(work, keep, yes=True),
        ),
        job=name,
        verify=cast("Depth", work.settings.text("verify")),
        full_every=work.settings.duration("verify_full_every"),
        prune=work.settings.switch("prune"),
        now=lambda: datetime.now(UTC),
        report=work.report,
    )


def _take(work: Job, under_way: Run, announcer: Announcer) -> None:
    """Take the steps. What does not end as a result is announced before it goes on its way: wrong usage, a signal."""
    try:
        announcer.begun()
        under_way.go()
        if work.output.stopping.is_set():  # and what came of it was taken for a failure of a step
            raise KeyboardInterrupt
    except (KeyboardInterrupt, Interrupted):
        under_way.stop(Interrupted("stopped by a signal"))
        announcer.ended(under_way.result(), hurry=True)
        raise KeyboardInterrupt from None
    except Exception as error:
        known = isinstance(error, ZbackupError)
        under_way.fail(error if known else ZbackupError(f"unexpected {type(error).__name__}"))
        announcer.ended(under_way.result())
        raise
