"""Make an archive: probe the store, and record what it was seen to do."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from zbackup import __version__
from zbackup.archive import names
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import FORMAT, ArchiveRecord
from zbackup.progress import Report, Step, Warned, silent
from zbackup.store.base import Store
from zbackup.store.probe import probe


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
    seen = {name: str(value) for name, value in asdict(probe(store, archive_id)).items() if value is not None}
    Archive.create(store, ArchiveRecord(FORMAT, archive_id, now, __version__, seen))
    warnings = _warnings(seen)
    for warning in warnings:
        report(Warned(warning))
    return InitResult(archive_id, store.address, seen, warnings)


def _warnings(seen: dict[str, str]) -> tuple[str, ...]:
    warnings: list[str] = []
    if seen.get("listing") in {"no", "False"}:
        warnings.append("the store does not list a new object at once: a run may overlook the one just before it")
    if seen.get("read_back") in {"no", "False"}:
        warnings.append("the store did not return what was written")
    return tuple(warnings)
