"""The newest backups and what they stored, and how the log has grown with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zbackup.cli.page import chart
from zbackup.cli.page.markup import Html, tag, time
from zbackup.cli.page.table import figure, section, table
from zbackup.cli.texts import count, duration, many, short, size
from zbackup.inspect import ListedBackup
from zbackup.periods import end_of
from zbackup.report import Facts, Period

HEIGHT, TOP = 180, 26

# What is larger than so many times the usual is cut: it would leave nothing to see of the others.
OUTSTANDING = 5

PARTS = (("part-events", "events"), ("part-tail", "tail and the rest"), ("part-capture", "capture"))


def backups(facts: Facts) -> Html | None:
    if not facts.backups:
        return None
    return section("backups", "Backups and their sizes", *_newest(facts), *_log(facts))


def kind_of(one: ListedBackup) -> str:
    """Say in a word what a backup was."""
    if one.kind == "full":
        return "full"
    return "amendment" if one.amendments else "increment"


def _newest(facts: Facts) -> Iterator[Html]:
    shown = facts.backups
    which = "All" if len(shown) == facts.total_backups else f"The newest {len(shown)} of {count(facts.total_backups)}"
    cut = _cut(shown)
    caption = [f"{which} backups: what each of them stored, oldest first."]
    if any(one.stored_bytes > cut for one in shown):
        caption.append(f"Bars above {size(cut)} are cut, and say how much it was.")
    marks = [("full", "◆ full"), ("amendment", "▲ amendment: old rows had changed")]
    yield figure(
        _bars(shown, cut),
        " ".join(caption),
        legend=[*PARTS, *((f"mark-{kind}", label) for kind, label in marks if kind in map(kind_of, shown))],
    )
    yield table(
        "newest-backups",
        f"{which} backups, newest first (UTC)",
        ("Recovery point", "Kind", "#New events", "#Stored", "#Of it events", "#Of it capture", "Capture", "#Took",
         "Backup"),
        [
            (
                time(one.snapshot),
                (kind_of(one), f" ({count(one.amendments)} rows)" if one.amendments else "",
                 ", raced" if one.stray else ""),
                count(one.new_events),
                size(one.stored_bytes),
                size(one.event_bytes),
                size(one.capture_bytes),
                ("with schema" if one.schema else "without schema") if one.capture else "none",
                duration(max(0.0, (one.finished - one.started).total_seconds())),
                tag("code", one.backup),
            )
            for one in reversed(shown)
        ],
    )  # fmt: skip


def _cut(shown: Sequence[ListedBackup]) -> int:
    """Return the most that is drawn whole."""
    sizes = sorted(one.stored_bytes for one in shown)
    usual, most = sizes[len(sizes) * 9 // 10 - 1 if len(sizes) > 1 else 0], sizes[-1]
    return max(1, round(1.25 * usual) if usual and most > OUTSTANDING * usual else most)


def _bars(shown: Sequence[ListedBackup], cut: int) -> Html:
    height = HEIGHT + 16
    shapes = [*chart.rules(cut, HEIGHT, TOP, of_bytes=True)]
    step = 100 / len(shown)
    width = min(0.8 * step, 4.0)
    for number, one in enumerate(shown):
        x = number * step + (step - width) / 2
        shapes += _bar(one, x, width, cut)
    shapes.append(tag("line", x1="0", x2="100%", y1=HEIGHT, y2=HEIGHT, class_="base"))
    shapes.append(chart.words(short(shown[0].snapshot)[:10], 0, height + 16))
    if len(shown) > 1:
        shapes.append(chart.words(short(shown[-1].snapshot)[:10], 100, height + 16, anchor="end"))
    title = (
        f"What the newest {many(len(shown), 'backup')} stored, {size(sum(one.stored_bytes for one in shown))} in all"
    )
    return chart.picture("backups-picture", title, height + chart.AXIS, shapes, gutter=True)


def _bar(one: ListedBackup, x: float, width: float, cut: int) -> Iterator[Html]:
    whole = max(one.stored_bytes, 1)
    drawn = (HEIGHT - TOP) * min(one.stored_bytes, cut) / cut
    rest = max(0, one.stored_bytes - one.event_bytes - one.capture_bytes)
    said = f"{short(one.snapshot)}, {kind_of(one)}: {size(one.stored_bytes)}, {many(one.new_events, 'new event')}"
    y = float(HEIGHT)
    for (class_, _), amount in zip(PARTS, (one.event_bytes, rest, one.capture_bytes), strict=True):
        tall = drawn * min(amount, whole) / whole
        y -= tall
        yield chart.box(x, width, y, tall, class_, said)
    if one.stored_bytes > cut:
        yield chart.box(x, width, TOP + 8, 3, "break")
        anchor = "start" if x < 10 else "end" if x > 90 else "middle"
        at = x if anchor == "start" else x + width if anchor == "end" else x + width / 2
        yield chart.words(size(one.stored_bytes), at, TOP - 5, "value", anchor)
    if (kind := kind_of(one)) != "increment":
        mark = "◆" if kind == "full" else "▲"
        yield chart.words(mark, x + width / 2, HEIGHT + 14, f"mark mark-{kind}", "middle")


def _log(facts: Facts) -> Iterator[Html]:
    known = [period for period in facts.periods if period.stored_bytes is not None]
    if len(known) < 2:
        return
    yield figure(
        _area(facts, known),
        f"What the whole log of the newest generation takes in the archive, compressed, at the end of each "
        f"{facts.unit}. Captures and what was replaced come on top.",
    )
    yield table(
        "periods",
        f"Backups and log by {facts.unit}, newest first (UTC)",
        ("Begins", "#Backups", "#Full", "#Events of the log", "#Its size"),
        [
            (
                time(period.start),
                count(period.backups),
                count(period.full),
                "-" if period.events is None else count(period.events),
                "-" if period.stored_bytes is None else size(period.stored_bytes),
            )
            for period in reversed(facts.periods)
        ],
    )


def _area(facts: Facts, known: Sequence[Period]) -> Html:
    ends = [min(end_of(facts.unit, period.start), max(facts.at, period.start)) for period in known]
    scale = chart.Scale(ends[0], ends[-1])
    sizes = [period.stored_bytes or 0 for period in known]
    most = max(*sizes, 1)
    title = f"The log grew from {size(sizes[0])} to {size(sizes[-1])}"
    return chart.picture(
        "log-picture",
        title,
        HEIGHT + chart.AXIS,
        chart.axis(scale, HEIGHT),
        [chart.areas([("area log", sizes)], list(map(scale.x, ends)), most, TOP, HEIGHT)],
        chart.rules(most, HEIGHT, TOP, of_bytes=True),
        gutter=True,
    )
