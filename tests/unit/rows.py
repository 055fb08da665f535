"""Rows of events as the archive holds them, made up for tests of the format."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import strategies as st

from zbackup.event import Cursor

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def escape(text: str) -> bytes:
    """Write a value as COPY text does."""
    out = text.replace("\\", "\\\\")
    for char, code in (("\b", "b"), ("\f", "f"), ("\n", "n"), ("\r", "r"), ("\t", "t"), ("\v", "v")):
        out = out.replace(char, "\\" + code)
    return out.encode()


def row(
    at: datetime,
    position: str | None = None,
    order: int = 1,
    instance: str = "i",
    kind: str = "user",
    aggregate: str = "a",
    sequence: int = 1,
    event: str = "user.added",
    payload: str = "{}",
) -> bytes:
    """One line of COPY text, columns as archived."""
    stamp = at.strftime("%Y-%m-%d %H:%M:%S.%f").rstrip("0").rstrip(".") + "+00"
    position = position or f"{at.timestamp():.6f}"
    fields = [stamp, position, str(order), instance, kind, aggregate, str(sequence), event, "1", "c", "o", payload]
    return b"\t".join(escape(field) for field in fields) + b"\n"


def history(count: int, *, start: datetime = EPOCH, step: timedelta = timedelta(seconds=1)) -> list[bytes]:
    return [row(start + step * number, sequence=number + 1) for number in range(count)]


texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=8)

cursors = st.builds(
    Cursor,
    st.integers(0, 10**9).map(lambda us: EPOCH + timedelta(microseconds=us)),
    st.decimals(0, 10**10, places=6) | st.integers(10**18, 10**18 + 10).map(Decimal),
    st.integers(0, 2**40),
    texts.map(str.encode),
    texts.map(str.encode),
    texts.map(str.encode),
    st.integers(1, 2**62),
)


def row_of(cursor: Cursor, payload: str = "{}") -> bytes:
    return row(
        cursor.created_at,
        format(cursor.position, "f"),
        cursor.in_tx_order,
        cursor.instance_id.decode(),
        cursor.aggregate_type.decode(),
        cursor.aggregate_id.decode(),
        cursor.sequence,
        payload=payload,
    )


histories = st.lists(cursors, min_size=1, max_size=40, unique=True).map(
    lambda found: [row_of(cursor) for cursor in sorted(found)]
)
