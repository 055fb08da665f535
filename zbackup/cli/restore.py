from __future__ import annotations

from typing import Annotated, Literal, cast

import typer

from zbackup.cli import options
from zbackup.cli.job import Job
from zbackup.cli.plan import resolved

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan, look whether the target takes it, and change nothing.")
]
Restart = Annotated[bool, typer.Option("--restart", help="Undo first what an unfinished restore left.")]


def restore(
    context: options.Context,
    archive: options.Archive = None,
    target: options.Target = None,
    at: options.At = "latest",
    dry_run: DryRun = False,
    generation: options.Generation = None,
    proof: options.Proof = None,
    restart: Restart = False,
    jobs: options.Jobs = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """
    Bring back any moment into an empty database.

    Killed and run again, it goes on where it was.
    """
    with Job(locals()) as job:
        from zbackup import restore as use_case
        from zbackup.cli.records import plain, plan_record
        from zbackup.cli.texts import plan_lines, restore_lines

        wanted = job.target() if not dry_run or job.settings.text("target") is not None else None
        made = resolved(job, at, generation)
        if dry_run:
            if wanted is not None:
                use_case.check_target(job.archive(), wanted, made, report=job.report)
            job.output.result("plan", plan_record(made), plan_lines(made))
            return
        assert wanted is not None
        result = use_case.restore(
            job.archive(),
            wanted,
            job.point(at),
            use_case.RestoreOptions(
                jobs=job.settings.whole("jobs"),
                proof=cast("Literal['sample', 'full']", job.settings.text("proof")),
                generation=generation,
                restart=restart,
            ),
            report=job.report,
        )
        job.output.result("restore", plain(result), restore_lines(result))
