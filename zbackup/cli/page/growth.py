"""How the log has grown, per aggregate type and per instance."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from zbackup.cli.page import chart
from zbackup.cli.page.markup import Content, Html, tag
from zbackup.cli.page.table import figure, section, table
from zbackup.cli.texts import count
from zbackup.growth import Growth
from zbackup.report import Facts

HEIGHT, TOP = 220, 20

# Types with a layer of their own in the picture, as many as there are colours.
LAYERS = 6

MOST_ROWS = 25

_Layer = tuple[str, str, Sequence[int]]
"""class, label and events up to the end of each period"""


def growth(facts: Facts) -> Html | None:
    found = facts.growth
    if found is None:
        return None
    return section("growth", "Growth", *_types(found, facts.at), *_instances(found))


def _types(found: Growth, now: datetime) -> list[Html]:
    layers = _layers(found)
    parts: list[Html] = []
    if len(found.starts) > 1:
        caption = f"Events up to the end of each {found.unit}, by aggregate type. " + _read(found)
        legend = [(class_, label) for class_, label, _ in layers]
        parts.append(figure(_picture(found, layers, now), caption, legend=legend))
    before = max(found.starts)
    rows = [
        (
            _name(one.aggregate_type, number),
            count(one.events),
            _share(one.events, found.events),
            f"+{count(_newest(one.total))}",
        )
        for number, one in enumerate(found.types[:MOST_ROWS])
    ]
    shown = sum(one.events for one in found.types[:MOST_ROWS])
    if others := found.events - found.unread - shown:
        rows.append(("other types", count(others), _share(others, found.events), ""))
    if found.unread:
        rows.append(("type not read", count(found.unread), _share(found.unread, found.events), ""))
    rows.append(("all", count(found.events), _share(1, 1), f"+{count(_newest(found.total))}"))
    since = f"{before:%Y-%m-%d %H:%M}" if found.unit == "hour" else f"{before:%Y-%m-%d}"
    parts.append(
        table(
            "types", "Events per aggregate type", ("Aggregate type", "#Events", "#Share", f"#Since {since} UTC"), rows
        )
    )
    return parts


def _layers(found: Growth) -> list[_Layer]:
    layers: list[_Layer] = [
        (f"s{number}", one.aggregate_type, one.total) for number, one in enumerate(found.types[:LAYERS])
    ]
    summed = [sum(values) for values in zip(*(total for _, _, total in layers), strict=True)] or [0] * len(found.total)
    rest = [max(0, whole - known) for whole, known in zip(found.total, summed, strict=True)]
    if any(rest):
        layers.append(("s-rest", "others" if not found.unread else "others, and those not read", rest))
    return layers


def _picture(found: Growth, layers: Sequence[_Layer], now: datetime) -> Html:
    ends = [*found.starts[1:], max(now, found.starts[-1])]
    scale = chart.Scale(found.starts[0], ends[-1])
    most = max(1, found.total[-1])
    xs = [0.0, *map(scale.x, ends)]
    title = f"Growth of the log to {count(found.events)} events, by aggregate type"
    return chart.picture(
        "growth-picture",
        title,
        HEIGHT + chart.AXIS,
        [chart.areas([(f"layer {class_}", (0, *total)) for class_, _, total in layers], xs, most, TOP, HEIGHT)],
        chart.rules(most, HEIGHT, TOP, of_bytes=False),
        chart.axis(scale, HEIGHT),
        gutter=True,
    )


def _read(found: Growth) -> str:
    if not found.unread:
        return f"Counted by the trailers of all {count(found.chunks)} chunks."
    return (
        f"Counted by the trailers of {count(found.trailers)} of {count(found.chunks)} chunks; of the older ones, and "
        "of those that cannot be read, only the number of events is known."
    )


def _instances(found: Growth) -> list[Html]:
    if not found.instances:
        return []
    rows = [
        (tag("code", one.instance or "(system)"), count(one.events), _share(one.events, found.events))
        for one in found.instances[:MOST_ROWS]
    ]
    return [
        table("instances", "Events per instance, those with the most first", ("Instance", "#Events", "#Share"), rows)
    ]


def _share(events: int, whole: int) -> Content:
    """Write a share, and draw it."""
    share = 100 * events / max(1, whole)
    bar = tag("svg", chart.box(0, share, 0, 8, "live"), width="64", height="8", class_="share", aria_hidden="true")
    return f"{share:.1f} %", bar


def _name(kind: str, number: int) -> Content:
    if number >= LAYERS:
        return kind
    return (tag("span", class_=f"swatch s{number}", aria_hidden="true"), kind)


def _newest(total: Sequence[int]) -> int:
    return total[-1] - (total[-2] if len(total) > 1 else 0)
