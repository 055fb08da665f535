"""The result of `run`, as a record and as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zbackup.cli.pruned import done_line
from zbackup.cli.records import Record, backup_record, plain
from zbackup.cli.texts import backup_lines, count, duration, many, size, verify_lines, when

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zbackup.run import RunResult, RunStep


def run_record(result: RunResult, warnings: Iterable[str]) -> Record:
    return plain(result) | {
        "backup": backup_record(result.backup) if result.backup else None,
        "warnings": [*result.warnings, *warnings],
    }


def run_lines(result: RunResult) -> Iterator[str]:
    name = f"run {result.job}" if result.job else "run"
    seconds = (result.ended - result.started).total_seconds()
    verdict = "ok" if result.ok else f"FAILED with exit code {result.exit_code}"
    yield f"{name}: {verdict}, {duration(seconds)}"
    for step in result.steps:
        time = f" ({duration(step.seconds)})" if step.outcome != "skipped" else ""
        yield f"  {step.name:<7} {step.outcome:<8} {_said(result, step)}{time}"
        if step.hint:
            yield f"{'':<19}-> {step.hint}"
    yield from _details(result)


def _said(result: RunResult, step: RunStep) -> str:
    """Say what a step did, or why it did not."""
    if step.outcome != "done":
        return step.reason
    if step.name == "backup" and (made := result.backup):
        new = f"{many(made.events, 'event')} sealed" if made.events else "nothing new"
        tail = f", {count(made.tail)} in the tail" if made.tail else ""
        changed = f", {many(made.amended, 'OLD ROW')} CHANGED" if made.amended else ""
        warned = f", {many(len(made.warnings), 'warning')}" if made.warnings else ""
        stored = f"{size(made.stored_bytes)} stored, recovery point {when(made.recovery_point)}"
        return f"{made.backup}: {new}{tail}{changed}, {stored}{warned}"
    if step.name == "verify" and (found := result.verify):
        return f"{found.level}: {count(found.read)} of {many(found.objects, 'object')} read, nothing found"
    return done_line(result.prune) if result.prune else ""


def _details(result: RunResult) -> Iterator[str]:
    """Add all that a failed step found; of one that was done the line above is enough."""
    if result.backup is not None and (result.backup.not_captured or result.backup.warnings):
        yield ""
        yield from backup_lines(result.backup)
    if result.verify is not None and not result.verify.ok:
        yield ""
        yield from verify_lines(result.verify)
