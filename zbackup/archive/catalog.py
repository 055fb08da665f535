"""
The backups of an archive as their names tell them: which there are, which continues which, which answers.

Nothing is kept beside the names that could lag behind them or hide one: a listing always tells what is there. It is
read by folders (names.py), a thousand numbers of a generation at a time and only where a question leads: the newest
backups are in the last folders, and links in the manifests lead far back in a line (ancestry.py). Two runs at once
may both commit; both stay restorable, and the next run continues the head by a fixed rule.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from functools import cached_property
from heapq import merge
from itertools import chain, islice, takewhile

from zbackup.archive.manifest import Ancestry
from zbackup.archive.names import MANIFESTS, THOUSAND, BackupName, is_manifest, manifests_of
from zbackup.archive.search import find
from zbackup.errors import Damaged, ObjectMissing, UsageError
from zbackup.event import BEGINNING

# Thousands that are kept once read: less than 1 MB each.
HELD = 16

Listed = Callable[[str], Iterable[str]]
"""the names directly in a folder, those of folders with a slash at their end"""

Block = tuple[BackupName, ...]
"""the backups of one generation and one thousand of numbers, the newest first"""


class Catalog:
    """Reads names as it is asked, and each folder once; those in `unread` link others and answer for nothing."""

    def __init__(
        self, listed: Listed, ancestry: Callable[[BackupName], Ancestry | None], unread: Collection[str] = ()
    ) -> None:
        self._listed, self._ancestry = listed, ancestry
        self.unread = frozenset(unread)
        self._blocks: OrderedDict[tuple[str, int], Block] = OrderedDict()
        self._inside: dict[str, tuple[int, ...]] = {}
        self._links: dict[BackupName, Ancestry | None] = {}

    @classmethod
    def of(
        cls,
        names: Iterable[str],
        ancestry: Callable[[BackupName], Ancestry | None] = lambda _: None,
        unread: Collection[str] = (),
    ) -> Catalog:
        """Make a catalog of names at hand. Raises Damaged for one that is not a manifest's."""
        folders: dict[str, dict[str, None]] = {}
        for name in names:
            BackupName.parse(name)
            parts = name.split("/")
            for depth in range(1, len(parts)):
                inside = "/".join(parts[: depth + 1]) + "/" * (depth + 1 < len(parts))
                folders.setdefault("/".join(parts[:depth]) + "/", {})[inside] = None
        return cls(lambda folder: folders.get(folder, ()), ancestry, unread)

    # Which there are

    @cached_property
    def entries(self) -> tuple[BackupName, ...]:
        """All backups in the order of their numbers. Some 700 bytes each: not for a question that needs few."""
        return tuple(self.newest())[::-1]

    def newest(self) -> Iterator[BackupName]:
        """Yield all backups, the newest first."""
        return merge(*(self._of(generation) for generation in self._generations), key=rank, reverse=True)

    def since(self, number: int) -> tuple[BackupName, ...]:
        """Return the backups with this number or a greater one."""
        return tuple(takewhile(lambda entry: entry.number >= number, self.newest()))[::-1]

    def recent(self, generation: str) -> tuple[BackupName, ...]:
        """Return the backups of the newest two thousands of numbers of a generation, in order."""
        blocks = islice(self._down(generation), 2)
        return tuple(entry for block in blocks for entry in block if str(entry) not in self.unread)[::-1]

    @cached_property
    def _heads(self) -> tuple[BackupName, ...]:
        heads = [head for generation in self._generations for head in islice(self._of(generation), 1)]
        return tuple(sorted(heads, key=rank, reverse=True))

    def heads(self) -> tuple[BackupName, ...]:
        """Return the newest backup of each generation, the newest first."""
        return self._heads

    def head(self, generation: str | None = None) -> BackupName | None:
        """Return the newest backup, of all or of one generation. Raises UsageError for one that is not there."""
        if generation is None:
            return self._heads[0] if self._heads else None
        for head in self._heads:
            if head.generation == generation:
                return head
        known = ", ".join(head.generation for head in self._heads) or "none"
        raise UsageError(f"no generation {generation} in this archive", hint=f"It holds: {known}.")

    def next_number(self) -> int:
        return self._heads[0].number + 1 if self._heads else 1

    def find(self, backup: str) -> BackupName:
        """Return a backup by its id or an unambiguous part of it, which takes a look at all. Raises UsageError."""
        found = find(
            backup, [(self._thousands(generation), generation) for generation in self._generations], self._block
        )
        if len(found) == 1:
            return found[0]
        problem = "names no backup" if not found else f"could be {len(found)} backups"
        raise UsageError(f"{backup!r} {problem}", hint="`zbackup list` shows the ids.")

    def holds(self, entry: BackupName) -> bool:
        """Tell whether a backup is there and can be read."""
        return str(entry) not in self.unread and entry in self._block(entry.generation, entry.thousand)

    # Which continues which

    def line(self, head: BackupName) -> Iterator[BackupName]:
        """Yield a backup and those it continues, newest first; what was pruned ends the line."""
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
        yield head
        last = head
        for block in self._down(head.generation, head.thousand):
            for entry in block:
                if last.parent is None:
                    return
                # The nearest: of millions some share the random part of their ids.
                if entry.random == last.parent and rank(entry) < rank(last):
                    yield entry
                    last = entry

    def _back(self, head: BackupName, wanted: Callable[[BackupName], bool]) -> BackupName:
        """
        Go back along the links of a line as far as they lead to what is wanted, which all that is newer must be.

        What cannot be read leads nowhere: from there the names tell the line, a thousand to a listing.
        """
        entry = head
        while links := [link for link in self._links_of(entry) if wanted(link)]:
            further = next((link for link in sorted(links, key=rank) if self._linked(link) is not None), None)
            if further is None:
                break
            entry = further
        return entry

    def _links_of(self, entry: BackupName) -> Iterator[BackupName]:
        ancestry = self._linked(entry)
        for link in map(BackupName.parse, ancestry.links if ancestry else ()):
            if link.generation == entry.generation and link.number < entry.number:
                yield link

    def _linked(self, entry: BackupName) -> Ancestry | None:
        if entry not in self._links:
            try:
                self._links[entry] = self._ancestry(entry)
            except (Damaged, ObjectMissing):
                self._links[entry] = None
        return self._links[entry]

    # Folders

    @cached_property
    def _flat(self) -> dict[tuple[str, int], list[BackupName]]:
        """Manifests in no folders, as they once were: there are few."""
        found: dict[tuple[str, int], list[BackupName]] = {}
        for entry in map(BackupName.parse, filter(is_manifest, self._top)):
            found.setdefault((entry.generation, entry.thousand), []).append(entry)
        return found

    @cached_property
    def _top(self) -> tuple[str, ...]:
        return tuple(self._listed(MANIFESTS))

    @cached_property
    def _generations(self) -> tuple[str, ...]:
        folders = (name.removeprefix(MANIFESTS).rstrip("/") for name in self._top if name.endswith("/"))
        return tuple(sorted({*(name for name in folders if len(name) == 8), *(key[0] for key in self._flat)}))

    def _of(self, generation: str) -> Iterator[BackupName]:
        """Yield the backups of a generation, the newest first."""
        return (entry for block in self._down(generation) for entry in block if str(entry) not in self.unread)

    def _down(self, generation: str, most: int | None = None) -> Iterator[Block]:
        """Yield the backups of a generation by thousands, up to one of them, the greatest first."""
        for thousand in self._thousands(generation, most):
            if block := self._block(generation, thousand):
                yield block

    def _thousands(self, generation: str, most: int | None = None) -> Iterator[int]:
        flat = [thousand for name, thousand in self._flat if name == generation]
        millions = self._numbers(f"{MANIFESTS}{generation}/", 4)
        for million in sorted({*millions, *(thousand // THOUSAND for thousand in flat)}, reverse=True):
            if most is not None and million > most // THOUSAND:
                continue
            inside = self._numbers(f"{MANIFESTS}{generation}/{million:04d}/", 3) if million in millions else ()
            there = {million * THOUSAND + number for number in inside}
            there.update(thousand for thousand in flat if thousand // THOUSAND == million)
            yield from (thousand for thousand in sorted(there, reverse=True) if most is None or thousand <= most)

    def _numbers(self, folder: str, digits: int) -> tuple[int, ...]:
        """Return the folders in a folder that are called by so many digits."""
        if folder not in self._inside:
            names = (name.removeprefix(folder).rstrip("/") for name in self._listed(folder) if name.endswith("/"))
            found = (int(name) for name in names if len(name) == digits and name.isascii() and name.isdecimal())
            self._inside[folder] = tuple(sorted(found))
        return self._inside[folder]

    def _block(self, generation: str, thousand: int) -> Block:
        key = generation, thousand
        if key not in self._blocks:
            folder = manifests_of(generation, thousand)
            found = [BackupName.parse(name) for name in self._listed(folder) if is_manifest(name)]
            self._blocks[key] = tuple(sorted([*found, *self._flat.get(key, ())], key=rank, reverse=True))
            if len(self._blocks) > HELD:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return self._blocks[key]


def rank(entry: BackupName) -> tuple[int, datetime, datetime, str]:
    """Order of backups: the greatest one is the head that the next run continues."""
    return entry.number, entry.horizon or BEGINNING, entry.snapshot, entry.backup
