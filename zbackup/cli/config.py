from __future__ import annotations

from dataclasses import replace

from zbackup.cli import options
from zbackup.cli.job import Job


def config(
    context: options.Context,
    archive: options.Archive = None,
    source: options.Source = None,
    zitadel_config: options.ZitadelConfig = None,
    target: options.Target = None,
    fence: options.Fence = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Print each setting and where it came from."""
    with Job(locals()) as job:
        from zbackup.cli.records import config_record
        from zbackup.cli.texts import config_lines

        shown = dict(job.settings.all)
        if (found := job.find_source()) and shown["source"].value is None:
            shown["source"] = replace(shown["source"], value=found.dsn, origin=found.origin)
        job.output.result("config", config_record(job.settings.file, shown), config_lines(job.settings.file, shown))
