from __future__ import annotations

from zbackup.cli import options
from zbackup.cli.job import Job


def init(
    context: options.Context,
    archive: options.Archive = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    profile: options.Profile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make an archive in an empty folder or bucket."""
    with Job(locals()) as job:
        from zbackup import init as use_case
        from zbackup.cli.records import plain
        from zbackup.cli.texts import init_lines

        result = use_case.init(job.store(create=True), report=job.report)
        job.output.result("init", plain(result), init_lines(result))
