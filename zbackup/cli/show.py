from __future__ import annotations

from typing import Annotated

import typer

from zbackup.cli import options
from zbackup.cli.job import Job

Backup = Annotated[str | None, typer.Argument(metavar="[BACKUP]", help="Id of the backup; else the newest.")]


def show(
    context: options.Context,
    backup: Backup = None,
    archive: options.Archive = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """
    Show one backup.

    Ranges, chunks, counts, sizes, source, horizon and what held it back, warnings.
    """
    with Job(locals()) as job:
        from zbackup import inspect as use_case
        from zbackup.cli.records import shown_record
        from zbackup.cli.texts import shown_lines

        shown = use_case.shown(job.archive(), backup)
        job.output.result("show", shown_record(shown), shown_lines(shown))
