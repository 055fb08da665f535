"""One run on one snapshot: what backup.py promises, step by step."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from zbackup import __version__
from zbackup.archive import FORMAT, names
from zbackup.archive.archive import Archive
from zbackup.archive.chunk import CHUNK_BYTES, Header
from zbackup.archive.log import LogEdit, totals, totals_of
from zbackup.archive.manifest import (
    CaptureRef,
    ChunkRef,
    Log,
    Manifest,
    RunRecord,
    Slice,
)
from zbackup.archive.sink import Sink, Written
from zbackup.archive.tombstones import Watch
from zbackup.audit import LAST_DAYS, Audit, reasons_for
from zbackup.capture import CaptureOptions, capture, previous_capture
from zbackup.commit import commit
from zbackup.compact import compact
from zbackup.continuity import Continuity, check_newest_frame, choose_parent, descent, equal_chunks
from zbackup.counting import mark
from zbackup.database.connection import Connection, same_server, shown
from zbackup.database.export import counters, counts, cut
from zbackup.database.horizon import Horizon, refuse_subscriber, settle
from zbackup.database.identity import read_identity
from zbackup.database.kept import Sessions
from zbackup.database.pace import Pace
from zbackup.database.shape import events_files, find_events_table, zitadel_version
from zbackup.database.snapshot import Snapshot, Workers
from zbackup.errors import SourceError, SourceRefused
from zbackup.event import BEGINNING, END, span_text
from zbackup.progress import Report, Step, Warned
from zbackup.resume import Adopted, adopt
from zbackup.seal import UpgradeWatch, seal, tiled, unseen
from zbackup.source import Counters, EventTable


@dataclass(frozen=True, slots=True)
class BackupOptions:
    jobs: int = 2
    rate_limit: int | None = None
    """raw bytes a second that all workers read together"""
    low_impact: bool = False
    """short statements with rests between them; to go with one job"""
    capture: bool = True
    auth_requests: bool = False
    """capture logins under way, too"""
    audit: bool = False
    """compare all rows with the source"""
    audit_budget: timedelta = timedelta(seconds=2)
    audit_recent: timedelta = LAST_DAYS
    """how far below the horizon all is counted, whatever the budget"""
    margin: timedelta = timedelta(seconds=10)
    """below the oldest transaction seen, for those that have taken their clock but do not show it yet"""
    horizon_wait: timedelta = timedelta(seconds=30)
    standby_lag: timedelta = timedelta(seconds=60)
    lock_timeout: timedelta = timedelta(seconds=30)
    pg_dump: str | None = None
    spool: str | None = None
    chunk_bytes: int = CHUNK_BYTES


class Rewritten(SourceError):
    """The events table was rewritten or truncated while it was read."""


class Attempt:
    """One run from the horizon to the commit, on one snapshot."""

    archive: Archive
    table: EventTable
    snapshot: Snapshot
    workers: Workers
    pool: Executor
    continuity: Continuity
    parent: Manifest | None
    """the backup whose generation this one continues"""
    at: datetime | None
    """the horizon: never below the parent's"""
    counters: Counters | None
    """as they were read"""
    explained: Counters | None
    """as the next run is to compare with them"""
    sink: Sink
    tail_seconds: float

    def __init__(
        self,
        archive: Archive,
        source: Sessions,
        options: BackupOptions,
        report: Report,
        control: Connection,
        primary: Connection | None,
    ) -> None:
        self.archive, self.sessions, self.options, self.report = archive, source, options, report
        self.control, self.primary = control, primary
        self.started = datetime.now(UTC)
        self.id = names.backup_id(self.started, secrets.token_hex(4))
        self.warnings: list[str] = []
        self.written = Written()
        self.lacking: tuple[str, ...] = ()
        """what the capture should hold and does not"""
        self.expected_rows = 0
        """by the planner's guess"""

    def make(self) -> Manifest:
        """Do it all; the manifest is committed when this returns."""
        self.report(Step("connect", shown(self.sessions.dsn)))
        found = find_events_table(self.control)
        refuse_subscriber(self.control, found.oid)
        self.table, self.files = found.table, found.files
        self.source = read_identity(self.control).source(zitadel_version(self.control))
        self.watch = Watch(self.archive)
        self.catalog = self.archive.catalog()
        self.number = self.catalog.next_number()
        self.continuity = choose_parent(self.archive, self.catalog.without(self.watch.absent), self.source)
        # Before the horizon and the snapshot: what the counters hold by now is seen in the snapshot.
        self.counters = self.explained = self._read_counters(found.oid)
        self.horizon = self._settle(found.oid)
        self.report(Step("snapshot"))
        pace = Pace(self.options.rate_limit, low_impact=self.options.low_impact)
        with (
            Snapshot(self.sessions) as self.snapshot,
            Workers(self.sessions, self.snapshot, self.options.jobs, self.options.lock_timeout, pace) as self.workers,
            ThreadPoolExecutor(self.options.jobs) as self.pool,
        ):
            if not same_server(self.control, self.snapshot.catalog):
                raise SourceRefused(
                    f"{shown(self.sessions.dsn)}: two sessions reached two servers",
                    hint="Name one host: several hosts, or a load balancer, give sessions that share no snapshot.",
                )
            try:
                return self._read()
            except BaseException:
                self.workers.cancel()
                raise

    def _read_counters(self, table_oid: int) -> Counters | None:
        """Read them where they count: those of a standby do not move with what it replays."""
        if self.source.standby and self.primary is None:
            self._warn(
                "a standby does not count what its primary updates and deletes: only --audit sees it, or --fence"
            )
            return None
        found = counters(self.primary or self.control, table_oid)
        if found is None and not counts(self.primary or self.control):
            self._warn("track_counts is off at the source: what is updated or deleted there only --audit sees")
        return found

    def _settle(self, table_oid: int) -> Horizon:
        self.report(Step("horizon"))
        parent = self.continuity.parent if self.continuity.continues else None
        horizon = settle(
            self.control,
            table_oid=table_oid,
            last=parent.horizon.at if parent else None,
            pending=parent.horizon.pending if parent else None,
            own_pids=self.sessions.pids | {self.control.info.backend_pid},
            margin=self.options.margin,
            wait=self.options.horizon_wait,
            fence=self.primary,
            standby_lag=self.options.standby_lag,
            report=self.report,
        )
        self._warn(*horizon.warnings)
        return horizon

    def _read(self) -> Manifest:
        if events_files(self.snapshot.catalog) != self.files:
            raise Rewritten(f"{self._name} was replaced before it was read")
        with self.workers.borrow() as worker, worker.transaction() as connection:
            self.continuity = check_newest_frame(self.continuity, self.archive, connection, self.table)
        self._warn(*self.continuity.warnings)
        self.parent = self.continuity.parent if self.continuity.continues else None
        upgrades = UpgradeWatch()
        self.at = self.horizon.at
        if self.horizon.basis == "frozen":
            # Frozen where the history that was asked about ended; this may be another one.
            self.at = self.parent.horizon.at if self.parent else None
        if self.parent is not None and self.parent.horizon.at is not None:
            self.at = max(self.at or BEGINNING, self.parent.horizon.at)
        left = self._left_behind(upgrades)
        known = self.parent or left
        self.generation = known.generation if known else secrets.token_hex(4)
        self.sink = self._sink(upgrades)
        edit = LogEdit(self.archive, self.parent.log if self.parent else Log())
        low = (self.parent.horizon.at if self.parent else None) or BEGINNING
        if self.parent is None and self.continuity.parent is not None and self.at is not None:
            edit.append(self._taken_over(self.continuity.parent, self.at))
            low = edit.end()
        sealed = self._seal(low, left)
        self._compact(edit)
        upgraded = upgrades.seen
        tail = self._tail()
        # Rows of the parent's tail were counted as inserted before it.
        read = totals_of(sealed).rows + totals_of(tail).rows
        read -= totals_of(self.parent.tail).rows if self.parent else 0
        audit = self._audit(edit, low, read, upgraded=upgraded)
        edit.append(tiled(sealed, edit.end()))
        captured = self._capture()
        if events_files(self.control) != self.files:
            raise Rewritten(f"{self._name} was rewritten or truncated during the backup")
        self.report(Step("commit"))
        log = edit.store(self.id)
        counted = audit.counted if audit else ()
        manifest = Manifest(
            format=FORMAT,
            backup=self.id,
            number=self.number,
            generation=self.generation,
            kind="incremental" if self.parent else "full",
            parent=self._parent_name(),
            zbackup=__version__,
            started=self.started,
            finished=datetime.now(UTC),
            source=self.source,
            table=self.table,
            files=self.files,
            horizon=self.horizon.record(self.at),
            snapshot=self.snapshot.clock,
            log=log,
            tail=tuple(tail),
            sealed=totals(log),
            new=totals_of(sealed),
            stored_bytes=self.written.stored_bytes + captured.new_bytes,
            counters=self.explained,
            counted=mark(counted, low if self.parent else BEGINNING, self.at or BEGINNING, self.snapshot.clock),
            amendments=(
                *(self.parent.amendments if self.parent else ()),
                *(audit.amendments if audit else ()),
            ),
            capture=captured,
            warnings=tuple(self.warnings),
            ancestry=descent(self.continuity, self.catalog),
        )
        return commit(self.archive, manifest, self.watch, spool=self.options.spool, report=self.report)

    def _left_behind(self, upgrades: UpgradeWatch) -> Adopted | None:
        """Look for what a run that died has sealed, unless a new generation takes chunks over anyway."""
        if self.at is None or (self.parent is None and self.continuity.parent is not None):
            return None
        entry = self.continuity.entry if self.parent else None
        left = adopt(self.archive, entry, self.source, self.table, self.files, self.at, upgrades, self.watch.absent)
        if left is None:
            return None
        chunks = [chunk for found in left.chunks.values() for chunk in found]
        equal = {chunk.name for chunk in equal_chunks(chunks, self.at, self.workers, self.pool, self.table)}
        kept = {key: found for key, found in left.chunks.items() if all(chunk.name in equal for chunk in found)}
        return replace(left, chunks=kept) if kept else None

    def _seal(self, low: datetime, left: Adopted | None) -> list[ChunkRef]:
        """Write the run record, then the rows between the last horizon and this one."""
        slices = list(left.slices) if left else []
        start = left.until if left else low
        if self.at is not None and start < self.at:
            slices += self._cut(start, self.at, "s", len(slices))
        self.archive.start_run(
            RunRecord(
                FORMAT, self.id, self.generation, self._parent_name(), self.source, self.table, self.files,
                self.horizon.record(self.at), self.snapshot.clock, tuple(slices), self.counters,
            )
        )  # fmt: skip
        self.report(Step("export", f"{len(slices)} slices up to {self.at}"))
        chunks = left.chunks if left else {}
        held = {(part.lo, part.hi): chunks[part.lo, part.hi] for part in slices if (part.lo, part.hi) in chunks}
        if held:
            self._warn(f"a run before this one did not commit; {len(held)} of its slices are taken over")
        sink = replace(self.sink, expected_rows=self.expected_rows)
        wanted = [part for part in slices if (part.lo, part.hi) not in held]
        read = seal(sink, self.workers, self.pool, self.table, wanted)
        return sorted([*read, *(chunk for found in held.values() for chunk in found)], key=lambda chunk: chunk.lo)

    def _tail(self) -> list[ChunkRef]:
        """Write the rows at or above the horizon; the next backup supersedes them."""
        begun = time.monotonic()
        low = self.at or BEGINNING
        sink = replace(self.sink, look=unseen)
        tail = tiled(seal(sink, self.workers, self.pool, self.table, self._cut(low, END, "t")), low)
        self.tail_seconds = time.monotonic() - begun
        return tail

    def _cut(self, lo: datetime, hi: datetime, letter: str, first: int = 0) -> list[Slice]:
        with self.workers.borrow() as worker, worker.transaction() as connection:
            ranges, rows = cut(connection, self.table, lo, hi, self.options.chunk_bytes, self.options.jobs)
        self.expected_rows += rows
        return [Slice(f"{letter}{number:06d}", *part) for number, part in enumerate(ranges, first)]

    def _compact(self, edit: LogEdit) -> None:
        """Merge small chunks where that is due; rows that turn out changed ask for an audit."""
        found = compact(edit, replace(self.sink, look=unseen), self.workers, self.table) if self.parent else None
        if found is not None and not self.continuity.compare:
            why = f"rows between {found.lo} and {found.hi} are not as they were"
            self.continuity = replace(self.continuity, compare=why)

    def _audit(self, edit: LogEdit, low: datetime, read: int, *, upgraded: bool) -> Audit | None:
        if self.parent is None:
            return None
        audit = Audit(
            self.archive, self.workers, self.pool, replace(self.sink, look=unseen), self.table, edit, low,
            self.snapshot.clock, self.parent.counted, self.options.audit_recent,
        )  # fmt: skip
        reasons = reasons_for(
            self.parent.counters, self.counters, read=read, upgraded=upgraded,
            rewritten=self.files != self.parent.files, asked=self.options.audit, compare=self.continuity.compare,
        )  # fmt: skip
        audit.run(reasons, self.options.audit_budget)
        if reasons.surplus and not self.options.audit_budget and self.counters and self.parent.counters:
            # Nobody had the time to look for them: the next run is to miss them, too.
            self.explained = replace(self.counters, inserted=self.parent.counters.inserted + read)
        for found in audit.amendments:
            self._warn(
                f"rows created {span_text(found.lo, found.hi)} had changed at the source: "
                f"{found.added} came late, {found.removed} vanished, {found.changed} were rewritten"
            )
        return audit

    def _taken_over(self, former: Manifest, at: datetime) -> list[ChunkRef]:
        """Begin a new generation with the chunks of another that are proved equal here."""
        self.report(Step("audit", f"comparing with generation {former.generation}"))
        sink = replace(self.sink, look=unseen)
        kept = equal_chunks(self.archive.chunks(former.log), at, self.workers, self.pool, self.table)
        self._warn(
            f"generation {self.generation} begins; {len(kept)} chunks of {former.generation} are equal and shared"
        )
        chunks: list[ChunkRef] = []
        end = BEGINNING
        for number, chunk in enumerate(kept):
            if end < chunk.lo:
                between = [Slice(f"g{number:06d}", end, chunk.lo)]
                chunks += seal(sink, self.workers, self.pool, self.table, between)
            chunks.append(chunk)
            end = chunk.hi
        return tiled(chunks, BEGINNING)

    def _capture(self) -> CaptureRef:
        """Capture the other tables, or with `--no-capture` the encryption keys alone."""
        previous, lost = previous_capture(self.archive, self.continuity.parent)
        self._warn(*lost)
        found = capture(
            self.archive,
            self.control,
            self.snapshot,
            self.workers,
            self.pool,
            previous,
            CaptureOptions(
                keys_only=not self.options.capture,
                auth_requests=self.options.auth_requests,
                pg_dump=self.options.pg_dump,
                spool=self.options.spool,
            ),
            run=self.id,
            absent=self.watch.absent,
            source=f"{self.source.system_identifier}/{self.source.database}",
            report=self.report,
        )
        self.warnings += found.warnings
        self.lacking = found.lacking
        return found.ref

    def _sink(self, look: UpgradeWatch) -> Sink:
        columns = tuple(column.name for column in self.table.columns)
        source = f"{self.source.system_identifier}/{self.source.database}/{self.generation}"
        return Sink(
            archive=self.archive,
            backup=self.id,
            header=Header(FORMAT, self._name, columns, source),
            chunk_bytes=self.options.chunk_bytes,
            spool=self.options.spool,
            report=self.report,
            look=look,
            written=self.written,
        )

    def _parent_name(self) -> str | None:
        return None if self.parent is None else str(self.continuity.entry)

    @property
    def _name(self) -> str:
        return f"{self.table.schema}.{self.table.name}"

    def _warn(self, *messages: str) -> None:
        for message in messages:
            self.report(Warned(message))
            self.warnings.append(message)
