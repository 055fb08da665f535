from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
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
    stop = context.obj.stop = Stop()
    with Job(locals()) as job, _shown(job):
        from zbackup import follow as use_case
        from zbackup.cli import steps
        from zbackup.cli.followed import Telling

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
        telling = Telling(job.output, following)
        store = job.store(report=telling.heard)
        telling.begin(found.dsn, store.address)
        last = None

        def told(outcome: Outcome) -> None:
            telling.tell(outcome)
            _measure(job, outcome)

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
                report=telling.heard,
            )
        except BaseException:
            if not stop.asked:
                raise
        if not stop.asked and last is not None and last.error is not None:
            raise last.error
        job.output.result("follow", telling.record(), telling.lines())
        if not stop.asked and telling.not_captured:
            raise typer.Exit(Findings.exit_code)


@contextmanager
def _shown(job: Job) -> Generator[None]:
    """Show metrics over HTTP, where that is wanted."""
    from zbackup.serve_metrics import serve

    listen = job.settings.text("listen")
    if listen is None:
        yield
        return
    with serve(listen, job.observer.board) as where:
        job.output.tell(f"metrics at http://{where}/metrics")
        yield


def _measure(job: Job, outcome: Outcome) -> None:
    from zbackup.measure import of_outcome
    from zbackup.observe import Run

    run = Run("follow", began=outcome.time.timestamp() - outcome.seconds)
    run.done(outcome.error)
    run.add(of_outcome(outcome))
    job.observer.note(run)


def _duration(text: str | None) -> timedelta | None:
    if text is None:
        return None
    try:
        found = of_flag(_FOR, text)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"for from --for: {error}", hint=way_out(_FOR)) from None
    assert isinstance(found, timedelta)
    return found
