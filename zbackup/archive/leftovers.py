"""Objects that no backup names: which of them are of no use any more. Pure."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from zbackup.archive import names
from zbackup.archive.names import LeaseName
from zbackup.store.base import Stat

# A lease counts for minutes, a probe for seconds.
SHORT = timedelta(days=1)

# Records of drills and the like are the archive's history.
RECORDS_KEPT = timedelta(days=366)


def leftover(stat: Stat, *, now: datetime, border: datetime, committed: Collection[str]) -> tuple[str, str] | None:
    """
    Tell the kind of an object and why it may go; None for what stays.

    Chunks and the like of runs that died go when they were stored before `border`: the next run may take them over.
    Where the store does not tell when that was, they stay.
    """
    kind, stored = names.kind_of(stat.name), stat.modified
    match kind:
        case "chunk" | "index" | "capture" | "table" if stored is not None and stored < border:
            return "orphan", "no backup names it"
        case "run" if names.run_of(stat.name) in committed:
            return "run", "its backup is committed"
        case "run" if stored is not None and stored < border:
            return "run", "it did not commit"
        case "lease" if (lease := LeaseName.parse(stat.name)) is not None and lease.until < now - SHORT:
            return "lease", "it has ended"
        case "record" if stored is not None and stored < min(border, now - RECORDS_KEPT):
            return "record", f"it is older than {RECORDS_KEPT.days} days"
        case "probe" if stored is not None and stored < now - SHORT:
            return "probe", "left by init or doctor"
        case _:
            return None
