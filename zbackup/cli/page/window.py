"""What can be restored: the generations on a line of time, and how often backups were made."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from zbackup.cli.page import chart
from zbackup.cli.page.markup import Content, Html, tag, time
from zbackup.cli.page.table import figure, section, table
from zbackup.cli.texts import count, many, short
from zbackup.periods import end_of, spoken
from zbackup.report import Facts, Generation

ROW, BAR = 46, 16
"""pixels of a generation, and of its bar"""

RAIL = 56
"""pixels for the numbers of backups"""

LEAST = 0.5
"""per cent: what is shorter is drawn as long, to be seen at all"""


def window(facts: Facts) -> Html:
    if not facts.generations:
        return section("window", "What can be restored", tag("p", "There is no backup in this archive."))
    scale = chart.Scale(min(_begin(one) for one in facts.generations), max(one.last for one in facts.generations))
    return section(
        "window",
        "What can be restored",
        tag(
            "p",
            "Any moment within a bar can be brought back; the numbers of backups say how fine a recovery point there "
            "was at the time, not what can be restored.",
        ),
        figure(_picture(facts, scale), _caption(facts), legend=_legend(facts)),
        _generations(facts),
        _pauses(facts),
        _lost(facts),
        _unknown(facts),
    )


def _begin(one: Generation) -> datetime:
    return one.first or one.final or one.last


def _picture(facts: Facts, scale: chart.Scale) -> Html:
    rows = len(facts.generations) * ROW
    height = rows + RAIL
    shapes: list[Html] = [*chart.axis(scale, height)]
    for number, one in enumerate(facts.generations):
        shapes += _bar(one, scale, number * ROW)
    shapes += _rail(facts, scale, rows, height)
    newest = facts.generations[0]
    title = f"From {short(_begin(newest))} to {short(newest.last)} every moment can be restored"
    title += ", but for those whose rows are gone" if newest.lost or newest.more_lossy else ""
    return chart.picture("window-picture", title, height + chart.AXIS, shapes)


def _bar(one: Generation, scale: chart.Scale, top: int) -> Iterator[Html]:
    y = top + 22
    first, last = scale.x(_begin(one)), scale.x(one.last)
    final = min(scale.x(one.final), last) if one.final else first
    alive = "live" if one.newest else "dead"
    said = "newest generation" if one.newest else "dead generation"
    x, anchor = (first, "start") if first < 60 else (last, "end")
    yield chart.words(f"{said} {one.generation}", x, y - 7, "name", anchor)
    yield chart.box(
        first, max(final - first, LEAST), y, BAR, f"bar {alive}", f"{short(_begin(one))} to {short(one.final)}: final"
    )
    if last > final:
        tail = max(last - final, LEAST)
        yield chart.box(last - tail, tail, y, BAR, "bar open", f"up to {short(one.last)}: not final yet")
    for gone in one.lost:
        at = scale.x(gone.since)
        width = max(scale.x(gone.until) - at, LEAST)
        yield chart.box(at, width, y, BAR, "bar gone", f"gone: {short(gone.since)} to {short(gone.until)}")
    if one.newest:
        yield chart.dot(last, y + BAR / 2, "now", f"newest recovery point: {short(one.last)}")


def _rail(facts: Facts, scale: chart.Scale, top: int, height: int) -> Iterator[Html]:
    yield chart.words(f"backups in each {facts.unit}", 0, top + 14, "name")
    most = max((period.backups for period in facts.periods), default=1)
    for period in facts.periods:
        x = scale.x(period.start)
        width = max(scale.x(end_of(facts.unit, period.start)) - x, 0.2)
        tall = (height - top - 20) * period.backups / most
        said = f"{short(period.start)[: 16 if facts.unit == 'hour' else 10]}: {many(period.backups, 'backup')}"
        yield chart.box(x, width, height - tall, tall, "count", said)
    for pause in facts.pauses:
        x = scale.x(pause.since)
        width = max(scale.x(pause.until) - x, LEAST)
        said = f"no backup from {short(pause.since)} to {short(pause.until)}"
        yield chart.box(x, width, top + 20, height - top - 20, "pause", said)


def _caption(facts: Facts) -> str:
    said = [many(facts.total_backups, "backup"), many(len(facts.generations) + facts.more_generations, "generation")]
    if facts.usual_seconds is not None:
        said.append(f"usually one every {spoken(timedelta(seconds=facts.usual_seconds))}")
    if facts.more_generations:
        said.append(f"the newest {len(facts.generations)} generations are shown")
    return f"{', '.join(said)}. Times are UTC."


def _legend(facts: Facts) -> list[tuple[str, Content]]:
    found: list[tuple[str, Content]] = [("live", "can be restored, final"), ("open", "can be restored, not final yet")]
    if len(facts.generations) > 1:
        found.append(("dead", ("dead generation: can be restored with ", tag("code", "--generation"))))
    if any(one.lost for one in facts.generations):
        found.append(("gone", "rows are gone"))
    found.append(("count", "backups"))
    if facts.pauses:
        found.append(("pause", "unusually long without a backup"))
    return found


def _generations(facts: Facts) -> Html:
    return table(
        "generations",
        "Generations, newest first (UTC)",
        ("Generation", "From", "Final up to", "Newest recovery point", "#Backups", "~Source"),
        [
            (
                (tag("code", one.generation), " newest" if one.newest else " dead"),
                time(one.first) if one.first else "no event",
                time(one.final) if one.final else "nothing yet",
                time(one.last, seconds=True),
                count(one.backups),
                _source(one),
            )
            for one in facts.generations
        ],
    )


def _source(one: Generation) -> str:
    source = one.source
    if source is None:
        return "its newest backup cannot be read"
    zitadel = f", ZITADEL {source.zitadel_version}" if source.zitadel_version else ""
    return f"database {source.database}, PostgreSQL {source.server_version}{zitadel}"


def _pauses(facts: Facts) -> Html | None:
    if not facts.pauses:
        return None
    return table(
        "pauses",
        "The longest times without a backup (UTC)",
        ("From", "To", "#Length", "Generation"),
        [
            (
                time(pause.since),
                time(pause.until),
                spoken(pause.until - pause.since),
                tag("code", pause.generation),
            )
            for pause in facts.pauses
        ],
    )


def _lost(facts: Facts) -> Html | None:
    lost = [(one, gone) for one in facts.generations for gone in one.lost]
    if not lost:
        return None
    return table(
        "lost",
        "Moments that cannot be restored: rows were amended, and what they were is pruned (UTC)",
        ("From", "To", "#Removed", "#Changed", "Found by backup", "Generation"),
        [
            (
                time(gone.since),
                time(gone.until),
                count(gone.removed),
                count(gone.changed),
                tag("code", gone.backup),
                tag("code", one.generation),
            )
            for one, gone in lost
        ],
    )


def _unknown(facts: Facts) -> Html | None:
    more = sum(one.more_lossy for one in facts.generations)
    if not more:
        return None
    return tag(
        "p",
        f"Not looked at: {many(more, 'older amendment')} that removed or changed rows. There may be more moments that "
        "cannot be restored; ",
        tag("code", "zbackup plan"),
        " tells of each.",
    )
