"""The options that commands share, declared once, with help and variable from the table of settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from zbackup.settings import KNOWN
from zbackup.values import default_text

Context = typer.Context


def _of(name: str, metavar: str = "") -> Any:
    """Declare the option of a setting; its default is the setting's, so that its origin stays known."""
    known = KNOWN[name]
    default = default_text(known)
    extra = f"{known.variable}; default {default}" if default else known.variable
    flag = f"{known.flag}/--no-{known.flag[2:]}" if known.kind == "switch" else known.flag

    def proposals(incomplete: str) -> list[str]:
        return [choice for choice in known.choices if choice.startswith(incomplete)]

    metavar = metavar or "|".join(known.choices) or known.kind.upper()
    return typer.Option(
        flag,
        help=f"{known.help} [{extra}]",
        show_default=False,
        metavar=None if known.kind == "switch" else metavar,
        autocompletion=proposals,
    )


Archive = Annotated[str | None, _of("archive", "ADDRESS")]
Source = Annotated[str | None, _of("source", "DSN")]
Target = Annotated[str | None, _of("target", "DSN")]
Fence = Annotated[str | None, _of("fence", "DSN")]
ZitadelConfig = Annotated[list[str] | None, _of("zitadel_config", "FILE")]
MasterkeyFile = Annotated[str | None, _of("masterkey_file", "PATH")]
Zitadel = Annotated[str | None, _of("zitadel", "PATH")]
S3Endpoint = Annotated[str | None, _of("s3_endpoint")]
S3Addressing = Annotated[str | None, _of("s3_addressing")]
Jobs = Annotated[str | None, _of("jobs", "N")]
RateLimit = Annotated[str | None, _of("rate_limit")]
LowImpact = Annotated[bool | None, _of("low_impact")]
Capture = Annotated[bool | None, _of("capture")]
AuthRequests = Annotated[bool | None, _of("auth_requests")]
Audit = Annotated[bool | None, _of("audit")]
AuditBudget = Annotated[str | None, _of("audit_budget")]
Every = Annotated[str | None, _of("every")]
CaptureEvery = Annotated[str | None, _of("capture_every")]
HorizonMargin = Annotated[str | None, _of("horizon_margin")]
HorizonWait = Annotated[str | None, _of("horizon_wait")]
StandbyLag = Annotated[str | None, _of("standby_lag")]
Wait = Annotated[str | None, _of("wait")]
LockTimeout = Annotated[str | None, _of("lock_timeout")]
PgDump = Annotated[str | None, _of("pg_dump", "PATH")]
Spool = Annotated[str | None, _of("spool", "FOLDER")]
ChunkBytes = Annotated[str | None, _of("chunk_bytes")]
KeepWindow = Annotated[str | None, _of("keep_window")]
KeepCaptures = Annotated[str | None, _of("keep_captures", "N,Nd,Nw,Nm,Ny")]
Grace = Annotated[str | None, _of("grace")]
Verify = Annotated[str | None, _of("verify")]
VerifyFullEvery = Annotated[str | None, _of("verify_full_every")]
Prune = Annotated[bool | None, _of("prune")]
PingUrl = Annotated[str | None, _of("ping_url", "URL")]
OnSuccess = Annotated[str | None, _of("on_success")]
OnFailure = Annotated[str | None, _of("on_failure")]
Proof = Annotated[str | None, _of("proof")]
Listen = Annotated[str | None, _of("listen", "HOST:PORT")]
MetricsFile = Annotated[str | None, _of("metrics_file", "FILE")]

At = Annotated[
    str,
    typer.Option(
        metavar="WHEN",
        help="The moment: latest, an instant with Z, offset or [Area/City], `2h ago`, position:DECIMAL, "
        "before:INSTANCE/TYPE/AGGREGATE/SEQUENCE or backup:ID.",
    ),
]
Generation = Annotated[
    str | None, typer.Option(metavar="ID", help="The generation to answer from, instead of the newest.")
]

Instance = Annotated[
    str | None, typer.Option(metavar="ID", help="Events of this instance alone; empty for those of the system.")
]
Org = Annotated[str | None, typer.Option(metavar="ID", help="Events that this organisation owns.")]
Aggregate = Annotated[
    str | None, typer.Option(metavar="TYPE[/ID]", help="Events of one aggregate, or of all of its type.")
]
EventType = Annotated[
    str | None, typer.Option(metavar="PATTERN", help="Events of these types, such as `user.human.*`.")
]
Since = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Events created at or after this moment, as --at takes it.")
]
Until = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Events created at or before this moment, as --at takes it.")
]
AsOf = Annotated[
    str, typer.Option("--at", metavar="POINT", help="As a restore of this moment would bring them back, as for plan.")
]

Cold = Annotated[bool, typer.Option("--cold", help="Leave derived tables empty, for ZITADEL's setup to rebuild them.")]
Without = Annotated[
    list[str] | None,
    typer.Option(metavar="SCHEMA.TABLE", help="Leave a table empty that cannot, or is not to, be brought back."),
]
EventsOnly = Annotated[
    bool, typer.Option("--events-only", help="Bring back the events table alone, with its key and indexes.")
]

Config = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="TOML file with settings. [ZBACKUP_CONFIG]", show_default=False),
]
Profile = Annotated[str | None, _of("profile", "NAME")]
Json = Annotated[bool, typer.Option("--json", help="JSON lines on stdout (docs/json-output.md).")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where in the code an error arose.")]

# What every command takes. A command's function knows nothing of them; a Job finds them in its context.
_EVERYWHERE = {"tracing": _of("tracing"), "log_format": _of("log_format"), "log_level": _of("log_level")}


def everywhere(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that all have."""
    signature = inspect.signature(command, eval_str=True)

    @wraps(command)
    def run(**arguments: Any) -> None:
        command(**{name: arguments[name] for name in signature.parameters})

    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option])
        for name, option in _EVERYWHERE.items()
    ]
    parameters = [*signature.parameters.values(), *more]
    run.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def given_everywhere(context: Context) -> dict[str, Any]:
    return {name: context.params.get(name) for name in _EVERYWHERE}
