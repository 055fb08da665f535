"""
The backups of an archive as their names tell them: which there are, which continues which, which answers.

Nothing is kept beside the names that could lag behind them or hide one: a listing always tells what is there. It is
read by folders (folders.py), a thousand numbers of a generation at a time and only where a question leads: the newest
backups are in the last folders, and links in the manifests lead far back in a line (ancestry.py). Two runs at once
may both commit; both stay restorable, and the next run continues the head by a fixed rule.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from heapq import merge
from itertools import chain, islice, takewhile

from zbackup.archive.folders import Block, Folders, rank
from zbackup.archive.manifest import Lineage
from zbackup.archive.names import BackupName
from zbackup.archive.search import find
from zbackup.errors import Damaged, ObjectMissing, UsageError


class Catalog:
    """Reads names as it is asked; those in `unread` link others and answer for nothing, `absent` are not there."""

    def __init__(
        self,
        folders: Folders,
        lineage: Callable[[BackupName], Lineage | None],
        unread: Collection[str] = (),
        absent: Collection[str] = (),
    ) -> None:
        self._folders, self._lineage = folders, lineage
        self.unread, self._absent = frozenset(unread), frozenset(absent)
        self._present: tuple[Block, Block] = (), ()
        self._entries: tuple[BackupName, ...] | None = None
        self._heads: tuple[BackupName, ...] | None = None
        self._lineages: dict[BackupName, Lineage | None] = {}

    @classmethod
    def of(
        cls,
        names: Iterable[str],
        lineage: Callable[[BackupName], Lineage | None] = lambda _: None,
        unread: Collection[str] = (),
    ) -> Catalog:
        """Make a catalog of names at hand. Raises Damaged for one that is not a manifest's."""
        return cls(Folders.of(names), lineage, unread)

    def without(self, absent: Collection[str]) -> Catalog:
        """Return the same look at the archive, as if the manifests of these names were not there."""
        return Catalog(self._folders, self._lineage, self.unread, self._absent | frozenset(absent))

    # Which there are

    @property
    def entries(self) -> tuple[BackupName, ...]:
        """All backups in the order of their numbers. Some 700 bytes each: not for a question that needs few."""
        if self._entries is None:
            self._entries = tuple(self.newest())[::-1]
        return self._entries

    def newest(self) -> Iterator[BackupName]:
        """Yield all backups, the newest first."""
        return merge(*(self._of(generation) for generation in self._folders.generations()), key=rank, reverse=True)

    def since(self, number: int) -> tuple[BackupName, ...]:
        """Return the backups with this number or a greater one."""
        return tuple(takewhile(lambda entry: entry.number >= number, self.newest()))[::-1]

    def recent(self, generation: str) -> tuple[BackupName, ...]:
        """Return the backups of the newest two thousands of numbers of a generation, in order."""
        blocks = islice(self._down(generation), 2)
        return tuple(entry for block in blocks for entry in block if str(entry) not in self.unread)[::-1]

    def heads(self) -> tuple[BackupName, ...]:
        """Return the newest backup of each generation, the newest first."""
        if self._heads is None:
            heads = [head for generation in self._folders.generations() for head in islice(self._of(generation), 1)]
            self._heads = tuple(sorted(heads, key=rank, reverse=True))
        return self._heads

    def head(self, generation: str | None = None) -> BackupName | None:
        """Return the newest backup, of all or of one generation. Raises UsageError for one that is not there."""
        if generation is None:
            return next(iter(self.heads()), None)
        for head in self.heads():
            if head.generation == generation:
                return head
        known = ", ".join(head.generation for head in self.heads()) or "none"
        raise UsageError(f"no generation {generation} in this archive", hint=f"It holds: {known}.")

    def next_number(self) -> int:
        return max((head.number for head in self.heads()), default=0) + 1

    def find(self, backup: str) -> BackupName:
        """Return a backup by its id or an unambiguous part of it, which takes a look at all. Raises UsageError."""
        found = find(
            backup,
            [(self._folders.thousands(generation), generation) for generation in self._folders.generations()],
            self._block,
        )
        if len(found) == 1:
            return found[0]
        problem = "names no backup" if not found else f"could be {len(found)} backups"
        raise UsageError(f"{backup!r} {problem}", hint="`zbackup list` shows the ids. Prune may have removed it.")

    def holds(self, entry: BackupName) -> bool:
        """Tell whether a backup is there and can be read."""
        return str(entry) not in self.unread and self.lists(entry)

    def lists(self, entry: BackupName) -> bool:
        """Tell whether a backup is there, whether it can be read or not."""
        return entry in self._block(entry.generation, entry.thousand)

    # Which continues which

    def line(self, head: BackupName) -> Iterator[BackupName]:
        """
        Yield a backup and those it continues, newest first.

        Where one was pruned the next older one of the generation follows: with it, whatever raced it has gone.
        """
        return (entry for entry in self._line(head) if str(entry) not in self.unread)

    def strays(self, head: BackupName, *near: BackupName) -> tuple[BackupName, ...]:
        """
        Return backups of the head's generation that its line does not hold: runs that raced another.

        Of the newest two thousands of numbers, and of the thousands of those in `near`.
        """
        recent = {entry.thousand for entry in self.recent(head.generation)}
        found = [
            stray
            for thousand in sorted(recent | {entry.thousand for entry in near if entry.generation == head.generation})
            for stray in self._beside(head, thousand)
        ]
        return tuple(sorted(found, key=rank))

    def answering(self, head: BackupName, at: datetime) -> tuple[BackupName, bool] | None:
        """
        Choose the backup of the head's line that answers for an instant, and whether its answer is final.

        The first one whose horizon is above the instant; between the newest horizon and its snapshot the head
        answers from its tail, not finally; beyond that nobody does.
        """

        def above(entry: BackupName) -> bool:
            return entry.horizon is not None and entry.horizon > at

        if not above(head):
            return (head, False) if at <= head.snapshot else None
        line = takewhile(above, chain((head,), self.line(self._back(head, above))))
        return deque(line, maxlen=1).pop(), True

    def _beside(self, head: BackupName, thousand: int) -> Iterator[BackupName]:
        """Yield the backups of one thousand of the head's generation that its line does not hold."""
        top = self._back(head, lambda entry: entry.thousand >= thousand)
        line = set(takewhile(lambda entry: entry.thousand >= thousand, self._line(top)))
        for entry in self._block(head.generation, thousand):
            if entry not in line and str(entry) not in self.unread:
                yield entry

    def _line(self, head: BackupName) -> Iterator[BackupName]:
        entry: BackupName | None = head
        while entry is not None:
            yield entry
            entry = self._parent(entry)

    def _parent(self, entry: BackupName) -> BackupName | None:
        """
        Return what a backup continues, or what follows where that was pruned.

        The name tells the random part of the parent's id. Where the folders near hold none that has it, the manifest
        tells the whole name; where it cannot be read, the rest of the generation is looked through.
        """
        if entry.parent is None:
            return None
        near = (self._block(entry.generation, entry.thousand),)
        older: BackupName | None = None
        for block in chain(near, self._down(entry.generation, entry.thousand - 1)):
            for one in islice(block, bisect_left(block, -entry.number, key=lambda one: -one.number), None):
                # The nearest: of millions some share the random part of their ids.
                if one.random == entry.parent and rank(one) < rank(entry):
                    return one
                if older is None and one.number < entry.number:
                    older = one
            if older is not None and (told := self._told(entry)) is not None:
                return told if self.lists(told) else older
        return older

    def _told(self, entry: BackupName) -> BackupName | None:
        """Return the parent that a manifest names; None when it cannot be read, or names none that can be it."""
        lineage = self._lineage_of(entry)
        told = BackupName.parse(lineage.parent) if lineage and lineage.parent else None
        possible = told is not None and told.generation == entry.generation and told.number < entry.number
        return told if possible else None

    def _back(self, head: BackupName, wanted: Callable[[BackupName], bool]) -> BackupName:
        """
        Go back along the links of a line as far as they lead to what is wanted, which all that is newer must be.

        What cannot be read leads nowhere: from there the names tell the line, a thousand to a listing.
        """
        entry = head
        while links := [link for link in self._links_of(entry) if wanted(link)]:
            further = next((link for link in sorted(links, key=rank) if self._lineage_of(link) is not None), None)
            if further is None:
                break
            entry = further
        return entry

    def _links_of(self, entry: BackupName) -> Iterator[BackupName]:
        lineage = self._lineage_of(entry)
        ancestry = lineage.ancestry if lineage else None
        for link in map(BackupName.parse, ancestry.links if ancestry else ()):
            if link.generation == entry.generation and link.number < entry.number:
                yield link

    def _lineage_of(self, entry: BackupName) -> Lineage | None:
        """Return what a manifest tells of its line; None where it is not there or cannot be read."""
        if str(entry) in self._absent:
            return None
        if entry not in self._lineages:
            try:
                self._lineages[entry] = self._lineage(entry)
            except (Damaged, ObjectMissing):
                self._lineages[entry] = None
        return self._lineages[entry]

    # Folders

    def _of(self, generation: str) -> Iterator[BackupName]:
        """Yield the backups of a generation, the newest first."""
        return (entry for block in self._down(generation) for entry in block if str(entry) not in self.unread)

    def _down(self, generation: str, most: int | None = None) -> Iterator[Block]:
        """Yield the backups of a generation by thousands, up to one of them, the greatest first."""
        for thousand in self._folders.thousands(generation, most):
            if block := self._block(generation, thousand):
                yield block

    def _block(self, generation: str, thousand: int) -> Block:
        block = self._folders.block(generation, thousand)
        if not self._absent:
            return block
        if block is not self._present[0]:
            self._present = block, tuple(entry for entry in block if str(entry) not in self._absent)
        return self._present[1]
