"""
Tombstone lists: what a prune may remove, and from when on.

A prune writes down what it means to remove, and removes it not before the list is due, where nobody names it then.
A backup takes what any list names for absent when it plans. What it needs of lists that came later, it stores again
under names of its own before it commits; where such a list is due by then, it may not commit. What comes up while it
commits, it stores again and commits again. docs/decisions/0007-prune.md says why that is enough.

A list is acted on for LONGEST_RUN from its due time, then it is void. It stays until then at least, so that whoever
commits sees every list there was since it began.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from zbackup.archive import codec, names
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ObjectRef
from zbackup.archive.names import TombstonesName
from zbackup.errors import Damaged, ObjectMissing, Overtaken
from zbackup.event import instant_text

LONGEST_RUN = timedelta(days=7)
"""A run that is older may not commit, whatever it needs."""

LEAST_GRACE = timedelta(hours=1)
"""No run takes so long from its last look at the lists until its manifest is listed: one write, however often tried."""

LIST_NAMES = 100_000
"""Of about 100 bytes each, so that a list stays a record."""


@dataclass(frozen=True, slots=True)
class Tombstones:
    format: int
    at: datetime
    due: datetime
    """both by the store's clock"""
    border: datetime
    """backups whose recovery point lies before may be gone, by this list or one before it"""
    backups: int
    """manifests that were listed and are on no list: so many must be there for ever, until a later list names them"""
    newest: int
    """the greatest number among them"""
    names: tuple[str, ...]

    def is_void(self, now: datetime) -> bool:
        return now >= self.due + LONGEST_RUN


Lists = dict[TombstonesName, Tombstones]


def put_list(archive: Archive, identity: str, record: Tombstones) -> TombstonesName:
    body = codec.dump(record)
    name = TombstonesName(identity, record.due, hashlib.sha256(body).hexdigest())
    archive.put(str(name), body)
    return name


def read_lists(archive: Archive, known: Lists | None = None) -> Lists:
    """Read all lists, but for those that are known. Raises Damaged: what cannot be read may name anything."""
    lists: Lists = {}
    for stat in archive.store.list(names.TOMBSTONES):
        name = TombstonesName.parse(stat.name)
        if name is None:
            continue
        with suppress(ObjectMissing):  # void, and removed meanwhile
            lists[name] = known[name] if known and name in known else _read(archive, name)
    return lists


def border_of(lists: Lists) -> datetime | None:
    """Return before which instant backups may have been removed, None where no prune ever was."""
    return max((one.border for one in lists.values()), default=None)


def _read(archive: Archive, name: TombstonesName) -> Tombstones:
    try:
        return codec.load(archive.get(ObjectRef(str(name), name.sha256, 0)), Tombstones, str(name))
    except Damaged as error:
        raise Damaged(
            error.message,
            hint="Remove this list by hand while no prune and no backup runs: the next prune writes another one.",
        ) from error


class Watch:
    """What a run knows of the lists, from its beginning to its commit."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._began = archive.now()
        self._lists = read_lists(archive)
        self._first = frozenset(self._lists)
        self.absent = self._names(self._lists)
        """what the run must do without"""

    def expect_young(self) -> None:
        """Raise Overtaken when the run is older than any may be."""
        age = self._archive.now() - self._began
        if age > LONGEST_RUN:
            raise Overtaken(
                f"this run is {age} old, the oldest that may commit is {LONGEST_RUN}: nothing was committed",
                hint="Run it again: it takes over what this one has sealed. More --jobs make it shorter.",
            )

    def look(self) -> frozenset[str]:
        """Look again, and return all names that were on any list since the run began."""
        self._lists |= read_lists(self._archive, self._lists)
        self.absent |= self._names(self._lists)
        return self.absent

    def refuse_overdue(self, needed: Iterable[str]) -> None:
        """Raise Overtaken when one of these names may have been removed since the run began."""
        now = self._archive.now()
        due = {name: one for key, one in self._lists.items() if key not in self._first and one.due <= now
               for name in one.names}  # fmt: skip
        for name in needed:
            if name in due:
                raise Overtaken(
                    f"{name} may have been removed by a prune since {instant_text(due[name].due)}: "
                    "nothing was committed",
                    hint="This run took longer than the grace of `zbackup prune`. Run it again; if that happens "
                    "often, prune with a longer --grace.",
                )

    @staticmethod
    def _names(lists: Lists) -> frozenset[str]:
        return frozenset(name for one in lists.values() for name in one.names)
