"""
Prove an archive: that its objects are there, are what they were, and hold what the source holds.

Levels, each with all of those before: `quick` looks whether every object that a backup names exists with its
size; `sample` checks that manifests and indexes agree and ranges tile, and reads what the newest backup stored and
some of the rest, by chance, to compare digests; `default` reads them all; `full` decodes every chunk, counts and
hashes its rows and checks their order. `source` compares the newest log with a live database, row for row below the
horizon.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from zbackup.archive import names, records
from zbackup.archive.ancestry import ancestry_of
from zbackup.archive.archive import Archive
from zbackup.archive.catalog import Catalog
from zbackup.archive.chunk import texts
from zbackup.archive.facts import inspect_frame
from zbackup.archive.log import totals
from zbackup.archive.manifest import Ancestry, Capture, CapturedTable, ChunkRef, Manifest, ObjectRef
from zbackup.archive.names import BackupName
from zbackup.archive.needed import missing_parents
from zbackup.archive.plan import tiled
from zbackup.archive.reader import ChunkReader
from zbackup.archive.tombstones import Lists, border_of, read_lists
from zbackup.capture import lacking
from zbackup.compare import compare
from zbackup.database.connection import connect, source_errors
from zbackup.database.identity import read_identity
from zbackup.database.pace import Pace
from zbackup.errors import ArchiveError, Damaged, Different, ObjectMissing, ZbackupError
from zbackup.event import Cursor
from zbackup.progress import Advance, Report, Step, Warned, silent

T = TypeVar("T")
Level = Literal["quick", "sample", "default", "full"]

# What a sample reads of older objects: seconds of a night and cents of a bucket's traffic, whatever the archive's size.
SAMPLE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    object: str
    problem: str
    hint: str
    kind: Literal["damage", "source"] = "damage"


@dataclass(frozen=True, slots=True)
class VerifyResult:
    ok: bool
    level: Level
    findings: tuple[Finding, ...]
    backups: int
    chunks: int
    objects: int
    raw_bytes: int
    """decoded; 0 unless `full`"""
    orphans: int
    """objects that no backup names: leftovers of runs that died, or of one that is running"""
    seconds: float
    read: int = 0
    """objects whose bytes were read"""

    @property
    def fault(self) -> ZbackupError | None:
        """What is wrong, in short; None when nothing is."""
        if self.ok:
            return None
        first = self.findings[0]
        damaged = any(finding.kind == "damage" for finding in self.findings)
        more = f", and {len(self.findings) - 1} more" if len(self.findings) > 1 else ""
        return (Damaged if damaged else Different)(f"{first.object}: {first.problem}{more}", hint=first.hint)


@dataclass(slots=True)
class _Named:
    """Every object that some backup names, once."""

    chunks: dict[str, ChunkRef] = field(default_factory=dict[str, ChunkRef])
    others: dict[str, ObjectRef] = field(default_factory=dict[str, ObjectRef])
    tables: dict[str, CapturedTable] = field(default_factory=dict[str, CapturedTable])
    """captured tables by the names of their parts"""

    def size_of(self, name: str) -> int:
        held = self.chunks.get(name) or self.others[name]
        return held.stored_bytes

    def __iter__(self) -> Iterator[str]:
        yield from self.chunks
        yield from self.others


def verify(
    archive: Archive,
    *,
    level: Level = "default",
    source: str | None = None,
    jobs: int = 2,
    pace: Pace | None = None,
    report: Report = silent,
) -> VerifyResult:
    """
    Look at everything, and return all that is wrong instead of stopping at the first.

    The pace is that of reading the source; it serves for one call.
    """
    return _Verification(archive, level, jobs, report).run(source, pace or Pace())


class _Verification:
    def __init__(self, archive: Archive, level: Level, jobs: int, report: Report) -> None:
        self.archive, self.jobs, self.report = archive, jobs, report
        self.level: Level = level
        self.findings: list[Finding] = []
        self.raw_bytes = self.read = 0
        self.parents: dict[BackupName, str | None] = {}
        self.lacking: dict[BackupName, tuple[str, ...]] = {}
        self.lines: dict[str, tuple[Ancestry | None, bool]] = {}
        """what each manifest tells of its line, and whether it has a whole capture"""

    def run(self, source: str | None, pace: Pace) -> VerifyResult:
        begun = time.monotonic()
        self.report(Step("verify", self.level))
        sizes = {stat.name: stat.size for stat in self.archive.objects()}
        catalog = self._catalog(sizes)
        named = _Named()
        if not catalog.entries:
            self._found(names.MANIFESTS, "holds no manifest", "Nothing can be restored: run `zbackup backup`.")
        manifests = [entry for entry in catalog.entries if self._trying(str(entry), self._manifest, entry, named)]
        for name in named:
            if name not in sizes:
                self._found(name, "is missing", "Restore it from another copy of the archive.")
            elif sizes[name] != named.size_of(name):
                self._found(name, f"has {sizes[name]} bytes, {named.size_of(name)} are named", "Restore another copy.")
        if self.level != "quick":
            head = catalog.head()
            self._read(named, self._chosen(named, sizes, head.backup if head else ""))
            for name in sizes if self.level != "sample" else ():
                if name.startswith(names.RUNS):
                    self._trying(name, self.archive.run_record, name)
                elif name.startswith(names.RECORDS):
                    self._trying(name, records.read, self.archive, name)
        if source is not None:
            self._compare(catalog, source, pace)
        self._parents(catalog, self._value(names.TOMBSTONES, lambda: read_lists(self.archive)) or {})
        self._tell_lacking(catalog)
        held = set(named) | {str(entry) for entry in catalog.entries}
        orphans = [name for name in sizes if name not in held and name.startswith((names.EVENTS, names.TABLES))]
        return VerifyResult(
            ok=not self.findings,
            level=self.level,
            findings=tuple(self.findings),
            backups=len(manifests),
            chunks=len(named.chunks),
            objects=len(held),
            raw_bytes=self.raw_bytes,
            orphans=len(orphans),
            seconds=time.monotonic() - begun,
            read=self.read,
        )

    def _catalog(self, sizes: dict[str, int]) -> Catalog:
        return Catalog.of(
            name for name in sizes if name.startswith(names.MANIFESTS) and self._trying(name, BackupName.parse, name)
        )

    def _parents(self, catalog: Catalog, lists: Lists) -> None:
        for entry, parent in missing_parents(catalog, self.parents, border_of(lists)):
            self._found(str(entry), f"the backup it continues ({parent.backup}) is missing", "Look for its manifest.")

    def _tell_lacking(self, catalog: Catalog) -> None:
        """Tell what the newest backups were made without: it never was there, so nothing is damaged."""
        for entry in catalog.heads():
            if names_of := self.lacking.get(entry):
                self.report(
                    Warned(
                        f"backup {entry.backup}, the newest of generation {entry.generation}, was made without "
                        f"{', '.join(names_of)}",
                        "Run `zbackup doctor` against its source, then `zbackup backup`.",
                    )
                )

    def _manifest(self, entry: BackupName, named: _Named) -> None:
        """Collect what a backup names, proving its records and that its ranges tile."""
        manifest = self.archive.manifest(entry)
        self.parents[entry] = manifest.parent
        log: list[ChunkRef] = list(manifest.log.chunks)
        for index in reversed(manifest.log.indexes):
            named.others[index.name] = ObjectRef(index.name, index.sha256, index.stored_bytes)
            if held := self._value(index.name, lambda index=index: self.archive.index(index)):
                log[:0] = held
        for chunk in (*log, *manifest.tail, *(part for found in manifest.amendments for part in found.rows)):
            named.chunks[chunk.name] = chunk
        if manifest.capture is not None:
            reference = manifest.capture
            named.others[reference.name] = ObjectRef(reference.name, reference.sha256, reference.stored_bytes)
            if capture := self._value(reference.name, lambda: self.archive.capture(reference)):
                _name_capture(capture, named)
                self.lacking[entry] = lacking(capture)
        self.lines[str(entry)] = manifest.ancestry, manifest.captured
        if self.level != "quick":
            self._agrees(entry, manifest, log)
        self._continues(entry, manifest)

    def _continues(self, entry: BackupName, manifest: Manifest) -> None:
        """Hold what a manifest tells of its line against the one that it continues, if that was read."""
        parent = BackupName.parse(manifest.parent) if manifest.parent else None
        known, captured = self.lines.get(str(parent), (None, False))
        if manifest.ancestry is None or (parent is not None and known is None):
            return
        if manifest.ancestry != ancestry_of(entry.number, parent, known, captured=captured):
            raise Damaged(
                f"{entry}: what it tells of its line does not follow from the backup before it",
                hint="Nothing is lost, but `plan` may choose badly: name a backup with backup:ID. Report this.",
            )

    def _agrees(self, entry: BackupName, manifest: Manifest, log: list[ChunkRef]) -> None:
        tiled(log, manifest.tail)
        counted = (sum(chunk.rows for chunk in log), sum(chunk.raw_bytes for chunk in log), len(log))
        wanted = totals(manifest.log)
        if counted != (wanted.rows, wanted.raw_bytes, wanted.chunks) or wanted != manifest.sealed:
            raise Damaged(f"{entry}: its chunks do not add up to its totals", hint="Restore from another backup.")
        if log and manifest.horizon.at is not None and log[-1].hi > manifest.horizon.at:
            raise Damaged(f"{entry}: its log reaches above its horizon", hint="Restore from another backup.")

    def _chosen(self, named: _Named, sizes: dict[str, int], newest: str) -> list[str]:
        """Choose what to read of what is there; each sample is another one, so that in time all are read."""
        there = [name for name in named if name in sizes]
        if self.level != "sample":
            return there
        chosen = [name for name in there if newest in name]
        rest = [name for name in there if newest not in name]
        random.SystemRandom().shuffle(rest)
        left = SAMPLE_BYTES
        for name in rest:
            if left <= 0:
                break
            chosen.append(name)
            left -= sizes[name]
        return chosen

    def _read(self, named: _Named, chosen: list[str]) -> None:
        total = sum(named.size_of(name) for name in chosen)

        def one(name: str) -> None:
            self._trying(name, self._prove, name, named)
            self.report(Advance(0, named.size_of(name), total_bytes=total))

        with ThreadPoolExecutor(self.jobs) as pool:
            for _ in pool.map(one, chosen):
                pass
        self.read = len(chosen)

    def _prove(self, name: str, named: _Named) -> None:
        chunk = named.chunks.get(name)
        if self.level == "full" and chunk is not None:
            self._decode(chunk)
        elif self.level == "full" and name in named.tables:
            for block in self.archive.read_object(named.others[name]):
                self.raw_bytes += len(block)
                del block
        else:
            held = chunk or named.others[name]
            digest = hashlib.sha256()
            with closing(self.archive.store.open(name)) as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
            if digest.hexdigest() != held.sha256:
                raise Damaged(f"{name}: its bytes do not have their digest", hint="Restore it from another copy.")

    def _decode(self, chunk: ChunkRef) -> None:
        """Decode a chunk, check every row's place, and count as its trailer does."""
        last: Cursor | None = None
        instances: Counter[bytes] = Counter()
        types: Counter[bytes] = Counter()
        with closing(self.archive.store.open(chunk.name)) as stream:
            reader = ChunkReader(stream, chunk.name, chunk)
            for frame in reader:
                try:
                    facts = inspect_frame(frame, last)
                except (ValueError, IndexError) as error:
                    raise Damaged(f"{chunk.name}: {error}", hint="Restore it from another copy.") from error
                last = facts.last
                instances.update(facts.instances)
                types.update(facts.aggregate_types)
                self.raw_bytes += len(frame)
                del frame
            trailer = reader.trailer
        if (trailer.instances, trailer.aggregate_types) != (texts(instances), texts(types)):
            raise Damaged(f"{chunk.name}: its counts are not those of its rows", hint="Restore it from another copy.")

    def _compare(self, catalog: Catalog, source: str, pace: Pace) -> None:
        head = self._head_of(catalog, source)
        if head is None:
            return
        for difference in compare(
            self.archive, self.archive.manifest(head), source, pace, jobs=self.jobs, report=self.report
        ):
            self.findings.append(
                Finding(
                    difference.chunk,
                    difference.text,
                    "Run `zbackup backup --audit` if the source is right; if the archive is, look at what changed it.",
                    "source",
                )
            )

    def _head_of(self, catalog: Catalog, source: str) -> BackupName | None:
        """Return the newest backup of the source's own history; the newest of all where none is."""
        with source_errors(source), closing(connect(source)) as connection:
            there = read_identity(connection)
        for head in catalog.heads():
            manifest = self._value(str(head), lambda head=head: self.archive.manifest(head))
            known = manifest.source if manifest else None
            if known and (known.system_identifier, known.database_oid) == (there.system_identifier, there.database_oid):
                return head
        if catalog.entries:
            self.report(Warned("no generation is of this source; it is compared with the newest"))
        return catalog.head()

    def _value(self, name: str, read: Callable[[], T]) -> T | None:
        """Read something, or note why it cannot be read."""
        values: list[T] = []
        self._trying(name, lambda: values.append(read()))
        return values[0] if values else None

    def _trying(self, name: str, call: Callable[..., object], *values: object) -> bool:
        try:
            call(*values)
        except (ArchiveError, ObjectMissing) as error:
            self._found(name, error.message, error.hint)
            return False
        return True

    def _found(self, name: str, problem: str, hint: str) -> None:
        self.findings.append(Finding(name, problem, hint))


def _name_capture(capture: Capture, named: _Named) -> None:
    for ref in filter(None, (capture.pre_data, capture.post_data)):
        named.others[ref.name] = ref
    for table in capture.tables:
        if table.listed is not None:
            named.others[table.listed.name] = table.listed
        for part in table.parts:
            named.others[part.name] = part
            named.tables[part.name] = table
