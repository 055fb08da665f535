from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zbackup.cli import options
from zbackup.cli.job import Job
from zbackup.errors import UsageError

if TYPE_CHECKING:
    from zbackup.report import Facts

Out = Annotated[
    str | None, typer.Option("--out", metavar="FILE", help="Where to write the page, in the place of what is there.")
]
Limit = Annotated[
    int, typer.Option("--limit", metavar="N", min=1, max=1000, help="Tell of so many of the newest backups.")
]


def report(
    context: options.Context,
    archive: options.Archive = None,
    out: Out = None,
    limit: Limit = 100,
    jobs: options.Jobs = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    config: options.Config = None,
    profile: options.Profile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """
    Write what the archive tells of itself as one page.

    It needs no network and holds no script. With --json the same facts go to stdout, with or without a page.
    """
    with Job(locals()) as job:
        if out is None and not json:
            raise UsageError("nowhere to write the page to", hint="Give --out FILE, or --json for the facts alone.")
        from zbackup import report as use_case
        from zbackup.cli.page.page import page
        from zbackup.cli.records import plain
        from zbackup.cli.texts import size
        from zbackup.export import whole_file

        facts = use_case.take_facts(
            job.archive(), job.now, newest=limit, jobs=job.settings.whole("jobs"), report=job.report
        )
        lines: list[str] = []
        if out is not None:
            body = page(_clean(facts, job.output.clean)).encode(errors="backslashreplace")
            with whole_file(Path(out), replace=True) as write:
                write(body)
            lines.append(f"{out}: {size(len(body))}")
        job.output.result("report", {"out": out, **plain(facts)}, lines)


def _clean(facts: Facts, clean: Callable[[str], str]) -> Facts:
    """Take secrets out of what is prose, as the output does with all that it prints."""
    return replace(
        facts,
        address=clean(facts.address),
        checks=tuple(replace(one, message=clean(one.message)) for one in facts.checks),
        findings=tuple(replace(one, message=clean(one.message)) for one in facts.findings),
    )
