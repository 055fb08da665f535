"""
Rows of the events table as bytes, and the place of each in the archive's order.

A row travels as one line of PostgreSQL's COPY text format, its key columns first, so that only they are
parsed and the payload never is. The order is that of `Cursor`: creation time, position, order in the
transaction, then the primary key, text compared as bytes (COLLATE "C").
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

KEY_COLUMNS = (
    "created_at",
    "position",
    "in_tx_order",
    "instance_id",
    "aggregate_type",
    "aggregate_id",
    "sequence",
)
"""The columns of a cursor, in its order; also the first columns of every archived row."""

OTHER_COLUMNS = ("event_type", "revision", "creator", "owner", "payload")

COLUMNS = KEY_COLUMNS + OTHER_COLUMNS
"""of every archived row, in this order"""

BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
"""Before every event; the lower end of a log."""
END = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
"""After every event; the upper end of a tail."""

# PostgreSQL's numeric has at most so many; without a limit ten bytes stand for a gigabyte of digits.
MOST_DIGITS = 131_072

# The keys of a row are looked for in so much of it, lest the rest is copied; where they are longer, it is.
_HEAD_BYTES = 4096

MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """Place of one event in the archive's total order."""

    created_at: datetime
    """UTC, microseconds"""
    position: Decimal
    """seconds since the epoch on PostgreSQL, nanoseconds on CockroachDB; never a float"""
    in_tx_order: int
    instance_id: bytes
    aggregate_type: bytes
    aggregate_id: bytes
    sequence: int

    def texts(self) -> tuple[str, ...]:
        """Return the seven values as text, for JSON."""
        return (
            instant_text(self.created_at),
            format(self.position, "f"),
            str(self.in_tx_order),
            self.instance_id.decode(),
            self.aggregate_type.decode(),
            self.aggregate_id.decode(),
            str(self.sequence),
        )

    @classmethod
    def of_texts(cls, texts: tuple[str, ...]) -> Cursor:
        created, position, order, instance, kind, aggregate, sequence = texts
        return cls(
            parse_instant(created),
            parse_position(position),
            int(order),
            instance.encode(),
            kind.encode(),
            aggregate.encode(),
            int(sequence),
        )


def cursor_of(line: bytes) -> Cursor:
    """Read the key columns of one COPY text line. Raises ValueError when they are not what they should be."""
    created, position, order, instance, kind, aggregate, sequence = key_of(line)
    if b"\\" in instance or b"\\" in kind or b"\\" in aggregate:
        instance, kind, aggregate = unescape(instance), unescape(kind), unescape(aggregate)
    return Cursor(
        parse_instant(created.decode()),
        parse_position(position.decode()),
        int(order),
        instance,
        kind,
        aggregate,
        int(sequence),
    )


def key_of(line: bytes) -> list[bytes]:
    """Cut out the key columns as they stand there; fewer where there are not so many."""
    fields = line[:_HEAD_BYTES].split(b"\t", 7)
    return fields[:7] if len(fields) > 7 else line.split(b"\t", 7)[:7]


def parse_instant(text: str) -> datetime:
    """Read PostgreSQL's or our own text of an instant in UTC, microseconds kept. Raises ValueError."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is UTC:
        return instant
    if instant.tzinfo is None:
        raise ValueError(f"no time zone in {text!r}")
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is outside the years 1 to 9999") from None


def parse_position(text: str) -> Decimal:
    """Read a position, which may be NaN. Raises ValueError, also for more digits than PostgreSQL's numeric has."""
    try:
        position = Decimal(text)
    except ArithmeticError:
        raise ValueError(f"{text[:100]!r} is no position") from None
    if abs(position.adjusted()) > MOST_DIGITS:
        raise ValueError(f"{text[:100]!r} has too many digits for a position")
    return position


def instant_text(instant: datetime) -> str:
    """Write an instant as ISO 8601 in UTC, always with six digits of the second, ending in Z."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").rjust(26, "0") + "Z"


def span_text(lo: datetime, hi: datetime) -> str:
    """Say which instants lie in [lo, hi)."""
    if lo == BEGINNING:
        return f"before {instant_text(hi)}"
    return f"between {instant_text(lo)} and {instant_text(hi)}"


# Backslash sequences of COPY's text format (PostgreSQL manual, COPY, "Text Format").
_ESCAPES = {
    ord("b"): 8, ord("f"): 12, ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("v"): 11,
}  # fmt: skip

_ESCAPED = {0x5C: "\\\\"} | {code: f"\\{chr(letter)}" for letter, code in _ESCAPES.items()}


def unescape(field: bytes) -> bytes:
    """Undo COPY text escaping of one field that is not NULL. PostgreSQL writes no octal or hex sequences."""
    if b"\\" not in field:
        return field
    out = bytearray()
    parts = iter(field)
    for byte in parts:
        if byte != 0x5C:
            out.append(byte)
            continue
        following = next(parts, None)
        if following is None:
            raise ValueError("field ends in a backslash")
        out.append(_ESCAPES.get(following, following))
    return bytes(out)


def escape(text: str) -> bytes:
    """Write a value as PostgreSQL's COPY text does, so that it can be compared with a field; it may be no UTF-8."""
    return text.translate(_ESCAPED).encode(errors="surrogateescape")
