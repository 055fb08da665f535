"""Check a source: whether a backup can read it, what it would miss, and what holds it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from zbackup.check import Check, fail, failed, ok, skipped, some, tried, warn
from zbackup.database import inspect_source as look
from zbackup.database.capture import list_tables
from zbackup.database.connection import Connection, connect, shown, source_errors
from zbackup.database.grants import grants
from zbackup.database.horizon import LONG, refuse_subscriber, settle
from zbackup.database.identity import clock, read_identity
from zbackup.database.pg_dump import NoProgram, find_program
from zbackup.database.sessions import prepared
from zbackup.database.shape import FoundTable, find_events_table, zitadel_version
from zbackup.database.standby import expect_primary, in_recovery
from zbackup.errors import ZbackupError
from zbackup.masterkey import check_source, judged
from zbackup.progress import Report
from zbackup.source import Blocker
from zbackup.zitadel import push, tables

# Long enough to see sessions end what they do, short enough for somebody who waits.
HORIZON_WAIT = timedelta(seconds=3)

SUPPORTED = range(14, 19)
"""PostgreSQL's versions that ZITADEL supports (July 2026); zbackup reads 13 too."""

ROLE = "zbackup"
"""The role to make where ZITADEL's own or a superuser is used now."""

_TIMEOUTS = (
    "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout",
    "transaction_timeout",
)  # fmt: skip

_DATED_BY = {"transaction": "their transaction", "statement": "their push", "row": "their own insertion"}

_GRANTS = "Run the SQL that `zbackup doctor --grants` prints."


@dataclass(slots=True)
class SourceChecks:
    """Looks at one source over one session, which stays open until `close`."""

    dsn: str
    fence: str | None = None
    pg_dump: str | None = None
    connection: Connection | None = None
    found: FoundTable | None = None
    role: look.Role | None = None

    def run(self) -> Iterator[Check]:
        yield from self._reach()
        if self.connection is None:
            return
        looks: tuple[tuple[str, Callable[[Connection], Check]], ...] = (
            ("events", self._events),
            ("zitadel", self._zitadel),
            ("tables", self._tables),
            ("rights", self._rights),
            ("sessions", self._sessions),
            ("track_activities", self._track_activities),
            ("prepared", self._prepared),
            ("replication", self._replication),
            ("horizon", self._horizon),
            ("timeouts", self._timeouts),
            ("pg_dump", self._program),
        )
        for name, one in looks:
            yield tried(name, lambda one=one: self._within(one))

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()

    def skew(self, now: Callable[[], datetime]) -> float | None:
        """Return the seconds that the server's clock is ahead of ours."""
        if self.connection is None:
            return None
        with source_errors(self.dsn):
            before = now()
            there = clock(self.connection)
            after = now()
        return (there - (before + (after - before) / 2)).total_seconds()

    def events_bytes(self) -> int | None:
        if self.connection is None or self.found is None:
            return None
        with source_errors(self.dsn):
            return look.table_bytes(self.connection, self.found.oid)

    def room(self) -> look.Room | None:
        if self.connection is None:
            return None
        with source_errors(self.dsn):
            return look.read_room(self.connection)

    def version(self) -> str | None:
        """Return ZITADEL's version, as far as the source tells."""
        if self.connection is None or self.found is None:
            return None
        with source_errors(self.dsn):
            return zitadel_version(self.connection)

    def masterkey(self, masterkey: bytes, report: Report) -> Check:
        if self.connection is None:
            return skipped("masterkey", "the source cannot be reached")
        table = self.found.table if self.found is not None else None
        return tried("masterkey", lambda: self._within(lambda it: judged(check_source(it, table, masterkey, report))))

    def grants(self) -> str:
        """Write the SQL for the role that is used now, or for one to be made in the place of an owner."""
        if self.connection is None or self.role is None:
            return grants(ROLE, "zitadel", "zitadel")
        own = self.role.superuser or self.role.name == self.role.table_owner
        schemas = look.existing(self.connection, tables.SCHEMAS)
        database = self.connection.info.dbname
        return grants(ROLE if own else self.role.name, database, self.role.table_owner, schemas)

    def _within(self, one: Callable[[Connection], Check]) -> Check:
        assert self.connection is not None
        with source_errors(self.dsn):
            return one(self.connection)

    def _reach(self) -> Iterator[Check]:
        try:
            self.connection = connect(self.dsn)
        except ZbackupError as error:
            # To refuse a pooler it must have been reached.
            yield failed("pooler" if "pooler" in error.message else "source", error)
            return
        yield tried("source", lambda: self._within(self._server))
        yield tried("pooler", lambda: self._within(self._pooler))

    def _server(self, connection: Connection) -> Check:
        identity = read_identity(connection)
        what = f"{shown(self.dsn)}: PostgreSQL {identity.server_version}, {identity.encoding}, {identity.collation}"
        if identity.notes:
            return warn("source", f"{what}; {'; '.join(identity.notes)}", _GRANTS)
        if identity.server_version_num // 10000 not in SUPPORTED:
            return warn("source", f"{what}; ZITADEL supports 14 to 18", "Upgrade the server.")
        if identity.encoding != "UTF8":
            return warn("source", what, "Expect trouble in a restore: the archive is UTF-8. Move to a UTF8 database.")
        return ok("source", what)

    def _pooler(self, connection: Connection) -> Check:
        separate = "one that gives each session a server process of its own"
        return ok("pooler", separate if look.behind_pooler(connection) else "none")

    def _events(self, connection: Connection) -> Check:
        self.found = find_events_table(connection)
        self.role = look.read_role(connection, self.found.oid)
        table = self.found.table
        name = f"{table.schema}.{table.name}"
        if not table.indexed_by_time:
            return warn(
                "events",
                f"{name} has no index that begins with created_at: every increment reads the whole table",
                f"CREATE INDEX CONCURRENTLY es_active_instances ON {name} (created_at DESC, instance_id);",
            )
        newest = look.newest_event(connection, table)
        if newest is None:
            return warn("events", f"{name} is empty", "Is this ZITADEL's own database?")
        ahead = newest - clock(connection)
        if ahead > timedelta(0):
            return warn(
                "events",
                f"the newest event is dated {ahead.total_seconds():.0f} s after the server's clock",
                "Set the server's clock right: ZITADEL does not see events of the future, and a restore refuses them.",
            )
        return ok("events", f"{name} has a known shape; newest event {newest:%Y-%m-%d %H:%M:%S}Z")

    def _zitadel(self, connection: Connection) -> Check:
        if self.found is None:
            return skipped("zitadel", "there is no events table to read it from")
        version = zitadel_version(connection) or "of unknown version"
        source = look.push_source(connection)
        if source is None and look.push_expected(connection):
            return warn(
                "zitadel",
                f"ZITADEL {version}; the function eventstore.{push.FUNCTION} is missing: it inserts events without "
                "its own lock, and its projections may skip some",
                "Run `zitadel setup` of a newer version, or restore the function from its schema.",
            )
        if source is None:
            return ok("zitadel", f"ZITADEL {version}, without a push function (up to v2.65)")
        dated = push.dated_by(source)
        if dated is None:
            return warn(
                "zitadel",
                f"ZITADEL {version}; eventstore.{push.FUNCTION} dates events in a way not known",
                "Use a newer zbackup, or report this.",
            )
        return ok("zitadel", f"ZITADEL {version}; events carry the time of {_DATED_BY[dated]}")

    def _tables(self, connection: Connection) -> Check:
        listed = list_tables(connection, tables.SCHEMAS)
        if not any((table.schema, table.name) == tables.KEYS for table in listed):
            step = "Point --source at ZITADEL's own database; what --events-only restored starts no ZITADEL."
            return warn("tables", f"{'.'.join(tables.KEYS)} is not there: nothing encrypted could be read again", step)
        unknown = [str(table) for table in listed if tables.find(table.schema, table.name) is None]
        if unknown:
            what = f"{len(unknown)} of {len(listed)} are not known: {some(unknown)}"
            step = "They are captured and restored as state. A newer zbackup may know them; keep others elsewhere."
            return warn("tables", what, step)
        return ok("tables", f"all {len(listed)} are known")

    def _rights(self, connection: Connection) -> Check:
        missing = look.unreadable(connection, tables.SCHEMAS)
        state = [name for name in missing if tables.is_state(*name.split(".", 1))]
        if "eventstore.events2" in missing:
            return fail("rights", f"the role may not read {some(missing)}", _GRANTS)
        if state:
            more = f", nor {len(missing) - len(state)} others" if len(missing) > len(state) else ""
            what = f"the role may not read {some(state)}{more}: not captured, and nothing else brings it back"
            return fail("rights", what, _GRANTS)
        if missing:
            what = f"the role may not read {some(missing)}: not captured, nor any schema by pg_dump"
            return warn("rights", what, _GRANTS)
        return ok("rights", f"role {connection.info.user} may read every table")

    def _sessions(self, connection: Connection) -> Check:
        if self.role is None:
            return skipped("sessions", "there is no events table")
        if self.role.sees_sessions:
            return ok("sessions", "the transactions of all roles are seen")
        hidden = look.read_sessions(connection).hidden
        return warn(
            "sessions",
            f"sessions of other roles do not show their transactions ({hidden} by now): each backup waits for them",
            f'GRANT pg_read_all_stats TO "{connection.info.user}";',
        )

    def _track_activities(self, connection: Connection) -> Check:
        sessions = look.read_sessions(connection)
        if sessions.silenced or sessions.silent:
            return warn(
                "track_activities",
                f"off for {some(sessions.silenced) or 'some sessions'}, {sessions.silent} sessions by now: "
                "each backup waits for them",
                "Set track_activities = on for the server, database and roles.",
            )
        return ok("track_activities", "on")

    def _prepared(self, connection: Connection) -> Check:
        total = look.prepared_count(connection)
        holding = prepared(connection, self.found.oid) if self.found is not None else ()
        if holding:
            what = f"nothing new is sealed while these are there: {some(map(_who, holding))}"
            return warn("prepared", what, "End each with COMMIT PREPARED or ROLLBACK PREPARED.")
        return ok("prepared", f"{total} prepared transactions, none of which wrote events")

    def _replication(self, connection: Connection) -> Check:
        if self.found is not None:
            refuse_subscriber(connection, self.found.oid)
        if not in_recovery(connection):
            return ok("replication", "a primary" + ("; the fence has no effect" if self.fence is not None else ""))
        if self.fence is None:
            what = "a standby: the open transactions of its primary cannot be seen, a lag is assumed"
            return warn("replication", what, "Name the primary with --fence.")
        with source_errors(self.fence), closing(connect(self.fence)) as primary:
            doubt = expect_primary(connection, primary)
        if doubt:
            return warn("replication", f"a standby; {doubt}", _GRANTS)
        settings = look.resets(connection, ("hot_standby_feedback", "max_standby_streaming_delay"))
        if settings["hot_standby_feedback"] == "off" and not settings["max_standby_streaming_delay"].startswith("-1"):
            return warn(
                "replication",
                "a standby with its primary; long reads may be cancelled by the replay",
                "Set hot_standby_feedback = on, or max_standby_streaming_delay = -1.",
            )
        return ok("replication", "a standby with its primary")

    def _horizon(self, connection: Connection) -> Check:
        if self.found is None:
            return skipped("horizon", "there is no events table")
        fence = self.fence if in_recovery(connection) else None
        with source_errors(fence), closing(connect(fence)) if fence is not None else nullcontext() as primary:
            horizon = settle(
                connection,
                table_oid=self.found.oid,
                last=None,
                pending=None,
                own_pids=frozenset({connection.info.backend_pid}),
                wait=HORIZON_WAIT,
                fence=primary,
            )
        held = f"held back by {some(map(_who, horizon.blockers))}" if horizon.blockers else "held back by nobody"
        if horizon.at is None:
            return warn("horizon", f"nothing can be sealed now: {held}", "End that transaction; backups go on without.")
        behind = (horizon.clock - horizon.at).total_seconds()
        what = f"{behind:.0f} s behind the server's clock ({horizon.basis}), {held}"
        if horizon.clock - horizon.at > LONG:
            return warn("horizon", what, "End that transaction: what is younger is stored anew by every backup.")
        return ok("horizon", what)

    def _timeouts(self, connection: Connection) -> Check:
        settings = look.resets(connection, (*_TIMEOUTS, "old_snapshot_threshold"))
        threshold = settings.pop("old_snapshot_threshold", "-1")
        if not threshold.startswith("-1"):
            return warn(
                "timeouts",
                f"old_snapshot_threshold is {threshold}: a longer backup fails",
                "Set old_snapshot_threshold = -1 and restart the server.",
            )
        limits = [f"{name} = {value}" for name, value in settings.items() if not value.startswith("0")]
        return ok("timeouts", f"{', '.join(limits)}: set aside in our sessions" if limits else "none")

    def _program(self, connection: Connection) -> Check:
        try:
            program = find_program(connection.info.server_version // 10000, self.pg_dump)
        except NoProgram as reason:
            step = "Install the client programs of the server's version, or name a pg_dump with --pg-dump."
            verdict = fail if self.pg_dump else warn
            return verdict("pg_dump", f"{reason}: the schema is not captured", step)
        return ok("pg_dump", f"{program.path} is {program.version}")


def _who(blocker: Blocker) -> str:
    names = (f"pid {blocker.pid}" if blocker.pid else "", blocker.role, blocker.application, blocker.detail)
    since = f"since {blocker.since.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z" if blocker.since else ""
    return " ".join(filter(None, (blocker.kind, *names, since)))
