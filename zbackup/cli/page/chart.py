"""
Pictures as SVG that fit any width: places across are per cent, heights and texts are pixels.

So texts keep their size on a phone, and shapes alone are stretched. Each picture has a title, which is what it tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from zbackup.cli.page.markup import Html, tag
from zbackup.cli.texts import count, size
from zbackup.event import END
from zbackup.periods import Unit, end_of, start_of

# Labels below a picture; on a phone every second one is hidden.
MOST_TICKS = 7

AXIS = 24
"""pixels below a picture for its labels"""

_STEPS: tuple[tuple[Unit, int], ...] = (
    *(("hour", hours) for hours in (1, 3, 6, 12)),
    *(("day", days) for days in (1, 2)),
    *(("week", weeks) for weeks in (1, 2)),
    *(("month", months) for months in (1, 2, 3, 6)),
    *(("year", years) for years in (1, 2, 5, 10, 20, 50)),
    *(("century", centuries) for centuries in (1, 2, 5, 10, 20)),
)  # fmt: skip

_LENGTHS: dict[Unit, timedelta] = {
    "hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7), "month": timedelta(days=30),
    "year": timedelta(days=365), "century": timedelta(days=36524),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scale:
    """Where instants lie across a picture."""

    first: datetime
    last: datetime

    def x(self, at: datetime) -> float:
        """Return the place of an instant in per cent, at an end where it lies beyond."""
        whole = (self.last - self.first).total_seconds()
        return 100 * min(1.0, max(0.0, (at - self.first).total_seconds() / whole)) if whole > 0 else 50.0

    def ticks(self) -> Iterator[tuple[datetime, str]]:
        """Yield round instants and what to write below them."""
        span = self.last - self.first
        unit, step = next((one for one in _STEPS if span / (_LENGTHS[one[0]] * one[1]) <= MOST_TICKS), _STEPS[-1])
        at = start_of("day" if unit == "hour" else "year" if unit == "month" else unit, self.first)
        if unit == "year":
            at = at.replace(year=max(1, at.year // step * step))
        while at <= self.last:
            if at >= self.first:
                yield at, _label(unit, at)
            for _ in range(step):
                at = end_of(unit, at)
            if at == END:
                return


def _label(unit: Unit, at: datetime) -> str:
    match unit:
        case "hour":
            return f"{at:%H:%M}" if at.hour else f"{at:%d %b}"
        case "day" | "week":
            return f"{at:%d %b}"
        case "month":
            return f"{at:%b %Y}"
        case _:
            return f"{at.year}"


def picture(name: str, title: str, height: int, *shapes: Iterable[Html], gutter: bool = False) -> Html:
    """
    Make a picture of some height, called by a name of its own in the page.

    With a gutter it leaves room for what `rules` writes to its left.
    """
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        *shapes,
        role="img",
        aria_labelledby=f"{name}-title",
        class_="picture gutter" if gutter else "picture",
        width="100%",
        height=height,
    )


def axis(scale: Scale, height: int) -> Iterator[Html]:
    """Draw the time below a picture of this height."""
    for number, (at, label) in enumerate(scale.ticks()):
        x = scale.x(at)
        extra = " extra" if number % 2 else ""
        yield tag("line", x1=_per(x), x2=_per(x), y1=0, y2=height, class_=f"grid{extra}")
        anchor = "start" if x < 4 else "end" if x > 96 else "middle"
        yield tag("text", label, x=_per(x), y=height + 16, text_anchor=anchor, class_=f"label{extra}")
    yield tag("line", x1="0", x2="100%", y1=height, y2=height, class_="base")


def rules(most: float, height: int, top: int, *, of_bytes: bool) -> Iterator[Html]:
    """Draw lines across at round amounts, each with its amount."""
    for amount in round_amounts(most, of_bytes=of_bytes):
        y = height - (height - top) * amount / most
        yield tag("line", x1="0", x2="100%", y1=y, y2=y, class_="grid")
        said = size(round(amount)).replace(".0 ", " ") if of_bytes else count(round(amount))
        yield tag("text", said, x=-8, y=y + 4, text_anchor="end", class_="label")


def round_amounts(most: float, *, of_bytes: bool) -> list[float]:
    """Return up to four round amounts, of which the greatest is near the most."""
    base = 1.0
    if of_bytes:
        while base * 1024 <= most:
            base *= 1024
    step = base
    for factor in (1, 2, 5) if most >= base else ():
        power = 1.0
        while base * factor * power * 2 <= most:
            step = max(step, base * factor * power)
            power *= 10
    return [step * times for times in (1, 2, 3, 4) if step * times <= most]


def box(x: float, width: float, y: float, height: float, class_: str, title: str = "") -> Html:
    """Draw a rectangle, in per cent across and in pixels down; the title is shown where one points at it."""
    inside = tag("title", title) if title else None
    return tag("rect", inside, x=_per(x), width=_per(width), y=y, height=max(0.0, height), class_=class_)


def dot(x: float, y: float, class_: str, title: str) -> Html:
    return tag("circle", tag("title", title), cx=_per(x), cy=y, r=5, class_=class_)


def cross(x: float, y: float, class_: str, title: str) -> Html:
    """Draw a cross; it lies in an SVG of its own, as a path knows no per cent."""
    path = tag("path", tag("title", title), d="M-5-5L5 5M-5 5L5-5", class_=class_)
    return tag("svg", path, x=_per(x), y=y, overflow="visible")


def words(said: str, x: float, y: float, class_: str = "label", anchor: str = "start") -> Html:
    return tag("text", said, x=_per(x), y=y, text_anchor=anchor, class_=class_)


def areas(
    layers: Sequence[tuple[str, Sequence[float]]], xs: Sequence[float], most: float, top: int, height: int
) -> Html:
    """Draw layers on one another, each a class and its heights at the places `xs` in per cent, of `most` in all."""
    below = [0.0] * len(xs)
    drawn: list[Html] = []
    for class_, amounts in layers:
        above = [one + other for one, other in zip(below, amounts, strict=True)]
        points = [(x, y) for x, y in zip(xs, above, strict=True)]
        points += [(x, y) for x, y in zip(reversed(xs), reversed(below), strict=True)]
        path = "L".join(f"{10 * x:.1f} {1000 - 1000 * y / most:.1f}" for x, y in points)
        drawn.append(tag("path", d=f"M{path}Z", class_=class_))
        below = above
    return tag(
        "svg", *drawn, x="0", y=top, width="100%", height=height - top, viewBox="0 0 1000 1000",
        preserveAspectRatio="none",
    )  # fmt: skip


def _per(amount: float) -> str:
    return f"{amount:.3f}".rstrip("0").rstrip(".") + "%"
