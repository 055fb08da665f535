"""A line chart as SVG, readable on light and dark pages, without anything but text and lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 250, 40, 50
COLORS = ("#0b6bcb", "#c2410c", "#15803d", "#7e22ce", "#b45309", "#0f766e", "#be185d", "#4d7c0f", "#475569")


@dataclass(frozen=True)
class Curve:
    name: str
    points: Sequence[tuple[float, float]]


def chart(title: str, curves: Sequence[Curve]) -> str:
    """Draw curves of at least two points over the same linear axes, which begin at 0."""
    drawn = [curve for curve in curves if len(curve.points) > 1]
    greatest_x = max((x for curve in drawn for x, _ in curve.points), default=1)
    greatest_y = max((y for curve in drawn for _, y in curve.points), default=1)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + x / greatest_x * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - y / greatest_y * (HEIGHT - TOP - BOTTOM),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif" '
        f'font-size="12" fill="#808080"><title>{escape(title)}</title>',
        f'<text x="{LEFT}" y="20" font-size="15">{escape(title)}</text>',
    ]
    for step in range(5):
        x, y = greatest_x * step / 4, greatest_y * step / 4
        (left, level), (column, bottom) = place(0, y), place(x, 0)
        parts += [
            f'<path d="M{left:.0f} {level:.0f}H{WIDTH - RIGHT}" stroke="#80808055"/>',
            f'<text x="{left - 6:.0f}" y="{level + 4:.0f}" text-anchor="end">{y:.3g}</text>',
            f'<text x="{column:.0f}" y="{bottom + 18:.0f}" text-anchor="middle">{x:,.0f}</text>',
        ]
    for number, curve in enumerate(drawn):
        color = COLORS[number % len(COLORS)]
        points = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in curve.points)
        below = TOP + 16 * number
        parts += [
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>',
            f'<path d="M{WIDTH - RIGHT + 16} {below}h18" stroke="{color}" stroke-width="2"/>',
            f'<text x="{WIDTH - RIGHT + 40}" y="{below + 4}">{escape(curve.name)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
