from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from zbackup.cli import options
from zbackup.cli.job import Job
from zbackup.cli.plan import checked, refused, resolved
from zbackup.errors import Findings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zbackup.restore import RestoreOptions

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan, look whether the target takes it, and change nothing.")
]
Restart = Annotated[bool, typer.Option("--restart", help="Undo first what an unfinished restore left.")]
SkipDamaged = Annotated[
    bool,
    typer.Option(
        "--skip-damaged",
        help="Where the archive is damaged, bring back what can be had and list what is missing; exit code 34 then.",
    ),
]


def restore(
    context: options.Context,
    archive: options.Archive = None,
    target: options.Target = None,
    at: options.At = "latest",
    dry_run: DryRun = False,
    cold: options.Cold = False,
    without: options.Without = None,
    auth_requests: options.AuthRequests = None,
    events_only: options.EventsOnly = False,
    generation: options.Generation = None,
    zitadel_config: options.ZitadelConfig = None,
    masterkey_file: options.MasterkeyFile = None,
    proof: options.Proof = None,
    restart: Restart = False,
    skip_damaged: SkipDamaged = False,
    jobs: options.Jobs = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    profile: options.Profile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """
    Bring back any moment: a ZITADEL that starts.

    Into an empty database, or one that `zitadel init` and `zitadel setup --for-mirror` prepared. Killed and run
    again, it goes on where it was.
    """
    with Job(locals()) as job:
        from zbackup import check_zitadel
        from zbackup import restore as use_case
        from zbackup.cli.restored import plan_lines, plan_record, restore_lines, restore_record

        wanted = job.target() if not dry_run or job.settings.text("target") is not None else None
        chosen = chosen_options(job, generation, without or (), cold=cold, events_only=events_only, restart=restart)
        if skip_damaged:
            chosen = replace(chosen, skip_damaged=True)
            job.salvage()
        masterkey = job.masterkey()
        if (zitadel := job.find_zitadel()) is not None:
            for what, step in check_zitadel.outliving(zitadel):
                job.output.warning(what, step)
        made, found = checked(job, resolved(job, at, generation), masterkey)
        if dry_run:
            unit = use_case.preview(job.archive(), wanted, made, chosen, report=job.report)
            job.output.result("plan", plan_record(made, unit, found), plan_lines(made, unit, found))
            refused(unit)
            return
        for warning in made.warnings[-1:] if found is not None and found.verdict == "does_not_fit" else ():
            job.output.warning(warning)
        assert wanted is not None
        result = use_case.restore(job.archive(), wanted, job.point(at), chosen, report=job.report)
        job.output.result("restore", restore_record(result, found), restore_lines(result, found))
        if result.missing:
            raise typer.Exit(Findings.exit_code)


def chosen_options(
    job: Job,
    generation: str | None,
    without: Sequence[str],
    *,
    cold: bool,
    events_only: bool,
    restart: bool = False,
) -> RestoreOptions:
    """Gather what a restore is told."""
    from zbackup.restore import RestoreOptions
    from zbackup.survey import UnitOptions, named

    return RestoreOptions(
        jobs=job.settings.whole("jobs"),
        proof=cast("Literal['sample', 'full']", job.settings.text("proof")),
        generation=generation,
        restart=restart,
        events_only=events_only,
        unit=UnitOptions(
            cold=cold,
            without=named(without),
            auth_requests=job.settings.switch("auth_requests") and not events_only,
        ),
    )
