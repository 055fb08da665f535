"""
What PostgreSQL refuses, in our words: psycopg's errors become SourceError or TargetError at the edge.

A message names the database without its secrets and repeats what the server said first; detail and context
may hold rows and are left out. The hint goes by SQLSTATE; libpq gives none while it connects, there it goes
by the text.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import pq

from zbackup.dsn import MASK, parse, secrets
from zbackup.errors import SourceError, SourceRefused, TargetError, TargetRefused, UsageError

Role = Literal["source", "target"]

Refused = type[SourceRefused] | type[TargetRefused]

UNREADABLE = "(a connection string that cannot be read)"

_PLACE = ("service", "host", "hostaddr", "port", "dbname", "user")


def shown(dsn: str) -> str:
    """
    Write where a DSN leads: service, host, port, database and user, whatever else it holds.

    What it leaves out is libpq's own choice, environment included.
    """
    try:
        given = parse(dsn)
    except UsageError:
        return UNREADABLE
    if "service" not in given:
        given = {**_defaults(), **given}
    return " ".join(f"{key}={_plain(given[key])}" for key in _PLACE if given.get(key))


def refused(role: Role) -> Refused:
    """Return the class of "not fit to be used" for that side."""
    return SourceRefused if role == "source" else TargetRefused


def source_errors(dsn: str | None = None) -> AbstractContextManager[None]:
    """
    Raise psycopg's errors of this block as SourceError, or SourceRefused where rights are missing.

    Errors of ours pass.
    """
    return translated(dsn, "source")


def target_errors(dsn: str | None = None) -> AbstractContextManager[None]:
    """Raise psycopg's errors of this block as TargetError or TargetRefused; those of ours pass."""
    return translated(dsn, "target")


@contextmanager
def translated(dsn: str | None, role: Role) -> Generator[None]:
    """Raise psycopg's errors as the side's own."""
    try:
        yield
    except psycopg.Error as error:
        raise translation(error, dsn, role) from error


def translation(error: psycopg.Error, dsn: str | None, role: Role) -> SourceError | TargetError:
    """Write one error of psycopg's in our words."""
    text = error.diag.message_primary or _one_line(str(error))
    meaning = _meaning(error.sqlstate, text, role)
    kind = refused(role) if meaning.refused else SourceError if role == "source" else TargetError
    for secret in sorted(secrets(dsn or ""), key=len, reverse=True):
        text = text.replace(secret, MASK)
    found = kind(f"{role} {shown(dsn)}: {text}" if dsn is not None else f"{role}: {text}", hint=meaning.hint)
    found.retry = meaning.retry
    return found


@dataclass(frozen=True, slots=True)
class _Meaning:
    hint: str = ""
    retry: bool = False
    refused: bool = False


_LOST = _Meaning(
    "The connection broke or the server restarted: see its log, and run the same command again.", retry=True
)
_UNREACHABLE = _Meaning(
    "Check host and port, that the server runs and accepts connections there, and what stands in between.",
    retry=True,
)
_LOGIN = _Meaning("Check user and password (PGPASSWORD, the passfile), and the server's pg_hba.conf.")
_FULL = _Meaning("The server is out of room: free some, or give it more, and run the same command again.")

# By SQLSTATE, or its class: PostgreSQL manual, appendix A.
_MEANINGS = {
    "08": _LOST,
    "08001": _UNREACHABLE,
    "snapshot": _Meaning(
        "The session that holds it has ended, or not all sessions reach the same server: name one host, no load "
        "balancer, no pooler, and run the same command again.",
        retry=True,
    ),
    "25006": _Meaning("The server or the role is read-only: write to the primary.", refused=True),
    "25P03": _LOST,
    "28": _LOGIN,
    "3D000": _Meaning("Name ZITADEL's own database, often `zitadel`; the default is the user's name."),
    "3D000/target": _Meaning("Create an empty database first (`createdb NAME`), or check the name."),
    "42501/target": _Meaning(
        "Connect as the role that owns ZITADEL's tables, or in an empty database GRANT CREATE, TEMPORARY ON DATABASE.",
        refused=True,
    ),
    "40001": _Meaning(
        "On a standby long reads meet the replay: set hot_standby_feedback = on there, or a greater "
        "max_standby_streaming_delay, and run the same command again.",
        retry=True,
    ),
    "40P01": _Meaning("Two sessions waited for each other: run the same command again.", retry=True),
    "42501": _Meaning(
        "Grant what is named to the role; `zbackup doctor --grants` prints all that it needs.", refused=True
    ),
    "42P01": _Meaning("Is this ZITADEL's database? Another session may have dropped the table."),
    "53100": _FULL,
    "53200": _FULL,
    "53300": _Meaning(
        "The server has no free connection: lower --jobs, or raise max_connections or the role's limit.",
        retry=True,
    ),
    "53400": _Meaning(
        "A limit of the role or the server is reached, such as temp_file_limit: raise it for this role, and run the "
        "same command again."
    ),
    "55P03": _Meaning(
        "Another session holds a strong lock on that table, as ZITADEL's setup does for a while: "
        "run the same command again when it is done.",
        retry=True,
    ),
    "55P03/target": _Meaning(
        "Another session uses a table of the target, be it to read: end it (pg_stat_activity, pg_locks), and run the "
        "same command again.",
        retry=True,
    ),
    "57014": _Meaning("Someone cancelled the statement, or a time limit did that a pooler or proxy sets.", retry=True),
    "57P01": _LOST,
    "57P02": _LOST,
    "57P03": _Meaning("The server is starting, stopping or recovering: try again in a moment.", retry=True),
    "57P05": _LOST,
    "58": _Meaning("The server cannot read or write its own files: see its log before anything else."),
    "72000": _Meaning("The snapshot became too old: run the same command again.", retry=True),
    "XX001": _Meaning("The server found its own data damaged: see its log before anything else."),
    "XX002": _Meaning("The server found an index damaged: see its log, and REINDEX."),
    "policy": _Meaning("A row-level security policy hides rows from the role: ALTER ROLE … BYPASSRLS.", refused=True),
    "pool": _Meaning("The pool has no free process: make it larger, or connect to PostgreSQL itself.", retry=True),
    "ssl": _Meaning("Check sslmode, sslrootcert and the server's certificate."),
    "option": _Meaning("Correct the DSN, its `options`, or the environment (PGOPTIONS, PGSERVICE)."),
}

# Where the text says more than SQLSTATE.
_OWN = {"snapshot", "pool", "policy"}

# What libpq and the server say while connecting, where there is no SQLSTATE.
_TEXTS = tuple(
    (re.compile(pattern, re.IGNORECASE), state)
    for pattern, state in (
        (r"^invalid snapshot identifier|^snapshot .* does not exist", "snapshot"),
        (r"row-level security policy", "policy"),
        (r"query_wait_timeout|no more connections allowed", "pool"),
        (r"password authentication failed|no password supplied|pg_hba\.conf|fe_sendauth", "28P01"),
        (r'role "[^"]*" (does not exist|is not permitted)|authentication failed', "28000"),
        (r'database "[^"]*" does not exist', "3D000"),
        (r"permission denied for database", "42501"),
        (r"too many (clients|connections)|remaining connection slots", "53300"),
        (r"starting up|shutting down|recovery mode|not yet accepting|not accepting", "57P03"),
        (r"certificate|\bSSL\b|\bTLS\b", "ssl"),
        (r"configuration parameter|invalid value for parameter|invalid .* value|definition of service", "option"),
        (r"refused|no such file|permission denied|resolve host|translate host", "08001"),
        (r"timeout|timed out|unreachable|no route", "08001"),
        (r"closed|terminat|reset by peer|broken pipe|consuming input|lost", "08006"),
    )
)


def _meaning(state: str | None, text: str, role: Role) -> _Meaning:
    said = next((key for pattern, key in _TEXTS if pattern.search(text) and (state is None or key in _OWN)), None)
    key = said or state or ""
    return _MEANINGS.get(f"{key}/{role}") or _MEANINGS.get(key) or _MEANINGS.get(key[:2]) or _Meaning()


def _one_line(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    return "; ".join(line for line in lines if line and not line.startswith("Is the server running"))


def _plain(value: str) -> str:
    # libpq takes a whole connection string, password and all, as the name of a database.
    return MASK if "=" in value or "://" in value else value


def _defaults() -> dict[str, str]:
    options = ((option.keyword.decode(), option.val) for option in pq.Conninfo.get_defaults())
    return {key: value.decode(errors="replace") for key, value in options if key in _PLACE and value}
