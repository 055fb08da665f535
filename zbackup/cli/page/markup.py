"""
HTML and SVG as text that cannot be anything else: whatever is not markup already is escaped where it is put in.

Values come from an archive, which somebody else may have written.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from typing import TypeAlias

from zbackup.cli.visible import visible
from zbackup.event import instant_text

# Longer texts are cut: nothing that an archive holds makes a page large.
MOST_TEXT = 400

_VOID = frozenset({"br", "meta"})


Content: TypeAlias = "str | Iterable[Content] | None"


class Html(str):
    """Markup. Only this module makes it of texts."""

    __slots__ = ()


def text(value: str, most: int = MOST_TEXT) -> Html:
    """Make markup of a text: escaped, cut, and with all that steers made visible."""
    cut = value if len(value) <= most else value[: most - 1] + "…"
    return Html(escape(visible(cut)))


def join(*content: Content) -> Html:
    """Put markup and texts behind one another; texts are escaped."""
    return Html("".join(_flat(content)))


def tag(name: str, /, *content: Content, **attributes: str | float | None) -> Html:
    """
    Make an element. `class_` is the attribute class, other underscores are hyphens; None leaves an attribute out.
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(visible(_number(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{said}>")
    return Html(f"<{name}{said}>{join(*content)}</{name}>")


def time(at: datetime, *, seconds: bool = False, zone: bool = False) -> Html:
    """Write an instant, in UTC; the ends of all time are no dates."""
    if at.year == 1:
        return Html("the beginning")
    if at.year == 9999:
        return Html("the end")
    shown = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if seconds else f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"
    return tag("time", f"{shown} UTC" if zone else shown, datetime=instant_text(at))


def _flat(content: Iterable[Content]) -> Iterable[str]:
    for part in content:
        if isinstance(part, Html):
            yield part
        elif isinstance(part, str):
            yield text(part)
        elif part is not None:
            yield from _flat(part)


def _number(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.3f}".rstrip("0").rstrip(".")
