"""
Writers that race on one archive, and what must hold of it after each race.

The source stands still while they do, so that every backup that is said to be made holds exactly its rows.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import psycopg

from tests.archived import continued
from tests.fix_archive import Rows, options, restored, source_rows
from tests.fix_store import BUCKET, bare_client, make_bucket
from tests.fix_vices import Meeting
from tests.history import create_schema, fill, push
from zbackup.archive import names
from zbackup.archive.archive import Archive
from zbackup.archive.folders import rank
from zbackup.archive.manifest import Manifest
from zbackup.archive.names import BackupName
from zbackup.archive.rows import split_rows
from zbackup.backup import BackupResult, backup
from zbackup.errors import Busy
from zbackup.init import init
from zbackup.store.base import Store
from zbackup.store.local import LocalStore
from zbackup.store.s3 import S3Store
from zbackup.verify import verify

WRITERS = 4

MEETINGS = ("manifests/", "manifests/", "runs/", "events/", "tables/", "")
"""Where the writers of a race wait for each other, '' for not at all; commits are the most interesting."""


@dataclass(frozen=True)
class Place:
    """Where an archive lies."""

    connect: Callable[[], Store]
    """a store with connections of its own"""
    digests: Callable[[], dict[str, str]]
    """what lies there, seen past zbackup: names and what tells their bytes apart"""


def folder_place(path: Path) -> Place:
    def digests() -> dict[str, str]:
        files = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".tmp-"))
        return {file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    LocalStore(path, create=True)
    return Place(lambda: LocalStore(path), digests)


def s3_place(endpoint: str, prefix: str) -> Place:
    """A part of the tests' bucket. Its servers answer with an object's MD5 as its ETag; rclone at times with none."""

    def digests() -> dict[str, str]:
        def md5(key: str) -> str:
            return hashlib.md5(client.get_object(Bucket=BUCKET, Key=key)["Body"].read()).hexdigest()

        with closing(bare_client(endpoint)) as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
            found = [(entry["Key"], entry["ETag"].strip('"')) for page in pages for entry in page.get("Contents", [])]
            return {key.removeprefix(f"{prefix}/"): etag or md5(key) for key, etag in found}

    make_bucket(endpoint)
    return Place(lambda: S3Store(BUCKET, prefix, endpoint=endpoint, addressing="path"), digests)


@dataclass
class Tally:
    races: int = 0
    backups: int = 0
    refused: int = 0
    """writers that a lease turned away"""
    most: int = 0
    """backups that shared a number"""
    objects: int = 0


@dataclass
class Races:
    """An archive, a small source, and writers that race; each has a store of its own."""

    place: Place
    source: str
    new_database: Callable[[], str]
    random: random.Random
    writers: list[Meeting]
    tally: Tally = field(default_factory=Tally)
    seen: dict[str, str] = field(default_factory=dict[str, str])
    """every object that was ever seen, and its digest then"""
    made: list[str] = field(default_factory=list[str])
    """ids of the backups that were reported"""
    decoded: dict[str, Rows] = field(default_factory=dict[str, Rows])
    """rows of chunks, which do not change as long as `seen` holds"""

    def race(self) -> None:
        """Let all writers back the source up at once, check what they made, and let one run follow."""
        self._push()
        meeting = self.random.choice(MEETINGS)
        place = threading.Barrier(WRITERS)
        margins = [self.random.choice((timedelta(0), timedelta(hours=1))) for _ in self.writers]

        def write(writer: Meeting, margin: timedelta) -> BackupResult | None:
            writer.kind, writer.place = meeting, place
            try:
                return backup(Archive.open(writer), self.source, options(jobs=1, margin=margin))
            except BaseException as error:
                place.abort()
                if isinstance(error, Busy):
                    return None
                raise
            finally:
                writer.kind = ""

        with ThreadPoolExecutor(WRITERS) as pool:
            made = [result for result in pool.map(write, self.writers, margins) if result]
        self.tally.races += 1
        self.tally.refused += WRITERS - len(made)
        assert made, "nobody made a backup"
        self._check(made)
        self._follow(made)

    def race_to_commit(self, times: int) -> None:
        """
        Let all writers commit at once, again and again, each a manifest of its own that continues the newest one.

        Before every fifth they store one object that all of them need, as captures do.
        """
        archives = [Archive.open(writer) for writer in self.writers]
        head = archives[0].catalog().entries[-1]
        for number in range(times):
            parent, together = archives[0].manifest(head), threading.Barrier(WRITERS)
            shared = self.random.randbytes(100)
            mine = [_continued(parent, head, self.random) for _ in archives]

            def write(archive: Archive, manifest: Manifest) -> BackupName:
                together.wait(60)  # noqa: B023  all of them end before the next one begins
                if number % 5 == 0:  # noqa: B023
                    archive.put(names.table_object(hashlib.sha256(shared).hexdigest()), shared)  # noqa: B023
                return archive.commit(manifest)

            with ThreadPoolExecutor(WRITERS) as pool:
                made = list(pool.map(write, archives, mine))
            self.tally.races += 1
            self.tally.backups += len(made)
            self.made += [entry.backup for entry in made]
            if number % 10 == 9:
                self._nothing_changed()
                assert {str(entry) for entry in made} <= self.seen.keys()
            head = max(made, key=rank)
        assert head == archives[0].catalog().head()

    def finish(self, restores: int) -> Tally:
        """Restore some of the backups by their ids, and verify everything."""
        archive = Archive.open(self.writers[0])
        entries = archive.catalog().entries
        assert sorted(self.made) == sorted(entry.backup for entry in entries)
        for entry in self.random.sample(entries, min(restores, len(entries))):
            target = self.new_database()
            restored(archive, target, f"backup:{entry.backup}")
            assert self._rows(archive, entry) == source_rows(target)
        result = verify(archive, level="full")
        assert () == result.findings
        assert len(entries) == result.backups
        self._nothing_changed()
        self.tally.objects = len(self.seen)
        return self.tally

    def follow(self) -> None:
        """Let some runs follow whatever raced; it is told of, but not for ever."""
        archive = Archive.open(self.writers[0])
        newest = archive.catalog().entries[-1].number
        self._follow([entry for entry in archive.catalog().entries if entry.number == newest])
        later = [backup(archive, self.source, options(jobs=1)) for _ in range(2)]
        self.made += [result.backup for result in later]
        assert not [warning for warning in later[-1].warnings if "raced" in warning]

    def _push(self) -> None:
        with psycopg.connect(self.source) as connection:
            for number in range(self.random.randint(1, 3)):
                push(connection, "i1", ("user", f"u{self.tally.races}-{number}"))

    def _nothing_changed(self) -> None:
        now = self.place.digests()
        assert self.seen == {name: digest for name, digest in now.items() if name in self.seen}
        self.seen = {name: digest for name, digest in now.items() if not name.startswith("leases/")}

    def _check(self, made: list[BackupResult]) -> None:
        """Each success is listed under its id and holds the source's rows; nothing that was there is different."""
        self._nothing_changed()
        archive = Archive.open(self.writers[0])
        catalog, rows = archive.catalog(), source_rows(self.source)
        for result in made:
            assert rows == self._rows(archive, catalog.find(result.backup))
        self.tally.backups += len(made)
        self.made += [result.backup for result in made]

    def _follow(self, raced: list[BackupResult] | list[BackupName]) -> None:
        """The next run continues one backup; where others are beside it, it says so and names them."""
        archive = Archive.open(self.writers[0])
        before = archive.catalog()
        entries = [before.find(result.backup) for result in raced]
        newest = [entry for entry in entries if entry.number == max(entry.number for entry in entries)]
        self.tally.most = max(self.tally.most, len(newest))
        self._push()
        result = backup(archive, self.source, options(jobs=1))
        catalog = archive.catalog()
        line = tuple(catalog.line(catalog.find(result.backup)))[::-1]
        beside = [entry for entry in entries if entry not in line and entry.number >= newest[0].number - 1]
        told = " ".join(warning for warning in result.warnings if warning.startswith("runs raced: continuing"))
        assert line[-2] in newest
        assert len(set(newest) & set(line)) == 1
        assert bool(told) == bool(beside)
        assert all(entry.backup in told for entry in beside)
        assert not beside or f"continuing {line[-2].backup};" in told
        self.made.append(result.backup)
        self._nothing_changed()

    def _rows(self, archive: Archive, entry: BackupName) -> Rows:
        manifest = archive.manifest(entry)
        rows: Rows = []
        for chunk in (*archive.chunks(manifest.log), *manifest.tail):
            if chunk.name not in self.decoded:
                self.decoded[chunk.name] = [row for frame in archive.read(chunk) for row in split_rows(frame)]
            rows += self.decoded[chunk.name]
        return rows


@contextmanager
def races(place: Place, new_database: Callable[[], str], seed: int) -> Generator[Races]:
    """Make an archive and a source of a few dozen events."""
    source = new_database()
    with psycopg.connect(source) as connection:
        create_schema(connection)
        fill(connection, events=40, seed=seed)
    with ExitStack() as stack:
        writers = [Meeting(stack.enter_context(closing(place.connect()))) for _ in range(WRITERS)]
        init(writers[0])
        try:
            yield Races(place, source, new_database, random.Random(seed), writers)
        except Exception as error:
            error.add_note(f"seed {seed}: scripts/soak races --seed {seed}")
            raise


def _continued(parent: Manifest, entry: BackupName, random: random.Random) -> Manifest:
    backup_id = f"{parent.backup[:-8]}{random.getrandbits(32):08x}"
    return replace(continued(parent, entry), backup=backup_id)
