"""Choose an instant of an archive's window at random."""

from __future__ import annotations

import secrets
from datetime import timedelta

from zbackup.archive.archive import Archive
from zbackup.archive.plan import RestorePlan
from zbackup.errors import OutsideWindow
from zbackup.event import MICROSECOND, instant_text
from zbackup.moment import Instant
from zbackup.plan import first_instant, resolve

# Where many instants are gone after a prune, this many are tried.
TRIES = 100


def plan_any(archive: Archive, generation: str | None) -> RestorePlan:
    """
    Plan an instant between the first event and the newest recovery point, each as likely as any other.

    Raises OutsideWindow where none can be restored.
    """
    head = archive.catalog().head(generation)
    manifest = archive.manifest(head) if head else None
    first = first_instant(archive, manifest) if manifest else None
    if manifest is None or first is None:
        raise OutsideWindow("the archive holds no events", hint="Run `zbackup backup` first.")
    span = (manifest.snapshot - first) // MICROSECOND
    tried = 0
    while True:
        at = first + timedelta(microseconds=secrets.randbelow(span + 1))
        try:
            return resolve(archive, Instant(at, instant_text(at)), generation=manifest.generation)
        except OutsideWindow:  # what it was is pruned
            tried += 1
            if tried == TRIES:
                raise
