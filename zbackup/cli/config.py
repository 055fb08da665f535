from __future__ import annotations

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

        job.output.result("config", config_record(job.settings), config_lines(job.settings))
