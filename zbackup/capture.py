"""
Capture the tables beside the events, and the schema, in the snapshot of a backup.

Every object is named by its content: what did not change since the last capture costs reading and a digest. A
table that cannot be read, or that somebody rewrites meanwhile, is noted as missing and stops nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from zbackup.archive import FORMAT
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import Capture, CapturedTable, CaptureRef, Manifest
from zbackup.archive.table import PART_BYTES, TableSink
from zbackup.database.capture import CannotRead, Listed, Locked, list_tables, read_table, rewritten
from zbackup.database.connection import Connection
from zbackup.database.schema_dump import SchemaText, dump_schema
from zbackup.database.snapshot import Snapshot, Workers
from zbackup.errors import Damaged, NotSupported, ObjectMissing
from zbackup.progress import Report, Step, Warned, silent
from zbackup.zitadel import tables as known

# Before other tables are read nobody waits for a locked one longer than this; it is tried again at the end.
FIRST_LOOK = timedelta(seconds=1)

NAMED = 8
"""Tables named in one warning."""

NO_CAPTURE = "left out: --no-capture"
NOT_THERE = "not there: without it no secret of this ZITADEL can be decrypted"

ELSEWHERE = ("a materialized view; REFRESH it after a restore", "a foreign table: its rows are elsewhere")
"""Why relations are not captured whose rows no restore needs."""

_KINDS = {
    "m": ELSEWHERE[0],
    "f": ELSEWHERE[1],
    "u": "unlogged: a standby has no rows of it",
}

_DENIED, _GRANTS = "permission denied", "`zbackup doctor --grants` prints what the role lacks."


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    keys_only: bool = False
    """only system.encryption_keys, as every backup has"""
    auth_requests: bool = False
    """also logins under way, with what was typed so far"""
    pg_dump: str | None = None
    spool: str | None = None
    part_bytes: int = PART_BYTES


@dataclass(frozen=True, slots=True)
class Captured:
    ref: CaptureRef
    capture: Capture
    warnings: tuple[str, ...]
    lacking: tuple[str, ...]


def lacking(record: Capture) -> tuple[str, ...]:
    """Name the tables that a capture should hold and does not, and that nothing else brings back."""
    accepted = {NO_CAPTURE, NOT_THERE, *_KINDS.values()}
    return tuple(
        name for name, why in record.missing.items() if why not in accepted and known.is_state(*name.split(".", 1))
    )


def previous_capture(archive: Archive, before: Manifest | None) -> tuple[Capture | None, tuple[str, ...]]:
    """Read the capture of a backup, whose unchanged tables are shared, or say why not: no reason to stop."""
    if before is None or before.capture is None:
        return None, ()
    try:
        return archive.capture(before.capture), ()
    except (Damaged, ObjectMissing) as error:
        return None, (f"{error.message}; all tables are stored again",)


def capture(
    archive: Archive,
    control: Connection,
    snapshot: Snapshot,
    workers: Workers,
    pool: Executor,
    previous: Capture | None,
    options: CaptureOptions,
    *,
    run: str = "",
    absent: Collection[str] = (),
    source: str,
    report: Report = silent,
) -> Captured:
    """
    Store the tables and the schema as the snapshot shows them, and the record that names them.

    `control` is a session outside the snapshot. What is in `absent` counts as not there; where its content is needed
    it is stored under a name of `run`. `source` (system identifier/database) stands in every object;
    it must not change from run to run. Warnings are reported and returned.

    Raises SourceError, StoreError; what was stored by then is named by nothing.
    """
    sink = TableSink(
        archive, previous, source, run, absent, spool=options.spool, part_bytes=options.part_bytes, report=report
    )
    return _Run(archive, control, snapshot, workers, pool, sink, options, report).run()


@dataclass(slots=True)
class _Run:
    archive: Archive
    control: Connection
    snapshot: Snapshot
    workers: Workers
    pool: Executor
    sink: TableSink
    options: CaptureOptions
    report: Report
    missing: dict[str, str] = field(default_factory=dict[str, str])
    missed: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """of these, the ones that should have been captured, by reason"""
    warnings: list[str] = field(default_factory=list[str])

    def run(self) -> Captured:
        listed = list_tables(self.snapshot.catalog, known.SCHEMAS)
        wanted = self._wanted(listed)
        self.report(Step("capture", f"{len(wanted)} tables"))
        # Early: pg_dump holds locks on all tables for its second, and the events are read by now.
        with self.workers.pace.statement():
            schema = self._schema(listed)
        read = self._read(wanted)
        for name in sorted(rewritten(self.control, wanted) & read.keys()):
            del read[name]
            self._miss(name, "rewritten, truncated or dropped during the backup")
        self._warn_missed()
        captured = tuple(read[name] for name in sorted(read))
        record = Capture(
            format=FORMAT,
            pre_data=None if schema.pre_data is None else self.sink.put_text(schema.pre_data),
            post_data=None if schema.post_data is None else self.sink.put_text(schema.post_data),
            schema_note=schema.note,
            tables=captured,
            missing=dict(sorted(self.missing.items())),
        )
        stored = self.archive.put_capture(record, self.sink.own)
        texts = filter(None, (record.pre_data, record.post_data, *(table.listed for table in captured)))
        parts = {part.name: part.stored_bytes for table in captured for part in table.parts}
        parts |= {text.name: text.stored_bytes for text in texts}
        ref = CaptureRef(
            name=stored.name,
            sha256=stored.sha256,
            stored_bytes=stored.stored_bytes,
            tables=len(captured),
            rows=sum(table.rows for table in captured),
            raw_bytes=sum(table.raw_bytes for table in captured),
            table_bytes=sum(parts.values()),
            new_bytes=sum(size for name, size in parts.items() if name in self.sink.new),
            schema=record.pre_data is not None,
        )
        return Captured(ref, record, tuple(self.warnings), lacking(record))

    def _wanted(self, listed: Iterable[Listed]) -> list[Listed]:
        """Choose the tables to read, largest first, so that no worker is left with a large one at the end."""
        wanted: list[Listed] = []
        strangers: list[str] = []
        for table in listed:
            found = known.find(table.schema, table.name)
            if found is not None and found.kind == "events":
                continue
            if self.options.keys_only and (table.schema, table.name) != known.KEYS:
                self.missing[str(table)] = NO_CAPTURE
            elif why := known.left_out(table.schema, table.name, auth_requests=self.options.auth_requests):
                self.missing[str(table)] = why
            elif table.relkind in _KINDS:
                self._miss(str(table), _KINDS[table.relkind])
            else:
                wanted.append(table)
                if found is None:
                    strangers.append(str(table))
        if strangers:
            self._warn(f"tables that this zbackup does not know are captured too: {', '.join(strangers)}")
        if not any((table.schema, table.name) == known.KEYS for table in wanted):
            self._miss(".".join(known.KEYS), NOT_THERE)
        return sorted(wanted, key=lambda table: -table.heap_bytes)

    def _schema(self, listed: Iterable[Listed]) -> SchemaText:
        if self.options.keys_only:
            return SchemaText(None, None, NO_CAPTURE)
        schemas = sorted({table.schema for table in listed})
        text = dump_schema(self.snapshot.catalog, self.snapshot.id, schemas, pg_dump=self.options.pg_dump)
        if text.pre_data is None:
            until = "until then restore into a database prepared by `zitadel setup --for-mirror`"
            hint = _GRANTS if _DENIED in text.note else f"Give --pg-dump PATH; {until}."
            self._warn(f"the schema was not captured: {text.note}", hint)
        return text

    def _read(self, wanted: list[Listed]) -> dict[str, CapturedTable]:
        found = dict(zip(wanted, self.pool.map(partial(self._table, FIRST_LOOK), wanted), strict=True))
        locked = [table for table, one in found.items() if isinstance(one, Locked)]
        found |= zip(locked, self.pool.map(partial(self._table, None), locked), strict=True)
        read: dict[str, CapturedTable] = {}
        for table, one in found.items():
            if isinstance(one, CannotRead):
                self._miss(str(table), str(one))
            else:
                read[str(table)] = one
        return read

    def _table(self, lock_timeout: timedelta | None, table: Listed) -> CapturedTable | CannotRead:
        try:
            with self.workers.borrow() as worker:
                blocks = read_table(worker, table, lock_timeout=lock_timeout)
                by_row = known.stored_by_row(table.schema, table.name)
                try:
                    return self.sink.write(table.schema, table.name, table.columns, blocks, by_row=by_row)
                except NotSupported as error:  # a row that is too long
                    # To its end: who stopped in the middle would end the session that others borrow next.
                    for block in blocks:
                        del block
                    return CannotRead(error.message)
        except CannotRead as reason:
            return reason

    def _miss(self, name: str, why: str) -> None:
        """Note a table that should be there and is not; `_warn_missed` tells."""
        self.missing[name] = why
        self.missed.setdefault(why, []).append(name)

    def _warn_missed(self) -> None:
        for why, tables in self.missed.items():
            listed = ", ".join(sorted(tables)[:NAMED]) + (
                f" and {len(tables) - NAMED} more" if len(tables) > NAMED else ""
            )
            self._warn(f"not captured ({why}): {listed}", _GRANTS if _DENIED in why else "")

    def _warn(self, message: str, hint: str = "") -> None:
        self.warnings.append(message)
        self.report(Warned(message, hint))
