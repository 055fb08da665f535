from __future__ import annotations

from typing import Annotated

import typer

from zbackup.cli import options
from zbackup.cli.job import Job

Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this it is a dry run.")]
ForgetGeneration = Annotated[
    list[str] | None,
    typer.Option(metavar="ID", help="Give up a generation that is dead, and the rows that only it holds."),
]
ForgetAmended = Annotated[
    bool,
    typer.Option("--forget-amended", help="Give up what rows were before an amendment found them changed or gone."),
]


def prune(
    context: options.Context,
    archive: options.Archive = None,
    keep_window: options.KeepWindow = None,
    keep_captures: options.KeepCaptures = None,
    forget_generation: ForgetGeneration = None,
    forget_amended: ForgetAmended = False,
    grace: options.Grace = None,
    yes: Yes = False,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    metrics_file: options.MetricsFile = None,
    config: options.Config = None,
    profile: options.Profile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """
    Remove what is not needed any more.

    Never a row that the newest log needs. What may go is put on a list first, and removed by a later run with the same
    options, when the grace has passed; so run it as often as you back up. It is the only command that needs the right
    to delete.
    """
    with Job(locals()) as job:
        from zbackup.cli import steps
        from zbackup.cli.pruned import prune_lines
        from zbackup.cli.records import plain

        if not yes:
            job.no_effect("metrics_file", "a dry run is not measured")
        keep = steps.rules(job, forget_generation or (), forget_amended=forget_amended)
        result = steps.prune(job, keep, yes=yes)
        job.output.result("prune", plain(result), prune_lines(result))
