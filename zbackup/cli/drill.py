from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zbackup.cli import options
from zbackup.cli.job import Job
from zbackup.errors import UsageError

if TYPE_CHECKING:
    from zbackup.moment import RestorePoint

RANDOM = "random"

At = Annotated[
    str,
    typer.Option(
        metavar="WHEN",
        help="The moment, as restore takes it, or `random`: one of the window, each as likely as any other. It is "
        "printed and recorded, so that the drill can be repeated.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="DSN",
        help="A server on which the drill makes a database of its own and drops it again, instead of starting one; "
        "the database named here is not touched. It counts as a flag only.",
        show_default=False,
    ),
]
Compare = Annotated[
    bool,
    typer.Option(
        "--compare",
        help="Compare what is restored with the source, wherever its connection stands; --source implies it.",
    ),
]


def drill(
    context: options.Context,
    archive: options.Archive = None,
    at: At = "latest",
    target: Target = None,
    zitadel: options.Zitadel = None,
    masterkey_file: options.MasterkeyFile = None,
    cold: options.Cold = False,
    without: options.Without = None,
    generation: options.Generation = None,
    proof: options.Proof = None,
    compare: Compare = False,
    source: options.Source = None,
    zitadel_config: options.ZitadelConfig = None,
    jobs: options.Jobs = None,
    rate_limit: options.RateLimit = None,
    low_impact: options.LowImpact = None,
    s3_endpoint: options.S3Endpoint = None,
    s3_addressing: options.S3Addressing = None,
    metrics_file: options.MetricsFile = None,
    config: options.Config = None,
    profile: options.Profile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """
    See whether a restore works, and how long it takes, in a database that goes away again.

    It restores and proves as restore does. With --zitadel it also lets ZITADEL be set up and start on that, in a
    network that it cannot leave, until it finds its instances. All is removed afterwards but a record in the archive.
    """
    with Job(locals()) as job:
        from zbackup import drill as use_case
        from zbackup.cli.drilled import drill_lines
        from zbackup.cli.plan import tell_resolved
        from zbackup.cli.records import plain
        from zbackup.cli.restore import chosen_options
        from zbackup.database.pace import Pace
        from zbackup.measure import of_drill

        against = job.source() if compare or job.flag("source") or job.flag("zitadel_config") else None
        if against is None:
            job.no_effect("rate_limit", "no source is read")
            job.no_effect("low_impact", "no source is read")
        server = job.target() if target is not None else None
        masterkey = job.masterkey()
        chosen = use_case.DrillOptions(
            restore=chosen_options(job, generation, without or (), cold=cold, events_only=False),
            target=server,
            masterkey=masterkey,
            zitadel=_binary(job, server, masterkey),
            source=against.dsn if against else None,
            pace=Pace(job.settings.size("rate_limit"), low_impact=job.settings.switch("low_impact")),
        )
        with job.observed("drill") as run:
            result = use_case.drill(
                job.archive(),
                _point(job, at),
                chosen,
                announce=lambda asked, plan: tell_resolved(job, asked, plan),
                report=job.report,
            )
            run.add(of_drill({one.step: one.seconds for one in result.steps}))
            run.done(None, job.archive())
        job.output.result("drill", plain(result), drill_lines(result))


def _point(job: Job, at: str) -> RestorePoint | None:
    return None if at.strip().lower() == RANDOM else job.point(at)


def _binary(job: Job, target: str | None, masterkey: bytes | None) -> Path | None:
    """Return the binary to start, None for none. Raises UsageError."""
    setting = job.settings["zitadel"]
    if not setting.value:
        return None
    path = Path(str(setting.value))
    if not path.is_file():
        raise UsageError(
            f"zitadel from {setting.origin}: {path} is not there" if not path.exists() else
            f"zitadel from {setting.origin}: {path} is no file",
            hint="Name ZITADEL's binary, as its releases have it.",
        )  # fmt: skip
    if not os.access(path, os.X_OK):
        raise UsageError(f"zitadel from {setting.origin}: {path} is not executable", hint=f"chmod +x {path}")
    if target is not None:
        raise UsageError(
            f"zitadel ({setting.origin}) and --target exclude each other: from the network that ZITADEL cannot leave, "
            "it does not reach that server",
            hint="Leave --target out, or say --zitadel '' to start none.",
        )
    if masterkey is None:
        raise UsageError(
            "ZITADEL does not start without its masterkey",
            hint="Give --masterkey-file FILE, or set ZITADEL_MASTERKEY.",
        )
    return path.absolute()
