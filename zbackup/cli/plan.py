from __future__ import annotations

from typing import TYPE_CHECKING

from zbackup.cli import options
from zbackup.cli.job import Job

if TYPE_CHECKING:
    from zbackup.archive.plan import RestorePlan


def plan(
    context: options.Context,
    archive: options.Archive = None,
    at: options.At = "latest",
    generation: options.Generation = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Say what a restore would do, and what it would lose."""
    with Job(locals()) as job:
        from zbackup.cli.records import plan_record
        from zbackup.cli.texts import plan_lines

        made = resolved(job, at, generation)
        job.output.result("plan", plan_record(made), plan_lines(made))


def resolved(job: Job, at: str, generation: str | None) -> RestorePlan:
    """Make a plan and tell which instant it is of, before anything happens."""
    from zbackup import plan as use_case
    from zbackup.cli.records import plain
    from zbackup.cli.texts import when

    point = job.point(at)
    made = use_case.plan(job.archive(), point, generation=generation, report=job.report)
    instant = when(made.at, f"the whole of backup {made.backup}, as of {when(made.snapshot)}")
    record = {"point": at, "at": plain(made.at), "backup": made.backup, "generation": made.generation}
    job.output.note("resolved", record, f"{at} is {instant} (generation {made.generation})")
    return made
