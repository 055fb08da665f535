from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from zbackup.cli import options
from zbackup.cli.job import Job
from zbackup.errors import Findings, UsageError, ZbackupError

if TYPE_CHECKING:
    from zbackup.archive.archive import Archive

Grants = Annotated[
    bool, typer.Option("--grants", help="Also print the SQL for a role with no more rights than a backup needs.")
]


def doctor(
    context: options.Context,
    archive: options.Archive = None,
    source: options.Source = None,
    zitadel_config: options.ZitadelConfig = None,
    fence: options.Fence = None,
    grants: Grants = False,
    pg_dump: options.PgDump = None,
    spool: options.Spool = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Check archive and source, and say what to do next."""
    with Job(locals()) as job:
        from zbackup import doctor as use_case
        from zbackup.cli.records import plain
        from zbackup.cli.texts import doctor_lines

        source = job.source() if grants else job.find_source()
        if source is None and job.settings.text("archive") is None:
            raise UsageError("neither archive nor source is given", hint="Give --archive, --source, or both.")
        archive, failure = _open(job)
        result = use_case.doctor(
            archive,
            source.dsn if source else None,
            fence=job.settings.text("fence"),
            pg_dump=job.settings.text("pg_dump"),
            spool=job.settings.text("spool"),
            asset_storage=source.zitadel.asset_storage if source and source.zitadel else None,
            grants=grants,
            report=job.report,
        )
        if failure is not None:
            check = use_case.Check("archive", "fail", failure.message, failure.hint)
            result = replace(result, checks=(check, *result.checks))
        job.output.result("doctor", plain(result), doctor_lines(result))
        if any(check.verdict == "fail" for check in result.checks):
            raise typer.Exit(Findings.exit_code)


def _open(job: Job) -> tuple[Archive | None, ZbackupError | None]:
    """Open the archive if there is one, or say why it cannot be opened: the source is looked at all the same."""
    if job.settings.text("archive") is None:
        return None, None
    try:
        return job.archive(), None
    except UsageError:
        raise
    except ZbackupError as error:
        return None, error
