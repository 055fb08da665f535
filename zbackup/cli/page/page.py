"""
The page as a whole: one file that needs nothing else, and may load nothing.

A policy in its head forbids every script and every request; the one style sheet is let in by its digest. So even a
mistake in the escaping could run nothing and tell nobody.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from importlib.resources import files

from zbackup.check import Check
from zbackup.cli.page import backups, growth, history, window
from zbackup.cli.page.markup import Html, tag, time
from zbackup.cli.texts import count, many, size
from zbackup.periods import spoken
from zbackup.report import Facts

_MARKS = {"ok": "✓", "warn": "!", "fail": "✗", "skipped": "-"}
_WORDS = {"ok": "in order", "warn": "deserves a look", "fail": "is wrong", "skipped": "was not looked at"}


def page(facts: Facts) -> str:
    """Write the page."""
    style = Html(files("zbackup.cli.page").joinpath("style.css").read_text())
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="robots", content="noindex"),
        tag("title", f"zbackup report: {facts.address}"),
        tag("style", style),
    )
    sections = [
        section
        for section in (
            window.window(facts),
            backups.backups(facts),
            growth.growth(facts),
            history.findings(facts),
            history.amendments(facts),
            history.records(facts),
        )
        if section is not None
    ]
    body = tag("body", _header(facts), tag("main", _condition(facts), sections), _footer(facts))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _header(facts: Facts) -> Html:
    return tag(
        "header",
        tag("p", "zbackup report, made ", time(facts.at, zone=True), class_="made"),
        tag("h1", *_promise(facts)),
        tag("p", tag("code", facts.address), class_="address"),
        tag("dl", _figures(facts), class_="figures"),
    )


def _promise(facts: Facts) -> Iterator[str]:
    newest = next(iter(facts.generations), None)
    if newest is None or facts.log is None:
        yield "There is no backup that can be read."
    elif newest.first is None:
        yield "There is no event yet."
    else:
        yield "Any moment from "
        yield time(newest.first)
        yield " to "
        yield time(newest.last, zone=True)
        yield " is in the archive" if _unreadable(facts) else " can be restored"
        yield f", but for {many(len(newest.lost), 'range')} of time" if newest.lost else ""
        yield ", and there may be more moments that cannot" if newest.more_lossy else ""
        yield ", but parts of it cannot be read." if _unreadable(facts) else "."


def _unreadable(facts: Facts) -> bool:
    return any((one.name, one.verdict) == ("objects", "fail") for one in facts.checks)


def _figures(facts: Facts) -> Iterator[Html]:
    if facts.generations:
        age = spoken(facts.at - facts.generations[0].last)
        yield _figure("Newest recovery point", f"{age} old", "when this page was made")
    if facts.log is not None:
        log = facts.log
        yield _figure("Events, sealed", count(log.rows), f"in {many(log.chunks, 'chunk')}")
        ratio = f", {log.raw_bytes / log.stored_bytes:.1f} times smaller" if log.stored_bytes else ""
        yield _figure("Log in the archive", size(log.stored_bytes), f"of {size(log.raw_bytes)}{ratio}")
    usual = (
        f"usually every {spoken(timedelta(seconds=facts.usual_seconds))}"
        if facts.usual_seconds
        else "no rhythm known yet"
    )
    yield _figure("Backups", count(facts.total_backups), usual)


def _figure(name: str, value: str, note: str) -> Html:
    return tag("div", tag("dt", name), tag("dd", tag("strong", value), tag("span", note)))


def _condition(facts: Facts) -> Html:
    counted = {verdict: sum(one.verdict == verdict for one in facts.checks) for verdict in _MARKS}
    if counted["fail"]:
        verdict, said = "fail", f"{many(counted['fail'], 'thing')} wrong"
        said += f", {counted['warn']} to look at" if counted["warn"] else ""
    elif counted["warn"]:
        verdict, said = "warn", f"{many(counted['warn'], 'thing')} to look at"
    else:
        verdict, said = "ok", "All in order"
    return tag(
        "section",
        tag("h2", tag("span", _MARKS[verdict], class_=f"mark {verdict}", aria_hidden="true"), said, id="condition"),
        tag("ul", map(_check, sorted(facts.checks, key=lambda one: list(_MARKS)[::-1].index(one.verdict)))),
        aria_labelledby="condition", class_="condition",
    )  # fmt: skip


def _check(one: Check) -> Html:
    return tag(
        "li",
        tag("span", _MARKS[one.verdict], class_=f"mark {one.verdict}", title=_WORDS[one.verdict], role="img",
            aria_label=_WORDS[one.verdict]),
        tag("div", tag("b", one.name), " ", one.message, tag("p", one.next_step) if one.next_step else None),
    )  # fmt: skip


def _footer(facts: Facts) -> Html:
    return tag(
        "footer",
        tag(
            "p",
            f"Made by zbackup {facts.zbackup} from the archive alone; no database was asked. Archive ",
            tag("code", facts.archive),
            ", made ",
            time(facts.created, zone=True),
            ". Sizes are of compressed objects, in powers of 1,024; all times are UTC.",
        ),
    )
