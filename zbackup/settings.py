"""
The table of settings, and where the value of each came from.

A flag, a variable and a line of TOML name the same setting in three ways: --audit-budget,
ZBACKUP_AUDIT_BUDGET, audit_budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from zbackup.values import Known, Value, shown

# PostgreSQL counts lock_timeout in milliseconds, with 31 bits.
MOST_WAIT = 20 * 86400

_TABLE = (
    Known("profile", "text", "The profile of the TOML file whose values hold, too."),
    Known("archive", "url", "Where the archive is: a path, file:///… or s3://bucket/prefix."),
    Known("source", "dsn", "The database to read, as libpq takes it; empty for libpq's own PG… variables."),
    Known("target", "dsn", "The database to restore into, as libpq takes it."),
    Known("fence", "dsn", "The primary of a source that is a standby, to settle the horizon there."),
    Known("zitadel_config", "files", "ZITADEL's own YAML files, merged in order, for the source's connection."),
    Known("masterkey_file", "text", "File with ZITADEL's masterkey, to see whether it fits; else ZITADEL_MASTERKEY."),
    Known("zitadel", "text", "The ZITADEL binary that a drill sets up and starts on what it restored."),
    Known("s3_endpoint", "url", "URL of an S3 server that is not AWS."),
    Known(
        "s3_addressing",
        "choice",
        "How S3 buckets are addressed.",
        "auto",
        choices=("auto", "path", "virtual"),
    ),
    Known("jobs", "whole", "Connections and threads that work at once.", 2, least=1),
    Known(
        "rate_limit",
        "size",
        "Bytes of rows that all workers together read from the source in a second.",
        least=64 << 10,
        most=100 << 30,
    ),
    Known(
        "low_impact",
        "switch",
        "Read the source with one worker and short statements, each followed by a rest as long as itself.",
        default=False,
    ),
    Known("capture", "switch", "Store schema, state and derived tables with each backup.", default=True),
    Known(
        "auth_requests",
        "switch",
        "Include logins under way (auth.auth_requests), with what was typed so far.",
        default=False,
    ),
    Known("audit", "switch", "Compare all archived rows with the source.", default=False),
    Known(
        "audit_budget",
        "duration",
        "Time each backup may spend on counting older ranges.",
        timedelta(seconds=2),
    ),
    Known("every", "duration", "Time between two looks of `follow` at the source.", timedelta(seconds=10)),
    Known("capture_every", "duration", "Time between two captures and counts of `follow`.", timedelta(hours=1)),
    Known(
        "horizon_margin", "duration", "Kept below the oldest transaction seen.", timedelta(seconds=10), most=MOST_WAIT
    ),
    Known(
        "horizon_wait",
        "duration",
        "Longest wait for transactions that cannot be seen.",
        timedelta(seconds=30),
        most=MOST_WAIT,
    ),
    Known(
        "standby_lag", "duration", "Assumed lag of a standby without --fence.", timedelta(seconds=60), most=MOST_WAIT
    ),
    Known("wait", "duration", "Longest wait for another run on the same archive to end.", timedelta(0), most=MOST_WAIT),
    Known("lock_timeout", "duration", "Longest wait for a lock in the source.", timedelta(seconds=30), most=MOST_WAIT),
    Known("pg_dump", "text", "The pg_dump to use, instead of the newest that is found."),
    Known("spool", "text", "Folder for chunks on their way, instead of the system's temporary folder."),
    Known("chunk_bytes", "size", "Rows per chunk, before compression.", 64 << 20, least=64 << 10),
    Known("keep_window", "duration", "How long nothing that was the newest is pruned.", timedelta(days=30)),
    Known(
        "keep_captures",
        "captures",
        "Captures to keep beyond the window: so many of the newest, then one per day, week, month or year.",
        "7,4w,12m",
    ),
    Known(
        "grace",
        "duration",
        "How long what is to be pruned waits on a list; longer than any backup takes.",
        timedelta(hours=24),
        least=3600,
    ),
    Known(
        "verify",
        "choice",
        "What a run verifies after its backup: what is new and a sample of the rest, everything, or nothing.",
        "sample",
        choices=("sample", "full", "none"),
    ),
    Known(
        "verify_full_every",
        "duration",
        "How long after a full verification that found nothing a run makes do with samples.",
        timedelta(days=7),
    ),
    Known("prune", "switch", "Let a run prune by the --keep-… settings when all before went well.", default=False),
    Known("ping_url", "http", "URL to ask for when a run succeeds; with /start and /fail when it begins and fails."),
    Known("on_success", "command", "Command that gets the result of a run that succeeded as JSON on its stdin."),
    Known("on_failure", "command", "Command that gets the result of a run that failed as JSON on its stdin."),
    Known(
        "proof",
        "choice",
        "What a restore reads back: some chunks and all state, or all chunks and derived tables, too.",
        "sample",
        choices=("sample", "full"),
    ),
    Known("metrics_file", "text", "File for Prometheus, to which each run writes how it went (textfile collector)."),
    Known("listen", "text", "HOST:PORT where `follow` shows metrics, at /metrics."),
    Known(
        "tracing",
        "choice",
        "Where the spans of runs go: OpenTelemetry's collector, Google's Cloud Trace, the log on stderr.",
        "none",
        choices=("otel", "google", "log", "none"),
    ),
    Known("log_format", "choice", "How stderr is written.", "text", choices=("text", "json")),
    Known(
        "log_level",
        "choice",
        "What of it is left out: all below this level.",
        "info",
        choices=("debug", "info", "warning", "error"),
    ),
)
KNOWN = {known.name: known for known in _TABLE}

# Read elsewhere, or before there are settings.
OTHER_VARIABLES = {
    "ZBACKUP_CONFIG": "The TOML file, as --config.",
    "ZBACKUP_PG_BIN": "Folder of PostgreSQL's programs (pg_dump and, for the demo, the server).",
    "ZITADEL_MASTERKEY": "ZITADEL's masterkey itself, where no masterkey_file is given.",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from."""

    kind: Literal["flag", "environment", "job", "profile", "file", "default", "zitadel", "libpq"]
    """
    job, profile, file: a table of the TOML file or its top level; the last two: a source that no setting names, but
    ZITADEL's configuration or libpq's own variables
    """
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.kind


@dataclass(frozen=True, slots=True)
class Setting:
    name: str
    value: Value
    origin: Origin
    secret: bool

    @property
    def shown(self) -> str | None:
        """The value as it may be shown, passwords masked; None when there is none."""
        return shown(KNOWN[self.name], self.value)
