"""All that an archive holds, seen at one time and found complete: what a prune decides by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from zbackup.archive import names
from zbackup.archive.archive import Archive
from zbackup.archive.catalog import Catalog
from zbackup.archive.manifest import Manifest
from zbackup.archive.named import NamedObjects
from zbackup.archive.names import BackupName
from zbackup.archive.needed import missing_parents
from zbackup.archive.tombstones import Lists, border_of, read_lists
from zbackup.errors import Incomplete, ObjectMissing
from zbackup.store.base import Stat


@dataclass(frozen=True, slots=True)
class Inventory:
    at: datetime
    """by the store's clock, when the look began"""
    lists: Lists
    catalog: Catalog
    manifests: Mapping[BackupName, Manifest]
    named: NamedObjects
    listing: Mapping[str, Stat]
    """every object by its name"""

    def unlisted(self) -> list[BackupName]:
        """Return the backups that are on no tombstone list."""
        listed = {name for one in self.lists.values() for name in one.names}
        return [entry for entry in self.catalog.entries if str(entry) not in listed]


def take_inventory(archive: Archive) -> Inventory:
    """
    List everything, and read every manifest.

    Raises Incomplete when something is not listed that must be there; Damaged, ArchiveError when a manifest, an index
    or a capture's record cannot be read.
    """
    at, lists = archive.store.clock(), read_lists(archive)
    # Manifests first: what they name was stored before, so that the listing after has it.
    catalog = archive.whole_catalog()
    listing = {stat.name: stat for stat in archive.objects()}
    named = NamedObjects(archive)
    try:
        manifests = {entry: archive.manifest(entry) for entry in catalog.entries}
        missing = sorted(named.of_all(manifests.values()) - listing.keys())
    except ObjectMissing as error:
        raise _incomplete(error.message) from error
    if missing:
        raise _incomplete(f"{missing[0]} is named by a backup and is not listed ({len(missing)} in all)")
    found = Inventory(at, lists, catalog, manifests, named, listing)
    _expect_backups(found)
    return found


def _expect_backups(found: Inventory) -> None:
    """Raise Incomplete when backups are not there that no prune can have removed."""
    if not any(name.startswith(names.ARCHIVES) for name in found.listing):
        raise _incomplete(f"nothing is listed under {names.ARCHIVES}")
    parents = {entry: manifest.parent for entry, manifest in found.manifests.items()}
    for entry, parent in missing_parents(found.catalog, parents, border_of(found.lists)):
        raise _incomplete(f"backup {entry.backup} continues {parent.backup}, which is not listed")
    last = max(found.lists.values(), key=lambda one: one.at, default=None)
    there = 0 if last is None else sum(entry.number <= last.newest for entry in found.unlisted())
    if last is not None and there < last.backups:
        raise _incomplete(f"{there} manifests are listed up to number {last.newest}, {last.backups} were")


def _incomplete(problem: str) -> Incomplete:
    return Incomplete(
        f"{problem}: nothing is removed",
        hint="Another prune may be at work: run again. If it stays so, `zbackup verify` tells what is missing; "
        "bring it back from another copy.",
    )
