"""Real histories of real servers, out and back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import psycopg
import pytest

from tests import fixture_data
from tests.fix_archive import Backup, archived_rows, restored, source_rows
from tests.fixture_data import VERSIONS, columns, commits, full_place, rows, shifted, truths
from zbackup.archive.archive import Archive
from zbackup.archive.withhold import withheld
from zbackup.event import cursor_of, instant_text

FULL = [pytest.param(False, id="compact")]
if full_place() is not None:
    FULL.append(pytest.param(True, id="full"))


@pytest.mark.parametrize("full", FULL)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_captured_instant_comes_back(
    archive: Archive, database: str, back_up: Backup, new_database: Callable[[], str], version: str, *, full: bool
) -> None:
    """
    Arbitrary slices of a real history, all dated in the past, are appended between backups with an audit; the
    log equals the source each time, and every captured instant is restored row for row.
    """
    rng = random.Random(version)
    total = len(rows(version, full=full))
    edges = sorted({0, total, *(rng.randrange(total) for _ in range(4))})
    with psycopg.connect(database) as connection:
        for lo, hi in pairwise(edges):
            fixture_data.load(connection, version, slice(lo, hi), full=full)
            result = back_up(audit=True, chunk_bytes=1 << 20)

            assert source_rows(database) == archived_rows(archive)
            assert hi - lo == (result.events if lo == 0 else result.amended)
    everything = source_rows(database)
    for truth in truths(version, full=full):
        target = new_database()

        result = restored(archive, target, instant_text(truth.time))

        wanted = [row for row in everything if cursor_of(row).created_at <= truth.time]
        assert truth.events == len(wanted) == result.events
        assert wanted == source_rows(target)
        assert (0, True) == (result.withheld, result.final)


@dataclass
class Transaction:
    begin: datetime
    commit: datetime
    rows: list[bytes] = field(default_factory=list[bytes])


def transactions(version: str, limit: int) -> list[Transaction]:
    found: dict[int, Transaction] = {}
    names = columns(version)
    for row, commit in list(zip(rows(version), commits(version), strict=True))[:limit]:
        at = datetime.fromisoformat(row.split(b"\t")[names.index("created_at")].decode())
        one = found.setdefault(commit.transaction, Transaction(at, commit.time))
        one.begin = min(one.begin, at)
        one.rows.append(row)
    return list(found.values())


def actions(version: str, limit: int) -> Iterator[tuple[str, Transaction]]:
    """Tell who began and who committed, in the order in which it happened."""
    happened = [
        entry
        for one in transactions(version, limit)
        for entry in ((one.begin, 0, "begin", one), (max(one.commit, one.begin), 1, "commit", one))
    ]
    for _, _, kind, one in sorted(happened, key=lambda entry: entry[:2]):
        yield kind, one


class Replay:
    """Plays a history again, now: the same transactions, overlapping as they did, dated by this server's clock."""

    def __init__(self, dsn: str, version: str, stack: ExitStack) -> None:
        self._dsn, self._version, self._stack = dsn, version, stack
        self._idle: list[psycopg.Connection[tuple[object, ...]]] = []
        self._busy: dict[int, psycopg.Connection[tuple[object, ...]]] = {}

    def begin(self, one: Transaction) -> None:
        connection = self._idle.pop() if self._idle else self._stack.enter_context(psycopg.connect(self._dsn))
        self._busy[id(one)] = connection
        row = connection.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        assert isinstance(row[0], datetime)
        by = row[0] - one.begin
        names = columns(self._version)
        listed = ", ".join(f'"{name}"' for name in names)
        with connection.cursor() as cursor, cursor.copy(f"COPY eventstore.events2 ({listed}) FROM STDIN") as copy:  # type: ignore[arg-type]
            for line in one.rows:
                copy.write(shifted(line, by, names))

    def commit(self, one: Transaction) -> None:
        connection = self._busy.pop(id(one))
        connection.commit()
        self._idle.append(connection)


# The compact part of `main` ends before its callers begin.
@pytest.mark.parametrize("version", ["v4.13.1", "v2.71.19"])
def test_a_history_played_again_is_backed_up_while_it_happens(
    archive: Archive, database: str, back_up: Backup, new_database: Callable[[], str], version: str
) -> None:
    """
    Backups run between the begins and commits of a real evening. Each holds exactly what its snapshot saw, none
    needs an amendment, and any instant in between comes back as the plain definition says.
    """
    rng = random.Random(3)
    instants: list[datetime] = []
    with ExitStack() as stack:
        with psycopg.connect(database) as connection:
            fixture_data.load(connection, version, slice(0, 0), tables="none")
        replay = Replay(database, version, stack)
        steps = list(actions(version, 2500))
        stops = {rng.randrange(len(steps)) for _ in range(8)}
        watch = stack.enter_context(psycopg.connect(database, autocommit=True))
        late = 0
        for number, (kind, one) in enumerate(steps):
            getattr(replay, kind)(one)
            late += kind == "commit" and number + 1 < len(steps) and steps[number + 1][0] == "commit"
            if number in stops:
                row = watch.execute("SELECT clock_timestamp()").fetchone()
                assert row is not None
                instants.append(row[0])
                assert not back_up().amended
                assert source_rows(database) == archived_rows(archive)
        back_up()
    everything = source_rows(database)
    assert late, "transactions overlapped"
    assert everything == archived_rows(archive)
    for at in [*rng.sample(instants, 2), cursor_of(rng.choice(everything)).created_at]:
        target = new_database()

        result = restored(archive, target, instant_text(at))

        before = [cursor_of(row) for row in everything if cursor_of(row).created_at <= at]
        after = [cursor_of(row) for row in everything if cursor_of(row).created_at > at]
        gone = withheld(before, after, None)
        wanted = [row for row in everything if (found := cursor_of(row)).created_at <= at and found not in gone]
        assert len(gone) == result.withheld
        assert wanted == source_rows(target)


def test_a_shifted_row_keeps_position_and_time_equal() -> None:
    """
    The replay itself keeps what holds on real servers: position = epoch of created_at.
    """
    names = columns("v4.13.1")
    row = shifted(rows("v4.13.1")[7], timedelta(hours=13, microseconds=5), names)

    fields = dict(zip(names, row.rstrip(b"\n").split(b"\t"), strict=True))

    at = datetime.fromisoformat(fields["created_at"].decode())
    assert Decimal(fields["position"].decode()) == Decimal(int(at.timestamp())) + Decimal(at.microsecond).scaleb(-6)
