from __future__ import annotations

from typing import Annotated

import typer

from zbackup.cli import options
from zbackup.cli.job import Job

First = Annotated[str, typer.Argument(metavar="A", help="A moment, as --at of plan takes it.")]
Second = Annotated[
    str, typer.Argument(metavar="[B]", help="Another one, earlier or later; else latest.", show_default=False)
]
Limit = Annotated[
    int, typer.Option(metavar="N", min=0, help="Show so many instances, organisations and types at most; 0 for all.")
]


def diff(
    context: options.Context,
    first: First,
    second: Second = "latest",
    archive: options.Archive = None,
    limit: Limit = 20,
    generation: options.Generation = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    profile: options.Profile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """
    Show what changed from one moment to another.

    `zbackup diff "2h ago"` is what a rollback would lose: per instance, organisation and aggregate type, those with
    the most events first. No database is asked.
    """
    with Job(locals()) as job:
        from zbackup import diff as use_case
        from zbackup.cli.events import diff_lines, diff_record, resolved

        plans = resolved(job, first, generation), resolved(job, second, generation)
        found = use_case.diff(job.archive(), *plans, largest=limit, report=job.report)
        job.output.result("diff", diff_record(found), diff_lines(found))
