"""Results as lines for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from zbackup.event import instant_text
from zbackup.source import collation_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from zbackup.archive.manifest import Amendment, CaptureRef
    from zbackup.backup import BackupResult
    from zbackup.doctor import DoctorResult
    from zbackup.init import InitResult
    from zbackup.inspect import ListedBackup, Listing, Shown
    from zbackup.settings import Setting
    from zbackup.source import Blocker
    from zbackup.verify import VerifyResult


def count(number: int) -> str:
    return f"{number:,}"


def many(number: int, noun: str) -> str:
    """Write a number with its noun, which takes an s for all but one."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def size(number: int) -> str:
    if number < 1024:
        return f"{number} B"
    amount = float(number)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d} min"


def when(instant: datetime | None, missing: str = "none yet") -> str:
    return missing if instant is None else instant_text(instant)


def short(instant: datetime | None) -> str:
    return "-" if instant is None else f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def _edge(instant: datetime) -> str:
    """Write one end of a range; those of the whole log are no dates."""
    if instant.year == 1:
        return "the beginning"
    return "the end" if instant.year == 9999 else short(instant)


def init_lines(result: InitResult) -> Iterator[str]:
    yield f"archive {result.archive} made at {result.address}"
    yield from pairs(result.store.items())


def backup_lines(result: BackupResult) -> Iterator[str]:
    yield f"backup {result.backup} ({result.kind}, generation {result.generation})"
    said = {
        "sealed": many(result.events, "event"),
        "tail": many(result.tail, "event"),
        "horizon": f"{when(result.horizon)} ({result.horizon_basis})",
        "recovery point": when(result.recovery_point),
        "amended": f"{count(result.amended)} old rows" if result.amended else "",
        "read": size(result.raw_bytes),
        "stored": size(result.stored_bytes),
        "capture": _captured(result.capture),
        "time": duration(result.seconds),
    }
    yield from pairs(said.items())
    yield from _blockers(result.blockers)
    yield from _amendments(result.amendments)
    yield from warnings(result.warnings)
    if result.not_captured:
        yield ""
        yield "NOT WHOLE:"
        yield from (f"  {name} was not captured: nothing else brings its rows back" for name in result.not_captured)


def _captured(capture: CaptureRef | None) -> str:
    if capture is None or not capture.tables:
        return "none"
    alone = capture.tables == 1 and not capture.schema
    return "the encryption keys" if alone else many(capture.tables, "table")


def listing_lines(listing: Listing) -> Iterator[str]:
    if not listing.backups:
        yield f"{listing.address} holds no backup yet"
        return
    rows = [("BACKUP", "KIND", "GENERATION", "RECOVERY POINT", "HORIZON", "NEW", "TAIL", "STORED", "")]
    rows += [
        (
            backup.backup,
            backup.kind,
            backup.generation,
            short(backup.snapshot),
            short(backup.horizon),
            count(backup.new_events),
            count(backup.tail),
            size(backup.stored_bytes),
            ", ".join(_marks(backup)),
        )
        for backup in listing.backups
    ]
    yield from columns(rows)
    if listing.more:
        yield f"the newest {len(listing.backups)}; --limit N lists more, --all all of them"
    yield ""
    for window in listing.windows:
        newest = " (newest)" if window.newest else ""
        source = window.source
        version = f", ZITADEL {source.zitadel_version}" if source.zitadel_version else ""
        yield (
            f"generation {window.generation}{newest}, {many(window.backups, 'backup')} of database {source.database} "
            f"(system {source.system_identifier}{version}):"
        )
        yield f"  any moment from {when(window.first)} to {when(window.last)}, final up to {when(window.final)}"
    if listing.oldest_uncounted is not None:
        yield (
            f"longest not counted at the source: the range from {_edge(listing.oldest_uncounted)}, "
            f"last counted {when(listing.oldest_uncounted_since, 'never')}"
        )


def shown_lines(shown: Shown) -> Iterator[str]:
    manifest = shown.manifest
    source, capture = manifest.source, manifest.capture
    tail = sum(chunk.rows for chunk in manifest.tail)
    yield f"backup {manifest.backup} ({manifest.kind}, generation {manifest.generation})"
    said = {
        "began": when(manifest.started),
        "ended": when(manifest.finished),
        "recovery point": when(manifest.snapshot),
        "horizon": f"{when(manifest.horizon.at)} ({manifest.horizon.basis}, "
        f"margin {manifest.horizon.margin_seconds:g} s)",
        "source": f"database {source.database}, PostgreSQL {source.server_version}, "
        f"ZITADEL {source.zitadel_version or 'unknown'}{', standby' if source.standby else ''}",
        "system": f"{source.system_identifier}, timeline {source.timeline or 'unknown'}",
        "collation": collation_text(source.locale_provider, source.collation, source.ctype, source.icu_locale),
        "table": f"{manifest.table.schema}.{manifest.table.name}",
        "log": f"{many(manifest.sealed.rows, 'event')} in {many(manifest.sealed.chunks, 'chunk')}, "
        f"{size(manifest.sealed.stored_bytes)} of {size(manifest.sealed.raw_bytes)}",
        "sealed by it": f"{many(manifest.new.rows, 'event')}, {size(manifest.new.stored_bytes)}",
        "tail": f"{many(tail, 'event')}",
        "capture": f"{many(capture.tables, 'table')}, {many(capture.rows, 'row')}, {size(capture.table_bytes)}, "
        f"{'with' if capture.schema else 'without'} schema"
        if capture
        else "none",
        "made by": f"zbackup {manifest.zbackup}",
    }
    yield from pairs(said.items())
    yield from _blockers(manifest.horizon.blockers)
    yield from _amendments(manifest.amendments)
    yield from warnings(manifest.warnings)
    yield ""
    rows = [("FROM", "TO", "EVENTS", "RAW", "STORED", "OBJECT")]
    rows += [
        (
            _edge(chunk.lo),
            _edge(chunk.hi),
            count(chunk.rows),
            size(chunk.raw_bytes),
            size(chunk.stored_bytes),
            chunk.name,
        )
        for chunk in (*shown.chunks, *manifest.tail)
    ]
    yield from columns(rows)


def verify_lines(result: VerifyResult) -> Iterator[str]:
    verdict = "ok" if result.ok else f"{many(len(result.findings), 'finding')}"
    yield (
        f"{verdict}: {many(result.backups, 'backup')}, {many(result.chunks, 'chunk')}, "
        f"{many(result.objects, 'object')} looked at ({result.level})"
    )
    if result.raw_bytes:
        yield f"  decoded {size(result.raw_bytes)} in {duration(result.seconds)}"
    if result.orphans:
        yield f"  {count(result.orphans)} objects belong to no backup"
    for number, finding in enumerate(result.findings, 1):
        yield f"{finding.kind}: {finding.object}: {finding.problem}"
        # Once where many say the same.
        if [found.hint for found in result.findings[number : number + 1]] != [finding.hint]:
            yield f"  {finding.hint}"


def doctor_lines(result: DoctorResult) -> Iterator[str]:
    width = max((len(check.name) for check in result.checks), default=0)
    for check in result.checks:
        yield f"{check.verdict:<8}{check.name:<{width}}  {check.message}"
        if check.next_step:
            yield f"{'':<8}{'':<{width}}  -> {check.next_step}"
    if result.grants:
        yield ""
        yield result.grants


def config_lines(file: str | None, settings: Mapping[str, Setting]) -> Iterator[str]:
    yield f"file: {file or 'none'}"
    rows = [("SETTING", "VALUE", "FROM")]
    rows += [(one.name, "-" if one.shown is None else one.shown, str(one.origin)) for one in settings.values()]
    yield from columns(rows, numbers=())


def pairs(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    shown = [(key, value) for key, value in pairs if value]
    width = max((len(key) for key, _ in shown), default=0)
    for key, value in shown:
        yield f"  {key:<{width}}  {value}"


def columns(
    rows: Sequence[Sequence[str]], numbers: Sequence[str] = ("NEW", "TAIL", "STORED", "EVENTS", "RAW")
) -> Iterator[str]:
    """Align a table; the first row holds the titles."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    right = [title in numbers for title in rows[0]]
    for row in rows:
        cells = (
            f"{cell:>{width}}" if flush else f"{cell:<{width}}"
            for cell, width, flush in zip(row, widths, right, strict=True)
        )
        yield "  ".join(cells).rstrip()


def _marks(backup: ListedBackup) -> Iterator[str]:
    if backup.capture:
        yield "capture" if backup.schema else "capture without schema"
    if backup.amendments:
        yield f"{count(backup.amendments)} amended"
    if backup.stray:
        yield "raced, off the line"
    if backup.warnings:
        yield f"{many(len(backup.warnings), 'warning')}"


def blocker_text(found: Blocker) -> str:
    who = " ".join(filter(None, (found.role, found.application, f"(pid {found.pid})" if found.pid else "")))
    since = f" since {instant_text(found.since)}" if found.since else ""
    return f"held back by {found.kind} {who}{since}{': ' if found.detail else ''}{found.detail}"


def _blockers(blockers: Iterable[Blocker]) -> Iterator[str]:
    yield from (f"  {blocker_text(found)}" for found in blockers)


def _amendments(amendments: Iterable[Amendment]) -> Iterator[str]:
    for found in amendments:
        yield (
            f"  amended {when(found.lo)} … {when(found.hi)} (backup {found.backup}): "
            f"{count(found.added)} added, {count(found.removed)} removed, {count(found.changed)} changed"
        )


def warnings(warnings: Iterable[str]) -> Iterator[str]:
    for warning in warnings:
        yield f"warning: {warning}"
