"""Selections of events against a plain look at every column, and events as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import fixture_data
from tests.archived import Maker, created
from tests.unit.rows import EPOCH, row, texts
from zbackup.archive.between import Block
from zbackup.errors import Damaged, OutsideWindow, UsageError
from zbackup.event import END, escape, unescape
from zbackup.event_json import EventRow, event_of
from zbackup.export import export
from zbackup.log import Log, find_events
from zbackup.moment import BeforeEvent, Instant, Latest, OfBackup, RestorePoint, parse_point
from zbackup.plan import resolve
from zbackup.selection import Selection, chooser, parse_aggregate

words = st.sampled_from(("", "a", "b", "a\tb", "a\\", "x/y", "\n", "ä€😀"))
choices = st.builds(
    Selection, st.none() | words, st.none() | st.sampled_from("oc"), st.none() | words, st.none(),
    st.none() | st.sampled_from(("user.*", "*.added", "user.?dded", "USER.*", "*", "user.[ar]*")),
)  # fmt: skip


@given(
    st.lists(
        st.tuples(words, words, words, st.sampled_from(("user.added", "user.removed", "org.added", "ä\t"))), max_size=12
    ),
    choices,
    st.none() | words,
)
def test_a_selection_is_what_its_columns_say(
    rows: list[tuple[str, str, str, str]], selection: Selection, aggregate: str | None
) -> None:
    """
    For any values, those that COPY escapes included.
    """
    if selection.aggregate_type is not None:
        selection = Selection(
            selection.instance, selection.org, selection.aggregate_type, aggregate, selection.event_type
        )
    lines = [
        row(EPOCH, instance=instance, kind=kind, aggregate=name, sequence=number, event=event)
        for number, (instance, kind, name, event) in enumerate(rows)
    ]

    wanted = [
        line
        for line, (instance, kind, name, event) in zip(lines, rows, strict=True)
        if selection.instance in {None, instance}
        and selection.org in {None, "o"}
        and selection.aggregate_type in {None, kind}
        and selection.aggregate_id in {None, name}
        and (selection.event_type is None or fnmatchcase(event, selection.event_type))
    ]
    assert list(chooser(selection)(Block("chunk", b"".join(lines)))) == wanted


@given(texts)
def test_what_is_escaped_reads_back(text: str) -> None:
    """
    As PostgreSQL writes it, and without what would end a field or a line.
    """
    assert unescape(escape(text)).decode() == text
    assert not {b"\t", b"\n", b"\r"} & {bytes([byte]) for byte in escape(text)}


@given(texts, texts, st.recursive(st.none() | st.booleans() | st.integers() | texts, st.lists, max_leaves=5))
def test_an_event_as_json_is_the_event(instance: str, event: str, payload: object) -> None:
    """
    One line of ASCII, whatever the values.
    """
    line = event_of(
        row(EPOCH, instance=instance, event=event, payload=json.dumps(payload, ensure_ascii=False))
    ).to_json(payload=True, type="event")

    assert line.isascii()
    assert line.isprintable()
    read = json.loads(line)
    assert (read["type"], read["instance_id"], read["event_type"], read["payload"]) == (
        "event",
        instance,
        event,
        payload,
    )


def test_numbers_of_a_payload_keep_their_digits() -> None:
    """
    What JavaScript and Python would round or refuse.
    """
    payload = '{"a": 0.10000000000000000555, "b": 1' + "0" * 5000 + ', "c": 1e400, "d": "ä\\\\u0000"}'
    line = event_of(row(EPOCH, payload=payload)).to_json(payload=True)

    read = json.loads(line, parse_float=Decimal, parse_int=str)["payload"]
    assert (str(read["a"]), len(read["b"]), read["c"]) == ("0.10000000000000000555", 5001, Decimal("1e400"))
    null = row(EPOCH).replace(b"{}\n", b"\\N\n")
    assert json.loads(event_of(null).to_json(payload=True))["payload"] is None
    assert "payload" not in json.loads(event_of(null).to_json(payload=False))


@pytest.mark.parametrize("payload", ['{"a": NaN}', '"}\n{"', "{} {}", "", "[" * 100_000])
def test_a_forged_payload_is_damage(tmp_path: Path, payload: str) -> None:
    """
    It does not come out as lines of somebody's own; the chunk is named.
    """
    maker = Maker.at(tmp_path / "archive")
    maker.backup([row(EPOCH, payload=payload)], horizon=END, snapshot=EPOCH)
    chunk = next(iter(resolve(maker.archive, Latest()).chunks)).ref.name

    with pytest.raises(Damaged, match=chunk):
        export(log_of(maker), "jsonl", lambda _: None)


def log_of(
    maker: Maker,
    selection: Selection | None = None,
    point: RestorePoint | None = None,
    *,
    since: RestorePoint | None = None,
    until: RestorePoint | None = None,
) -> Log:
    made = resolve(maker.archive, point or Latest())
    return find_events(maker.archive, made, selection or Selection(), since=since, until=until)


def test_an_aggregate_is_a_type_or_one_of_it() -> None:
    assert parse_aggregate("user") == ("user", None)
    assert parse_aggregate("user/a/b") == ("user", "a/b")
    for text in ("", "/a", "user/"):
        with pytest.raises(UsageError):
            parse_aggregate(text)


Real = tuple[Maker, tuple[bytes, ...], list[EventRow]]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    rows = fixture_data.archived("v2.71.19")
    maker = Maker.at(tmp_path_factory.mktemp("real") / "archive", chunk_rows=500, frame_bytes=32 << 10)
    half = len(rows) // 2
    maker.backup(rows[:half], horizon=created(rows[half - 100]), snapshot=created(rows[half]))
    maker.backup(rows, horizon=created(rows[-50]), snapshot=created(rows[-1]))
    return maker, rows, [event_of(line) for line in rows]


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_any_selection_of_a_real_history(real: Real, data: st.DataObject) -> None:
    """
    Newest or oldest first, limited or not: what a look at every row gives.
    """
    maker, _, events = real
    some = data.draw(st.sampled_from(events))
    selection = Selection(
        *(data.draw(st.sampled_from((None, value))) for value in (some.instance_id, some.owner, some.aggregate_type))
    )
    lo, hi = sorted(data.draw(st.sampled_from(events)).created_at for _ in range(2))
    bounded = data.draw(st.booleans())
    limit = data.draw(st.sampled_from((0, 1, 7)))

    bounds = (instant(lo), instant(hi)) if bounded else (None, None)
    log = log_of(maker, selection, since=bounds[0], until=bounds[1])
    wanted = [
        event
        for event in events
        if (not bounded or lo <= event.created_at <= hi)
        and selection.instance in {None, event.instance_id}
        and selection.org in {None, event.owner}
        and selection.aggregate_type in {None, event.aggregate_type}
    ]
    assert list(log.events(limit=limit)) == wanted[::-1][: limit or None]
    assert list(log.events(limit=limit, oldest_first=True)) == wanted[: limit or None]
    assert [event_of(line) for block in log.blocks() for line in block.rows.splitlines()] == wanted


def instant(at: datetime) -> Instant:
    return Instant(at, at.isoformat())


def test_bounds_may_be_any_points(real: Real) -> None:
    """
    An event, a position, a backup; what the answer does not reach is an error.
    """
    maker, rows, _ = real
    event = event_of(rows[700])
    before = BeforeEvent(event.instance_id, event.aggregate_type, event.aggregate_id, event.sequence)
    first, _ = maker.archive.catalog().entries

    def count(since: RestorePoint | None = None, until: RestorePoint | None = None) -> int:
        return sum(1 for _ in log_of(maker, since=since, until=until).events())

    assert count(until=before) == sum(created(line) < event.created_at for line in rows)
    position = parse_point(f"position:{event.position}", datetime.now(UTC))
    assert count(since=position) == sum(created(line) >= event.created_at for line in rows)
    assert count(until=OfBackup(first.backup)) == sum(created(line) <= first.snapshot for line in rows)
    with pytest.raises(OutsideWindow, match="answers"):
        count(since=instant(END))
    with pytest.raises(OutsideWindow, match="answers"):
        log_of(maker, point=instant(event.created_at), until=Latest(), since=instant(created(rows[-1])))
    with pytest.raises(UsageError, match="is after"):
        count(since=instant(created(rows[-1])), until=before)


def test_events_later_than_the_snapshot_are_shown(tmp_path: Path) -> None:
    """
    Where the clock was set back, the newest backup holds such; unless asked for, no bound takes them away.
    """
    maker = Maker.at(tmp_path / "archive")
    rows = [row(EPOCH, sequence=1), row(EPOCH + timedelta(hours=1), sequence=2)]
    maker.backup(rows, horizon=END, snapshot=EPOCH + timedelta(minutes=1))

    assert len(list(log_of(maker).events())) == 2
    assert len(list(log_of(maker, until=Latest()).events())) == 2
    assert len(list(log_of(maker, until=instant(EPOCH)).events())) == 1
