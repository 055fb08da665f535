"""Make a backup visible, with nothing in it that a prune may remove."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import replace

from zbackup.archive.ancestry import ancestry_of
from zbackup.archive.archive import Archive
from zbackup.archive.log import totals_of
from zbackup.archive.manifest import Manifest
from zbackup.archive.named import NamedObjects
from zbackup.archive.names import BackupName
from zbackup.archive.renew import Renewal
from zbackup.archive.tombstones import Watch
from zbackup.errors import ObjectMissing, Overtaken
from zbackup.progress import Report, Step, Warned


def commit(archive: Archive, manifest: Manifest, watch: Watch, *, spool: str | None = None, report: Report) -> Manifest:
    """
    Commit a manifest, and return the one that is the newest then.

    Raises:
        Overtaken: a prune may have removed what it needs; nothing is committed.
        CommitUnknown: the store did not answer; nothing may be removed.

    """
    watch.expect_young()
    absent = frozenset[str]()
    # Copying may take long: between the look that finds nothing new and the commit there is nothing else.
    while new := watch.look() - absent:
        watch.refuse_overdue(_needed(archive, manifest, new))
        manifest = _renewed(archive, manifest, new, spool, report)
        absent |= new
    entry = archive.commit(manifest)
    late = watch.look() - absent
    return _again(archive, manifest, entry, late, spool, report) if late else manifest


def _again(
    archive: Archive, manifest: Manifest, entry: BackupName, late: Collection[str], spool: str | None, report: Report
) -> Manifest:
    """Commit a second backup of the same snapshot, with nothing in it that is on a list since the first was."""
    another = replace(
        manifest,
        backup=_another(manifest.backup),
        number=manifest.number + 1,
        ancestry=ancestry_of(manifest.number + 1, entry, manifest.ancestry, captured=manifest.captured),
        kind="incremental",
        parent=str(entry),
        new=totals_of(()),
        stored_bytes=0,
    )
    try:
        again = _renewed(archive, another, late, spool, report)
    except Overtaken as error:
        raise Overtaken(
            f"backup {manifest.backup} was committed and is not whole: {error.message}",
            hint=f"Something stood still for the whole grace of a prune. Remove {entry} by hand and run this again.",
        ) from error
    if again is another:
        return manifest
    report(Warned(f"a prune began meanwhile: backup {manifest.backup} is stored again as {again.backup}"))
    archive.commit(again)
    return again


def _renewed(
    archive: Archive, manifest: Manifest, absent: Collection[str], spool: str | None, report: Report
) -> Manifest:
    needed = _needed(archive, manifest, absent)
    if not needed:
        return manifest
    report(Step("renew", f"{len(needed)} objects that a prune means to remove"))
    renewal = Renewal(archive, needed, _another(manifest.backup), spool)
    with _being_there():
        renewed = renewal.manifest(manifest)
    return replace(renewed, stored_bytes=manifest.stored_bytes + renewal.stored_bytes)


def _needed(archive: Archive, manifest: Manifest, absent: Collection[str]) -> set[str]:
    with _being_there():
        return {name for name in NamedObjects(archive).of(manifest) if name in absent}


@contextmanager
def _being_there() -> Generator[None]:
    try:
        yield
    except ObjectMissing as error:
        raise Overtaken(
            f"{error.message}: a prune has removed what this run needs",
            hint="Run it again. If it stays so, `zbackup verify` tells what is missing.",
        ) from error


def _another(backup: str) -> str:
    """Return an id of the same time that nobody else has."""
    return f"{backup.rpartition('-')[0]}-{secrets.token_hex(4)}"
