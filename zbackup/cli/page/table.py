"""Tables, each with a caption, and pictures with what is beside them."""

from __future__ import annotations

from collections.abc import Sequence

from zbackup.cli.page.markup import Content, Html, tag

# A longer table is folded until one asks for it.
MOST_OPEN = 12

_CLASSES = {"#": "number", "~": "prose"}


def table(name: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Content]]) -> Html:
    """
    Make a table; the first cell of a row is its heading.

    A column whose title begins with # holds numbers, with ~ prose, which needs some width.

    It scrolls by itself where the page is narrower, so that the page need not.
    """
    classes = [_CLASSES.get(column[0]) for column in columns]
    head = tag(
        "tr",
        [tag("th", column.lstrip("#~"), scope="col", class_=one) for column, one in zip(columns, classes, strict=True)],
    )
    body = [
        tag(
            "tr",
            tag("th", cells[0], scope="row", class_=classes[0]),
            [tag("td", cell, class_=one) for cell, one in zip(cells[1:], classes[1:], strict=True)],
        )
        for cells in rows
    ]
    made = tag(
        "div",
        tag("table", tag("caption", caption, id=f"{name}-caption"), tag("thead", head), tag("tbody", body)),
        class_="scroll", role="region", tabindex="0", aria_labelledby=f"{name}-caption",
    )  # fmt: skip
    if len(rows) <= MOST_OPEN:
        return made
    return tag("details", tag("summary", f"{caption}: {len(rows)} rows"), made)


def figure(picture: Html, caption: Content, *, legend: Sequence[tuple[str, Content]] = ()) -> Html:
    """Make a figure of a picture; the legend says what its classes mean."""
    said = [tag("li", tag("span", class_=f"swatch {class_}", aria_hidden="true"), label) for class_, label in legend]
    keys = tag("ul", said, class_="legend") if said else None
    return tag("figure", picture, tag("figcaption", keys, tag("p", caption)))


def section(name: str, title: str, *content: Content) -> Html:
    return tag("section", tag("h2", title, id=name), *content, aria_labelledby=name)
