"""Which ranges of a log were counted against the source when: a short list of intervals, pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from zbackup.archive.manifest import Counted
from zbackup.event import BEGINNING

# A manifest keeps at most this many intervals; beyond it neighbours are merged to the older time, which only
# counts something again too early.
MOST = 100


def mark(counted: Iterable[Counted], lo: datetime, hi: datetime, at: datetime) -> tuple[Counted, ...]:
    """Note that [lo, hi) was counted at an instant."""
    if lo >= hi:
        return tuple(counted)
    pieces: list[Counted] = [Counted(lo, hi, at)]
    for old in counted:
        if old.lo < min(old.hi, lo):
            pieces.append(Counted(old.lo, min(old.hi, lo), old.at))
        if max(old.lo, hi) < old.hi:
            pieces.append(Counted(max(old.lo, hi), old.hi, old.at))
    pieces.sort(key=lambda piece: piece.lo)
    merged: list[Counted] = []
    for piece in pieces:
        if merged and merged[-1].hi == piece.lo and merged[-1].at == piece.at:
            merged[-1] = Counted(merged[-1].lo, piece.hi, piece.at)
        else:
            merged.append(piece)
    while len(merged) > MOST:
        at_index = min(range(len(merged) - 1), key=lambda index: abs(merged[index].at - merged[index + 1].at))
        one, other = merged[at_index : at_index + 2]
        merged[at_index : at_index + 2] = [Counted(one.lo, other.hi, min(one.at, other.at))]
    return tuple(merged)


def counted_at(counted: Iterable[Counted], lo: datetime, hi: datetime) -> datetime:
    """Return since when nothing of [lo, hi) was counted: the oldest time within it."""
    times = [piece.at for piece in counted if piece.lo < hi and lo < piece.hi]
    return min(times, default=BEGINNING)


def oldest(counted: Iterable[Counted]) -> Counted | None:
    """Return the interval that was counted longest ago."""
    return min(counted, key=lambda piece: (piece.at, piece.lo), default=None)
