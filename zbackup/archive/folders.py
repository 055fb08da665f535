"""
The folders that manifests lie in, read one by one as they are asked for: a thousand numbers of a generation each.

What was read is kept, so that whoever asks twice sees the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from zbackup.archive.names import MANIFESTS, THOUSAND, BackupName, is_manifest, manifests_of
from zbackup.event import BEGINNING

# Thousands that are kept once read: less than 1 MB each.
HELD = 16

Listed = Callable[[str], Iterable[str]]
"""the names directly in a folder, those of folders with a slash at their end"""

Block = tuple[BackupName, ...]
"""the backups of one generation and one thousand of numbers, the newest first"""


class _Top(NamedTuple):
    generations: tuple[str, ...]
    flat: dict[tuple[str, int], list[BackupName]]
    """manifests in no folders, as they once were, by generation and thousand: there are few"""


class Folders:
    def __init__(self, listed: Listed) -> None:
        self._listed = listed
        self._top: _Top | None = None
        self._blocks: OrderedDict[tuple[str, int], Block] = OrderedDict()
        self._inside: dict[str, tuple[int, ...]] = {}

    @classmethod
    def of(cls, names: Iterable[str]) -> Folders:
        """Sort names at hand into folders. Raises Damaged for one that is not a manifest's."""
        folders: dict[str, dict[str, None]] = {}
        for name in names:
            BackupName.parse(name)
            parts = name.split("/")
            for depth in range(1, len(parts)):
                inside = "/".join(parts[: depth + 1]) + "/" * (depth + 1 < len(parts))
                folders.setdefault("/".join(parts[:depth]) + "/", {})[inside] = None
        return cls(lambda folder: folders.get(folder, ()))

    def generations(self) -> tuple[str, ...]:
        return self._at_top().generations

    def thousands(self, generation: str, most: int | None = None) -> Iterator[int]:
        """Yield which thousands of numbers a generation has folders of, up to one of them, the greatest first."""
        flat = [thousand for name, thousand in self._at_top().flat if name == generation]
        millions = self._numbers(f"{MANIFESTS}{generation}/", 4)
        for million in sorted({*millions, *(thousand // THOUSAND for thousand in flat)}, reverse=True):
            if most is not None and million > most // THOUSAND:
                continue
            inside = self._numbers(f"{MANIFESTS}{generation}/{million:04d}/", 3) if million in millions else ()
            there = {million * THOUSAND + number for number in inside}
            there.update(thousand for thousand in flat if thousand // THOUSAND == million)
            yield from (thousand for thousand in sorted(there, reverse=True) if most is None or thousand <= most)

    def block(self, generation: str, thousand: int) -> Block:
        key = generation, thousand
        if key not in self._blocks:
            folder = manifests_of(generation, thousand)
            found = [BackupName.parse(name) for name in self._listed(folder) if is_manifest(name)]
            self._blocks[key] = tuple(sorted([*found, *self._at_top().flat.get(key, ())], key=rank, reverse=True))
            if len(self._blocks) > HELD:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return self._blocks[key]

    def _at_top(self) -> _Top:
        if self._top is None:
            names = tuple(self._listed(MANIFESTS))
            flat: dict[tuple[str, int], list[BackupName]] = {}
            for entry in map(BackupName.parse, filter(is_manifest, names)):
                flat.setdefault((entry.generation, entry.thousand), []).append(entry)
            folders = (name.removeprefix(MANIFESTS).rstrip("/") for name in names if name.endswith("/"))
            found = {*(name for name in folders if len(name) == 8), *(generation for generation, _ in flat)}
            self._top = _Top(tuple(sorted(found)), flat)
        return self._top

    def _numbers(self, folder: str, digits: int) -> tuple[int, ...]:
        """Return the folders in a folder that are called by so many digits."""
        if folder not in self._inside:
            names = (name.removeprefix(folder).rstrip("/") for name in self._listed(folder) if name.endswith("/"))
            found = (int(name) for name in names if len(name) == digits and name.isascii() and name.isdecimal())
            self._inside[folder] = tuple(sorted(found))
        return self._inside[folder]


def rank(entry: BackupName) -> tuple[int, datetime, datetime, str]:
    """Order of backups: the greatest one is the head that the next run continues."""
    return entry.number, entry.horizon or BEGINNING, entry.snapshot, entry.backup
