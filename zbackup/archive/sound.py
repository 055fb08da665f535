"""
What a record must fulfil before anybody acts on it.

An archive may have been written by somebody else, with digests that fit. So each name must be of the kind that
stands there and carry the digest of what it names: no reference leads to another kind of object, or out of the
store. Numbers, instants and texts must be such as a database can have held.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import MAXYEAR, UTC, datetime
from decimal import Decimal

from zbackup.archive import names
from zbackup.archive.manifest import CapturedTable, CaptureRef, ChunkRef, IndexRef, ObjectRef
from zbackup.errors import Damaged
from zbackup.event import MOST_DIGITS, parse_instant, parse_position

# What S3 takes in one PUT, and so the largest object there can be.
OBJECT_BYTES = 5 << 30

# Header, one frame and trailer of a chunk have more.
_LEAST_CHUNK = 32

_GREATEST = 1 << 63
_NO_NUMBER = "a number is negative or above 2**63"

_SHA256 = re.compile(r"[0-9a-f]{64}")


def check(value: object) -> None:
    """Check a record and all that it holds. Raises ValueError."""
    match value:
        case ChunkRef():
            _reference(value)
            _chunk(value)
        case str():
            if "\0" in value:
                raise ValueError("a text has a NUL in it")
        case bool() | None:
            pass
        case int():
            if not 0 <= value < _GREATEST:
                raise ValueError(_NO_NUMBER)
        case float():
            if not math.isfinite(value):
                raise ValueError("a number is not finite")
        case Decimal():
            position(value)
        case datetime():
            _instant(value)
        case tuple():
            _each(value)  # pyright: ignore[reportUnknownArgumentType]
        case dict():
            _each(value)  # pyright: ignore[reportUnknownArgumentType]
            _each(value.values())  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        case ObjectRef() | IndexRef() | CaptureRef():
            _reference(value)
            _fields(value)
        case _:
            if isinstance(value, CapturedTable) and not all((value.schema, value.name, *value.columns)):
                raise ValueError("a table or a column has no name")
            _fields(value)


def position(value: Decimal) -> Decimal:
    """Return a position that is a number of a bearable length. Raises ValueError."""
    if not value.is_finite() or abs(value.adjusted()) > MOST_DIGITS:
        raise ValueError("a position is not a number, or has too many digits")
    return value


@contextmanager
def rows_of(name: str) -> Generator[None]:
    """Say of rows that cannot be read whose they are. Raises Damaged."""
    try:
        yield
    except (ValueError, IndexError, ArithmeticError) as error:
        raise Damaged(
            f"{name}: its rows cannot be read: {str(error)[:200]}",
            hint="Run `zbackup verify --full`, and restore from another backup.",
        ) from error


def _each(values: Iterable[object]) -> None:
    for value in values:
        check(value)


def _fields(value: object) -> None:
    if is_dataclass(value):
        for field in fields(value):
            check(getattr(value, field.name))


def _instant(value: datetime) -> None:
    if value.tzinfo is None:
        raise ValueError(f"no time zone in {value.isoformat()}")
    if 1 < value.year < MAXYEAR:
        return
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{value.isoformat()} is outside the years 1 to 9999") from None


def _reference(ref: ObjectRef | ChunkRef | IndexRef | CaptureRef) -> None:
    name = ref.name[:200]
    if not _SHA256.fullmatch(ref.sha256):
        raise ValueError(f"{name!r} has no digest")
    if ref.stored_bytes > OBJECT_BYTES:
        raise ValueError(f"{name!r} is said to have {ref.stored_bytes} bytes, no object has more than {OBJECT_BYTES}")
    match ref:
        case ChunkRef():
            fits = names.is_chunk(ref.name, ref.sha256)
        case IndexRef():
            fits = names.is_index(ref.name, ref.sha256)
        case CaptureRef():
            fits = names.is_capture(ref.name, ref.sha256)
        case ObjectRef():
            row = names.row_of(ref.name)
            fits = names.is_table(ref.name, ref.sha256) or (row is not None and row[1] == ref.sha256)
    if not fits:
        raise ValueError(f"{name!r} is not the name of such an object with its digest")


def _chunk(ref: ChunkRef) -> None:
    """Check the fields of a chunk by name, not one by one: a plan reads a hundred thousand."""
    if "\0" in "".join((ref.raw_sha256, *ref.first, *ref.last)):
        raise ValueError("a text has a NUL in it")
    if not (0 <= ref.raw_bytes < _GREATEST and 0 <= ref.rows < _GREATEST):
        raise ValueError(_NO_NUMBER)
    if ref.stored_bytes < _LEAST_CHUNK:
        raise ValueError(f"{ref.name[:200]!r} is too short for a chunk")
    _instant(ref.lo)
    _instant(ref.hi)
    least, greatest = ref.positions
    position(least)
    position(greatest)
    if ref.rows:
        _cursor(ref.first)
        _cursor(ref.last)


def _cursor(texts: tuple[str, ...]) -> None:
    """Check the texts of a cursor: `Cursor.of_texts` without the cursor."""
    created, place, order, _, _, _, sequence = texts
    parse_instant(created)
    if not parse_position(place).is_finite():
        raise ValueError("a position is not a number")
    int(order)
    int(sequence)
