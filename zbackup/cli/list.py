from __future__ import annotations

from zbackup.cli import options
from zbackup.cli.job import Job


def list_(
    context: options.Context,
    archive: options.Archive = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List backups, and the moments that can be restored."""
    with Job(locals()) as job:
        from zbackup import inspect as use_case
        from zbackup.cli.records import plain
        from zbackup.cli.texts import listing_lines

        listing = use_case.listing(job.archive())
        job.output.result("list", plain(listing), listing_lines(listing))
