from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from zbackup.cli import options
from zbackup.cli.job import Job
from zbackup.errors import Findings, UsageError
from zbackup.stop import Stop
from zbackup.values import Known, of_flag, way_out

if TYPE_CHECKING:
    from zbackup.outcome import Outcome
    from zbackup.progress import Progress

LEAST = timedelta(milliseconds=100)

_FOR = Known("for", "duration", "How long to go on.")

Count = Annotated[int | None, typer.Option(min=1, metavar="N", help="End after so many looks.")]
For = Annotated[str | None, typer.Option("--for", metavar="DURATION", help="End after so long.")]


def follow(
    context: options.Context,
    archive: options.Archive = None,
    source: options.Source = None,
    zitadel_config: options.ZitadelConfig = None,
    fence: options.Fence = None,
    every: options.Every = None,
    capture_every: options.CaptureEvery = None,
    count: Count = None,
    for_: For = None,
    capture: options.Capture = None,
    auth_requests: options.AuthRequests = None,
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
    listen: options.Listen = None,
    config: options.Config = None,
    profile: options.Profile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """
    Back up what is new every few seconds, until told to stop.

    Increments of the same archive as `backup` makes, in one process; where nothing is new none is made. Captures and
    counts come once an hour. Errors that pass are tried again for ever. SIGTERM and Ctrl-C end it with exit code 0.
    """
    stop = context.obj.stop = context.obj.stop or Stop()
    with Job(locals()) as job:
        from zbackup import follow as use_case
        from zbackup.cli import steps
        from zbackup.cli.followed import Measuring, Telling

        following = use_case.FollowOptions(
            every=job.settings.duration("every"),
            capture_every=job.settings.duration("capture_every"),
            count=count,
            duration=_duration(for_),
        )
        if following.every < LEAST:
            raise UsageError(
                f"every is {following.every.total_seconds():g} s, {LEAST.total_seconds():g} s is the least"
            )
        chosen = replace(steps.backup_options(job), audit=False)
        found = job.source()
        telling, measuring = Telling(job.output, following), Measuring(job, stop)

        def heard(progress: Progress) -> None:
            telling.heard(progress)
            job.trace(progress)

        def told(outcome: Outcome) -> None:
            telling.tell(outcome)
            measuring.take(outcome)

        store = job.store(report=heard)
        at = measuring.serve(job.settings.text("listen"))
        telling.begin(found.dsn, store.address, at)
        last = None

        try:
            last = use_case.follow(
                store,
                found.dsn,
                chosen,
                following,
                fence=job.settings.text("fence"),
                wait=job.settings.duration("wait"),
                stop=stop,
                on_outcome=told,
                around=measuring.tick,
                report=heard,
            )
        except BaseException:
            if not stop.asked:
                raise
        if not stop.asked and last is not None and last.error is not None:
            raise last.error
        job.output.result("follow", telling.record(), telling.lines())
        if not stop.asked and telling.not_captured:
            raise typer.Exit(Findings.exit_code)


def _duration(text: str | None) -> timedelta | None:
    if text is None:
        return None
    try:
        found = of_flag(_FOR, text)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"for from --for: {error}", hint=way_out(_FOR)) from None
    assert isinstance(found, timedelta)
    return found
