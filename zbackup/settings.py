"""
The table of settings, and their values as text.

A flag, a variable and a line of TOML name the same setting in three ways: --audit-budget,
ZBACKUP_AUDIT_BUDGET, audit_budget.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, cast

from zbackup import dsn
from zbackup.errors import UsageError

Value = str | int | bool | timedelta | tuple[str, ...] | None
Kind = Literal["text", "url", "dsn", "files", "whole", "switch", "duration", "size", "choice"]


@dataclass(frozen=True, slots=True)
class Known:
    """One setting there is."""

    name: str
    kind: Kind
    help: str
    default: Value = None
    choices: tuple[str, ...] = ()
    least: int = 0
    """of a whole number or a size"""
    most: int | None = None

    @property
    def variable(self) -> str:
        return f"ZBACKUP_{self.name.upper()}"

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def secret(self) -> bool:
        return self.kind == "dsn"


_TABLE = (
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
    Known("horizon_margin", "duration", "Kept below the oldest transaction seen.", timedelta(seconds=10)),
    Known(
        "horizon_wait",
        "duration",
        "Longest wait for transactions that cannot be seen.",
        timedelta(seconds=30),
    ),
    Known("standby_lag", "duration", "Assumed lag of a standby without --fence.", timedelta(seconds=60)),
    Known("wait", "duration", "Longest wait for another run on the same archive to end.", timedelta(0)),
    Known("lock_timeout", "duration", "Longest wait for a lock in the source.", timedelta(seconds=30)),
    Known("pg_dump", "text", "The pg_dump to use, instead of the newest that is found."),
    Known("spool", "text", "Folder for chunks on their way, instead of the system's temporary folder."),
    Known("chunk_bytes", "size", "Rows per chunk, before compression.", 64 << 20, least=64 << 10),
    Known("keep_window", "duration", "How long nothing that was the newest is pruned.", timedelta(days=30)),
    Known(
        "keep_captures",
        "text",
        "Captures to keep beyond the window: so many of the newest, then one per day, week, month or year.",
        "7,4w,12m",
    ),
    Known(
        "grace",
        "duration",
        "How long what is to be pruned waits on a list; longer than any backup takes.",
        timedelta(hours=24),
    ),
    Known(
        "proof",
        "choice",
        "What a restore reads back: some chunks and all state, or all chunks and derived tables, too.",
        "sample",
        choices=("sample", "full"),
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

    kind: Literal["flag", "environment", "file", "default", "zitadel", "libpq"]
    """the last two: a source that no setting names, but ZITADEL's configuration or libpq's own variables"""
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
        known = KNOWN[self.name]
        if self.value is None:
            return None
        if known.kind == "dsn":
            return dsn.masked(str(self.value))
        return dsn.masked_url(value_text(known, self.value))


def of_flag(known: Known, value: object) -> Value:
    """Read a flag's or a variable's value. Raises ValueError, OverflowError."""
    if isinstance(value, bool):
        return value
    if isinstance(value, list):
        return tuple(cast("list[str]", value))
    return _of_text(known, str(value))


def of_toml(known: Known, value: object) -> Value:
    """Read a value of the TOML file. Raises ValueError, OverflowError."""
    match known.kind, value:
        case "switch", bool():
            return value
        case "whole" | "size", int() if not isinstance(value, bool):
            return _of_text(known, str(value))
        case "files", list() if value and all(isinstance(item, str) for item in cast("list[object]", value)):
            return tuple(cast("list[str]", value))
        case "whole" | "switch", _:
            raise ValueError(f"want {_WANTED[known.kind]}, without quotes")
        case _, str():
            return _of_text(known, value)
        case _:
            raise ValueError(f"want {_WANTED[known.kind]}, in quotes")


_WANTED = {
    "text": "text", "url": "text", "dsn": "text", "files": "a list of texts", "whole": "a whole number",
    "switch": "true or false", "duration": 'a duration as "10s"', "size": 'a size as "64MiB"',
    "choice": "text",
}  # fmt: skip
_SWITCH = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_BYTES = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
}  # fmt: skip


def _of_text(known: Known, text: str) -> Value:
    match known.kind:
        case "whole" if re.fullmatch(r"[0-9]{1,9}", text):
            return _within(known, int(text))
        case "switch" if text.lower() in _SWITCH:
            return _SWITCH[text.lower()]
        case "duration" if text == "0" or re.fullmatch(r"([0-9]{1,9}(\.[0-9]+)?(us|ms|s|min|m|h|d))+", text):
            parts = re.findall(r"([0-9.]+)([a-z]+)", text)
            return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
        case "size" if (size := re.fullmatch(r"([0-9]{1,15}) ?([a-zA-Z]*)", text)) and size[2].lower() in _BYTES:
            return _within(known, int(size[1]) * _BYTES[size[2].lower()])
        case "choice" if text in known.choices:
            return text
        case "files":
            return tuple(text.split(os.pathsep))
        case "dsn":
            if not text and known.name == "fence":
                raise ValueError("it is empty")
            try:
                dsn.parse(text)
            except UsageError as error:
                raise ValueError(error.message) from None
            return text
        case "text" | "url":
            return text
        case _:
            raise ValueError(f"{dsn.masked_url(text)!r} is not {_WANTED[known.kind]}")


def _within(known: Known, number: int) -> int:
    if number < known.least:
        raise ValueError(f"{number} is less than {known.least}")
    if known.most is not None and number > known.most:
        raise ValueError(f"{number} is more than {known.most}")
    return number


def default_text(known: Known) -> str:
    """Return a setting's default as one would write it; empty when there is none."""
    return "" if known.default is None else value_text(known, known.default)


def value_text(known: Known, value: Value) -> str:
    match value:
        case bool():
            return str(value).lower()
        case timedelta(days=days) if days and value == timedelta(days=days):
            return f"{days}d"
        case timedelta():
            return f"{value.total_seconds():g}s"
        case tuple():
            return os.pathsep.join(value)
        case int() if known.kind == "size" and value % (1 << 20) == 0:
            return f"{value >> 20}MiB"
        case _:
            return str(value)


def way_out(known: Known) -> str:
    """Say what a good value looks like."""
    match known.kind:
        case "dsn":
            return (
                "Write postgresql://USER@HOST:PORT/DATABASE, with @ as %40 and / as %2F inside a part, "
                "or host=… dbname=… with values in single quotes."
            )
        case "duration":
            return "Durations look like 250ms, 10s, 2m or 1h30m."
        case "size":
            return "Sizes look like 512KiB, 64MiB or 1GiB."
        case "choice":
            return f"One of {', '.join(known.choices)}."
        case _:
            return known.help
