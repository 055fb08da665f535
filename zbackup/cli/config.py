from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from zbackup.cli import options
from zbackup.cli.job import Job

Name = Annotated[str | None, typer.Option("--job", metavar="NAME", help="As `zbackup run NAME` would have them.")]


def config(
    context: options.Context,
    archive: options.Archive = None,
    source: options.Source = None,
    zitadel_config: options.ZitadelConfig = None,
    target: options.Target = None,
    fence: options.Fence = None,
    job: Name = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    profile: options.Profile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Print each setting and where it came from."""
    with Job(locals(), job) as work:
        from zbackup.cli.records import config_record
        from zbackup.cli.texts import config_lines

        shown = dict(work.settings.all)
        if (found := work.find_source()) and shown["source"].value is None:
            shown["source"] = replace(shown["source"], value=found.dsn, origin=found.origin)
        work.output.result("config", config_record(work.settings.file, shown), config_lines(work.settings.file, shown))
