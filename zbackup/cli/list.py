from __future__ import annotations

from typing import Annotated

import typer

from zbackup.cli import options
from zbackup.cli.job import Job
from zbackup.errors import UsageError

# Each that is listed is one object to be read.
NEWEST = 100

Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help=f"List so many of the newest. [default {NEWEST}]")
]
All = Annotated[bool, typer.Option("--all", help="List all backups, however many.")]


def list_(
    context: options.Context,
    archive: options.Archive = None,
    limit: Limit = None,
    all_: All = False,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    profile: options.Profile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the newest backups, and the moments that can be restored."""
    with Job(locals()) as job:
        if all_ and limit is not None:
            raise UsageError("--all and --limit exclude each other", hint="Leave one of them out.")
        from zbackup import inspect as use_case
        from zbackup.cli.records import plain
        from zbackup.cli.texts import listing_lines

        listing = use_case.listing(job.archive(), None if all_ else limit or NEWEST)
        job.output.result("list", plain(listing), listing_lines(listing))
