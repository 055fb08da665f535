from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from zbackup.cli import options
from zbackup.cli.job import Job
from zbackup.errors import UsageError

Form = Annotated[
    Literal["jsonl", "copy"],
    typer.Option("--format", metavar="jsonl|copy", help="JSON lines, or COPY text, which psql's \\copy takes."),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--output", metavar="FILE", help="A file that is not there yet, instead of stdout; whole or not there."
    ),
]


def export(
    context: options.Context,
    archive: options.Archive = None,
    instance: options.Instance = None,
    org: options.Org = None,
    aggregate: options.Aggregate = None,
    event_type: options.EventType = None,
    since: options.Since = None,
    until: options.Until = None,
    at: options.AsOf = "latest",
    form: Form = "jsonl",
    output: Target = None,
    generation: options.Generation = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    profile: options.Profile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """
    Write events of the archive out, the oldest first, with their payloads.

    These hold personal data, and hashes and codes of people. No database is asked.
    """
    with Job(locals()) as job, ExitStack() as opened:
        from zbackup import export as use_case
        from zbackup.cli.events import find, log_record
        from zbackup.cli.texts import many, size
        from zbackup.event import COLUMNS

        if json and output is None:
            raise UsageError("--json and the events would both go to stdout", hint="Give --output FILE.")
        found = find(
            job, at, generation, instance=instance, org=org, aggregate=aggregate, event_type=event_type, since=since,
            until=until,
        )  # fmt: skip
        write = opened.enter_context(use_case.whole_file(Path(output))) if output is not None else job.output.data
        done = use_case.export(found, form, write)
        opened.close()
        record = {
            "events": done.events,
            "bytes": done.bytes,
            "format": form,
            "output": output,
            "columns": list(COLUMNS),
            **log_record(found),
        }
        job.output.result("export", record, ())
        job.output.tell(f"{many(done.events, 'event')}, {size(done.bytes)}" if done.events else "no event is selected")
