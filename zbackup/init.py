"""Make an archive: probe the store, and record what it was seen to do."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from zbackup import __version__
from zbackup.archive import FORMAT, names
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ArchiveRecord
from zbackup.progress import Report, Step, Warned, silent
from zbackup.store.base import Store
from zbackup.store.probe import probe

RECORDED = ("create_only", "read_back", "listing", "checksum", "range_read")
"""What of the probes stays true tomorrow."""


@dataclass(frozen=True, slots=True)
class InitResult:
    archive: str
    address: str
    store: dict[str, str]
    """what the store was seen to do"""
    warnings: tuple[str, ...]


def init(store: Store, *, report: Report = silent) -> InitResult:
    """
    Make an archive in an empty place.

    Raises ArchiveError when one is there already; then nothing was changed.
    """
    now = datetime.now(UTC)
    archive_id = names.backup_id(now, secrets.token_hex(4))
    Archive.refuse_existing(store)
    report(Step("probe", store.address))
    probes = probe(store, archive_id)
    seen = {name: str(getattr(probes, name)) for name in RECORDED}
    Archive.create(store, ArchiveRecord(FORMAT, archive_id, now, __version__, seen))
    warnings = (*_warnings(seen), *probes.notes)
    for warning in warnings:
        report(Warned(warning))
    return InitResult(archive_id, store.address, seen, warnings)


def _warnings(seen: dict[str, str]) -> Iterator[str]:
    if seen["create_only"] != "yes":
        yield (
            f"the store cannot be relied on to refuse a second write to one name ({seen['create_only']}); "
            "nothing here needs it, for no name is used twice"
        )
    if seen["listing"] == "no":
        yield "the store does not list a new object at once: a run may overlook the one just before it"
    if seen["read_back"] == "no":
        yield "the store did not return what was written"
