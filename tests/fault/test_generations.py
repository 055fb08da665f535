"""
Histories that part: put back, promoted, copied, pointed at one archive by mistake.

tests/integration/test_continuity.py says how each is recognised. Here every one of them comes back as of
instants of its own, and never with a row of another's.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from tests.fix_archive import Backup, archived_rows, execute, restored, source_rows
from tests.fix_postgres import StartPostgres
from tests.fix_whole import Played
from tests.fixture_data import truths
from tests.history import create_schema, fill, push
from zbackup.archive.archive import Archive
from zbackup.backup import BackupResult
from zbackup.database.embedded import EmbeddedPostgres, standby_of
from zbackup.event import cursor_of, instant_text
from zbackup.verify import verify


def prepare(dsn: str, events: int = 300) -> None:
    with psycopg.connect(dsn) as connection:
        create_schema(connection)
        fill(connection, events=events, seed=3)


@dataclass
class Histories:
    """Backups of several sources into one archive, and what each source held at its last one."""

    archive: Archive
    back_up: Backup
    new_database: Callable[[], str]
    rows: dict[str, list[bytes]] = field(default_factory=dict[str, list[bytes]])
    """by generation"""
    marks: dict[str, str] = field(default_factory=dict[str, str])
    """aggregates that were written to one source alone, and the generation it was"""

    def live(self, dsn: str, mark: str) -> BackupResult:
        """Write an event that no other history has, and back up."""
        with psycopg.connect(dsn) as connection:
            push(connection, "i1", ("user", mark))
        result = self.back_up(dsn)
        assert source_rows(dsn) == archived_rows(self.archive)
        self.rows[result.generation] = source_rows(dsn)
        self.marks[mark] = result.generation
        return result

    def check(self) -> None:
        """Each history comes back as of its newest instants, without a row of another's."""
        for generation, rows in self.rows.items():
            for at in sorted({cursor_of(row).created_at for row in rows})[-4:]:
                target = self.new_database()
                restored(self.archive, target, instant_text(at), generation=generation)
                assert source_rows(target) == [row for row in rows if cursor_of(row).created_at <= at]
        assert verify(self.archive, level="full").ok

    def own(self, mark: str) -> bool:
        """Tell whether a mark is in the history that it was written to last, and in no other."""
        holding = {key for key, rows in self.rows.items() if any(f"\t{mark}\t".encode() in row for row in rows)}
        return holding == {self.marks[mark]}


@pytest.fixture
def histories(archive: Archive, back_up: Backup, new_database: Callable[[], str]) -> Histories:
    return Histories(archive, back_up, new_database)


def said(result: BackupResult, text: str) -> bool:
    return any(text in warning for warning in result.warnings)


def test_a_source_restored_in_place_is_a_new_history(histories: Histories, database: str) -> None:
    """
    The events of an older instant are restored into the same database, which is written on; it happens twice.
    """
    prepare(database)
    histories.live(database, "kept")
    point = instant_text(cursor_of(source_rows(database)[-1]).created_at)
    generations: set[str] = set()
    for number in range(3):
        result = histories.live(database, f"life{number}")

        assert number == 0 or said(result, "went back to an older state")
        assert number == 0 or said(result, f"generation {result.generation} begins")
        generations.add(result.generation)
        execute(database, "DROP SCHEMA eventstore CASCADE")
        restored(histories.archive, database, point)

    assert len(generations) == 3
    assert all(histories.own(f"life{number}") for number in range(3))
    histories.check()


def test_a_whole_zitadel_restored_is_a_new_history(
    histories: Histories, database_like: Callable[[str], str], back_up: Backup, archive: Archive
) -> None:
    """
    A whole ZITADEL is restored as of an older instant into another database and written on; the first one, too.
    """
    source, target = database_like("v4.13.1"), database_like("v4.13.1")
    played = Played(source, "v4.13.1", full=False)
    played.begin()
    ends = truths("v4.13.1")
    played.until(ends[0])
    back_up(source, capture=True)
    at = played.until(ends[1])
    first = back_up(source, capture=True)
    played.until(ends[-1])
    histories.live(source, "lost")
    restored(archive, target, instant_text(at), events_only=False)

    result = histories.live(target, "instead")
    again = histories.live(source, "after all")

    assert said(result, "another database than that of generation")
    assert said(again, "another source wrote generation")
    assert result.generation != first.generation == again.generation
    assert all(histories.own(mark) for mark in ("lost", "instead", "after all"))
    histories.check()


def test_a_primary_that_outlives_its_promoted_standby(histories: Histories, start_postgres: StartPostgres) -> None:
    """
    A standby is promoted, and both are written to and backed up in turn: two histories, each said.
    """
    primary = start_postgres()
    prepare(primary.dsn())
    histories.live(primary.dsn(), "before")
    with standby_of(primary) as standby:
        standby.promote()
        promoted = histories.live(standby.dsn(), "new life")
        back = histories.live(primary.dsn(), "old life")
        turns = [histories.live(server.dsn(), f"turn{number}") for number, server in enumerate([standby, primary] * 2)]

        assert said(back, "timeline went back")
        assert {promoted.generation, back.generation} == {turn.generation for turn in turns}
        assert all(said(turn, "another source wrote generation") for turn in turns)
        assert all(histories.own(mark) for mark in ("new life", "old life", *(f"turn{number}" for number in range(4))))
        histories.check()


def test_a_failover_that_lost_archived_rows(histories: Histories, start_postgres: StartPostgres) -> None:
    """
    What the archive holds of the lost end stays restorable, and the shorter history goes on beside it.
    """
    primary = start_postgres()
    prepare(primary.dsn())
    histories.live(primary.dsn(), "common")
    with standby_of(primary) as standby:
        standby.stop()
        histories.live(primary.dsn(), "lost")
        primary.stop()
        standby.start()
        standby.promote()

        result = histories.live(standby.dsn(), "found")
        second = histories.live(standby.dsn(), "goes on")

    assert said(result, "lost events")
    assert second.generation == result.generation
    assert not said(second, "generation")
    assert all(histories.own(mark) for mark in ("lost", "found", "goes on"))
    histories.check()


@contextmanager
def copied(server: EmbeddedPostgres, place: Path) -> Generator[EmbeddedPostgres]:
    """Run a copy of a server's files: the same system, database and timeline, as from a snapshot of a volume."""
    server.stop()
    subprocess.run(["cp", "-a", server.directory, place], check=True)
    server.start()
    copy = EmbeddedPostgres(place, bindir=server.bindir, settings=server.settings, port=0)
    with copy:
        yield copy


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that the server's user may enter, which pytest's own are not."""
    with EmbeddedPostgres(port=0) as nobody:
        yield nobody.directory / "copy"


def test_copies_that_look_the_same(histories: Histories, start_postgres: StartPostgres, place: Path) -> None:
    """
    Two servers that only their rows tell apart, backed up in turn: each goes on with its own history, and is told
    of the other's.
    """
    server = start_postgres()
    prepare(server.dsn())
    histories.live(server.dsn(), "common")
    with copied(server, place) as copy:
        mine = histories.live(server.dsn(), "mine")
        yours = histories.live(copy.dsn(), "yours")
        turns = [histories.live(one.dsn(), f"turn{number}") for number, one in enumerate([server, copy] * 2)]

    assert said(yours, "is not in the source any more")
    assert [turn.generation for turn in turns] == [mine.generation, yours.generation] * 2
    assert all(said(turn, "holds another history of this database") for turn in turns)
    assert all(histories.own(mark) for mark in ("mine", "yours", *(f"turn{number}" for number in range(4))))
    histories.check()


def test_sessions_of_a_copy_prove_nothing(
    archive: Archive, back_up: Backup, start_postgres: StartPostgres, place: Path
) -> None:
    """
    A run that waits for sessions that hide names their processes; on a copy these are not there, or are others,
    and sessions of its own hide since before that clock.
    """
    server = start_postgres()
    prepare(server.dsn())
    execute(server.dsn(), "CREATE ROLE blind LOGIN")
    for schema in ("eventstore", "system"):
        execute(server.dsn(), f"GRANT USAGE ON SCHEMA {schema} TO blind")
        execute(server.dsn(), f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO blind")
    back_up(server.dsn(user="blind"))
    with copied(server, place) as copy, psycopg.connect(copy.dsn()) as there, psycopg.connect(server.dsn()) as here:
        there.execute("SELECT 1")
        here.execute("SELECT 1")
        waiting = back_up(server.dsn(user="blind"), horizon_wait=timedelta(0))
        held = back_up(copy.dsn(user="blind"), horizon_wait=timedelta(0))
        push(there, "i1", ("user", "late"), clock="now")
        there.commit()

        result = back_up(copy.dsn(user="blind"))

        assert (waiting.horizon_basis, held.horizon_basis) == ("frozen", "frozen")
        assert not result.amended
        assert source_rows(copy.dsn()) == archived_rows(archive)
