"""
Find in the archive alone which events of a plan a restore would withhold (archive/withhold.py says why).

Exactly as database/cut.py does in the target, but without one: keys after T are reduced to the least sequence of
each aggregate, so many aggregates at a time, and the events before T are read for those beyond it, then once more
for each round of the closure.

They need not be read from the beginning. What an earlier backup of the line saw, it saw with all that its
aggregates had before: an event gets a sequence above all that are there. So nothing that it sealed is withheld
because of what it did not see; and if neither a row after T nor a withheld one is among what it saw above its
horizon, nothing below that horizon is withheld at all. Where amendments touched what it sealed, it is no witness;
where later ones added rows to what is asked for, there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial

from zbackup.archive.archive import Archive
from zbackup.archive.between import Block, between
from zbackup.archive.manifest import Manifest
from zbackup.archive.plan import RestorePlan, last_of
from zbackup.archive.rows import split_rows
from zbackup.archive.sound import rows_of
from zbackup.archive.withhold import EXEMPT, LeastAfter
from zbackup.errors import Damaged, ObjectMissing
from zbackup.event import BEGINNING, END, MICROSECOND, parse_instant

Key = tuple[bytes, ...]
"""primary key of an event, each part as it stands in its row"""

Before = Callable[[datetime], Iterator[Block]]
"""gives the events from an instant up to T"""

# About 50 MiB of keys, as in database/cut.py.
AGGREGATES_AT_ONCE = 200_000


def find_withheld(archive: Archive, plan: RestorePlan, before: Before) -> dict[Key, datetime]:
    """Return the events to withhold, and when they were created."""
    if plan.at is None or not (plan.after or any(last_of(chunk) > plan.at for chunk in plan.added)):
        return {}
    for floor, seen in _witnesses(archive, plan, plan.at) if not plan.added else ():
        found = _closure(archive, plan, plan.at, partial(before, floor))
        if not found or seen < min(found.values()):
            return found
    return _closure(archive, plan, plan.at, partial(before, BEGINNING))


def _witnesses(archive: Archive, plan: RestorePlan, at: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield the horizons of earlier backups that saw nothing after T, the newest first, and the last that they saw."""
    catalog = archive.catalog()
    answer: Manifest | None = None
    for entry in catalog.line(catalog.find(plan.backup)):
        if entry.horizon is None or entry.horizon > at or entry.snapshot > at:
            continue
        try:
            answer = answer or archive.manifest(catalog.find(plan.backup))
            manifest = archive.manifest(entry)
        except (Damaged, ObjectMissing):
            continue  # it is only to save work
        known = set(manifest.amendments)
        touched = any(found.lo < entry.horizon for found in answer.amendments if found not in known)
        seen = max((last_of(chunk) for chunk in manifest.tail if chunk.rows), default=BEGINNING)
        if not touched and seen <= at:
            yield entry.horizon, seen


def _closure(
    archive: Archive, plan: RestorePlan, at: datetime, before: Callable[[], Iterable[Block]]
) -> dict[Key, datetime]:
    found = _causes(archive, plan, at, before)
    while found:
        pushes = {(key[0], created) for key, created in found.items()}
        least: dict[bytes, int] = {}
        for *aggregate, sequence in found:
            name = b"\t".join(aggregate)
            least[name] = min(int(sequence), least.get(name, int(sequence)))
        more = _beyond(before(), least, pushes)
        if more.keys() <= found.keys():
            break
        found |= more
    return found


def _causes(
    archive: Archive, plan: RestorePlan, at: datetime, before: Callable[[], Iterable[Block]]
) -> dict[Key, datetime]:
    """Return the events whose aggregate has a lower sequence after T."""
    found: dict[Key, datetime] = {}
    least = LeastAfter(at, END, [column.name for column in plan.table.columns])
    # Rows that amendments added later count as far as the answering backup could have seen them.
    for chunks, least.until in ((plan.after, END), (plan.added, plan.snapshot)):
        for chunk in chunks:
            for block in between(archive, chunk, [(at + MICROSECOND, END)]):
                with rows_of(chunk.name):
                    if least.add(block.rows):
                        found.clear()
                if len(least.least) >= AGGREGATES_AT_ONCE:
                    found |= _beyond(before(), least.take(), set())
    return found | _beyond(before(), least.take(), set()) if least.least else found


def _beyond(
    blocks: Iterable[Block], least: dict[bytes, int], pushes: set[tuple[bytes, datetime]]
) -> dict[Key, datetime]:
    """Return the events of some pushes, and those beyond the least sequence of their aggregate."""
    found: dict[Key, datetime] = {}
    instances = {instance for instance, _ in pushes}
    for block in blocks:
        with rows_of(block.chunk):
            for row in split_rows(block.rows):
                created, _, _, instance, kind, aggregate, rest = row.split(b"\t", 6)
                key = instance, kind, aggregate, rest[: rest.index(b"\t")]
                lower = least.get(b"\t".join(key[:3]))
                later = lower is not None and int(key[3]) > lower
                if (later or instance in instances) and key[:3] != EXEMPT:
                    instant = parse_instant(created.decode())
                    if later or (instance, instant) in pushes:
                        found[key] = instant
    return found
