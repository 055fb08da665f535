"""
The backups of an archive as their names tell them: which there are, which continues which, which answers.

Pure: made of a listing. Two runs at once may both commit; both stay restorable, and the next run continues
the head by a fixed rule.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from zbackup.archive.names import BackupName
from zbackup.errors import UsageError
from zbackup.event import BEGINNING


@dataclass(frozen=True, slots=True)
class Catalog:
    entries: tuple[BackupName, ...]
    """in the order of their numbers"""
    unread: tuple[BackupName, ...] = ()
    """those that are passed over: they link others, and answer for nothing"""

    @classmethod
    def of(cls, names: Iterable[str], unread: Collection[str] = ()) -> Catalog:
        """Read manifest names; those in `unread` are passed over. Raises Damaged for one that is none."""
        entries = sorted((BackupName.parse(name) for name in names), key=rank)
        return cls(
            tuple(entry for entry in entries if str(entry) not in unread),
            tuple(entry for entry in entries if str(entry) in unread),
        )

    def heads(self) -> tuple[BackupName, ...]:
        """Return the newest backup of each generation, the newest first."""
        newest: dict[str, BackupName] = {}
        for entry in self.entries:
            newest[entry.generation] = entry
        return tuple(sorted(newest.values(), key=rank, reverse=True))

    def head(self, generation: str | None = None) -> BackupName | None:
        """Return the newest backup, of all or of one generation. Raises UsageError for one that is not there."""
        if generation is None:
            return self.entries[-1] if self.entries else None
        for head in self.heads():
            if head.generation == generation:
                return head
        known = ", ".join(head.generation for head in self.heads()) or "none"
        raise UsageError(f"no generation {generation} in this archive", hint=f"It holds: {known}.")

    def line(self, head: BackupName) -> tuple[BackupName, ...]:
        """
        Return a backup and those it continues, oldest first.

        Where one was pruned the next older one of the generation follows: with it, whatever raced it has gone.
        """
        known = sorted((one for one in (*self.entries, *self.unread) if one.generation == head.generation), key=rank)
        by_random = {entry.random: entry for entry in known}
        line = [head]
        while line[-1].parent is not None:
            parent = by_random.get(line[-1].parent)
            if parent is None:
                older = known[: bisect_left(known, (line[-1].number,), key=lambda one: (one.number,))]
                parent = older[-1] if older else None
            if parent is None or rank(parent) >= rank(line[-1]):
                break
            line.append(parent)
        return tuple(entry for entry in reversed(line) if entry not in self.unread)

    def without(self, names: Collection[str]) -> Catalog:
        """Return the catalog as if the manifests of these names were not there."""
        return Catalog(tuple(entry for entry in self.entries if str(entry) not in names), self.unread)

    def strays(self, head: BackupName) -> tuple[BackupName, ...]:
        """Return backups of the head's generation that its line does not hold: runs that raced another."""
        line = set(self.line(head))
        return tuple(entry for entry in self.entries if entry.generation == head.generation and entry not in line)

    def find(self, backup: str) -> BackupName:
        """Return a backup by its id or an unambiguous part of it. Raises UsageError."""
        entries = (*self.entries, *self.unread)
        found = [entry for entry in entries if entry.backup == backup]
        found = found or [entry for entry in entries if backup and backup in entry.backup]
        if len(found) == 1:
            return found[0]
        problem = "names no backup" if not found else f"could be {len(found)} backups"
        raise UsageError(f"{backup!r} {problem}", hint="`zbackup list` shows the ids. Prune may have removed it.")

    def holds(self, entry: BackupName) -> bool:
        return entry in self.entries or entry in self.unread

    def next_number(self) -> int:
        return self.entries[-1].number + 1 if self.entries else 1


def rank(entry: BackupName) -> tuple[int, datetime, datetime, str]:
    """Order of backups: the greatest one is the head that the next run continues."""
    return entry.number, entry.horizon or BEGINNING, entry.snapshot, entry.backup


def answering(line: tuple[BackupName, ...], at: datetime) -> tuple[BackupName, bool] | None:
    """
    Choose the backup of a line that answers for an instant, and whether its answer is final.

    The first one whose horizon is above the instant; between the newest horizon and its snapshot the newest
    one answers from its tail, not finally; beyond that nobody does.
    """
    for entry in line:
        if entry.horizon is not None and entry.horizon > at:
            return entry, True
    newest = line[-1]
    return (newest, False) if at <= newest.snapshot else None
