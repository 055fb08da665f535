"""
Prove that the loaded table holds what the archive says, before anything in it is edited.

Always: rows per instance and per aggregate type against the trailers of the chunks, first and last event.
Then ranges are read back as they would be archived, and hashed: all of them, or a sample.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from datetime import datetime
from threading import Event
from typing import Literal

from psycopg import sql

from zbackup.archive.plan import PlannedChunk, RestorePlan, read_range
from zbackup.database.export import ORDER, count, digest_of, read_along_index, read_rows, relation
from zbackup.database.load import Counts
from zbackup.database.target import Connection, Loaded, each, read_loaded, restoring
from zbackup.errors import TargetError
from zbackup.event import KEY_COLUMNS, Cursor, instant_text
from zbackup.progress import Advance, Report, Step
from zbackup.source import EventTable

# Besides the first, the last and the cut ones, so many are read back in a sample.
SAMPLED = 3

_HINT = "Nothing was published. Run it again with --restart; if it happens again, check the target's disks and memory."

Proof = Literal["sample", "full"]


def prove(
    dsn: str,
    connection: Connection,
    plan: RestorePlan,
    counts: Counts,
    proof: Proof,
    jobs: int,
    report: Report,
) -> int:
    """Compare; return the number of rows. Raises TargetError naming the first chunk that differs."""
    loaded = read_loaded(connection)
    if missing := [chunk.ref.name for chunk in plan.chunks if chunk.ref.name not in loaded]:
        raise TargetError(f"{len(missing)} chunks were not loaded: {missing[0]} …", hint="Run the same again.")
    table = restoring(plan.table)
    rows = sum(entry.rows for entry in loaded.values())
    chosen = _chosen(plan.chunks, proof)
    total = sum(chunk.ref.rows for chunk in chosen), sum(chunk.ref.raw_bytes for chunk in chosen)
    report(Step("proof", f"{rows} rows, {len(chosen)} of {len(plan.chunks)} chunks read back"))
    _ends(connection, plan, loaded)
    stop = Event()

    def one(worker: Connection, chunk: PlannedChunk | None) -> None:
        if chunk is None:
            _count(worker, plan, counts, loaded, jobs, stop)
            return
        entry = loaded[chunk.ref.name]
        read_along_index(worker)
        digest, found = digest_of(read_rows(worker, table, *read_range(chunk, plan.at)))
        if (digest, found) != (entry.raw_sha256, entry.rows):
            there, wanted = f"{found} rows, digest {digest[:16]}…", f"{entry.rows} rows, {entry.raw_sha256[:16]}…"
            raise _differs(chunk, plan.at, there, wanted)
        report(Advance(chunk.ref.rows, chunk.ref.raw_bytes, *total))

    # All are counted by one session while others read back.
    each(dsn, jobs, [None, *chosen], one, stop)
    return rows


def _chosen(chunks: tuple[PlannedChunk, ...], proof: Proof) -> list[PlannedChunk]:
    if proof == "full" or len(chunks) <= SAMPLED:
        return list(chunks)
    rest = [chunk for chunk in chunks[1:-1] if not chunk.cut]
    sample = set(secrets.SystemRandom().sample(rest, min(SAMPLED, len(rest))))
    return [chunk for chunk in chunks if chunk.cut or chunk in sample or chunk in (chunks[0], chunks[-1])]


def _count(
    connection: Connection, plan: RestorePlan, counts: Counts, loaded: Mapping[str, Loaded], jobs: int, stop: Event
) -> None:
    wanted: tuple[Counter[str], Counter[str]] = Counter(), Counter()
    with ThreadPoolExecutor(jobs) as pool:
        whole = [chunk.ref for chunk in plan.chunks if not chunk.cut]
        for instances, types in pool.map(counts, whole):
            if stop.is_set():
                raise CancelledError
            wanted[0].update(instances)
            wanted[1].update(types)
    for chunk in plan.chunks:
        if chunk.cut:
            wanted[0].update(loaded[chunk.ref.name].instances)
            wanted[1].update(loaded[chunk.ref.name].aggregate_types)
    there: tuple[Counter[str], Counter[str]] = Counter(), Counter()
    for by_type, instance, kind, rows in connection.execute(
        sql.SQL(
            """SELECT grouping(instance_id), instance_id, aggregate_type, count(*) FROM {}
                GROUP BY GROUPING SETS ((instance_id), (aggregate_type))"""
        ).format(relation(restoring(plan.table)))
    ):
        there[by_type][kind if by_type else instance] += rows
    if there == wanted:
        return
    what, key = next(
        (what, key)
        for what, one, other in zip(("instance", "aggregate type"), wanted, there, strict=True)
        for key in sorted({*one, *other})
        if one[key] != other[key]
    )
    side = 0 if what == "instance" else 1
    numbers = f"{what} {key!r} has {there[side][key]} rows in the target, {wanted[side][key]} in the archive"
    for chunk in plan.chunks:
        found = count(connection, restoring(plan.table), *read_range(chunk, plan.at))
        if found != loaded[chunk.ref.name].rows:
            raise _differs(chunk, plan.at, f"{found} rows", f"{loaded[chunk.ref.name].rows}", f"; {numbers}")
    raise TargetError(f"the target is not what the archive says: {numbers}", hint=_HINT)


def _ends(connection: Connection, plan: RestorePlan, loaded: Mapping[str, Loaded]) -> None:
    """Compare the first and the last event."""
    entries = [(chunk, loaded[chunk.ref.name]) for chunk in plan.chunks if loaded[chunk.ref.name].rows]
    if not entries:
        return
    table = restoring(plan.table)
    (first, _), (last, entry) = entries[0], entries[-1]
    for chunk, wanted, order in ((first, first.ref.first, ORDER), (last, entry.last, _backwards())):
        there = _first_by(connection, table, order)
        if there != Cursor.of_texts(wanted):
            end = "first" if order is ORDER else "last"
            found = ", ".join(there.texts()) if there else "none"
            raise _differs(chunk, plan.at, f"{found} as its {end} event", ", ".join(wanted))


def _first_by(connection: Connection, table: EventTable, order: sql.Composable) -> Cursor | None:
    row = connection.execute(
        sql.SQL("SELECT {} FROM {} ORDER BY {} LIMIT 1").format(
            sql.SQL(", ").join(map(sql.Identifier, KEY_COLUMNS)), relation(table), order
        )
    ).fetchone()
    if row is None:
        return None
    created, position, place, instance, kind, aggregate, sequence = row
    return Cursor(created, position, place, instance.encode(), kind.encode(), aggregate.encode(), sequence)


def _backwards() -> sql.SQL:
    return sql.SQL(
        'created_at DESC, "position" DESC, in_tx_order DESC, instance_id COLLATE "C" DESC,'
        ' aggregate_type COLLATE "C" DESC, aggregate_id COLLATE "C" DESC, "sequence" DESC'
    )


def _differs(chunk: PlannedChunk, at: datetime | None, there: str, wanted: str, more: str = "") -> TargetError:
    lo, hi = read_range(chunk, at)
    return TargetError(
        f"chunk {chunk.ref.name} ({instant_text(lo)} … {instant_text(hi)}): the target has {there}, "
        f"the archive {wanted}{more}",
        hint=_HINT,
    )
