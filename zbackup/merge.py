"""Walk two streams of rows in the archive's order side by side. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from zbackup.event import cursor_of


class Change(Enum):
    SAME = "same"
    CHANGED = "changed"
    ADDED = "added"
    """only the new stream has it"""
    REMOVED = "removed"
    """only the old stream has it"""


def merge(old: Iterator[bytes], new: Iterator[bytes]) -> Iterator[tuple[Change, bytes]]:
    """
    Yield every row once, told apart by its cursor; of a changed one the new row.

    Memory stays that of two rows. Reads both streams to their ends.
    """
    before = next(old, None)
    for row in new:
        if before is None:
            yield Change.ADDED, row
            continue
        cursor = cursor_of(row)
        while before is not None and cursor_of(before) < cursor:
            yield Change.REMOVED, before
            before = next(old, None)
        if before is not None and cursor_of(before) == cursor:
            yield (Change.SAME if before == row else Change.CHANGED), row
            before = next(old, None)
        else:
            yield Change.ADDED, row
    while before is not None:
        yield Change.REMOVED, before
        before = next(old, None)
