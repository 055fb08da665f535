"""Rows of `eventstore.unique_constraints` as COPY text, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from zbackup.event import unescape

Row = tuple[str, str, str]
"""instance_id, unique_type, unique_field; the instance is '' where a name is unique in the whole database"""

COLUMNS = ("instance_id", "unique_type", "unique_field")

# Secret generators are kept as the character of their number: 9 is a TAB, 10 a line feed.
_ESCAPES = {92: "\\\\", 8: "\\b", 12: "\\f", 10: "\\n", 13: "\\r", 9: "\\t", 11: "\\v"}


def rows_of(held: Mapping[tuple[str, str], set[str]]) -> Iterator[Row]:
    """Yield rows that are held by instance and type, sorted."""
    for instance, kind in sorted(held):
        for field in sorted(held[instance, kind]):
            yield instance, kind, field


def row_of(line: bytes) -> Row:
    """Read a line, with or without its end. Raises ValueError when it is not one of this table."""
    instance, kind, field = (unescape(part).decode() for part in line.removesuffix(b"\n").split(b"\t"))
    return instance, kind, field


def line_of(row: Row) -> bytes:
    """Write a line with its end, as PostgreSQL does."""
    text = "".join(row)
    if "\\" in text or not text.isprintable():
        row = row[0].translate(_ESCAPES), row[1].translate(_ESCAPES), row[2].translate(_ESCAPES)
    return "\t".join(row).encode() + b"\n"
