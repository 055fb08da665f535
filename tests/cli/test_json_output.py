"""docs/json-output.md is a promise: every record and every field of it, no more and no less."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest

from tests import fixture_data
from zbackup.archive.rescue import Span
from zbackup.cli.records import plain
from zbackup.cli.restored import comparison_record, missing_record
from zbackup.constraints import Comparison
from zbackup.missing import Missing
from zbackup.progress import Advance, ObjectStored, Retrying, Warned
from zbackup.prune import Skipped
from zbackup.survey import Problem
from zbackup.zitadel.constraints import Difference

from .conftest import ROOT, Ran

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import Zbackup

Fields = dict[str, tuple[str, bool]]
"""type of each field, and whether it may be left out"""


def read_page() -> dict[str, Fields]:
    """Read the tables under the page's headings."""
    page: dict[str, Fields] = {}
    fields: Fields = {}
    for line in (ROOT / "docs/json-output.md").read_text().splitlines():
        if heading := re.fullmatch(r"##+ (.+)", line):
            fields = page.setdefault(heading[1], {})
        elif row := re.fullmatch(r"\| `(\w+)` \| ([^|]+) \|.*\|", line):
            kind, _, optional = row[2].strip().partition(", ")
            assert row[1] not in fields, line
            assert optional in {"", "optional"}, line
            fields[row[1]] = kind, bool(optional)
    return {heading: fields for heading, fields in page.items() if fields}


PAGE = read_page()
OBJECTS = {heading for heading in PAGE if heading[0].isupper()}


def check(value: Any, kind: str, place: str, seen: set[str]) -> None:
    """Hold a value against its documented type."""
    if kind.endswith(" or null"):
        if value is not None:
            check(value, kind.removesuffix(" or null"), place, seen)
    elif kind.endswith("[]"):
        assert isinstance(value, list), place
        for item in cast("list[Any]", value):
            check(item, kind.removesuffix("[]"), f"{place}[]", seen)
    elif kind.startswith("result of "):
        # A part of another result.
        check_object({"type": "result", "command": kind.removeprefix("result of "), **value}, kind, place, seen)
    elif kind in OBJECTS:
        check_object(value, kind, place, seen)
    elif kind == "instant":
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", value), place
        assert datetime.fromisoformat(value).tzinfo is not None
    elif kind == "decimal":
        assert isinstance(value, str), place
        assert Decimal(value).is_finite(), place
    elif kind == "JSON":
        assert isinstance(value, dict | list | str | int | float | bool), place
    elif kind == "map":
        assert all(isinstance(item, str) for item in (*value.keys(), *value.values())), place
    elif kind == "boolean":
        assert isinstance(value, bool), place
    elif kind == "integer":
        assert isinstance(value, int), place
        assert not isinstance(value, bool), place
    elif kind == "number":
        assert isinstance(value, int | float), place
    else:
        assert kind == "text", f"{place}: unknown type {kind}"
        assert isinstance(value, str), place


def check_object(record: dict[str, Any], heading: str, place: str, seen: set[str]) -> None:
    assert heading in PAGE, f"{place}: {heading} is not documented"
    seen.add(heading)
    fields = PAGE[heading]
    missing = {name for name, (_, optional) in fields.items() if not optional} - record.keys()
    assert not record.keys() - fields.keys(), f"{place}: not documented: {record.keys() - fields.keys()}"
    assert not missing, f"{place}: documented and not there: {missing}"
    for name, value in record.items():
        check(value, fields[name][0], f"{place}.{name}", seen)


@pytest.fixture
def held(zbackup: Zbackup) -> Callable[..., tuple[Ran, set[str]]]:
    """Run a command with --json and hold all it says against the page; return the headings that were met."""

    def run(*arguments: str) -> tuple[Ran, set[str]]:
        ran = zbackup(*arguments, "--json")
        assert ran.err == ""
        seen: set[str] = set()
        records = ran.records
        assert [record["type"] in {"result", "error"} for record in records] == [False] * (len(records) - 1) + [True]
        for record in records:
            kind = record["type"] if record["type"] != "result" else f"result of {record['command']}"
            check_object(record, kind, kind, seen)
        return ran, seen

    return run


def test_the_page_is_well_formed() -> None:
    used = {
        re.sub(r"(\[\]| or null)", "", kind) for fields in PAGE.values() for kind, _ in fields.values()
    }  # fmt: skip
    parts = {kind for kind in used if kind.startswith("result of ")}
    used -= parts
    assert parts <= PAGE.keys()

    assert used <= OBJECTS | {"text", "integer", "number", "boolean", "instant", "decimal", "map", "JSON"}
    assert used >= OBJECTS
    assert len(PAGE) > 20


def test_everything_said_is_documented_and_the_other_way_round(
    bare: Path, source: str, new_database: Callable[[], str], held: Callable[..., tuple[Ran, set[str]]], lived: Path
) -> None:
    """
    All commands, with everything in them that takes no special circumstances.
    """
    archive = ("--archive", str(bare / "archive"))
    target = new_database()
    seen: set[str] = set()

    def run(code: int, *arguments: str) -> dict[str, Any]:
        ran, met = held(*arguments)
        assert ran.code == code, ran.out
        seen.update(met)
        return ran.result

    run(0, "init", *archive)
    with psycopg.connect(source) as writer:
        writer.execute("CREATE TEMPORARY TABLE held (x int)")
        assert run(0, "backup", *archive, "--source", source)["blockers"]
    with psycopg.connect(source) as connection:
        gone = connection.execute(
            "DELETE FROM eventstore.events2 WHERE ctid IN (SELECT ctid FROM eventstore.events2 LIMIT 3)"
        )
        assert gone.rowcount == 3
    assert run(0, "backup", *archive, "--source", source, "--audit", "--horizon-margin", "0")["amended"] == 3
    assert run(0, "follow", *archive, "--source", source, "--no-capture", "--count", "1")["committed"] == 1
    run(10, "follow", *archive, "--source", "host=127.0.0.1 port=1", "--count", "1")
    first, second, _ = (listed["backup"] for listed in run(0, "list", *archive)["backups"])
    run(0, "show", *archive, "--tracing", "log")
    shown = run(0, "show", *archive, "--schema")["schema"]
    assert shown["sha256"] == hashlib.sha256(shown["text"].encode()).hexdigest()
    assert run(0, "plan", *archive)["unit"]["schema"]["sha256"] == shown["sha256"]
    run(0, "plan", *archive, "--at", "1 min ago")
    (bare / "masterkey").write_text("MasterkeyNeedsToHave32Characters")
    assert run(0, "plan", *archive, "--masterkey-file", str(bare / "masterkey"))["masterkey"] == "unproven"
    run(0, "log", *archive, "--limit", "2", "--payload")
    run(0, "log", *archive, "--limit", "2")
    assert run(0, "diff", f"backup:{first}", *archive)["changes"]["removed"] == 3
    assert run(0, "diff", f"backup:{second}", f"backup:{second}", *archive)["changes"]["first"] is None
    run(0, "export", *archive, "--output", "events")
    run(0, "restore", *archive, "--dry-run")
    run(0, "restore", *archive, "--target", target, "--at", "latest")
    assert run(0, "restore", *archive, "--target", target, "--at", "latest")["done_before"]
    run(0, "verify", *archive, "--full")
    run(0, "report", "--archive", str(lived))
    run(34, "doctor", "--archive", str(bare / "nowhere"), "--source", source, "--grants")
    run(0, "config", *archive, "--source", source)
    assert run(0, "run", *archive, "--source", source, "--prune", "--grace", "10d")["prune"]["done"]
    run(0, "completion", "fish")
    run(0, "--version")
    pruned = run(0, "prune", *archive, "--keep-window", "0", "--keep-captures", "1", "--forget-amended", "--yes")
    assert pruned["going"]
    assert pruned["forgotten"]
    with psycopg.connect(source) as connection:
        connection.execute("UPDATE eventstore.events2 SET creator = 'me'")
    assert run(33, "verify", *archive, "--source", source)["findings"]
    chunk = max((bare / "archive/events").rglob("*.zst"), key=lambda path: path.stat().st_size)
    chunk.unlink()
    assert run(31, "verify", *archive)["findings"]
    run(32, "plan", *archive, "--at", "2001-01-01T00:00Z")
    assert "traceback" in run(32, "plan", *archive, "--at", "2001-01-01T00:00Z", "--debug")

    real, there = new_database(), ("--archive", str(bare / "real"))
    with psycopg.connect(real) as connection:
        fixture_data.load(connection, "v4.13.1", slice(963))
    run(0, "init", *there)
    run(0, "backup", *there, "--source", real)
    run(0, "show", *there, "--constraints")
    assert run(0, "restore", *there, "--target", new_database())["recovered"]["rerun"]
    assert run(0, "drill", *there, "--target", real)["steps"]

    never = {"retrying", "warning", "Cover", "Explained", "Problem", "Missing", "MissingRows", "MissingSpan", "Skipped"}
    assert PAGE.keys() - seen <= never, PAGE.keys() - seen - never


def test_records_of_damage_are_documented() -> None:
    """
    What a healthy ZITADEL does not show, straight from the values.
    """
    seen: set[str] = set()
    difference = Difference(1, (("", "a", "b"),), ((("", "c", "d"), "why"),), (("", "e", "f"),))
    comparison = comparison_record(Comparison("b", 3, difference, ("doubt",)))

    check_object(plain(Problem("system.assets", "why")), "Problem", "Problem", seen)
    check_object(plain(Skipped("events/x", "locked", datetime(2026, 1, 1, tzinfo=UTC))), "Skipped", "Skipped", seen)
    check_object(comparison, "Comparison", "Comparison", seen)
    span = Span(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC), 3)
    missing = Missing("events/x", "events", "why", 3, (span,), {"i": 3}, None, (("a", "b"),))
    check_object(missing_record(missing), "Missing", "Missing", seen)

    assert seen == {
        "Problem",
        "Skipped",
        "Comparison",
        "Difference",
        "Explained",
        "Missing",
        "MissingRows",
        "MissingSpan",
    }


def test_records_of_progress_are_documented() -> None:
    """
    Those that take special circumstances, straight from the renderer.
    """
    import io

    from zbackup.cli.render import Output

    out = io.StringIO()
    output = Output(out, io.StringIO(), as_json=True)
    for progress in (Retrying("put x", 2, "no answer"), Warned("w", "h"), ObjectStored("x", 3), Advance(1, 2, 3, 4)):
        output.report(progress)
    output.close()

    seen: set[str] = set()
    for record in Ran(0, out.getvalue(), "").records:
        check_object(record, record["type"], record["type"], seen)
    assert seen == {"retrying", "warning", "stored", "progress"}
