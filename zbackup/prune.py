"""
Remove what an archive does not need any more, in two phases.

The first writes tombstone lists; the second, when a list is due, looks at everything again and removes what is on
it and still may go. Each run does both, the second phase first. Backups may run at any time (archive/tombstones.py),
and so may other prunes: what one has removed the other finds gone.

Manifests go first, those that raced before those of the line, then what no manifest names that is left: whenever a
run ends or is killed, all that a manifest names is there.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, TypeVar

from zbackup import inspect
from zbackup.archive import FORMAT, find, names
from zbackup.archive.archive import Archive
from zbackup.archive.catalog import Catalog
from zbackup.archive.folders import rank
from zbackup.archive.leftovers import leftover
from zbackup.archive.manifest import ChunkRef, Manifest
from zbackup.archive.needed import Lost, Needed, Rules, covered, needed
from zbackup.archive.tombstones import LEAST_GRACE, LIST_NAMES, Tombstones, border_of, put_list
from zbackup.errors import AccessDenied, Locked, UsageError
from zbackup.inventory import take_inventory
from zbackup.progress import Report, Step, Warned, silent
from zbackup.store.base import Stat

T = TypeVar("T")
State = Literal["new", "waiting", "due"]
"""on no list yet, on one that is not due, on one that is"""

# Removed at once, and between two looks at the clock.
AT_ONCE, BATCH = 8, 100

# What was looked at longer ago is not acted on.
FRESH = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Going:
    """Objects of one kind that may go, for one reason."""

    kind: str
    why: str
    state: State
    objects: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Verdict:
    backup: str
    generation: str
    snapshot: datetime
    stays: bool
    why: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """An object that the store does not let go."""

    object: str
    why: str
    until: datetime | None
    """None: the store does not tell"""


@dataclass(frozen=True, slots=True)
class PruneResult:
    done: bool
    """False: a dry run"""
    going: tuple[Going, ...]
    backups: tuple[Verdict, ...]
    listed: int
    """objects put on a list by this run"""
    removed: int
    removed_bytes: int
    due: datetime | None
    """from when on another run removes what is on a list and not due yet"""
    skipped: tuple[Skipped, ...]
    unknown: tuple[str, ...]
    """objects that are none of zbackup's"""
    before: tuple[inspect.Window, ...]
    after: tuple[inspect.Window, ...]
    """what can be restored when all that may go has gone"""
    forgotten: tuple[Lost, ...]
    """of this run, when all has gone"""


def prune(
    archive: Archive, rules: Rules, *, grace: timedelta, yes: bool = False, report: Report = silent
) -> PruneResult:
    """
    Say what may go; with `yes` put it on a list, and remove what is on one that is due.

    Raises:
        UsageError: a generation that is not there or is the newest, a grace that is too short.
        Incomplete: an object that must be there is not listed; nothing was removed.
        AccessDenied: no right to delete, or to write a list.

    """
    if grace < LEAST_GRACE:
        raise UsageError(
            f"a grace of {grace} is too short",
            hint=f"Give {LEAST_GRACE} or more, and at least what the longest backup takes.",
        )
    return _Prune(archive, rules, grace, report).run(yes=yes)


@dataclass(slots=True)
class _Going:
    stat: Stat
    kind: str
    why: str
    state: State


class _Prune:
    def __init__(self, archive: Archive, rules: Rules, grace: timedelta, report: Report) -> None:
        self.archive, self.rules, self.grace, self.report = archive, rules, grace, report
        self.skipped: list[Skipped] = []

    def run(self, *, yes: bool) -> PruneResult:
        self.report(Step("prune", "looking"))
        self.found = take_inventory(self.archive)
        self.lists = dict(self.found.lists)
        self.border = self.found.at - self.rules.window
        self._expect_generations()
        verdict = self._verdict()
        going = self._going(verdict)
        result = self._result(verdict, going.values())
        if not yes:
            return result
        removed = self._remove(verdict, {name: one for name, one in going.items() if one.state == "due"})
        listed = self._list([name for name, one in going.items() if one.state == "new"])
        return replace(
            result,
            done=True,
            listed=listed,
            removed=len(removed),
            removed_bytes=sum(stat.size for stat in removed),
            due=self._due(),
            skipped=tuple(self.skipped),
        )

    # Looking

    def _expect_generations(self) -> None:
        catalog = self.found.catalog
        for generation in sorted(self.rules.forget):
            if catalog.head(generation) == catalog.head():
                raise UsageError(
                    f"generation {generation} is the newest, which is never forgotten",
                    hint="`zbackup list` shows the generations.",
                )

    def _verdict(self) -> Needed:
        def chunks(manifest: Manifest) -> Iterable[ChunkRef]:
            return find.chunks_of(self.archive, manifest)

        full = covered(self.found.catalog, self.found.manifests, self.rules, chunks)
        return needed(self.found.catalog, self.found.manifests, self.rules, self.found.at, full)

    def _going(self, verdict: Needed) -> dict[str, _Going]:
        """Tell what may go, and why."""
        found, states = self.found, self._states()
        kept = found.named.of_all(found.manifests[entry] for entry in verdict.kept)
        superseded = self._superseded(verdict)
        committed = {entry.backup for entry in found.catalog.entries}
        newest = max(self.lists, key=lambda name: self.lists[name].at, default=None)
        void = {str(name) for name, one in self.lists.items() if name != newest and one.is_void(found.at)}
        going: dict[str, _Going] = {}
        for name, stat in found.listing.items():
            if name in kept:
                continue
            # What is on a list was old enough when it was put there.
            border = found.at if name in states else self.border
            why = superseded.get(name) or leftover(stat, now=found.at, border=border, committed=committed)
            why = ("tombstones", "void") if name in void else why
            if why is not None:
                going[name] = _Going(stat, *why, states.get(name, "new"))
        return going

    def _superseded(self, verdict: Needed) -> dict[str, tuple[str, str]]:
        """Return kind and reason of what backups name that go, and of their manifests; others may name it, too."""
        whys: dict[str, tuple[str, str]] = {}
        for entry in sorted(verdict.gone, key=rank):
            manifest, why = self.found.manifests[entry], verdict.gone[entry]
            tails = {chunk.name for chunk in manifest.tail}
            for name in self.found.named.of(manifest):
                whys[name] = ("tail" if name in tails else str(names.kind_of(name))), why
            whys[str(entry)] = "manifest", why
        return whys

    def _states(self) -> dict[str, State]:
        """Tell what is on a list, and whether it is due there. Void lists do not count."""
        states: dict[str, State] = {}
        for one in sorted(self.lists.values(), key=lambda one: one.due, reverse=True):
            if not one.is_void(self.found.at):
                states |= dict.fromkeys(one.names, "due" if one.due <= self.found.at else "waiting")
        return states

    def _result(self, verdict: Needed, going: Iterable[_Going]) -> PruneResult:
        groups: dict[tuple[str, str, State], list[int]] = {}
        for one in going:
            groups.setdefault((one.kind, one.why, one.state), []).append(one.stat.size)
        decided = {**verdict.kept, **verdict.gone}
        after = self.found.catalog.without({str(entry) for entry in verdict.gone})
        return PruneResult(
            done=False,
            going=tuple(Going(*key, len(sizes), sum(sizes)) for key, sizes in sorted(groups.items())),
            backups=tuple(
                Verdict(entry.backup, entry.generation, entry.snapshot, entry in verdict.kept, decided[entry])
                for entry in self.found.catalog.entries
            ),
            listed=0,
            removed=0,
            removed_bytes=0,
            due=self._due(),
            skipped=(),
            unknown=tuple(name for name in self.found.listing if names.kind_of(name) is None),
            before=tuple(self._windows(self.found.catalog)),
            after=tuple(self._windows(after)),
            forgotten=verdict.lost,
        )

    def _windows(self, catalog: Catalog) -> Iterator[inspect.Window]:
        for head in catalog.heads():
            yield inspect.window(self.archive, catalog, head, self.found.manifests[head], walk=True)

    def _due(self) -> datetime | None:
        return min((one.due for one in self.lists.values() if one.due > self.found.at), default=None)

    # Removing

    def _remove(self, verdict: Needed, going: dict[str, _Going]) -> list[Stat]:
        """Remove what is due: manifests, then what no manifest names that is there now."""
        if not going:
            return []
        self.report(Step("prune", f"removing {len(going)} objects"))
        raced_first = sorted(
            verdict.gone, key=lambda entry: (verdict.gone[entry] != "raced by another run", rank(entry))
        )
        manifests = [going[str(entry)].stat for entry in raced_first if str(entry) in going]
        removed = self._delete(manifests)
        left = self.archive.whole_catalog()
        named = self.found.named.of_all(
            self.found.manifests.get(entry) or self.archive.manifest(entry) for entry in left.entries
        )
        done = {stat.name for stat in manifests}
        return removed + self._delete([one.stat for name, one in going.items() if name not in named | done])

    def _delete(self, objects: Sequence[Stat]) -> list[Stat]:
        removed: list[Stat] = []
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for batch in _batches(objects, BATCH):
                if self.archive.store.clock() - self.found.at > FRESH:
                    self.report(Warned("it has taken an hour: what is left is removed by the next prune"))
                    break
                removed += filter(None, pool.map(self._delete_one, batch))
        return removed

    def _delete_one(self, stat: Stat) -> Stat | None:
        try:
            self.archive.store.delete(stat.name)
        except Locked as error:
            self.skipped.append(Skipped(stat.name, error.message, error.until))
            return None
        except AccessDenied as error:
            raise AccessDenied(
                error.message,
                hint="Only prune needs the right to delete (docs/stores.md): run it with keys of its own that have it.",
            ) from error
        return stat

    # Listing

    def _list(self, wanted: list[str]) -> int:
        """Write down what may go; nothing of it is removed before its time."""
        at, new = self.archive.store.clock(), set(wanted)
        unlisted = [entry for entry in self.found.unlisted() if str(entry) not in new]
        for some in _batches(sorted(wanted), LIST_NAMES):
            record = Tombstones(
                FORMAT,
                at=at,
                due=at + self.grace,
                border=max(self.border, border_of(self.lists) or self.border),
                backups=len(unlisted),
                newest=max((entry.number for entry in unlisted), default=0),
                names=tuple(some),
            )
            self.lists[put_list(self.archive, names.backup_id(at, secrets.token_hex(4)), record)] = record
        return len(wanted)


def _batches(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    return (items[first : first + most] for first in range(0, len(items), most))
