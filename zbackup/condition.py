"""In what condition an archive is, by what it tells of itself: what is in order, and what deserves a look. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from zbackup.archive.manifest import Counted, Manifest
from zbackup.archive.records import Record
from zbackup.check import Check, fail, ok, warn
from zbackup.periods import spoken

# Where there are too few backups to tell what is usual, one a night is expected.
NIGHTLY = timedelta(days=1)

# A backup is late after twice the usual interval, and nobody is alarmed within the first hour.
LEAST_LATE = timedelta(hours=1)

# A verify that looked at everything is expected once a week, a drill once in a quarter; what was longest not counted
# at the source comes to its turn in between.
VERIFY_WITHIN, DRILL_WITHIN, COUNT_WITHIN = timedelta(days=8), timedelta(days=100), timedelta(days=100)


def condition(
    head: Manifest | None,
    *,
    now: datetime,
    usual: timedelta | None,
    captured: Manifest | None,
    counted: Counted | None,
    records: Sequence[Record],
    unreadable: int,
) -> Iterator[Check]:
    """
    Say of each thing whether it is as it should be.

    `head` is the newest backup, None where none can be read; `captured` the newest of its line with a whole capture.
    """
    if unreadable:
        yield fail("objects", f"{unreadable} objects could not be read", "Run `zbackup verify`.")
    if head is None:
        yield fail("backup", "there is no backup that can be read", "Run `zbackup backup`, or `zbackup verify`.")
        return
    yield _newest(head, now, usual)
    yield _horizon(head)
    yield _capture(captured)
    if head.warnings:
        yield warn(
            "warnings",
            f"the newest backup ended with {_many(len(head.warnings), 'warning')}",
            f"`zbackup show {head.backup}` prints them.",
        )
    yield _counted(head, counted)
    yield _record(records, "verify", VERIFY_WITHIN, now, "`zbackup run` verifies as it is set up.")
    yield _record(records, "drill", DRILL_WITHIN, now, "Run `zbackup drill`: only a restore proves a backup.")


def _newest(head: Manifest, now: datetime, usual: timedelta | None) -> Check:
    late = max(LEAST_LATE, 2 * (usual or NIGHTLY))
    age = now - head.snapshot
    every = f"; they usually come every {spoken(usual)}" if usual else ""
    message = f"the newest backup is {spoken(age)} old{every}"
    if age <= late:
        return ok("backup", message)
    return warn("backup", message, "Look at what runs `zbackup`: its log, its schedule.")


def _horizon(head: Manifest) -> Check:
    if head.horizon.at is None:
        return warn("horizon", "nothing is final yet: the log has no horizon", "`zbackup doctor` tells why.")
    behind = head.snapshot - head.horizon.at
    message = f"all but the last {spoken(behind)} before the newest backup is final"
    if behind <= LEAST_LATE:
        return ok("horizon", message)
    named = [
        f"{one.kind} of {one.role or 'somebody'} ({one.application or 'no name'})" for one in head.horizon.blockers
    ]
    held = f", held back by {named[0]}" if named else ""
    return warn("horizon", message + held, "End the transaction that holds it back, or find out why it takes so long.")


def _capture(newest: Manifest | None) -> Check:
    if newest is None or newest.capture is None:
        return warn(
            "capture",
            "no backup has captured the tables beside the events",
            "Run `zbackup backup` without --no-capture: a restore needs one.",
        )
    if not newest.capture.schema:
        return warn(
            "capture",
            f"the capture of {_instant(newest.snapshot)} is without the text of the schema",
            "An empty target needs it: `zbackup doctor` tells why pg_dump could not be used.",
        )
    return ok("capture", f"tables and schema were captured with the backup of {_instant(newest.snapshot)}")


def _counted(head: Manifest, counted: Counted | None) -> Check:
    if counted is None:
        return ok("audit", "nothing was old enough yet to be counted at the source again")
    since = head.snapshot - counted.at
    if counted.at.year == 1:
        return warn(
            "audit", "some old ranges were never counted at the source", "Give backups a larger --audit-budget."
        )
    message = f"every range was counted at the source within {spoken(since)} before the newest backup"
    if since <= COUNT_WITHIN:
        return ok("audit", message)
    return warn("audit", message, "Give backups a larger --audit-budget.")


def _record(records: Sequence[Record], kind: str, within: timedelta, now: datetime, how: str) -> Check:
    newest = next((one for one in records if one.kind == kind), None)
    if newest is None:
        return warn(kind, f"no {kind} is on record in this archive", how)
    message = f"the last {kind} {'went well' if newest.ok else 'failed'}, {spoken(now - newest.ended)} ago"
    if not newest.ok:
        return fail(kind, message, "Its figures are in the list below; run it again.")
    return ok(kind, message) if now - newest.ended <= within else warn(kind, message, how)


def _instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
