"""
Killed at any call to store or database, and run again: nothing lost, nothing half done, nothing done twice.

The program runs as a process that kills itself (ZBACKUP_DIE_AT, zbackup/mortal.py). One undisturbed run counts the
calls; then it dies before or after some of them, spread over the run, and around the last ones. With
ZBACKUP_KILLS=1 it dies before and after each, which takes an hour, with 5 at every fifth.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from tests.cli import conftest as cli
from tests.cli.conftest import Zbackup
from tests.fix_archive import archived_rows, newest, source_rows
from tests.fix_store import bare_client
from tests.fix_whole import all_rows, one
from tests.fix_zitadel import add_user, found, set_state, zitadel
from tests.forked import Ended, forked
from tests.history import Command, push
from zbackup.archive.archive import Archive
from zbackup.archive.names import EVENTS, MANIFESTS, RUNS, ChunkName
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.database.target import LEDGER, Receipt
from zbackup.store.local import LocalStore

bare, zbackup = cli.bare, cli.zbackup

STEP = int(os.environ.get("ZBACKUP_KILLS", "0"))

pytestmark = [pytest.mark.slow, *([pytest.mark.timeout(0)] if STEP else [])]

# Several slices, several chunks, no waiting; one worker, so that a number means the same call in each run, unless
# a test wants them to mix.
BACKUP = ("--jobs", "1", "--chunk-bytes", "64KiB", "--horizon-margin", "0s")

FINAL, LOADING = "eventstore.events2", "eventstore.events2_restoring"

FIELDS = "eventstore.fields"

FILLED = {"system.encryption_keys", "system.assets", "projections.users14", "projections.users14_humans"}

TABLES = (FIELDS, "eventstore.unique_constraints", *FILLED)


@dataclass(frozen=True)
class Call:
    number: int
    what: str


def run_until(moment: int, *arguments: str) -> Ended:
    """Run a command as a process that dies at a call."""
    ended = forked(*arguments, "--json", ZBACKUP_DIE_AT=str(moment))
    # Timing decides about some calls, so that one near the end may not come.
    assert ended.code in {0, -signal.SIGKILL}, ended.err
    return ended


def calls_of(*arguments: str) -> list[Call]:
    """Run a command undisturbed, and return its calls."""
    lines = re.findall(r"^(\d+) ([A-Z].*)$", run_until(0, *arguments).err, re.MULTILINE)
    return sorted((Call(int(number), what) for number, what in lines), key=lambda call: call.number)


def moments(calls: list[Call], spread: int, last: int, always: Iterable[int] = ()) -> list[int]:
    """Choose where to die: `spread` calls over the run, before and after in turn, and around the `last` ones."""
    total = len(calls)
    assert total > last, calls
    if STEP:
        return [sign * number for number in range(total, 0, -STEP) for sign in (1, -1)]
    step = (total - last) / spread
    chosen = [round(step * (index + 0.5)) or 1 for index in range(spread)]
    signed = [number if index % 2 else -number for index, number in enumerate(chosen)]
    ends = [sign * (total - back) for back in range(last) for sign in (1, -1)]
    return [*signed, *always, *ends]


def objects(folder: Path) -> dict[str, bytes]:
    """Return what the store lists, whole."""
    store = LocalStore(folder)
    return {stat.name: store.get(stat.name) for stat in store.list("")}


def verify(zbackup: Zbackup, archive: Path) -> None:
    """See that all is well; an archive may have no backup yet."""
    ran = zbackup("verify", "--full", "--archive", str(archive), "--json")
    problems = [finding["object"] for finding in ran.result["findings"]]
    nothing_yet = not any(name.startswith(MANIFESTS) for name in objects(archive))
    assert problems == ([MANIFESTS] if nothing_yet else []), ran.out


class Databases:
    """Databases of a server that live as long as a block."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server, self.made = server, 0

    @contextmanager
    def like(self, template: str = "template0") -> Generator[str]:
        """Make a database like another, to which nobody may be connected."""
        self.made += 1
        name = f"kill{os.getpid()}_{self.made}"
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            statement = SQL("CREATE DATABASE {} TEMPLATE {}")
            connection.execute(statement.format(Identifier(name), Identifier(template)))
            try:
                yield self.server.dsn(name)
            finally:
                connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


@pytest.fixture
def databases(postgres: EmbeddedPostgres) -> Databases:
    return Databases(postgres)


def write_users(dsn: str, first: int, many: int) -> None:
    """Append users, two to a push, with payloads that fill chunks."""
    with psycopg.connect(dsn) as connection:
        for number in range(first, first + many, 2):
            profile = [Command("user", f"p{number + n}", payload={"text": f"{number + n} " * 150}) for n in range(2)]
            push(connection, "i1", *profile)
            connection.commit()
        connection.execute("ANALYZE eventstore.events2")


@pytest.fixture
def source(new_database: Callable[[], str]) -> str:
    """The DSN of a ZITADEL with a few chunks of events and some state."""
    dsn = new_database()
    zitadel(dsn)
    with psycopg.connect(dsn) as connection:
        found(connection, "i1")
        add_user(connection, "one")
        connection.execute("INSERT INTO projections.users14 VALUES ('u-one', 'i1', 'one')")
        connection.execute("INSERT INTO projections.users14_humans VALUES ('u-one', 'i1', 'one@example.com')")
        connection.execute(
            "INSERT INTO system.assets VALUES ('i1', '4', 'o1', 'logo', 'image/png', DEFAULT, 'bytes', now())"
        )
        connection.commit()
        set_state(connection, "projections.users14")
    write_users(dsn, 0, 400)
    return dsn


@pytest.fixture
def new_archive(bare: Path, zbackup: Zbackup) -> Path:
    path = bare / "archive"
    assert zbackup("init", "--archive", str(path)).code == 0
    return path


def backed_up(zbackup: Zbackup, archive: Path, source: str) -> dict[str, Any]:
    ran = zbackup("backup", "--archive", str(archive), "--source", source, *BACKUP, "--json")
    assert ran.code == 0, ran.err
    return ran.result


def finished_slices(archive: Path) -> int:
    """Count the slices that the newest run record names and whose last chunk is there."""
    opened = Archive.open(LocalStore(archive))
    names = [stat.name for stat in opened.store.list(RUNS)]
    if not names:
        return 0
    record = opened.run_record(max(names, key=lambda name: name.partition("_")[2]))
    if any(record.backup in stat.name for stat in opened.store.list(MANIFESTS)):
        return 0
    stored = (ChunkName.parse(stat.name) for stat in opened.store.list(f"{EVENTS}{record.backup}/"))
    ended = {name.slice for name in stored if name is not None and name.last}
    return len(ended & {part.name for part in record.slices})


def test_nothing_dies_unless_told(bare: Path) -> None:
    """
    Without the variable the program does not even load what could kill it.
    """
    script = (
        "import sys, zbackup.cli.main as program\n"
        "try:\n    program.run()\n"
        "finally:\n    print('zbackup.mortal' in sys.modules)"
    )
    command = [sys.executable, "-c", script, "init", "--archive", str(bare / "archive")]

    done = subprocess.run(command, check=True, capture_output=True, text=True)

    assert done.stdout.endswith("False\n")


def test_a_killed_init_can_be_run_again(bare: Path, zbackup: Zbackup) -> None:
    """
    Whatever a killed `init` left, the next one makes the archive, or finds that it is made.
    """
    calls = calls_of("init", "--archive", str(bare / "counted"))
    for moment in moments(calls, spread=5, last=2):
        path = bare / f"killed{moment}"
        run_until(moment, "init", "--archive", str(path))
        made = path.exists() and any(name.startswith("archive/") for name in objects(path))
        again = zbackup("init", "--archive", str(path))

        assert again.code == 0 or (made and "is an archive already" in again.err), (moment, again.err)
        verify(zbackup, path)


@dataclass(frozen=True)
class Backups:
    """A backup to be killed, and what must hold afterwards."""

    zbackup: Zbackup
    databases: Databases
    archive: Path
    """before it"""
    source: str
    flags: tuple[str, ...] = ()

    def arguments(self, archive: Path) -> tuple[str, ...]:
        return ("backup", "--archive", str(archive), "--source", self.source, *BACKUP, *self.flags)

    def calls(self) -> list[Call]:
        with self._copy("counted") as archive:
            return calls_of(*self.arguments(archive))

    def kill(self, moment: int) -> tuple[int, dict[str, Any]]:
        """Die, look, run again, look; returns the slices left behind, and the result of the second run."""
        with self._copy("killed") as archive:
            there = objects(archive)
            run_until(moment, *self.arguments(archive))
            left_behind = objects(archive)
            assert there.items() <= left_behind.items(), moment
            verify(self.zbackup, archive)
            left = finished_slices(archive)
            again = self.zbackup(*self.arguments(archive), "--json")
            assert again.code == 0, (moment, again.err)
            taken_over = any("its slices are taken over" in text for text in again.result["warnings"])
            assert taken_over == (left > 0), (moment, left)
            assert left_behind.items() <= objects(archive).items(), moment
            verify(self.zbackup, archive)
            self._holds_the_source(archive)
            return left, again.result

    def _holds_the_source(self, archive: Path) -> None:
        opened = Archive.open(LocalStore(archive))
        wanted = source_rows(self.source)
        assert archived_rows(opened, newest(opened)) == wanted
        with self.databases.like() as target:
            ran = self.zbackup("restore", "--archive", str(archive), "--target", target, "--events-only")
            assert ran.code == 0, ran.err
            assert source_rows(target) == wanted

    @contextmanager
    def _copy(self, name: str) -> Generator[Path]:
        copy = self.archive.with_name(name)
        shutil.copytree(self.archive, copy)
        try:
            yield copy
        finally:
            shutil.rmtree(copy)


def before(calls: list[Call], part: str, nth: int = 1) -> int:
    """Return the moment just before the n-th call whose name has that part."""
    return [call.number for call in calls if part in call.what][nth - 1]


def after(calls: list[Call], part: str, nth: int = 1) -> int:
    return -before(calls, part, nth)


def test_a_killed_first_backup(new_archive: Path, source: str, databases: Databases, zbackup: Zbackup) -> None:
    """
    The archive stays sound, the next run adopts the slices that were finished and uploads the rest, not all.
    """
    backups = Backups(zbackup, databases, new_archive, source)
    calls = backups.calls()
    chunks = [call for call in calls if "put events/" in call.what and "/s" in call.what]
    assert len(chunks) > 2

    for moment in moments(calls, spread=4, last=2, always=[after(calls, "put runs/"), -chunks[1].number]):
        backups.kill(moment)

    _, fresh = backups.kill(1)
    left, adopting = backups.kill(before(calls, "put manifests/"))
    assert left == len(chunks)
    assert adopting["stored_bytes"] < fresh["stored_bytes"] / 2


def test_a_killed_increment(new_archive: Path, source: str, databases: Databases, zbackup: Zbackup) -> None:
    """
    What was backed up before stays as it is, and the next run brings the rest.
    """
    backed_up(zbackup, new_archive, source)
    write_users(source, 1000, 200)
    backups = Backups(zbackup, databases, new_archive, source, ("--jobs", "2"))
    calls = backups.calls()

    for moment in moments(calls, spread=4, last=2, always=[after(calls, "put events/")]):
        backups.kill(moment)


def test_a_killed_amendment(new_archive: Path, source: str, databases: Databases, zbackup: Zbackup) -> None:
    """
    Old rows that changed and came late are amended by the next run, whole, and counted once.
    """
    backed_up(zbackup, new_archive, source)
    write_users(source, 1000, 50)
    with psycopg.connect(source) as connection:
        connection.execute("""UPDATE eventstore.events2 SET payload = '{"new": 1}' WHERE aggregate_id = 'p7'""")
        row = connection.execute("SELECT created_at FROM eventstore.events2 WHERE aggregate_id = 'p200'").fetchone()
        assert row is not None
        push(connection, "i1", ("user", "late"), clock=row[0].astimezone(UTC) + timedelta(microseconds=1))
    backups = Backups(zbackup, databases, new_archive, source, ("--audit",))
    calls = backups.calls()
    commit = before(calls, "put manifests/")

    for moment in moments(calls, spread=4, last=2, always=[after(calls, "put events/", 2)]):
        _, again = backups.kill(moment)
        committed = moment == -commit or abs(moment) > commit
        assert again["amended"] == (0 if committed else 2), moment


def test_a_killed_backup_into_a_bucket(
    aws_env: None, moto_endpoint: str, source: str, databases: Databases, zbackup: Zbackup
) -> None:
    """
    On S3 the archive stays sound, too, and the next run goes on.
    """
    with contextlib.closing(bare_client(moto_endpoint)) as client:
        client.create_bucket(Bucket="of-the-killed")

    def at(prefix: str, command: str, *flags: str) -> tuple[str, ...]:
        where = ("--archive", f"s3://of-the-killed/{prefix}", "--s3-endpoint", moto_endpoint, "--s3-addressing", "path")
        return (command, *where, *flags)

    def into(prefix: str) -> tuple[str, ...]:
        assert zbackup(*at(prefix, "init")).code == 0
        return at(prefix, "backup", "--source", source, *BACKUP)

    calls = calls_of(*into("counted"))
    for moment in (after(calls, "put events/", 2), before(calls, "put manifests/"), after(calls, "put manifests/")):
        prefix = f"killed{moment}"
        arguments = into(prefix)
        assert run_until(moment, *arguments).code == -signal.SIGKILL
        again = zbackup(*arguments, "--json")
        assert again.code == 0, again.err
        assert zbackup(*at(prefix, "verify", "--full")).code == 0
        if moment > 0:
            assert "of its slices are taken over" in " ".join(again.result["warnings"])
        with databases.like() as target:
            assert zbackup(*at(prefix, "restore", "--target", target, "--events-only")).code == 0
            assert source_rows(target) == source_rows(source)


# Restores

State = tuple[list[bytes], dict[str, list[str] | None]]
"""events, and the rows of other tables"""


def work_in(dsn: str, events: str, tables: Iterable[str]) -> set[tuple[Any, ...]]:
    """
    Name what was done: each event by its key and each row by the transaction that wrote it, each index by its file.

    Without the events of setup, which publishing edits.
    """
    with psycopg.connect(dsn) as connection:
        keys = f"""SELECT instance_id, aggregate_type, aggregate_id, "sequence", xmin::text FROM {events}
                    WHERE aggregate_type <> 'system'"""
        done = set(connection.execute(keys.encode()))
        files = "SELECT indexrelid::text, pg_relation_filenode(indexrelid) FROM pg_index WHERE indrelid = %s::regclass"
        done |= set(connection.execute(files, (events,)))
        for table in tables:
            done |= set(connection.execute(f"SELECT '{table}', ctid::text, xmin::text FROM {table}".encode()))
        return done


def filled(dsn: str) -> list[str]:
    """Return which tables of `FILLED` the ledger names."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            f"SELECT substr(item, 7) FROM eventstore.{LEDGER} WHERE item LIKE 'table %%'".encode()
        )
        return sorted(FILLED & {table for (table,) in rows})


def is_there(dsn: str, table: str) -> bool:
    return one(dsn, "SELECT to_regclass(%s) IS NOT NULL", table)


def events_of(dsn: str) -> list[bytes]:
    """Read the events; those of setup are dated by the clock of each restore."""
    return [row for row in source_rows(dsn) if b"SYSTEM" not in row]


def state_of(dsn: str) -> State:
    tables = all_rows(dsn, TABLES)
    # A row of permissions gets a random id from the column's default.
    tables[FIELDS] = sorted(row.partition(",")[2] for row in tables[FIELDS] or [])
    return events_of(dsn), tables


def told(result: dict[str, Any]) -> dict[str, Any]:
    """Return what a restore says that two of them must say alike."""
    keys = ("events", "at", "final", "withheld", "added", "generation", "backup", "proof", "mode")
    return {key: result[key] for key in keys}


@dataclass(frozen=True)
class Restores:
    """A restore to be killed, and what must hold afterwards."""

    zbackup: Zbackup
    databases: Databases
    archive: Path
    flags: tuple[str, ...] = ()
    template: str = "template0"

    def arguments(self, target: str) -> tuple[str, ...]:
        return ("restore", "--archive", str(self.archive), "--target", target, "--jobs", "1", *self.flags)

    def calls(self) -> list[Call]:
        with self.databases.like(self.template) as target:
            return calls_of(*self.arguments(target))

    def undisturbed(self) -> tuple[dict[str, Any], State]:
        with self.databases.like(self.template) as target:
            ran = self.zbackup(*self.arguments(target), "--json")
            assert ran.code == 0, ran.err
            return told(ran.result), state_of(target)

    def kill(self, moment: int, wanted: tuple[dict[str, Any], State]) -> int:
        """Die, look, run again, look; returns how much of the work was not done again."""
        with self.databases.like(self.template) as target:
            untouched = work_in(target, FINAL, ()) if is_there(target, FINAL) else None
            archived = objects(self.archive)
            run_until(moment, *self.arguments(target))
            settled(target)
            done = self._done(target)
            if not done and is_there(target, FINAL):
                assert untouched == work_in(target, FINAL, ()), moment
                assert not is_there(target, f"eventstore.{LEDGER}"), moment
            loading = is_there(target, LOADING)
            work = work_in(target, LOADING, filled(target)) if loading else set[tuple[Any, ...]]()
            if done:
                assert events_of(target) == wanted[1][0], moment
            again = self.zbackup(*self.arguments(target), "--json")
            assert again.code == 0, (moment, again.err)
            assert again.result["done_before"] == done, moment
            assert told(again.result) == wanted[0], moment
            assert state_of(target) == wanted[1], moment
            assert work <= work_in(target, FINAL, FILLED if self.flags == () else ()), moment
            assert objects(self.archive) == archived
            return len(work)

    def _done(self, target: str) -> bool:
        if not is_there(target, FINAL):
            return False
        comment = one(target, f"SELECT obj_description('{FINAL}'::regclass, 'pg_class')")
        return Receipt.of_text(comment) is not None


def settled(dsn: str) -> None:
    """Wait until the server has noticed that the sessions of a dead process are gone."""
    deadline = datetime.now(UTC) + timedelta(seconds=30)
    query = """SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'zbackup'"""
    while one(dsn, query):
        assert datetime.now(UTC) < deadline


@pytest.mark.parametrize("kind", ["empty", "prepared", "events only"])
def test_a_killed_restore(
    new_archive: Path,
    source: str,
    databases: Databases,
    new_database: Callable[[], str],
    zbackup: Zbackup,
    kind: str,
) -> None:
    """
    The events have their final name and are complete, or have it not; a rerun ends as if nothing had happened, and
    loads nothing twice.
    """
    backed_up(zbackup, new_archive, source)
    template = "template0"
    if kind == "prepared":
        prepared = new_database()
        zitadel(prepared)
        template = one(prepared, "SELECT current_database()")
    flags = ("--events-only",) if kind == "events only" else ()
    restores = Restores(zbackup, databases, new_archive, flags, template)
    calls = restores.calls()
    wanted = restores.undisturbed()
    loads = [call.number for call in calls if "copy_end" in call.what]
    assert len(loads) > 3

    kept = [
        restores.kill(moment, wanted) for moment in moments(calls, spread=5, last=3, always=[loads[1] + 1, loads[-1]])
    ]

    assert len({work for work in kept if work}) > 1
