from __future__ import annotations

from typing import Annotated

import typer

from zbackup.cli import options
from zbackup.cli.job import Job

Limit = Annotated[int, typer.Option(metavar="N", min=0, help="Show so many events at most; 0 for all.")]
Reverse = Annotated[bool, typer.Option("--reverse", help="Show the oldest events first.")]
Payload = Annotated[
    bool,
    typer.Option("--payload", help="Show payloads, too: they hold personal data, and hashes and codes of people."),
]


def log(
    context: options.Context,
    archive: options.Archive = None,
    instance: options.Instance = None,
    org: options.Org = None,
    aggregate: options.Aggregate = None,
    event_type: options.EventType = None,
    since: options.Since = None,
    until: options.Until = None,
    at: options.AsOf = "latest",
    limit: Limit = 100,
    reverse: Reverse = False,
    payload: Payload = False,
    generation: options.Generation = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    profile: options.Profile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """
    Show events of the archive, the newest first.

    One line each: when, position, INSTANCE/TYPE/AGGREGATE/SEQUENCE (as --at before:… takes it), type, by whom, and
    the organisation it is of. No database is asked.
    """
    with Job(locals()) as job:
        from zbackup.cli.events import find, log_line, log_record
        from zbackup.cli.texts import many

        found = find(
            job, at, generation, instance=instance, org=org, aggregate=aggregate, event_type=event_type, since=since,
            until=until,
        )  # fmt: skip
        shown = 0
        for event in found.events(limit=limit, oldest_first=reverse):
            job.output.row(event.to_json(payload=payload, type="event") if json else log_line(event, payload=payload))
            shown += 1
            if job.output.unread:
                return
        limited = 0 < limit == shown
        record = {"events": shown, "limited": limited, **log_record(found)}
        job.output.result("log", record, ())
        more = "; there may be more, --limit 0 shows all" if limited else ""
        job.output.tell(f"{many(shown, 'event')}{more}" if shown else "no event is selected")
