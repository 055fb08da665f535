"""
Late commits: what writers and backups do, one step after the other, chosen by a seed, on a real PostgreSQL.

Everything happens in one thread, so that a seed gives the same order of statements each time; only the clocks
differ. A transaction keeps the aggregates it wrote to until its end, so that none waits for another's key.

A backup has places at which the writers go on: while it waits for sessions that hide, between its horizon and
its snapshot, and after its snapshot, where another backup may run from beginning to end. What the snapshot saw
is read right after it, before anybody goes on.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import make_conninfo

from tests.fix_archive import archived_rows, options, restored, source_rows
from tests.history import Clock, create_schema, push
from tests.integration.test_withheld import key_of, oracle
from zbackup.archive.archive import Archive
from zbackup.backup import BackupResult, backup
from zbackup.event import MICROSECOND, cursor_of, instant_text
from zbackup.progress import Progress, Step

Verb = Literal[
    "begin", "push", "savepoint", "rollback to", "fail", "commit", "rollback", "prepare",
    "commit prepared", "rollback prepared", "call", "resume", "backup",
]  # fmt: skip
Kind = Literal["other", "own", "silent"]
"""a session of another role than the reader's, of the same, or one with track_activities off"""
Reader = Literal["seeing", "blind"]
"""whether the backup may see the transactions of other roles"""

CLOCKS: tuple[Clock, ...] = ("now", "statement_timestamp", "clock_timestamp")
SESSIONS = 6
AGGREGATES = tuple(f"a{number}" for number in range(9))
INSTANCE = "i"

# Pushes, commits, waits until it is let go on, and pushes again: as old as its call, or as its second transaction.
PROCEDURE = """
CREATE FUNCTION eventstore.push_one(aggregate TEXT, clock TEXT) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    at TIMESTAMPTZ := CASE clock WHEN 'now' THEN now() ELSE statement_timestamp() END;
BEGIN
    INSERT INTO eventstore.events2 (instance_id, aggregate_type, aggregate_id, event_type, "sequence", revision,
        created_at, creator, "owner", "position", in_tx_order)
    SELECT 'i', 'user', aggregate, 'user.called', coalesce(max("sequence"), 0) + 1, 1, at, 'system', 'org',
        EXTRACT(EPOCH FROM CASE clock WHEN 'clock_timestamp' THEN clock_timestamp() ELSE at END), 0
      FROM eventstore.events2 WHERE instance_id = 'i' AND aggregate_type = 'user' AND aggregate_id = aggregate;
END $$;
CREATE PROCEDURE eventstore.push_twice(gate INT, one TEXT, two TEXT, clock TEXT) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM eventstore.push_one(one, clock);
    COMMIT;
    PERFORM pg_advisory_xact_lock(gate);
    PERFORM eventstore.push_one(two, clock);
END $$
"""


@dataclass(frozen=True, slots=True)
class Act:
    verb: Verb
    session: int = 0
    aggregates: tuple[str, ...] = ()
    clock: Clock = "now"
    number: int = 0
    """of a savepoint or a prepared transaction"""
    waiting: tuple[Act, ...] = ()
    """what happens while a backup waits for sessions that hide, or at its snapshot where it need not"""
    unseen: tuple[Act, ...] = ()
    """what happens between its horizon and its snapshot"""
    meanwhile: tuple[Act, ...] = ()
    """what happens while it reads"""


@dataclass(frozen=True, slots=True)
class Schedule:
    seed: int
    reader: Reader
    kinds: tuple[Kind, ...]
    acts: tuple[Act, ...]


def schedule(seed: int, length: int = 120) -> Schedule:
    """Choose what happens; afterwards all transactions have ended, and a last backup has seen it."""
    dice = random.Random(seed)
    reader: Reader = dice.choice(("seeing", "seeing", "seeing", "blind"))
    silent = reader == "blind" or dice.random() < 0.2
    choices: tuple[Kind, ...] = ("other", "own", "silent") if silent else ("other", "own")
    kinds: tuple[Kind, ...] = tuple(dice.choice(choices) for _ in range(SESSIONS))
    return Schedule(seed, reader, kinds, tuple(_Chooser(dice).choose(length)))


@dataclass(slots=True)
class _Writer:
    """What is known of a session while the schedule is made."""

    state: Literal["idle", "open", "failed", "calling"] = "idle"
    held: set[str] = field(default_factory=set[str])
    savepoints: int = 0


class _Chooser:
    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.writers = [_Writer() for _ in range(SESSIONS)]
        self.prepared: dict[int, set[str]] = {}
        self.named = 0

    def choose(self, length: int) -> Generator[Act]:
        for _ in range(length):
            yield self._backup(deep=True) if self.dice.random() < 0.1 else self._act()
        for number in tuple(self.prepared):
            yield self._finish(number)
        for session, writer in enumerate(self.writers):
            if writer.state != "idle":
                ends: tuple[Verb, ...] = ("resume",) if writer.state == "calling" else ("commit", "rollback")
                yield self._done(Act(self.dice.choice(ends), session))
        yield Act("backup")

    def _backup(self, *, deep: bool) -> Act:
        acts = [tuple(self._act() for _ in range(self.dice.choice((0, 0, 1, 3)))) for _ in range(3)]
        if deep and self.dice.random() < 0.2:
            acts[2] = (*acts[2], self._backup(deep=False), self._act())
        return Act("backup", waiting=acts[0], unseen=acts[1], meanwhile=acts[2])

    def _act(self) -> Act:
        if self.prepared and self.dice.random() < 0.15:
            return self._finish(self.dice.choice(tuple(self.prepared)))
        session = self.dice.randrange(SESSIONS)
        writer = self.writers[session]
        verbs: dict[Verb, float]
        match writer.state:
            case "idle":
                verbs = {"begin": 5, "push": 3, "call": 1}
            case "calling":
                verbs = {"resume": 1}
            case "failed":
                verbs = {"rollback to": 4 * bool(writer.savepoints), "rollback": 1, "commit": 1}
            case "open":
                verbs = {
                    "push": 6, "savepoint": 1, "rollback to": bool(writer.savepoints), "fail": 0.3,
                    "commit": 3, "rollback": 0.7, "prepare": 0.7,
                }  # fmt: skip
        verb = self.dice.choices(tuple(verbs), tuple(verbs.values()))[0]
        aggregates: tuple[str, ...] = ()
        if verb in {"push", "call"}:
            free = [name for name in AGGREGATES if all(name not in held for held in self._held(but=session))]
            wanted = 2 if verb == "call" else self.dice.choice((1, 1, 2, 3))
            aggregates = tuple(self.dice.sample(free, min(wanted, len(free))))
            if len(aggregates) < (2 if verb == "call" else 1):
                verb, aggregates = "commit" if writer.state == "open" else "begin", ()
        return self._done(Act(verb, session, aggregates, self.dice.choice(CLOCKS)))

    def _held(self, but: int) -> list[set[str]]:
        return [each.held for number, each in enumerate(self.writers) if number != but] + [*self.prepared.values()]

    def _done(self, act: Act) -> Act:
        """Note what an act changes."""
        writer = self.writers[act.session]
        match act.verb:
            case "begin":
                self.writers[act.session] = _Writer("open")
            case "push" if writer.state == "open":
                writer.held.update(act.aggregates)
            case "call":
                self.writers[act.session] = _Writer("calling", set(act.aggregates))
            case "savepoint":
                writer.savepoints += 1
                return replace(act, number=writer.savepoints)
            case "rollback to":
                writer.state = "open"
                number = self.dice.randint(1, writer.savepoints)
                writer.savepoints = number
                return replace(act, number=number)
            case "fail":
                writer.state = "failed"
            case "prepare":
                self.named += 1
                self.prepared[self.named] = writer.held
                self.writers[act.session] = _Writer()
                return replace(act, number=self.named)
            case "commit" | "rollback" | "resume":
                self.writers[act.session] = _Writer()
            case _:
                pass
        return act

    def _finish(self, number: int) -> Act:
        del self.prepared[number]
        ends: tuple[Verb, ...] = ("commit prepared", "commit prepared", "rollback prepared")
        return Act(self.dice.choice(ends), number=number)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one backup's snapshot saw, and what was sealed of it."""

    result: BackupResult
    rows: list[bytes]


@dataclass(slots=True)
class Stage:
    """The sessions of a schedule on an empty database, and the archive they are backed up into."""

    archive: Archive
    dsn: str
    plan: Schedule
    standby: str | None = None
    """the source, if it is not the database itself; the database is its fence then"""
    seen: list[Seen] = field(default_factory=list[Seen])
    done: int = 0
    """acts, those within backups included"""
    _dice: random.Random = field(init=False)
    _control: psycopg.Connection[Any] = field(init=False)
    _sessions: list[psycopg.Connection[Any]] = field(init=False)
    _reads_as: dict[str, str] = field(init=False)
    _source: str = field(init=False)

    @contextmanager
    def built(self) -> Generator[Stage]:
        """Make tables, role and sessions; take away what lies outside the database."""
        self._dice = random.Random(self.plan.seed)
        with ExitStack() as stack:
            self._control = stack.enter_context(psycopg.connect(self.dsn, autocommit=True))
            create_schema(self._control, state=False)  # type: ignore[arg-type]
            self._control.execute(PROCEDURE)
            role = f"late_{self._control.info.dbname}"
            name = sql.Identifier(role)
            self._control.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
            stack.callback(self._control.execute, sql.SQL("DROP ROLE {}").format(name))
            stack.callback(self._control.execute, sql.SQL("DROP OWNED BY {}").format(name))
            stack.callback(self._forget)
            for grant in ("USAGE ON SCHEMA", "SELECT, INSERT ON ALL TABLES IN SCHEMA"):
                self._control.execute(sql.SQL(f"GRANT {grant} eventstore TO {{}}").format(name))  # type: ignore[arg-type]
            blind = self.plan.reader == "blind"
            self._reads_as = {"user": role} if blind else {}
            # A standby whose timeline its reader may not see is assumed to lag: there the fence alone is blind.
            self._source = self.standby or make_conninfo(self.dsn, **self._reads_as)
            self._sessions = []
            for kind in self.plan.kinds:
                # A blind reader is the role itself, a seeing one the superuser: "own" is whichever reads.
                user = {"user": role} if blind == (kind == "own") else {}
                silent = {"options": "-c track_activities=off"} if kind == "silent" and not user else {}
                session = psycopg.connect(make_conninfo(self.dsn, **user, **silent), autocommit=True)
                self._sessions.append(stack.enter_context(session))
            self._replay()
            yield self

    def play(self) -> None:
        """Do everything, and hold what was archived against what was there."""
        for act in self.plan.acts:
            self._do(act)
        final = source_rows(self.dsn)
        last = self.seen[-1].result
        told = f"{last.horizon_basis}, {last.blockers}, {last.warnings}"
        assert self.seen[-1].rows == final, f"{set(self.seen[-1].rows) ^ set(final)}; {told}"
        assert not last.tail, f"what has ended is sealed: {told}"
        for seen in self.seen:
            at = seen.result.horizon
            if at is not None:
                assert _below(seen.rows, at) == _below(final, at), f"rows appeared below the horizon {at}"

    def check_instants(self, new_database: Callable[[], str], count: int) -> int:
        """Restore instants at and just before events; return how many events were withheld."""
        rows = source_rows(self.dsn)
        withheld = 0
        created = sorted({cursor_of(row).created_at for row in rows})
        torn = [at for at in created if oracle(self._control, at)]
        chosen = self._dice.sample(torn, min(len(torn), count // 2))
        others = [at - MICROSECOND * self._dice.randrange(2) for at in created[1:] if at not in chosen]
        chosen += self._dice.sample(others, min(len(others), count - len(chosen)))
        for at in chosen:
            target = new_database()
            result = restored(self.archive, target, instant_text(at))
            gone = oracle(self._control, at)
            wanted = [row for row in rows if cursor_of(row).created_at <= at and key_of(row) not in gone]
            assert source_rows(target) == wanted, f"at {at}"
            assert (result.withheld, result.final) == (len(gone), True)
            withheld += len(gone)
        return withheld

    def _do(self, act: Act) -> None:
        self.done += 1
        session = self._sessions[act.session]
        match act.verb:
            case "push":
                push(session, INSTANCE, *(("user", name) for name in act.aggregates), clock=act.clock)
            case "fail":
                with suppress(psycopg.errors.DivisionByZero):
                    session.execute("SELECT 1 / 0")
            case "savepoint":
                session.execute(f"SAVEPOINT s{act.number}".encode())
            case "rollback to":
                session.execute(f"ROLLBACK TO s{act.number}".encode())
            case "prepare":
                session.execute(f"PREPARE TRANSACTION '{self._gid(act)}'".encode())
            case "commit prepared" | "rollback prepared":
                self._control.execute(f"{act.verb} '{self._gid(act)}'".encode())
            case "call":
                self._call(act)
            case "resume":
                self._control.execute("SELECT pg_advisory_unlock(%s)", (act.session,))
                self._await_result(session)
            case "backup":
                self._back_up(act)
            case _:
                session.execute(act.verb.encode())

    def _gid(self, act: Act) -> str:
        return f"{self._control.info.dbname} {act.number}"

    def _call(self, act: Act) -> None:
        """Let a procedure run up to where it has committed; it goes on with `resume`."""
        session = self._sessions[act.session]
        self._control.execute("SELECT pg_advisory_lock(%s)", (act.session,))
        one, two = act.aggregates
        session.pgconn.send_query(
            f"CALL eventstore.push_twice({act.session}, '{one}', '{two}', '{act.clock}')".encode()
        )
        while session.pgconn.flush():
            time.sleep(0.001)
        waits = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid = %s"
        self._until(lambda: self._control.execute(waits, (session.info.backend_pid,)).rowcount == 1)

    def _await_result(self, session: psycopg.Connection[Any]) -> None:
        while (result := session.pgconn.get_result()) is not None:
            assert result.status == pq.ExecStatus.COMMAND_OK, result.error_message.decode()

    def _back_up(self, act: Act) -> None:
        saw: list[list[bytes]] = []
        left = {"waiting": act.waiting, "unseen": act.unseen, "meanwhile": act.meanwhile}

        def go_on(*places: str) -> None:
            for place in places:
                for inner in left.pop(place, ()):
                    self._do(inner)

        def report(progress: Progress) -> None:
            match progress:
                case Step("horizon", detail) if "hide" in detail:
                    go_on("waiting")
                case Step("snapshot"):
                    self._pause_replay()
                    go_on("waiting", "unseen")
                    if self._dice.random() < 0.5:
                        self._replay()
                case Step("export"):
                    saw.append(source_rows(self._source))
                    self._replay()
                    go_on("meanwhile")
                case _:
                    pass

        fence = None if self.standby is None else make_conninfo(self.dsn, **self._reads_as)
        # Long enough for a replay; at the end nobody is left whom it would wait for in vain.
        wait = 30 if act is self.plan.acts[-1] else 0 if self.standby is None else 1
        chosen = options(horizon_wait=timedelta(seconds=wait), chunk_bytes=4 << 10)
        result = backup(self.archive, self._source, chosen, fence=fence, report=report)
        manifest = self.archive.manifest(self.archive.catalog().find(result.backup))
        self.seen.append(Seen(result, saw[-1]))
        assert archived_rows(self.archive, manifest) == saw[-1]
        assert not result.amended, result.warnings

    def _pause_replay(self) -> None:
        """Let the standby show nothing more, so that what a snapshot saw can be read after it."""
        if self.standby is not None:
            with psycopg.connect(self.standby, dbname="postgres", autocommit=True) as session:
                session.execute("SELECT pg_wal_replay_pause()")
                state = "SELECT WHERE pg_get_wal_replay_pause_state() = 'paused'"
                self._until(lambda: session.execute(state).rowcount == 1)

    def _replay(self) -> None:
        """Let the standby show all that is there."""
        if self.standby is not None:
            row = self._control.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
            with psycopg.connect(self.standby, dbname="postgres", autocommit=True) as session:
                session.execute("SELECT pg_wal_replay_resume()")
                state = "SELECT WHERE pg_last_wal_replay_lsn() >= %s"
                self._until(lambda: session.execute(state, row).rowcount == 1)

    def _until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.005)

    def _forget(self) -> None:
        """End what a failed schedule left behind."""
        for session in self._sessions:
            session.cancel_safe(timeout=5)
            session.close()
        left = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        for (gid,) in self._control.execute(left).fetchall():
            self._control.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))


@dataclass(frozen=True, slots=True)
class Tally:
    acts: int
    backups: int
    events: int
    withheld: int


def perform(
    seed: int,
    archive: Archive,
    new_database: Callable[[], str],
    *,
    standby: Callable[[str], str] | None = None,
    instants: int = 4,
) -> Tally:
    """
    Play the schedule of a seed and restore some instants of it.

    `standby` turns the DSN of a database on the primary into that of the same on its standby.
    """
    dsn = new_database()
    stage = Stage(archive, dsn, schedule(seed), standby(dsn) if standby else None)
    try:
        with stage.built():
            stage.play()
            withheld = stage.check_instants(new_database, instants)
    except Exception as error:
        error.add_note(f"seed {seed}, act {stage.done}: scripts/soak late --seed {seed}")
        raise
    return Tally(stage.done, len(stage.seen), len(stage.seen[-1].rows), withheld)


def _below(rows: Iterable[bytes], at: datetime) -> list[bytes]:
    return [row for row in rows if cursor_of(row).created_at < at]
