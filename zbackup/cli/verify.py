from __future__ import annotations

from typing import Annotated

import typer

from zbackup.cli import options
from zbackup.cli.job import Job
from zbackup.errors import Damaged, Different, UsageError

Quick = Annotated[bool, typer.Option("--quick", help="Only see that each object is there with its size.")]
Compare = Annotated[
    bool,
    typer.Option("--compare", help="Compare with the source, wherever its connection stands; --source implies it."),
]
Full = Annotated[bool, typer.Option("--full", help="Also decode every chunk, count, hash and check the order.")]


def verify(
    context: options.Context,
    archive: options.Archive = None,
    quick: Quick = False,
    full: Full = False,
    compare: Compare = False,
    source: options.Source = None,
    zitadel_config: options.ZitadelConfig = None,
    jobs: options.Jobs = None,
    rate_limit: options.RateLimit = None,
    low_impact: options.LowImpact = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    metrics_file: options.MetricsFile = None,
    config: options.Config = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """
    Prove that the archive is complete and undamaged.

    With --compare, --source or --zitadel-config also what the live database holds, row for row below the horizon.
    """
    with Job(locals()) as job, job.observed() as run:
        from zbackup import verify as use_case
        from zbackup.cli.records import plain
        from zbackup.cli.texts import verify_lines
        from zbackup.database.pace import Pace
        from zbackup.measure import of_verify

        if quick and full:
            raise UsageError("--quick and --full exclude each other", hint="Leave both out for the usual depth.")
        against = job.source() if compare or job.flag("source") or job.flag("zitadel_config") else None
        if against is None:
            job.no_effect("rate_limit", "no source is read")
            job.no_effect("low_impact", "no source is read")
        low = against is not None and job.settings.switch("low_impact")
        workers = job.jobs(low_impact=low)
        result = use_case.verify(
            job.archive(),
            level="quick" if quick else "full" if full else "default",
            source=against.dsn if against else None,
            jobs=workers,
            pace=Pace(job.settings.size("rate_limit"), low_impact=low),
            report=job.report,
        )
        run.add(of_verify(result, job.now, compared=against is not None))
        run.look(job.archive())
        job.output.result("verify", plain(result), verify_lines(result))
        if not result.ok:
            damaged = any(finding.kind == "damage" for finding in result.findings)
            raise typer.Exit((Damaged if damaged else Different).exit_code)
