"""The result of `prune` as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zbackup.cli.texts import columns, count, many, short, size, when

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zbackup.inspect import Window
    from zbackup.prune import PruneResult

NAMED = 20
"""Objects named one by one."""

_STATES = {"new": "not on a list yet", "waiting": "on a list", "due": "due"}


def prune_lines(result: PruneResult) -> Iterator[str]:
    gone = [one for one in result.backups if not one.stays]
    rows = [("BACKUP", "GENERATION", "RECOVERY POINT", "", "WHY")]
    rows += [
        (one.backup, one.generation, short(one.snapshot), "stays" if one.stays else "goes", one.why)
        for one in result.backups
    ]
    yield from columns(rows)
    yield ""
    if result.going:
        rows = [("KIND", "OBJECTS", "STORED", "WHY", "")]
        rows += [
            (one.kind, count(one.objects), size(one.stored_bytes), one.why, _STATES[one.state]) for one in result.going
        ]
        yield from columns(rows, numbers=("OBJECTS", "STORED"))
        yield ""
    yield from _did(result)
    yield from _skipped(result)
    yield from _windows("before", result.before, len(result.backups))
    yield from _windows("after", result.after, len(result.backups) - len(gone))
    for found in result.forgotten:
        yield (
            f"what backup {found.backup} found changed ({count(found.changed)}) or removed ({count(found.removed)}) is "
            f"forgotten: instants from {when(found.since)} until {when(found.until)} cannot be restored then"
        )


def done_line(result: PruneResult) -> str:
    """Say in short what a prune did."""
    skipped = f"; skipped {many(len(result.skipped), 'object')}" if result.skipped else ""
    return (
        f"removed {many(result.removed, 'object')}, {size(result.removed_bytes)}; put {count(result.listed)} on a list"
        f"{skipped}"
    )


def _did(result: PruneResult) -> Iterator[str]:
    objects = {state: sum(one.objects for one in result.going if one.state == state) for state in _STATES}
    stored = {state: sum(one.stored_bytes for one in result.going if one.state == state) for state in _STATES}
    if not result.going:
        yield "nothing may go"
    elif result.done:
        yield f"removed {many(result.removed, 'object')}, {size(result.removed_bytes)}"
        yield f"put {many(result.listed, 'object')} on a list"
    else:
        yield "a dry run; with --yes this"
        yield f"  removes {many(objects['due'], 'object')}, {size(stored['due'])}, whose list is due"
        yield f"  puts {many(objects['new'], 'object')}, {size(stored['new'])}, on a list"
    if result.due is not None:
        yield f"run it again with the same options from {when(result.due)} on, to remove what waits on a list"


def _skipped(result: PruneResult) -> Iterator[str]:
    for one in result.skipped[:NAMED]:
        yield f"skipped {one.object}: {one.why}, until {when(one.until, 'nobody tells')}"
    if len(result.skipped) > NAMED:
        yield f"skipped {len(result.skipped) - NAMED} more; --json names them"
    for name in result.unknown[:NAMED]:
        yield f"not touched: {name} is none of zbackup's objects"
    if len(result.unknown) > NAMED:
        yield f"not touched: {len(result.unknown) - NAMED} more; --json names them"


def _windows(which: str, windows: Iterable[Window], backups: int) -> Iterator[str]:
    yield f"{which}: {many(backups, 'backup')}"
    for window in windows:
        yield (
            f"  generation {window.generation}: any moment from {when(window.first)} to {when(window.last)}, "
            f"{many(window.backups, 'backup')} of its line"
        )
