"""
The JSON form of what is reported and returned: docs/json-output.md is the promise, a test holds it.

Dataclasses become objects with the same names, instants ISO 8601 in UTC, durations seconds, decimals text. What
the archive's own format is made of is written field by field, so that the format may change and this may not:
fields are added, never renamed.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from zbackup.event import instant_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zbackup.archive.manifest import Amendment, CaptureRef, ChunkRef
    from zbackup.backup import BackupResult
    from zbackup.errors import ZbackupError
    from zbackup.inspect import Shown
    from zbackup.settings import Setting
    from zbackup.zitadel.masterkey import MasterkeyCheck

Record = dict[str, Any]


def plain(value: object) -> Any:
    """Turn a value into what JSON has."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    match value:
        case datetime():
            return instant_text(value)
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return format(value, "f")
        case dict():
            return {str(key): plain(item) for key, item in cast("dict[object, object]", value).items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in cast("list[object]", value)]
        case _:
            return value


def backup_record(result: BackupResult) -> Record:
    return plain(result) | {
        "amendments": [_amendment(found) for found in result.amendments],
        "capture": _capture(result.capture),
    }


def shown_record(shown: Shown) -> Record:
    manifest = shown.manifest
    horizon = manifest.horizon
    return {
        "backup": manifest.backup,
        "number": manifest.number,
        "generation": manifest.generation,
        "kind": manifest.kind,
        "parent": manifest.parent,
        "started": plain(manifest.started),
        "finished": plain(manifest.finished),
        "recovery_point": plain(manifest.snapshot),
        "horizon": plain(horizon.at),
        "horizon_basis": horizon.basis,
        "horizon_margin": horizon.margin_seconds,
        "horizon_clock": plain(horizon.clock),
        "blockers": plain(horizon.blockers),
        "source": plain(manifest.source),
        "table": f"{manifest.table.schema}.{manifest.table.name}",
        "events": manifest.sealed.rows,
        "raw_bytes": manifest.sealed.raw_bytes,
        "stored_bytes": manifest.sealed.stored_bytes,
        "new_events": manifest.new.rows,
        "new_bytes": manifest.new.stored_bytes,
        "tail": sum(chunk.rows for chunk in manifest.tail),
        "chunks": [
            *(_chunk(chunk, tail=False) for chunk in shown.chunks),
            *(_chunk(chunk, tail=True) for chunk in manifest.tail),
        ],
        "counted": plain(manifest.counted),
        "amendments": [_amendment(found) for found in manifest.amendments],
        "capture": _capture(manifest.capture),
        "zbackup": manifest.zbackup,
        "warnings": list(manifest.warnings),
    }


def _chunk(chunk: ChunkRef, *, tail: bool) -> Record:
    return {
        "name": chunk.name,
        "tail": tail,
        "lo": plain(chunk.lo),
        "hi": plain(chunk.hi),
        "events": chunk.rows,
        "raw_bytes": chunk.raw_bytes,
        "stored_bytes": chunk.stored_bytes,
        "sha256": chunk.sha256,
    }


def _amendment(found: Amendment) -> Record:
    return {
        "backup": found.backup,
        "at": plain(found.at),
        "lo": plain(found.lo),
        "hi": plain(found.hi),
        "added": found.added,
        "removed": found.removed,
        "changed": found.changed,
    }


def _capture(capture: CaptureRef | None) -> Record | None:
    return capture and {
        "name": capture.name,
        "tables": capture.tables,
        "rows": capture.rows,
        "raw_bytes": capture.raw_bytes,
        "stored_bytes": capture.table_bytes,
        "new_bytes": capture.new_bytes,
        "schema": capture.schema,
    }


def masterkey_word(found: MasterkeyCheck | None) -> str:
    return found.verdict.replace("_", " ") if found else "not given"


def config_record(file: str | None, settings: Mapping[str, Setting]) -> Record:
    return {
        "file": file,
        "settings": [
            {
                "name": setting.name,
                "value": setting.shown,
                "origin": setting.origin.kind,
                "where": setting.origin.name or None,
                "secret": setting.secret,
            }
            for setting in settings.values()
        ],
    }


def error_record(error: ZbackupError) -> Record:
    return {
        "type": "error",
        "class": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }
