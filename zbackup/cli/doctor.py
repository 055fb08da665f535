from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from zbackup.cli import options
from zbackup.cli.job import Job
from zbackup.errors import Findings, UsageError, ZbackupError

if TYPE_CHECKING:
    from zbackup.store.base import Store

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
    masterkey_file: options.MasterkeyFile = None,
    pg_dump: options.PgDump = None,
    spool: options.Spool = None,
    jobs: options.Jobs = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    profile: options.Profile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Check archive and source, and say what to do next."""
    with Job(locals()) as job:
        from zbackup import doctor as use_case
        from zbackup.cli.records import plain
        from zbackup.cli.texts import doctor_lines

        found = job.source() if grants else job.find_source()
        if found is None and job.settings.text("archive") is None:
            raise UsageError("neither archive nor source is given", hint="Give --archive, --source, or both.")
        if found is None:
            job.no_effect("fence", "no source is given")
            job.no_effect("pg_dump", "no source is given")
        masterkey = job.masterkey()
        store, failure = _open(job)
        result = use_case.doctor(
            store,
            found.dsn if found else None,
            fence=job.settings.text("fence"),
            zitadel=found.zitadel if found else None,
            pg_dump=job.settings.text("pg_dump"),
            spool=job.settings.text("spool"),
            jobs=job.settings.whole("jobs"),
            grants=grants,
            masterkey=masterkey,
            report=job.report,
        )
        if failure is not None:
            check = use_case.Check("store", "fail", failure.message, failure.hint)
            result = replace(result, checks=(check, *(one for one in result.checks if one.name != "store")), ok=False)
        job.output.result("doctor", plain(result), doctor_lines(result))
        if not result.ok:
            raise typer.Exit(Findings.exit_code)


def _open(job: Job) -> tuple[Store | None, ZbackupError | None]:
    """Open the store if one is given, or say why it cannot be opened: the source is looked at all the same."""
    if job.settings.text("archive") is None:
        return None, None
    try:
        return job.store(), None
    except UsageError:
        raise
    except ZbackupError as error:
        return None, error
