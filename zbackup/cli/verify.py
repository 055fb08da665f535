from __future__ import annotations

from typing import Annotated

import typer

from zbackup.cli import options
from zbackup.cli.job import Job
from zbackup.errors import UsageError

Quick = Annotated[bool, typer.Option("--quick", help="Only see that each object is there with its size.")]
Sample = Annotated[
    bool, typer.Option("--sample", help="Read what the newest backup stored, and only some of the rest, by chance.")
]
Compare = Annotated[
    bool,
    typer.Option("--compare", help="Compare with the source, wherever its connection stands; --source implies it."),
]
Full = Annotated[bool, typer.Option("--full", help="Also decode every chunk, count, hash and check the order.")]


def verify(
    context: options.Context,
    archive: options.Archive = None,
    quick: Quick = False,
    sample: Sample = False,
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
    profile: options.Profile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """
    Prove that the archive is complete and undamaged.

    With --compare, --source or --zitadel-config also what the live database holds, row for row below the horizon.
    """
    with Job(locals()) as job:
        from zbackup.cli import steps
        from zbackup.cli.records import plain
        from zbackup.cli.texts import verify_lines

        if quick + sample + full > 1:
            raise UsageError("--quick, --sample and --full exclude each other", hint="Without any the depth is usual.")
        against = job.source() if compare or job.flag("source") or job.flag("zitadel_config") else None
        if against is None:
            job.no_effect("rate_limit", "no source is read")
            job.no_effect("low_impact", "no source is read")
        level = "quick" if quick else "sample" if sample else "full" if full else "default"
        result = steps.verify(job, level, against)
        job.output.result("verify", plain(result), verify_lines(result))
        if result.fault:
            raise typer.Exit(result.fault.exit_code)
