"""
One run at a time: the second waits, or ends with an exit code of its own.

A lease only saves work. Two runs at once are harmless on any store, so nothing is read or written differently
because one is held, and one that ran out is lost without harm. It is a few small objects, each written once: one
until when the run wants to be alone, others as time goes on, the last that it ended. All who use a store go by
the store's clock. A run that died is not waited for where its process can be seen to be gone, and elsewhere for
a few minutes, until its lease has run out.

A run that wrote its lease and then lists no other is alone: whoever comes later lists this one. Of several that
come at once and list each other, the least goes on, the others withdraw.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from zbackup.archive import FORMAT, names
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import Lease
from zbackup.archive.names import LeaseName
from zbackup.errors import ArchiveError, Busy, Interrupted, StoreError, StoreUnreachable
from zbackup.event import instant_text
from zbackup.process import is_gone, pid_of, this_process
from zbackup.progress import Report, Step, Warned, silent

DURATION = timedelta(minutes=5)
"""
A run that died out of sight is waited for no longer than this; no run may take a longer lease. Each third of it the
lease is written anew.
"""

# Servers of one store may differ by this much.
SKEW = timedelta(minutes=1)

# The least of several waits so often for others to withdraw: 39 seconds in all, for a write may be tried for
# half a minute.
LOOKS = 13

# Runs of this process that have a lease or want one. It may have others that could not be released.
_at_work: set[str] = set()

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


@contextmanager
def hold(
    archive: Archive,
    what: str,
    *,
    wait: timedelta = timedelta(0),
    duration: timedelta = DURATION,
    report: Report = silent,
) -> Generator[None]:
    """
    Keep other runs that ask for a lease of this archive out while the block runs.

    Raises Busy when another one holds it for longer than `wait`.
    """
    holder = _Holder(archive, what, duration, report)
    holder.acquire(wait)
    with holder.kept():
        yield


class _Holder:
    def __init__(self, archive: Archive, what: str, duration: timedelta, report: Report) -> None:
        self.archive, self.what, self.duration, self.report = archive, what, min(duration, DURATION), report
        self.run = ""
        """an id of the lease's own, another one for each try: what was released is so for good"""
        self.since: datetime | None = None
        self.newest: LeaseName | None = None

    def acquire(self, wait: timedelta) -> None:
        deadline = time.monotonic() + wait.total_seconds()
        told = ""
        pause = FIRST_PAUSE
        while other := self._others() or self._contended():
            if time.monotonic() >= deadline:
                waited = f", after a wait of {wait.total_seconds():g} s" if wait else ""
                raise Busy(
                    f"{self._described(other)} is at work on this archive{waited}",
                    hint=f"Wait for its end with --wait {'and a longer time' if wait else '10m'}: as long as it works "
                    "its lease is prolonged. If it died, the lease ends by itself at that time.",
                )
            if told != other.run:
                told = other.run
                self.report(Step("wait", f"for {self._described(other)}"))
            time.sleep(min(pause, max(deadline - time.monotonic(), 0)))
            pause = min(pause * 2, LONGEST_PAUSE)

    @contextmanager
    def kept(self) -> Generator[None]:
        stopped = threading.Event()
        renewal = threading.Thread(target=self._renew, args=(stopped,), daemon=True)
        renewal.start()
        answers = True
        try:
            yield
        except StoreUnreachable:
            answers = False
            raise
        finally:
            stopped.set()
            renewal.join()
            self._release(answers=answers)

    def _renew(self, stopped: threading.Event) -> None:
        """Write the lease anew until told to stop."""
        while not stopped.wait(self.duration / timedelta(seconds=3)):
            # Where the run is being stopped its own thread says so, not this one.
            with suppress(Interrupted):
                self._prolong()

    def _prolong(self) -> None:
        try:
            self._put()
        except Interrupted:
            raise
        except Exception as error:  # a lease is never what ends a run
            self.report(Warned(f"{error}: the lease was not prolonged; another run may begin beside this"))

    def _release(self, *, answers: bool = True) -> None:
        _at_work.discard(self.run)
        released, self.newest = self.newest, None
        if released is None or not answers:
            return
        try:
            self.archive.release(released)
        except StoreError as error:
            self.report(Warned(f"{error.message}: other runs may wait until {instant_text(released.until)}"))

    def _contended(self) -> LeaseName | None:
        """Write the lease; withdraw it, and return the other one, when another run has it or gets it."""
        self.run, self.since = names.backup_id(datetime.now(UTC), secrets.token_hex(4)), None
        _at_work.add(self.run)
        try:
            self._put()
            other = self._others()
            for look in range(LOOKS):
                if other is None or other.run < self.run:
                    break
                time.sleep(FIRST_PAUSE * 1.5**look)
                other = self._others()
        except BaseException:
            self._release()
            raise
        if other is not None:
            self._release()
        return other

    def _others(self) -> LeaseName | None:
        """Return the least of the leases of others that count."""
        now = self.archive.now()
        found = self.archive.leases(now, now + DURATION + SKEW)
        others = (lease for lease in found if lease.run != self.run and not self._died(lease))
        return min(others, key=lambda lease: lease.run, default=None)

    def _died(self, lease: LeaseName) -> bool:
        record = self._record(lease)
        if record is None or record.process is None:
            return False
        mine = record.process == this_process()
        return (mine and lease.run not in _at_work) or is_gone(record.process)

    def _put(self) -> None:
        now = self.archive.now()
        self.since = self.since or now
        self.newest = self.archive.put_lease(
            Lease(FORMAT, self.run, self.what, socket.gethostname(), this_process(), self.since, now + self.duration)
        )

    def _described(self, lease: LeaseName) -> str:
        record = self._record(lease)
        who = "another run"
        if record is not None:
            pid = f" (pid {pid_of(record.process)})" if record.process else ""
            who = f"{record.what} on {record.host}{pid} since {instant_text(record.since)}"
        return f"{who} (lease until {instant_text(lease.until)})"

    def _record(self, lease: LeaseName) -> Lease | None:
        try:
            return self.archive.lease(lease)
        except (ArchiveError, StoreError):
            return None
