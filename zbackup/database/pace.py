"""
How hard a source is worked: so many bytes a second, and rests between statements.

Rests lie between transactions, never within one: a COPY that waits would hold its transaction, and with it the lock
on its table, all the longer. So who is to rest reads in portions, each a short transaction of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from zbackup.errors import Interrupted

# What one statement reads with low impact, in 50 to 100 ms. 300 000 events take a fifth longer in such portions than
# at once, two thirds in those of 256 KiB (15 and 18, measured).
PORTION_BYTES = 4 << 20

# With a rate, a statement reads no more than this time allows, so that no rest is much longer.
PORTION_SECONDS = 0.5

# A portion has no more than so many times the units (rows, blocks) of the one before, however small those were.
GROWTH = 4


class Bucket:
    """
    So many bytes a second, shared by threads that each pay for what they have read.

    Nothing is saved up while nobody reads: no time has more than it allows, and one statement of each thread.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._paid = 0.0

    def take(self, amount: int, now: float) -> None:
        with self._lock:
            self._paid = max(self._paid, now) + amount / self._rate

    @property
    def paid(self) -> float:
        """When all that was taken is paid for."""
        return self._paid


class Pace:
    """The pace of all sessions of one run together. Safe for use by several threads."""

    def __init__(self, rate_limit: int | None = None, *, low_impact: bool = False) -> None:
        self._bucket = Bucket(rate_limit) if rate_limit else None
        self._low_impact = low_impact
        self._stopped = threading.Event()
        portions = [PORTION_BYTES] if low_impact else []
        portions += [max(int(rate_limit * PORTION_SECONDS), 1)] if rate_limit else []
        self.portion_bytes = min(portions, default=None)
        """about what one statement is to read; None: as much as there is"""

    def count(self, read_bytes: int, now: float | None = None) -> None:
        """Tell what the statement at hand has read; the rest after it answers for that."""
        if self._bucket is not None:
            self._bucket.take(read_bytes, time.monotonic() if now is None else now)

    def next_portion(self, units: int, read_bytes: int) -> int:
        """Say how many units, such as rows, to read after so many that had these bytes."""
        wanted = units * GROWTH if self.portion_bytes is None else units * self.portion_bytes // max(read_bytes, 1)
        return max(1, min(wanted, units * GROWTH))

    def rest(self, begun: float, ended: float) -> float:
        """Say how many seconds to rest after a statement."""
        until = ended + (ended - begun if self._low_impact else 0)
        return max(until, self._bucket.paid if self._bucket else 0) - ended

    @contextmanager
    def statement(self) -> Generator[None]:
        """Work in the block, and rest after it. Raises Interrupted when the run is stopped meanwhile."""
        begun = time.monotonic()
        yield
        seconds = self.rest(begun, time.monotonic())
        if seconds > 0 and self._stopped.wait(seconds):
            raise Interrupted("stopped while the source was left alone")

    def stop(self) -> None:
        """End all rests: the run ends."""
        self._stopped.set()
