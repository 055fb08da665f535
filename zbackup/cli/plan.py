from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from zbackup.cli import options
from zbackup.cli.job import Job
from zbackup.errors import TargetRefused

if TYPE_CHECKING:
    from zbackup.archive.plan import RestorePlan
    from zbackup.unit import Unit
    from zbackup.zitadel.masterkey import MasterkeyCheck


def plan(
    context: options.Context,
    archive: options.Archive = None,
    target: options.Target = None,
    at: options.At = "latest",
    cold: options.Cold = False,
    without: options.Without = None,
    auth_requests: options.AuthRequests = None,
    events_only: options.EventsOnly = False,
    generation: options.Generation = None,
    masterkey_file: options.MasterkeyFile = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    profile: options.Profile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """
    Say what a restore would do, and what it would lose.

    With a target also what that is, and which tables it cannot take.
    """
    with Job(locals()) as job:
        from zbackup import restore as use_case
        from zbackup.cli.restore import chosen_options
        from zbackup.cli.restored import plan_lines, plan_record

        chosen = chosen_options(job, generation, without or (), cold=cold, events_only=events_only)
        masterkey = job.masterkey()
        made, found = checked(job, resolved(job, at, generation), masterkey)
        unit = use_case.preview(job.archive(), job.settings.text("target"), made, chosen, report=job.report)
        job.output.result("plan", plan_record(made, unit, found), plan_lines(made, unit, found))
        refused(unit)


def refused(unit: Unit | None) -> None:
    """End as the restore would that the plan is of."""
    if unit is not None and unit.survey.problems:
        raise typer.Exit(TargetRefused.exit_code)


def resolved(job: Job, at: str, generation: str | None) -> RestorePlan:
    """Make a plan and tell which instant it is of, before anything happens."""
    from zbackup import plan as use_case

    point = job.point(at)
    made = use_case.plan(job.archive(), point, generation=generation, report=job.report)
    tell_resolved(job, at, made)
    return made


def tell_resolved(job: Job, at: str, made: RestorePlan) -> None:
    from zbackup.cli.records import plain
    from zbackup.cli.texts import when

    instant = when(made.at, f"the whole of backup {made.backup}, as of {when(made.snapshot)}")
    record = {"point": at, "at": plain(made.at), "backup": made.backup, "generation": made.generation}
    job.output.note("resolved", record, f"{at} is {instant} (generation {made.generation})")


def checked(job: Job, made: RestorePlan, masterkey: bytes | None) -> tuple[RestorePlan, MasterkeyCheck | None]:
    """Hold the masterkey against the keys that would be restored; what does not fit becomes a warning of the plan."""
    from zbackup.masterkey import LOSS, check_archive, summary

    if masterkey is None:
        return made, None
    archive = job.archive()
    backup = made.capture.backup if made.capture else made.backup
    found = check_archive(archive, archive.manifest(archive.catalog().find(backup)), masterkey, job.report)
    if found.verdict == "does_not_fit":
        made = replace(made, warnings=(*made.warnings, f"masterkey: {summary(found)}; {LOSS}"))
    return made, found
