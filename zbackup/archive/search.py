"""
Find a backup by its id among millions, of which each thousand costs a listing. Pure.

An id begins with the time of the run's start, so ids ascend with the numbers but for clocks that were set and for
runs that overlap. A whole id is looked for where its time says that it is; where it is not, and for a part of
an id, all are looked at.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from zbackup.archive.names import BackupName, is_backup

# A part of an id that more backups than these have is not told apart by counting on.
MOST = 100


def find(
    backup: str,
    generations: Sequence[tuple[Iterable[int], str]],
    block: Callable[[str, int], Sequence[BackupName]],
) -> list[BackupName]:
    """Return the backups with an id, else those with this part of it, `MOST` at most."""
    known = [(generation, sorted(thousands)) for thousands, generation in generations]
    if is_backup(backup):
        for generation, thousands in known:
            at = bisect_left(thousands, backup, key=lambda thousand: _last(block(generation, thousand)))
            for thousand in thousands[max(0, at - 1) : at + 2]:
                if found := [entry for entry in block(generation, thousand) if entry.backup == backup]:
                    return found
    partly: list[BackupName] = []
    for generation, thousands in known:
        for entry in (entry for thousand in reversed(thousands) for entry in block(generation, thousand)):
            if entry.backup == backup:
                return [entry]
            if backup and backup in entry.backup and len(partly) < MOST:
                partly.append(entry)
    return partly


def _last(entries: Sequence[BackupName]) -> str:
    return max((entry.backup for entry in entries), default="")
