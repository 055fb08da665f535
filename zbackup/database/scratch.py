"""
Databases of a drill's own on somebody's server: made, dropped, and recognised when nobody uses them any more.

    zbackup_drill_<start>_<random>      20261126t170000z_0123abcd

The session that makes one bears its name as application name, from before it is made until it is dropped. So one of
such a name that no session bears, and none is connected to, was left by a drill that died. Other names are never
touched.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

import psycopg
from psycopg import sql

from zbackup.archive.names import backup_id
from zbackup.database.connection import Connection, connect, target_errors
from zbackup.dsn import conninfo, parse
from zbackup.errors import TargetError, TargetRefused
from zbackup.progress import Report, Warned
from zbackup.source import Source

PREFIX = "zbackup_drill_"
_NAME = re.compile(r"zbackup_drill_\d{8}t\d{6}z_[0-9a-f]{8}")


def scratch_name(now: datetime) -> str:
    return PREFIX + backup_id(now, secrets.token_hex(4)).lower().replace("-", "_")


def major(version: str) -> int:
    """Return the major version of a server, from what it says itself."""
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0


@contextmanager
def scratch(server: str, name: str, report: Report) -> Generator[Connection]:
    """
    Let a session own a database on the server that a DSN leads to, and drop it after the block if it was made.

    Those that dead drills left are dropped first. Raises TargetError, TargetRefused.
    """
    with target_errors(server), connect(server, role="target") as control:
        _expect_rights(control)
        control.execute("SELECT set_config('application_name', %s, false)", (name,))
        for left in _abandoned(control):
            _drop(control, left)
            report(Warned(f"removed database {left}, which a drill left that died"))
        try:
            yield control
        finally:
            _clean_up(server, control, name, report)


def version_of(connection: Connection) -> str:
    return connection.info.parameter_status("server_version") or ""


def expect_version(version: str, needed: int) -> None:
    """Refuse a server that is older than the schema is. Raises TargetRefused."""
    if major(version) < needed:
        raise TargetRefused(
            f"the target's server is PostgreSQL {version}; the archive's schema is of PostgreSQL {needed}",
            hint=f"Give one of version {needed} or newer.",
        )


def make_role(connection: Connection, name: str, password: str) -> None:
    """Make a role that may nothing but log in. Raises psycopg's errors."""
    statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
    connection.execute(statement.format(sql.Identifier(name), sql.Literal(password)))


def create(connection: Connection, server: str, name: str, source: Source, owner: str | None = None) -> str:
    """
    Make a database with the source's encoding, and its collation where the server has it.

    Return the DSN for its owner, another role than that of the session if one is named. Raises psycopg's errors.
    """
    try:
        connection.execute(_creation(name, source, _locale(source), owner))
    except (psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError):
        # The server does not know that locale; the restore says what it got instead.
        connection.execute(_creation(name, source, {}, owner))
    # What is restored is as secret as the original.
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
    return conninfo({**parse(server), "dbname": name, **({"user": owner} if owner else {})})


def _clean_up(server: str, control: Connection, name: str, report: Report) -> None:
    """Drop it, with a new session where that of the beginning is gone."""
    try:
        with suppress(psycopg.OperationalError):
            _drop(control, name)
            return
        with target_errors(server), connect(server, role="target") as again:
            _drop(again, name)
    except (TargetError, psycopg.Error) as error:
        report(Warned(f"database {name} could not be dropped: {error}", "The next drill on that server drops it."))


def _expect_rights(connection: Connection) -> None:
    row = connection.execute(
        "SELECT rolcreatedb OR rolsuper, rolname FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    assert row is not None
    if not row[0]:
        raise TargetRefused(
            f"role {row[1]} may not make databases, and a drill makes one of its own",
            hint=f'ALTER ROLE "{row[1]}" CREATEDB; or leave --target out: the drill brings a server then.',
        )


def _abandoned(connection: Connection) -> Iterator[str]:
    rows = connection.execute(
        """SELECT datname::text FROM pg_database d
            WHERE starts_with(datname, %s) AND pg_has_role(datdba, 'USAGE') AND NOT EXISTS (
                  SELECT FROM pg_stat_activity a WHERE a.datname = d.datname OR a.application_name = d.datname)""",
        (PREFIX,),
    ).fetchall()
    return (name for (name,) in rows if _NAME.fullmatch(name))


def _locale(source: Source) -> dict[str, str]:
    libc = {"LC_COLLATE": source.collation, "LC_CTYPE": source.ctype}
    match source.locale_provider, source.icu_locale:
        case "icu", str(locale):
            return {"LOCALE_PROVIDER": "icu", "ICU_LOCALE": locale, **libc}
        case "builtin", str(locale):
            return {"LOCALE_PROVIDER": "builtin", "BUILTIN_LOCALE": locale, **libc}
        case _:
            return libc


def _creation(name: str, source: Source, locale: dict[str, str], owner: str | None) -> sql.Composed:
    options = {"ENCODING": source.encoding, **locale}
    written = [sql.SQL("{} {}").format(_word(key), sql.Literal(value)) for key, value in options.items()]
    if owner is not None:
        written.append(sql.SQL("OWNER {}").format(sql.Identifier(owner)))
    return sql.SQL("CREATE DATABASE {} TEMPLATE template0 {}").format(sql.Identifier(name), sql.SQL(" ").join(written))


def _word(key: str) -> sql.SQL:
    return sql.SQL(key)  # type: ignore[arg-type]  # one of the few above


def _drop(connection: Connection, name: str) -> None:
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
