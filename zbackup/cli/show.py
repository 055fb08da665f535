from __future__ import annotations

from typing import Annotated

import typer

from zbackup.cli import options
from zbackup.cli.job import Job

Constraints = Annotated[
    bool,
    typer.Option("--constraints", help="Compare the captured unique constraints with what the events ask for."),
]
Backup = Annotated[str | None, typer.Argument(metavar="[BACKUP]", help="Id of the backup; else the newest.")]


def show(
    context: options.Context,
    backup: Backup = None,
    archive: options.Archive = None,
    constraints: Constraints = False,
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
        if not constraints:
            job.output.result("show", {**shown_record(shown), "constraints": None}, shown_lines(shown))
            return
        from zbackup.cli.restored import comparison_lines, comparison_record
        from zbackup.constraints import compare_backup

        found = compare_backup(job.archive(), shown.manifest, report=job.report)
        job.output.result(
            "show", {**shown_record(shown), "constraints": comparison_record(found)}, comparison_lines(found)
        )
