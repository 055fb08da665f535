"""Make a backup visible, with nothing in it that a prune may remove."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import replace

from zbackup.archive.archive import Archive
from zbackup.archive.log import totals_of
from zbackup.archive.manifest import Manifest
from zbackup.archive.named import NamedObjects
from zbackup.archive.renew import Renewal
from zbackup.archive.tombstones import Watch
from zbackup.progress import Report, Step, Warned


def commit(archive: Archive, manifest: Manifest, watch: Watch, *, spool: str | None = None, report: Report) -> Manifest:
    """
    Commit a manifest, and return the one that is the newest then.

    Raises:
        Overtaken: a prune may have removed what it needs; nothing is committed.
        CommitUnknown: the store did not answer; nothing may be removed.

    """
    watch.expect_young()
    absent = watch.look()
    if absent:
        watch.refuse_overdue(_named(archive, manifest) & absent)
        manifest = _renewed(archive, manifest, absent, spool, report)
    entry = archive.commit(manifest)
    if late := watch.look() - absent:
        again = replace(
            manifest,
            backup=_another(manifest.backup),
            number=manifest.number + 1,
            kind="incremental",
            parent=str(entry),
            new=totals_of(()),
            stored_bytes=0,
        )
        again = _renewed(archive, again, late, spool, report)
        if again.stored_bytes:
            report(Warned(f"a prune began meanwhile: backup {manifest.backup} is stored again as {again.backup}"))
            archive.commit(again)
            return again
    return manifest


def _renewed(
    archive: Archive, manifest: Manifest, absent: Collection[str], spool: str | None, report: Report
) -> Manifest:
    needed = _named(archive, manifest) & set(absent)
    if not needed:
        return manifest
    report(Step("renew", f"{len(needed)} objects that a prune means to remove"))
    renewal = Renewal(archive, needed, _another(manifest.backup), spool)
    renewed = renewal.manifest(manifest)
    return replace(renewed, stored_bytes=manifest.stored_bytes + renewal.stored_bytes)


def _named(archive: Archive, manifest: Manifest) -> set[str]:
    return set(NamedObjects(archive).of(manifest))


def _another(backup: str) -> str:
    """Return an id of the same time that nobody else has."""
    return f"{backup.rpartition('-')[0]}-{secrets.token_hex(4)}"
