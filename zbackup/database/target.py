"""
A database that is being restored into: its names, its sessions, its ledger, its receipt.

The events are loaded into a table that has another name until all is proven. What was done stands in a ledger
beside it, written in the same transactions as the rows; when the table gets its final name, the ledger gives
way to a receipt, the table's comment. So a killed restore goes on exactly, and a finished one is recognised.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, LiteralString, TypeVar

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from zbackup.archive.names import EVENTS as CHUNKS
from zbackup.database.connection import cancel, connect, target_errors
from zbackup.database.schema_text import check_expression
from zbackup.errors import Busy
from zbackup.progress import Report, Warned, silent
from zbackup.source import EventTable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA = "eventstore"
EVENTS = "events2"
RESTORING = "events2_restoring"
ASIDE = "events2_before_restore"
LEDGER = "zbackup_ledger"

PLAN = "plan"
"""the ledger's first entry; the others are named as the chunks, or as what was done"""

Mode = Literal["empty", "prepared", "events"]
"""
What the target is, and so what a restore makes of it: an empty database gets schema and rows, one that ZITADEL
prepared gets rows, and where only the events are asked for it gets those.
"""

Connection = psycopg.Connection[Any]
T = TypeVar("T")

# A restore that was killed a moment ago may still have a session on the server; it ends within seconds.
LOCK_TIMEOUT = timedelta(seconds=60)

# So long after it was told to stop, a session that runs still or again is told once more.
CANCEL_AGAIN = timedelta(seconds=0.2)

# One restore at a time in a database: a session-level advisory lock, apart from ZITADEL's, whose keys are pairs.
_LOCK = int.from_bytes(b"zbackup", "big")

# Harmless for others, undone when the session ends. What is committed asynchronously is lost in a crash
# together with the ledger's word for it; the first and the last transaction of a restore are synchronous.
_SETTINGS = {
    "synchronous_commit": "off",
    "maintenance_work_mem": "256MB",
    "client_connection_check_interval": "5s",
    "default_transaction_read_only": "off",
}


@dataclass(frozen=True, slots=True)
class Run:
    """What the ledger says about the restore that it belongs to."""

    run: str
    archive: str
    backup: str
    generation: str
    point: str
    at: str | None
    digest: str
    """of the plan"""
    prepared: bool = False
    """the table was there before, empty or emptied"""
    moved_aside: int = 0
    """rows of the system's own instance that it held"""
    mode: Mode = "events"
    capture: str | None = None
    """the backup whose capture tells schema and state"""
    schemas: tuple[str, ...] = ()
    """those that were made, in an empty database"""
    filled: tuple[str, ...] = ()
    """those that were there, empty, and got objects"""
    options: str = ""
    """the flags that decide what comes back"""
    damaged: int = 0
    """objects that could not be read, with --skip-damaged"""
    missing: int = 0
    """events that are missing for that"""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the comment of a restored table says."""

    run: str
    archive: str
    backup: str
    generation: str
    point: str
    at: str | None
    digest: str
    final: bool
    events: int
    added: int
    withheld: int
    moved_aside: int
    proof: str
    mode: Mode = "events"
    capture: str | None = None
    options: str = ""
    """the flags that decided what came back"""
    needed: str | None = None
    """the version of ZITADEL that the start needs, or a newer one"""
    external: dict[str, Any] = field(default_factory=dict[str, Any])
    """domain, port and security as setup noted them"""
    damaged: int = 0
    """objects that could not be read, with --skip-damaged"""
    missing: int = 0
    """events that are missing for that"""

    def text(self) -> str:
        return json.dumps({"zbackup": asdict(self)}, ensure_ascii=True)

    @classmethod
    def of_text(cls, text: str | None) -> Receipt | None:
        """Read a table's comment; None when it is no receipt."""
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return cls(**json.loads(text or "")["zbackup"])
        return None


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the ledger says about a chunk: the rows that were sent."""

    rows: int
    raw_sha256: str
    last: tuple[str, ...]
    """cursor of the last row; empty when none was wanted"""
    instances: dict[str, int]
    aggregate_types: dict[str, int]


def restoring(table: EventTable) -> EventTable:
    """Return the table under the name that it has while it is loaded."""
    return replace(table, schema=SCHEMA, name=RESTORING)


def named(name: str) -> sql.Identifier:
    return sql.Identifier(SCHEMA, name)


def columns(table: EventTable) -> sql.Composed:
    """Write the columns in the order of the archived rows."""
    return sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)


def raw(text: str) -> sql.SQL:
    """Take a piece of SQL from the manifest, if it is no more than a piece. Raises Damaged."""
    return sql.SQL(check_expression(text, "a definition"))  # type: ignore[arg-type]


def one_row(connection: Connection, query: LiteralString | sql.Composed, *values: object) -> tuple[Any, ...]:
    """Return the only row of a query that always has one."""
    row = connection.execute(query, values or None).fetchone()
    assert row is not None
    return row


@contextlib.contextmanager
def session(dsn: str) -> Generator[Connection]:
    """Open a session of a restore."""
    with contextlib.closing(connect(dsn, role="target", lock_timeout=LOCK_TIMEOUT)) as connection:
        for name, value in _SETTINGS.items():
            # Not every server knows each of them.
            with contextlib.suppress(psycopg.errors.UndefinedObject, psycopg.errors.InvalidParameterValue):
                connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        yield connection


def lock(connection: Connection, report: Report = silent) -> None:
    """Be the only restore in the database for as long as the session lasts. Raises Busy."""
    if one_row(connection, "SELECT pg_try_advisory_lock(%s)", _LOCK)[0]:
        return
    report(Warned(f"another restore runs in this database; waiting for it up to {LOCK_TIMEOUT.total_seconds():.0f} s"))
    try:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
    except psycopg.errors.LockNotAvailable as error:
        raise Busy(
            f"another restore is running in database {connection.info.dbname}",
            hint="Wait for it; `SELECT * FROM pg_locks WHERE locktype = 'advisory'` shows its session.",
        ) from error


def each(
    dsn: str,
    jobs: int,
    items: Iterable[T],
    work: Callable[[Connection, T], None],
    stop: threading.Event | None = None,
) -> None:
    """
    Work through items in order with `jobs` sessions.

    The first error, or an interruption, sets `stop`, cancels what the other sessions run, and is raised when these
    have ended.
    """
    queue = deque(items)
    stop = stop or threading.Event()

    def run(connection: Connection) -> None:
        with target_errors(dsn):
            while not stop.is_set():
                try:
                    item = queue.popleft()
                except IndexError:
                    return
                work(connection, item)

    with contextlib.ExitStack() as opened:
        # Here and not in the threads, so that an interruption finds each of them.
        sessions = [opened.enter_context(session(dsn)) for _ in range(min(jobs, len(queue)))]
        with ThreadPoolExecutor(len(sessions) or 1, thread_name_prefix="restore") as pool:
            futures = [pool.submit(run, connection) for connection in sessions]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                stop.set()
                _cancel_until(futures, sessions)
                raise


def _cancel_until(futures: Collection[Future[Any]], sessions: Collection[Connection]) -> None:
    """Cancel what sessions run until all work has ended: again and again, for it may be between two statements."""
    while not all(future.done() for future in futures):
        cancel(sessions)
        wait(futures, timeout=CANCEL_AGAIN.total_seconds())


class Beside:
    """Works with a session in a thread of its own, one thing after the other."""

    def __init__(self, connection: Connection, pool: ThreadPoolExecutor) -> None:
        self._connection, self._pool = connection, pool
        self._stop = threading.Event()
        self._futures: list[Future[Any]] = []

    def do(self, work: Callable[[threading.Event], T]) -> Future[T]:
        """
        Do it when what was asked for before is done; the event tells it to end early.

        Raises what went wrong so far.
        """
        for begun in self._futures:
            if begun.done():
                begun.result()
        future = self._pool.submit(work, self._stop)
        self._futures.append(future)
        return future

    def end(self) -> None:
        """Let nothing more begin, cancel what the session runs, and wait until that has ended."""
        self._stop.set()
        _cancel_until([future for future in self._futures if not future.cancel()], [self._connection])


@contextlib.contextmanager
def beside(connection: Connection) -> Generator[Beside]:
    """Let a thread work with a session while the block goes on; what ends the block before ends that, too."""
    with ThreadPoolExecutor(1, thread_name_prefix="restore") as pool:
        works = Beside(connection, pool)
        try:
            yield works
        except BaseException:
            works.end()
            raise


# The ledger


def create_ledger(connection: Connection, run: Run) -> None:
    connection.execute(
        sql.SQL(
            "CREATE TABLE {} (item text PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), detail jsonb)"
        ).format(named(LEDGER))
    )
    claim(connection, PLAN)
    note(connection, PLAN, run)


def claim(connection: Connection, item: str) -> bool:
    """
    Enter an item; False when it is there already.

    Waits for a session that is just entering the same one, such as the last breath of a killed restore.
    """
    query = sql.SQL("INSERT INTO {} (item) VALUES (%s) ON CONFLICT DO NOTHING").format(named(LEDGER))
    return connection.execute(query, (item,)).rowcount == 1


def note(connection: Connection, item: str, detail: DataclassInstance) -> None:
    """Enter what is to be known about an item that was claimed."""
    query = sql.SQL("UPDATE {} SET detail = %s, at = clock_timestamp() WHERE item = %s").format(named(LEDGER))
    connection.execute(query, (Jsonb(asdict(detail)), item))


def items(connection: Connection) -> frozenset[str]:
    """Name all that was entered."""
    return frozenset(item for (item,) in connection.execute(sql.SQL("SELECT item FROM {}").format(named(LEDGER))))


def noted(connection: Connection, item: str) -> dict[str, Any]:
    """Return what is known about an item that is there."""
    query = sql.SQL("SELECT detail FROM {} WHERE item = %s").format(named(LEDGER))
    return one_row(connection, query, item)[0]


def unfinished(connection: Connection) -> Run | None:
    """Return what the ledger of an unfinished restore says, if there is one."""
    there = one_row(
        connection,
        """SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %s AND c.relname IN (%s, %s) AND has_schema_privilege(n.oid, 'USAGE')""",
        SCHEMA,
        LEDGER,
        RESTORING,
    )[0]
    return read_run(connection) if there == len((LEDGER, RESTORING)) else None


def read_run(connection: Connection) -> Run | None:
    query = sql.SQL("SELECT detail FROM {} WHERE item = %s").format(named(LEDGER))
    row = connection.execute(query, (PLAN,)).fetchone()
    if row is None:
        return None
    detail: dict[str, Any] = row[0]
    detail |= {name: tuple(detail.get(name, ())) for name in ("schemas", "filled")}
    return Run(**detail)


def read_loaded(connection: Connection) -> dict[str, Loaded]:
    """Return what was loaded, by the names of the chunks."""
    query = sql.SQL("SELECT item, detail FROM {} WHERE starts_with(item, %s)").format(named(LEDGER))
    return {
        item: Loaded(
            detail["rows"], detail["raw_sha256"], tuple(detail["last"]), detail["instances"], detail["aggregate_types"]
        )
        for item, detail in connection.execute(query, (CHUNKS,))
    }
