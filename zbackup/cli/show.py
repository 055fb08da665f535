from __future__ import annotations

from typing import Annotated

import typer

from zbackup.cli import options
from zbackup.cli.job import Job
from zbackup.errors import UsageError

Constraints = Annotated[
    bool,
    typer.Option("--constraints", help="Compare the captured unique constraints with what the events ask for."),
]
Schema = Annotated[
    bool,
    typer.Option("--schema", help="Print the schema text alone: the code that a restore runs in an empty database."),
]
Backup = Annotated[str | None, typer.Argument(metavar="[BACKUP]", help="Id of the backup; else the newest.")]


def show(
    context: options.Context,
    backup: Backup = None,
    archive: options.Archive = None,
    constraints: Constraints = False,
    schema: Schema = False,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    profile: options.Profile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """
    Show one backup.

    Ranges, chunks, counts, sizes, source, horizon and what held it back, warnings. Of the newest, --schema and
    --constraints mean the newest that has captured.
    """
    with Job(locals()) as job:
        from zbackup import inspect as use_case
        from zbackup.cli.records import shown_record
        from zbackup.cli.texts import shown_lines

        if schema and constraints:
            raise UsageError("--schema and --constraints are two questions", hint="Give one of them.")
        shown = use_case.shown(job.archive(), backup, captured=schema or constraints)
        record = {**shown_record(shown), "constraints": None, "schema": None}
        if schema:
            from zbackup.cli.restored import schema_lines, schema_record

            text = use_case.shown_schema(job.archive(), shown.manifest)
            if text.refused:
                job.output.warning(f"a restore refuses this: {text.refused}")
            job.output.result("show", {**record, "schema": schema_record(text)}, schema_lines(text))
            return
        if not constraints:
            job.output.result("show", record, shown_lines(shown))
            return
        from zbackup.cli.restored import comparison_lines, comparison_record
        from zbackup.constraints import compare_backup

        found = compare_backup(job.archive(), shown.manifest, report=job.report)
        job.output.result("show", {**record, "constraints": comparison_record(found)}, comparison_lines(found))
