"""What was found and done: findings, amendments, and the record of verifies, drills and prunes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zbackup.archive.records import Record
from zbackup.cli.page import chart
from zbackup.cli.page.markup import Html, tag, time
from zbackup.cli.page.table import figure, section, table
from zbackup.cli.texts import count, duration, many, short, size
from zbackup.report import KINDS, Facts

ROW = 34

# Figures of a record that are shown, and how much of each.
MOST_FIGURES, MOST_TEXT = 12, 80


def findings(facts: Facts) -> Html:
    if not facts.findings:
        return section("findings", "Newest findings", tag("p", "None: no warning, no failure, nothing unreadable."))
    rows = [(time(one.at), one.message, tag("code", one.about), count(one.times)) for one in facts.findings]
    return section(
        "findings",
        "Newest findings",
        table("newest-findings", "Warnings of the newest backups, failures on record and what cannot be read (UTC)",
              ("Last", "~What", "Of", "#Times"), rows),
    )  # fmt: skip


def amendments(facts: Facts) -> Html:
    said = (
        "An audit compares old rows with the source; where they were changed, removed, or came late, an amendment "
        "takes the new ones in and keeps what they were."
    )
    if not facts.amendments:
        return section("amendments", "Amendments", tag("p", f"None. {said}"))
    which = (
        f"All {count(facts.total_amendments)}"
        if len(facts.amendments) == facts.total_amendments
        else f"The newest {len(facts.amendments)} of {count(facts.total_amendments)}"
    )
    rows = [
        (
            time(one.at),
            (time(one.lo), " … ", time(one.hi)),
            count(one.added),
            count(one.removed),
            count(one.changed),
            tag("code", one.backup),
        )
        for one in facts.amendments
    ]
    columns = ("Found", "Events created", "#Added", "#Removed", "#Changed", "Backup")
    caption = f"{which} amendments of the newest generation, newest first (UTC)"
    return section("amendments", "Amendments", tag("p", said), table("amended", caption, columns, rows))


def records(facts: Facts) -> Html:
    if not facts.records:
        said = "Nothing is on record yet: `zbackup run` and `zbackup drill` leave records in the archive."
        return section("records", "Verify, drill and prune", tag("p", said))
    failed = [one for one in facts.records if not one.ok]
    caption = f"{many(len(facts.records), 'record')}, {many(len(failed), 'failure')}. A cross is a failure."
    return section(
        "records",
        "Verify, drill and prune",
        figure(_picture(facts.records), caption, legend=[("done", "went well"), ("failed", "failed")]),
        table(
            "done",
            "Records, newest first (UTC)",
            ("Began", "What", "Result", "#Took", "~Figures", "Backup"),
            [
                (
                    time(one.started),
                    one.kind,
                    tag("span", "well" if one.ok else "failed", class_="good" if one.ok else "bad"),
                    duration(max(0.0, (one.ended - one.started).total_seconds())),
                    _figures(one),
                    tag("code", one.backup or "-"),
                )
                for one in facts.records
            ],
        ),
    )


def _picture(records: Sequence[Record]) -> Html:
    kinds = [kind for kind in KINDS if any(one.kind == kind for one in records)]
    scale = chart.Scale(min(one.started for one in records), max(one.started for one in records))
    height = ROW * len(kinds)
    shapes = [*chart.axis(scale, height)]
    for number, kind in enumerate(kinds):
        y = number * ROW + 24
        shapes.append(chart.words(kind, 0, number * ROW + 12, "name"))
        shapes.append(tag("line", x1="0", x2="100%", y1=y, y2=y, class_="grid"))
        shapes += _marks([one for one in records if one.kind == kind], scale, y)
    title = f"When the archive was looked after: {', '.join(_said(records, kind) for kind in kinds)}"
    return chart.picture("records-picture", title, height + chart.AXIS, shapes)


def _marks(records: Sequence[Record], scale: chart.Scale, y: float) -> Iterator[Html]:
    for one in records:
        # The first and the last stay whole within the picture.
        x = 1 + 0.98 * scale.x(one.started)
        said = f"{one.kind}, {short(one.started)}: {'went well' if one.ok else 'failed'}"
        yield chart.dot(x, y, "done", said) if one.ok else chart.cross(x, y, "failed", said)


def _said(records: Sequence[Record], kind: str) -> str:
    of_kind = [one for one in records if one.kind == kind]
    return f"{many(len(of_kind), kind)}, {sum(not one.ok for one in of_kind)} failed"


def _figures(record: Record) -> str:
    said = [f"{name[:MOST_TEXT]} {_value(name, value)}" for name, value in record.figures.items()]
    more = f", and {len(said) - MOST_FIGURES} more" if len(said) > MOST_FIGURES else ""
    return ", ".join(said[:MOST_FIGURES]) + more


def _value(name: str, value: object) -> str:
    """Write a figure in the unit that its name tells."""
    match value:
        case bool() | None:
            return {True: "yes", False: "no", None: "-"}[value]
        case int() if name.endswith("bytes") and value >= 0:
            return size(value)
        case int() | float() if name.endswith("seconds"):
            return duration(value)
        case int():
            return count(value)
        case float():
            return f"{value:,.2f}".rstrip("0").rstrip(".")
        case _:
            return str(value)[:MOST_TEXT]
