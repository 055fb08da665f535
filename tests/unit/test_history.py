from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.history import COLUMNS, History
from zbackup.event import unescape

ALL_ODDITIES = History(30_000, seed=7, odd=0.3, huge=2, gaps=True)


def rows(history: History) -> list[dict[str, bytes]]:
    names = COLUMNS
    return [dict(zip(names, line[:-1].split(b"\t"), strict=True)) for line in history.lines()]


def test_a_seed_gives_the_same_rows() -> None:
    """
    Equal values give equal bytes, another seed gives others, and blocks hold the same bytes as lines.
    """
    history = History(3000, seed=1)

    assert b"".join(history.lines()) == b"".join(History(3000, seed=1).blocks())
    assert b"".join(history.lines()) != b"".join(History(3000, seed=2).lines())


@pytest.mark.parametrize("events", [0, 1, 39, 40, 41, 500, 5000])
def test_a_history_has_as_many_events_as_asked(events: int) -> None:
    """
    The number of rows is exact, however short the history.
    """
    assert len(list(History(events).lines())) == events


def test_keys_are_unique_and_sequences_ascend_in_commit_order() -> None:
    """
    An aggregate's events commit in the order of their sequence, as the primary key enforces.
    """
    last: dict[tuple[bytes, bytes, bytes], int] = {}
    for row in rows(ALL_ODDITIES):
        key = (row["instance_id"], row["aggregate_type"], row["aggregate_id"])
        sequence = int(row["sequence"])
        assert sequence > last.get(key, 0)
        last[key] = sequence


def test_some_pushes_commit_late_and_some_tie() -> None:
    """
    A tenth of the rows stand after rows of a later time, and different pushes share an instant.
    """
    pushes = list(History(20_000, ties=0.01).pushes())
    newest = pushes[0].created_at
    late = 0
    for push in pushes:
        late += push.created_at < newest
        newest = max(newest, push.created_at)

    assert 0.03 < late / len(pushes) < 0.2
    assert len({push.created_at for push in pushes}) < len(pushes)


def test_times_lie_between_start_and_end() -> None:
    """
    All events are dated within the range asked for.
    """
    start, end = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC)
    times = [push.created_at for push in History(5000, start=start, end=end).pushes()]

    assert start <= min(times)
    assert max(times) <= end
    assert (max(times) - min(times)).total_seconds() > 80_000


def test_a_history_has_the_awkward_rows() -> None:
    """
    Blanks, colons, tabs, backslashes, line breaks, NULL and {}, control characters, empty creators, huge payloads.
    """
    found = rows(ALL_ODDITIES)
    ids = {unescape(row["aggregate_id"]).decode() for row in found}
    payloads = {row["payload"] for row in found}

    for part in (" ", ":", "\t", "\\", "\n", "ü"):
        assert any(part in identity for identity in ids), repr(part)
    assert {rb"\N", b"{}"} < payloads
    assert any(rb"\\u0001" in payload for payload in payloads)
    assert any("🦊".encode() in payload for payload in payloads)
    assert sum(len(payload) > 1 << 20 for payload in payloads) == 2
    assert any(row["creator"] == b"" for row in found)
    assert {row["instance_id"] for row in found} >= {b""}
    assert len({row["instance_id"] for row in found}) == 5


def test_the_mix_is_that_of_real_servers() -> None:
    """
    The shares of aggregate types are those of the fact sheet.
    """
    found = rows(History(20_000, permissions=3))
    share = {
        kind: sum(row["aggregate_type"] == kind.encode() for row in found) / len(found)
        for kind in ("oidc_session", "session", "auth_request", "user")
    }

    assert 0.40 < share["oidc_session"] < 0.56
    assert 0.12 < share["session"] < 0.22
    assert 0.10 < share["auth_request"] < 0.22
    assert 0.06 < share["user"] < 0.20


def test_positions_can_be_those_of_cockroachdb() -> None:
    """
    With nanoseconds positions have nineteen digits and a logical part of ten.
    """
    position = rows(History(100, nanoseconds=True))[-1]["position"]

    whole, logical = position.split(b".")
    assert (len(whole), len(logical)) == (19, 10)


def test_rows_from_the_old_table_have_gaps() -> None:
    """
    With gaps the first third counts per instance and repeats the sequence as the order.
    """
    found = rows(History(3000, gaps=True, late=0))
    old, new = found[:1000], found[2000:]

    assert all(row["in_tx_order"] == row["sequence"] for row in old)
    assert any(row["in_tx_order"] != row["sequence"] for row in new)
    assert max(int(row["sequence"]) for row in old) > 100
