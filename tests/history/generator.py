"""
Histories of any length as COPY text rows, in the order of their commits, from a seed.

The rows come one push after the other with constant memory. About every tenth push commits late: after pushes
whose time is later, though never after one that builds on it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from tests.history.flows import MIX, founding, huge_text
from tests.history.world import EPOCH, Drafts, Push, World, copied

COLUMNS = (
    "instance_id", "aggregate_type", "aggregate_id", "event_type", "sequence", "revision", "created_at", "payload",
    "creator", "owner", "position", "in_tx_order",
)  # fmt: skip

# Flows under way at the same time: two pushes of one login lie some fifty other pushes apart.
ACTIVE_FLOWS = 48

# A late push commits after up to so many later ones.
MOST_LATE = 20

# Some 300 kB: COPY gains nothing from more.
BLOCK_ROWS = 1000

STEPS = (
    "14_events_push", "01_tables", "02_assets", "28_add_search_table", "03_default_instance",
    "16_unique_constraint_lower", "23_correct_global_unique_constraints", "29_init_fields_for_project_grant",
    "30_fill_fields_for_org_domain_verified", "47_fill_membership_fields", "59_setup_webkeys",
)  # fmt: skip
"""of setup, as v4.13.1 has them, in their order"""

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class History:
    """A realistic event history; the same values always give the same rows."""

    events: int
    seed: int = 0
    start: datetime = START
    end: datetime | None = None
    """default: 20 events a minute"""
    instances: int = 4
    permissions: int | None = None
    """per instance at its founding; ZITADEL has 482, small histories get fewer by default"""
    late: float = 0.1
    """share of pushes that commit late"""
    ties: float = 0.003
    """share of pushes that have the time of the one before, often of another instance"""
    odd: float = 0.02
    """share of free-text ids with blanks, colons, tabs, backslashes, line breaks"""
    huge: int = 0
    """number of payloads above 1 MB"""
    nanoseconds: bool = False
    """positions like CockroachDB's: nanoseconds, with a logical part"""
    gaps: bool = False
    """the first third came from the v1 table: sequences counted per instance, the order equal to them"""

    def lines(self) -> Iterator[bytes]:
        """Yield each row, newline included, in the order of the commits."""
        for push in self.pushes():
            for row in push.rows:
                yield row.encode()

    def blocks(self) -> Iterator[bytes]:
        """Yield the same bytes in blocks for COPY."""
        rows: list[str] = []
        for push in self.pushes():
            rows += push.rows
            if len(rows) >= BLOCK_ROWS:
                yield "".join(rows).encode()
                rows.clear()
        yield "".join(rows).encode()

    def pushes(self) -> Iterator[Push]:
        """Yield the pushes in the order of their commits."""
        run = _Run(self)
        waiting: list[tuple[int, int, Push]] = []
        for number, drafts in enumerate(run.drafts()):
            for aggregate, *_ in drafts:
                if aggregate.held is not None:
                    # An aggregate's next push sees the one before: that one is committed by now.
                    before, aggregate.held = aggregate.held, None
                    if not before.committed:
                        before.committed = True
                        yield before
            push = run.written(drafts)
            if self.late and run.world.rng.random() < self.late:
                for aggregate, *_ in drafts:
                    aggregate.held = push
                heapq.heappush(waiting, (number + run.world.rng.randint(1, MOST_LATE), number, push))
            else:
                push.committed = True
                yield push
            while waiting and waiting[0][0] <= number:
                late = heapq.heappop(waiting)[2]
                if not late.committed:
                    late.committed = True
                    yield late
        for *_, late in sorted(waiting):
            if not late.committed:
                yield late


@dataclass(slots=True)
class _Run:
    """One pass through a history."""

    history: History
    world: World = field(init=False)
    done: int = 0
    _begin: int = field(init=False)
    _step: float = field(init=False)
    _now: int = 0
    _day: int = -1
    _day_text: str = ""

    def __post_init__(self) -> None:
        history = self.history
        self.world = World(history.seed, instances=history.instances, odd=history.odd)
        end = history.end or history.start + timedelta(seconds=3 * history.events)
        self._begin = _microseconds(history.start)
        self._step = (_microseconds(end) - self._begin) / max(history.events, 1)

    def drafts(self) -> Iterator[Drafts]:
        """Yield what is pushed in the order of time, the last push cut so that the events are as many as asked."""
        left = self.history.events
        for drafts in self._endless():
            if left <= len(drafts):
                if left:
                    yield drafts[:left]
                return
            yield drafts
            left -= len(drafts)

    def _endless(self) -> Iterator[Drafts]:
        history, world, rng = self.history, self.world, self.world.rng
        fair = min(482, max(3, history.events // 10 // history.instances))
        permissions = history.permissions if history.permissions is not None else fair
        system = world.aggregate(world.system, "system", "SYSTEM", "SYSTEM")
        for step in STEPS:
            for state in ("started", "done"):
                yield [(system, f"system.migration.{state}", copied({"name": step}), "system")]
        for instance in world.instances:
            yield founding(world, instance, permissions)
        huge_every = history.events // (history.huge + 1)
        huge_at = huge_every
        wheel = [flow for flow, weight in MIX for _ in range(weight)]
        active = [rng.choice(wheel)(world, world.instance()) for _ in range(ACTIVE_FLOWS)]
        chance = rng.random
        while True:
            if history.huge and self.done >= huge_at:
                huge_at += huge_every
                yield huge_text(world, world.instance())
            place = int(chance() * ACTIVE_FLOWS)
            drafts = next(active[place], None)
            if drafts is None:
                active[place] = wheel[int(chance() * len(wheel))](world, world.instance())
            else:
                yield drafts

    def written(self, drafts: Drafts) -> Push:
        """Give the drafts their time, position and sequences."""
        rng = self.world.rng
        if not (self._now and rng.random() < self.history.ties):
            self._now = self._begin + int((self.done + rng.random()) * self._step)
        now = self._now
        second, fraction = divmod(now, 1_000_000)
        day, clock = divmod(second, 86_400)
        if day != self._day:
            self._day = day
            self._day_text = (EPOCH + timedelta(days=day)).strftime("%Y-%m-%d")
        minute, clock_second = divmod(clock, 60)
        created = f"{self._day_text} {minute // 60:02d}:{minute % 60:02d}:{clock_second:02d}.{fraction:06d}+00"
        position = f"{second}.{fraction:06d}"
        if self.history.nanoseconds:
            position = f"{now * 1000 + rng.randrange(1000)}.{rng.choice((0, 0, 0, 1, 2)):010d}"
        old = self.history.gaps and self.done < self.history.events // 3
        rows: list[str] = []
        order = 0
        before, after = f"\t{created}\t", f"\t{position}\t"
        for aggregate, event_type, payload, creator in drafts:
            if old:
                aggregate.instance.counter += 1
                sequence = order = aggregate.instance.counter
            else:
                sequence = aggregate.sequence + 1
                order += 1
            aggregate.sequence = sequence
            rows.append(
                f"{aggregate.prefix}{event_type}\t{sequence}\t{aggregate.revision}{before}{payload}\t{creator}\t"
                f"{aggregate.owner}{after}{order}\n"
            )
        self.done += len(drafts)
        return Push(now, rows)


def fill(
    connection: psycopg.Connection[Any],
    *,
    events: int,
    seed: int = 0,
    start: datetime = START,
    end: datetime | None = None,
    transactions: bool = False,
    **options: Any,
) -> int:
    """
    Append a history to eventstore.events2, at once or one transaction per push, and commit.

    `options` are fields of `History`. Returns the number of events.
    """
    history = History(events, seed, start, end, **options)
    columns = ", ".join(f'"{column}"' for column in COLUMNS)
    statement = f"COPY eventstore.events2 ({columns}) FROM STDIN".encode()
    with connection.cursor() as cursor:
        if transactions:
            for push in history.pushes():
                with cursor.copy(statement) as copy:
                    copy.write("".join(push.rows).encode())
                connection.commit()
        else:
            with cursor.copy(statement) as copy:
                for block in history.blocks():
                    copy.write(block)
    connection.commit()
    return events


def _microseconds(instant: datetime) -> int:
    return (instant - EPOCH) // timedelta(microseconds=1)
