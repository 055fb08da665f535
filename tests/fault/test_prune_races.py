"""
A backup and a prune at the same time: at every interleaving of their calls to the store, what is committed is whole.

They run in threads before one gate that lets one call pass at a time. The archive is made to tempt: the source has
gone back to a state whose objects only an old capture names, and a run died and left chunks. The window is nothing, so
that whatever no backup names is put on a list, the chunks of the running backup among it. CI takes a sample of the
interleavings; ZBACKUP_INTERLEAVINGS=N takes every N-th, 1 all (docs/development.md).
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from tests.fix_archive import Backup, archived_rows, execute, newest, options, restored, source_rows
from tests.fix_whole import all_rows
from tests.fix_zitadel import add_user, clock, whole
from tests.gate import ALL, Ahead, Clock, Gate, Gated
from tests.history import create_schema, fill, fill_state, push
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import Manifest
from zbackup.archive.names import BackupName
from zbackup.archive.needed import KeepCaptures, Rules
from zbackup.backup import backup
from zbackup.errors import Overtaken, StoreError
from zbackup.event import instant_text
from zbackup.init import init
from zbackup.prune import prune
from zbackup.store.local import LocalStore
from zbackup.verify import verify

STEP = int(os.environ.get("ZBACKUP_INTERLEAVINGS", "0"))
SAMPLE = 3
"""Interleavings of each kind where nothing is said."""

pytestmark = [pytest.mark.slow, *([pytest.mark.timeout(0)] if STEP else [])]

GRACE = timedelta(hours=2)
RULES = Rules(timedelta(0), KeepCaptures.parse("1"))
CHOSEN = options(jobs=1, capture=True, pg_dump="/nonexistent/pg_dump", chunk_bytes=64 << 10)

TABLES = ("eventstore.events2", "eventstore.unique_constraints", "projections.users14")

Turns = Sequence[tuple[str, int]]


@dataclass
class Tempting:
    """An archive, its source, and what comes of a backup and prunes at once on copies of it."""

    path: Path
    source: str
    place: Path
    overtaken: str = ""
    """why the last backup was not committed"""

    def run(self, turns: Turns) -> list[tuple[str, str]]:
        """
        Let `backup`, `list` and `remove` take turns on a copy; return who called what.

        `remove` is a prune for which the lists are due; both prunes list what is new to them.
        """
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.path, self.place)
        clock, gate, failed, self.overtaken = Clock(), Gate(turns), list[BaseException](), ""

        def running(who: str) -> None:
            later = GRACE if who == "remove" else timedelta(0)
            archive = Archive.open(LocalStore(self.place))
            archive.store = Gated(archive.store, gate, who, clock, later=later)
            try:
                self._back_up(archive) if who == "backup" else self._prune(archive)
            except BaseException as error:
                failed.append(error)
            finally:
                gate.end(who)

        threads = [threading.Thread(target=running, args=(who,)) for who in {who for who, _ in turns}]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
        calls = list(gate.calls)
        self.archive = Archive.open(LocalStore(self.place))
        self.archive.store = Gated(self.archive.store, gate, "after", clock)
        return calls

    def check(self) -> None:
        """What is due by now is removed; all that is named is whole, and the newest backup has the source's rows."""
        whole = archived_rows(self.archive) == source_rows(self.source)
        assert whole or self.overtaken
        for _ in range(2):
            self.archive.store.ahead.ahead += GRACE  # type: ignore[attr-defined]
            self._prune(self.archive)
            found = verify(self.archive, level="full")
            assert found.ok, found.findings
            assert (archived_rows(self.archive) == source_rows(self.source)) == whole
        manifest = newest(self.archive)
        assert manifest.capture is not None
        names = {f"{table.schema}.{table.name}" for table in self.archive.capture(manifest.capture).tables}
        assert names >= {"system.assets", "system.encryption_keys", "projections.instances"}

    def _back_up(self, archive: Archive) -> None:
        try:
            backup(archive, self.source, CHOSEN)
        except Overtaken as error:
            self.overtaken = error.message

    def _prune(self, archive: Archive) -> None:
        prune(archive, RULES, grace=GRACE, yes=True)


class Died(StoreError):
    """What the run that left its chunks ended with."""


class DiesAtCommit(Archive):
    def commit(self, manifest: Manifest) -> BackupName:
        raise Died(f"before the commit of {manifest.backup}")


@pytest.fixture
def tempting(new_database: Callable[[], str], tmp_path: Path) -> Tempting:
    source = new_database()
    with psycopg.connect(source) as connection:
        create_schema(connection)
        fill_state(connection)
        fill(connection, events=300)
    store = LocalStore(tmp_path / "tempting", create=True)
    init(store)
    archive = Archive.open(store)
    backup(archive, source, CHOSEN)
    execute(source, "UPDATE projections.instances SET name = 'other'")
    execute(source, "UPDATE system.assets SET data = data || 'x'::bytea")
    with psycopg.connect(source) as connection:
        push(connection, "i1", ("user", "second"))
    backup(archive, source, CHOSEN)
    execute(source, "UPDATE projections.instances SET name = 'ZITADEL'")
    execute(source, "UPDATE system.assets SET data = substring(data FROM 1 FOR 5000)")
    with psycopg.connect(source) as connection:
        push(connection, "i1", ("user", "third"))
    with pytest.raises(Died):
        backup(DiesAtCommit(store, archive.record), source, CHOSEN)
    return Tempting(tmp_path / "tempting", source, tmp_path / "copy")


KINDS: dict[str, Callable[[int, int], Turns]] = {
    "a backup while a list is made": lambda i, j: [("backup", i), ("list", j), ("backup", ALL), ("list", ALL)],
    "a list while a backup runs": lambda i, j: [("list", j), ("backup", i), ("list", ALL), ("backup", ALL)],
    "a backup while things go": lambda i, j: [
        ("list", ALL), ("backup", i), ("remove", j), ("backup", ALL), ("remove", ALL),
    ],
    "things go while a backup runs": lambda i, j: [
        ("list", ALL), ("remove", j), ("backup", i), ("remove", ALL), ("backup", ALL),
    ],
    "both within one backup": lambda i, j: [
        ("backup", i), ("list", ALL), ("remove", j), ("backup", ALL), ("remove", ALL),
    ],
}  # fmt: skip


def last_look(calls: Sequence[tuple[str, str]]) -> int:
    """Return how many calls a backup has made when it has looked at the lists for the last time before its commit."""
    return next(number for number, (_, what) in enumerate(calls) if what.startswith("put manifests/"))


def sampled(first: int, second: int) -> Iterator[tuple[int, int]]:
    """Yield pairs of numbers of calls: all, every N-th, or a few that meet each part of both."""
    if STEP:
        yield from [(one, other) for one in range(first + 1) for other in range(second + 1)][::STEP]
        return
    for number in range(SAMPLE):
        yield first * (number + 1) // (SAMPLE + 1), second * (1 + number * 3 % SAMPLE) // SAMPLE


def test_a_backup_and_a_prune_at_every_interleaving(tempting: Tempting, new_database: Callable[[], str]) -> None:
    """
    Lists are made and things go before, during and after each part of a backup: it is whole, or it is not committed and
    says that a prune overtook it, and what it needed stays.
    """
    calls = tempting.run([("list", ALL), ("remove", ALL), ("backup", ALL)])
    tempting.check()
    counts = {who: sum(caller == who for caller, _ in calls) for who in ("backup", "list", "remove")}
    commit = last_look(tempting.run([("backup", ALL)]))
    overtaken = Counter[str]()
    for kind, turns in KINDS.items():
        other = counts["remove" if "go" in kind or "both" in kind else "list"]
        for pair in sampled(counts["backup"], other):
            if "both" in kind and pair[0] == commit:
                continue  # the next test
            try:
                tempting.run(turns(*pair))
                tempting.check()
            except BaseException as error:
                error.add_note(f"{kind} {pair} of {counts}")
                raise
            overtaken[kind] += bool(tempting.overtaken)
        restored(tempting.archive, new_database())

    # Only where the grace passes within one run.
    assert set(+overtaken) == {"both within one backup"}


def test_a_commit_that_stood_still_for_the_whole_grace(tempting: Tempting) -> None:
    """
    Between its last look at the lists and its commit nothing can help a backup: it says that it is not whole, and which
    object is to be removed; then the next one is.
    """
    commit = last_look(tempting.run([("backup", ALL)]))

    tempting.run([("backup", commit), ("list", ALL), ("remove", ALL), ("backup", ALL)])

    head = tempting.archive.catalog().head()
    assert head is not None
    assert f"backup {head.backup} was committed and is not whole" in tempting.overtaken
    assert not verify(tempting.archive).ok
    tempting.archive.store.delete(str(head))
    backup(tempting.archive, tempting.source, CHOSEN)
    tempting.overtaken = ""
    tempting.check()


def test_a_list_that_comes_with_the_commit(tempting: Tempting) -> None:
    """
    What a backup finds on a list after its commit it stores again, and commits again; both are whole.
    """
    calls = tempting.run([("backup", ALL)])
    before = len(tempting.archive.catalog().entries)

    tempting.run([("backup", last_look(calls)), ("list", ALL), ("backup", ALL)])

    line = tempting.archive.catalog().entries
    assert len(line) == before + 1
    assert line[-1].parent == line[-2].random
    tempting.check()


def test_captures_kept_longer_than_the_window(
    archive: Archive, back_up: Backup, source: str, new_database: Callable[[], str]
) -> None:
    """
    An instant after an old capture starts warm from it, as before, when the backups in between have gone: the capture
    has kept its tail, and what was amended since is known.
    """

    def add(name: str) -> None:
        with psycopg.connect(source) as connection:
            add_user(connection, name)

    add("in-the-tail")
    captured = back_up(source, capture=True, margin=timedelta(hours=1))
    add("since")
    point = instant_text(clock(source))
    for name in ("later", "last"):
        add(name)
        back_up(source)
    execute(source, "DELETE FROM eventstore.events2 WHERE aggregate_id = 'u-in-the-tail'")
    for _ in range(3):
        back_up(source, audit=True)
    store = Ahead(archive.store)
    pruned = Archive(store, archive.record)

    def comes_back() -> tuple[str, bool, dict[str, list[str] | None]]:
        target = new_database()
        found = whole(pruned, target, point)
        return found.capture, bool(found.unit.cold), all_rows(target, TABLES)

    before, there = comes_back(), len(archive.catalog().entries)
    prune(pruned, RULES, grace=GRACE, yes=True)
    store.ahead.ahead += GRACE
    result = prune(pruned, RULES, grace=GRACE, yes=True)

    assert captured.tail > 0
    assert before[:2] == (captured.backup, False)
    assert result.removed > 0
    assert len(archive.catalog().entries) < there
    assert comes_back() == before
    assert verify(pruned, level="full").ok
