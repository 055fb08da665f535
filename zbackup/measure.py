"""What results say in metrics (metrics.py)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from zbackup.metrics import Sample

if TYPE_CHECKING:
    from zbackup.archive.archive import Archive
    from zbackup.backup import BackupResult
    from zbackup.outcome import Outcome
    from zbackup.prune import PruneResult
    from zbackup.source import Blocker
    from zbackup.verify import VerifyResult

# Why a horizon lies where it does (database/horizon.py).
BLOCKERS = ("backend", "hidden", "prepared", "standby")

# So many backups are counted; beyond that the newest one's word for it is taken, which knows of no prune.
COUNTED = 10_000

STEPS = 30

# Of verify.py: each looks at all that those before it look at (`sample` at a few objects, which are others each time).
LEVELS = ("quick", "sample", "default", "full")


def of_backup(result: BackupResult) -> Iterator[Sample]:
    yield Sample("zbackup_restorable_newest_timestamp_seconds", result.recovery_point.timestamp())
    yield Sample("zbackup_confirmed_timestamp_seconds", result.recovery_point.timestamp())
    if result.horizon is not None:
        yield Sample("zbackup_horizon_timestamp_seconds", result.horizon.timestamp())
        age = result.recovery_point - result.horizon
        yield Sample("zbackup_horizon_age_seconds", age.total_seconds())
    yield from _of_blockers(result.blockers, result.recovery_point)
    for part, rows in {"sealed": result.events, "tail": result.tail, "amended": result.amended}.items():
        yield Sample("zbackup_backup_rows", rows, {"part": part})
    yield Sample("zbackup_backup_raw_bytes", result.raw_bytes)
    yield Sample("zbackup_backup_stored_bytes", result.stored_bytes)
    yield Sample("zbackup_backup_tables_not_captured", len(result.not_captured))


def of_outcome(outcome: Outcome) -> Iterator[Sample]:
    """Return how things stand after one look of `follow`."""
    if outcome.result is not None:
        yield from of_backup(outcome.result)
    instants = {
        "restorable_oldest": outcome.oldest,
        "restorable_newest": outcome.newest,
        "confirmed": outcome.confirmed,
        "horizon": outcome.final,
        "audit_oldest": outcome.audited,
    }
    for name, at in instants.items():
        if at is not None:
            yield Sample(f"zbackup_{name}_timestamp_seconds", at.timestamp())
    if outcome.horizon_age is not None:
        yield Sample("zbackup_horizon_age_seconds", outcome.horizon_age)
    yield from _of_blockers(outcome.blockers, outcome.time)


def _of_blockers(blockers: Iterable[Blocker], at: datetime) -> Iterator[Sample]:
    found = tuple(blockers)
    for kind in BLOCKERS:
        since = [blocker.since for blocker in found if blocker.kind == kind]
        yield Sample("zbackup_horizon_blockers", len(since), {"kind": kind})
        ages = [(at - one).total_seconds() for one in since if one is not None]
        yield Sample("zbackup_horizon_blocker_age_seconds", max(ages, default=0), {"kind": kind})


def of_verify(result: VerifyResult, began: float, *, compared: bool = False) -> Iterator[Sample]:
    """
    Return what a verification found; `compared` tells that it looked at the source.

    What is sound at one level is so at those that look at less: nothing of what they found before is left. The source
    is compared alike at every level, if no damage is in the way.
    """
    damaged, different = (sum(one.kind == kind for one in result.findings) for kind in ("damage", "source"))
    less = () if damaged else LEVELS[: LEVELS.index(result.level)]
    for level in (*less, result.level):
        yield Sample("zbackup_verify_findings", damaged, {"kind": "damage", "level": level})
    if different or (compared and not damaged):
        for level in LEVELS if result.ok else (result.level,):
            yield Sample("zbackup_verify_findings", different, {"kind": "source", "level": level})
    yield Sample("zbackup_verify_orphan_objects", result.orphans)
    if result.ok:
        yield Sample("zbackup_verify_timestamp_seconds", began, {"level": result.level})


def of_prune(result: PruneResult) -> Iterator[Sample]:
    yield Sample("zbackup_prune_removed_objects", result.removed)
    yield Sample("zbackup_prune_removed_bytes", result.removed_bytes)
    yield Sample("zbackup_prune_skipped_objects", len(result.skipped))


def of_drill(steps: Mapping[str, float]) -> Iterator[Sample]:
    """Return how many seconds each step took; only short plain names are told, and no more than STEPS."""
    for step in [step for step in steps if re.fullmatch(r"[a-z][a-z_]{0,39}", step)][:STEPS]:
        yield Sample("zbackup_drill_step_seconds", steps[step], {"step": step})


def of_archive(archive: Archive) -> Iterator[Sample]:
    """Look what can be restored of the newest generation. Raises ArchiveError, StoreError."""
    from zbackup import inspect
    from zbackup.counting import oldest

    catalog = archive.catalog()
    head = catalog.head()
    if head is None:
        return
    manifest = archive.manifest(head)
    window = inspect.window(archive, catalog, head, manifest, walk=head.number <= COUNTED)
    if window.first is not None:
        yield Sample("zbackup_restorable_oldest_timestamp_seconds", window.first.timestamp())
    if window.final is not None:
        yield Sample("zbackup_horizon_timestamp_seconds", window.final.timestamp())
    yield Sample("zbackup_restorable_newest_timestamp_seconds", window.last.timestamp())
    yield Sample("zbackup_backups", window.backups)
    longest_ago = oldest(manifest.counted)
    if longest_ago is not None:
        yield Sample("zbackup_audit_oldest_timestamp_seconds", longest_ago.at.timestamp())
