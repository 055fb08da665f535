"""What `follow` tells after each look at the source."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from zbackup.backup import BackupResult
from zbackup.errors import ZbackupError
from zbackup.source import Blocker

Kind = Literal["committed", "unchanged", "postponed", "failed"]
"""
A backup was made; nothing is new; something is new and waits, because increments are rarer than looks; an error.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one tick came to, and how things stand; all that a page of metrics needs."""

    time: datetime
    """when it ended, by this machine's clock, as all times here but those of the source"""
    number: int
    outcome: Kind
    thorough: bool
    """with capture and counts"""
    seconds: float
    result: BackupResult | None
    """of the backup, where one was made"""
    error: ZbackupError | None
    ends: bool
    """it goes no further with this error"""
    failures: int
    """in a row, up to this tick"""
    failing_since: datetime | None
    last_success: datetime | None
    """committed or unchanged"""
    last_failure: datetime | None
    oldest: datetime | None
    """the first event of the newest backup's generation"""
    final: datetime | None
    """the newest horizon: up to here every answer is final"""
    newest: datetime | None
    """the newest restorable instant: when the newest backup's snapshot was taken, by the source's clock"""
    confirmed: datetime | None
    """all that was committed at the source by then is in the archive"""
    audited: datetime | None
    """when the range of the log that was counted longest ago was counted"""
    horizon_age: float | None
    """seconds by which the horizon lies behind the source's clock"""
    blockers: tuple[Blocker, ...]
    """who holds it back, the oldest first"""
    tail: int
    tail_bytes: int
    """stored, of the newest backup's tail"""
    interval: float
    """seconds between increments as things stand: `every`, or more because of the tail"""
    pause: float
    """seconds until the next tick"""
