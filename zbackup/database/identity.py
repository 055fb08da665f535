"""Who the server and the database are: what continuity compares, and what a restore wants to know."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from zbackup.database.connection import Connection
from zbackup.errors import SourceRefused
from zbackup.source import Source, collation_text

_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}


@dataclass(frozen=True, slots=True)
class Identity:
    system_identifier: str
    """given by initdb; physical copies keep it"""
    database: str
    database_oid: int
    timeline: int | None
    """moves forward with a promotion, at once; None on a standby whose role may not read it (see `notes`)"""
    server_version_num: int
    server_version: str
    in_recovery: bool
    """a hot standby"""
    locale_provider: str
    """libc, icu or builtin"""
    collation: str
    ctype: str
    icu_locale: str | None
    """the locale of a provider other than libc"""
    encoding: str
    notes: tuple[str, ...] = ()
    """what could not be read, and what to grant"""

    def source(self, zitadel: str | None) -> Source:
        """Describe it for a manifest."""
        return Source(
            system_identifier=self.system_identifier,
            database=self.database,
            database_oid=self.database_oid,
            timeline=self.timeline,
            server_version=self.server_version,
            zitadel_version=zitadel,
            encoding=self.encoding,
            locale_provider=self.locale_provider,
            collation=self.collation,
            ctype=self.ctype,
            icu_locale=self.icu_locale,
            standby=self.in_recovery,
        )


def read_identity(connection: Connection) -> Identity:
    """Read it as any role that may connect. Raises SourceRefused where even that was revoked."""
    row = connection.execute(
        """SELECT to_jsonb(d), pg_encoding_to_char(d.encoding), d.oid, pg_is_in_recovery(),
                  current_setting('server_version'), current_setting('server_version_num')::int
             FROM pg_database d WHERE d.datname = current_database()"""
    ).fetchone()
    assert row is not None
    database, encoding, oid, in_recovery, version, version_num = row
    provider: str = database.get("datlocprovider", "c")
    timeline, notes = _timeline(connection)
    return Identity(
        system_identifier=_system_identifier(connection),
        database=database["datname"],
        database_oid=oid,
        timeline=timeline,
        server_version_num=version_num,
        server_version=version,
        in_recovery=in_recovery,
        locale_provider=_PROVIDERS.get(provider, provider),
        collation=database["datcollate"],
        ctype=database["datctype"],
        icu_locale=database.get("datlocale") or database.get("daticulocale"),
        encoding=encoding,
        notes=notes,
    )


def read_collation(connection: Connection) -> str:
    """Say by what rules the database compares and lower-cases, as of a source (`source.collation_text`)."""
    row = connection.execute("SELECT to_jsonb(d) FROM pg_database d WHERE d.datname = current_database()").fetchone()
    assert row is not None
    database = row[0]
    provider: str = database.get("datlocprovider", "c")
    return collation_text(
        _PROVIDERS.get(provider, provider),
        database["datcollate"],
        database["datctype"],
        database.get("datlocale") or database.get("daticulocale"),
    )


def clock(connection: Connection) -> datetime:
    """Read the server's clock."""
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    return row[0].astimezone(UTC)


def started(connection: Connection) -> datetime:
    """Read when the server was started."""
    row = connection.execute("SELECT pg_postmaster_start_time()").fetchone()
    assert row is not None
    return row[0].astimezone(UTC)


def _system_identifier(connection: Connection) -> str:
    try:
        row = connection.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        raise SourceRefused(
            f"role {connection.info.user} may not read the server's system identifier",
            hint=f'GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO "{connection.info.user}".',
        ) from error
    assert row is not None
    return row[0]


def _timeline(connection: Connection) -> tuple[int | None, tuple[str, ...]]:
    """
    Read the timeline that is written or, on a standby, received.

    On a standby the control file's is that of the last restartpoint; it only counts while nothing is received.
    """
    try:
        row = connection.execute(
            "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_insert_lsn()) END"
        ).fetchone()
        if row is not None and row[0] is not None:
            return int(row[0][:8], 16), ()
        row = connection.execute(
            """SELECT greatest(r.min_recovery_end_timeline, c.timeline_id, w.received_tli),
                      w.pid IS NOT NULL AND w.received_tli IS NULL
                 FROM pg_control_recovery() r CROSS JOIN pg_control_checkpoint() c
                      LEFT JOIN pg_stat_wal_receiver w ON true"""
        ).fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        return None, (f"the timeline cannot be read ({error.diag.message_primary}): grant EXECUTE to the role",)
    assert row is not None
    if row[1]:
        return None, (
            "the standby's timeline cannot be read: "
            f'GRANT pg_read_all_stats TO "{connection.info.user}" makes it visible',
        )
    return row[0], ()
