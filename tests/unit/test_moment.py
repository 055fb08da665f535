"""What WHEN means."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbackup.errors import UsageError
from zbackup.moment import (
    FORMS,
    BeforeEvent,
    Instant,
    Latest,
    OfBackup,
    Position,
    parse_point,
    point_text,
)

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)


def at(text: str) -> datetime:
    point = parse_point(text, NOW)
    assert isinstance(point, Instant)
    assert point.text == text.strip()
    return point.at


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-23T08:00:00Z", "2026-11-23T08:00:00"),
        ("2026-11-23t08:00z", "2026-11-23T08:00:00"),
        ("2026-11-23T08:00:00.1Z", "2026-11-23T08:00:00.100000"),
        ("2026-11-23 08:00:00.123456+00", "2026-11-23T08:00:00.123456"),
        ("2026-11-23T08:00+01:00", "2026-11-23T07:00:00"),
        ("2026-11-23T08:00-0330", "2026-11-23T11:30:00"),
        ("2026-11-23T08:00 [Europe/Berlin]", "2026-11-23T07:00:00"),
        ("2026-07-23T08:00:00.000001[Europe/Berlin]", "2026-07-23T06:00:00.000001"),
        ("2026-11-23T08:00+01:00[Europe/Berlin]", "2026-11-23T07:00:00"),
        (" 2026-11-23T08:00 [UTC] ", "2026-11-23T08:00:00"),
        ("2h ago", "2026-11-23T10:00:00.123456"),
        ("90 min ago", "2026-11-23T10:30:00.123456"),
        ("1d 4h ago", "2026-11-22T08:00:00.123456"),
        ("1d4h ago", "2026-11-22T08:00:00.123456"),
        ("2 Weeks AGO", "2026-11-09T12:00:00.123456"),
        ("0s ago", "2026-11-23T12:00:00.123456"),
    ],
)
def test_an_instant_is_read_to_the_microsecond(text: str, expected: str) -> None:
    assert at(text) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "now",
        "2026-11-23",
        "2026-11-23T08:00",
        "2026-11-23T08:00:00.123456",
        "2026-11-23T08:00:00.1234567Z",
        "2026-02-29T08:00Z",
        "2026-11-23T24:00Z",
        "2026-11-23T08:00:60Z",
        "2026-11-23T08:00+24:00",
        "2026-11-23T08:00+01:60",
        "2026-11-23T08:00 Europe/Berlin",
        "2026-11-23T08:00 [Europe/Berlim]",
        "2026-11-23T08:00 [Europe]",
        "2026-11-23T08:00 [../../etc/passwd]",
        "2026-11-23T08:00 []",
        "0001-01-01T00:00+01:00",
        "9999-12-31T23:59-01:00",
        "2026-11-23T08:00+02:00[Europe/Berlin]",
        "08:00",
        "23.11.2026 08:00",
        "1763884800",
        "\uff12\uff1026-11-23T08:00Z",
        "2h",
        "ago",
        "h ago",
        "2 fortnights ago",
        "2h 3h ago",
        "-2h ago",
        "1.5h ago",
        "99999999 weeks ago",
        "999999999999 s ago",
        "position:",
        "position:-1",
        "position:1e9",
        "position:NaN",
        "before:",
        "before:i/user/7",
        "before:i//a/7",
        "before:i/user//7",
        "before:i/user/a/",
        "before:i/user/a/-7",
        "before:i/user/a/x",
        "backup:",
        "backup:a/b",
        "backup:a b",
        "Position:1",
    ],
)
def test_nonsense_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_point(text, NOW)

    assert refused.value.hint
    assert refused.value.exit_code == 2


def test_a_time_shown_twice_names_both_readings() -> None:
    with pytest.raises(UsageError) as refused:
        parse_point("2026-10-25T02:30 [Europe/Berlin]", NOW)

    assert "twice" in refused.value.message
    assert "2026-10-25T02:30:00+02:00 (2026-10-25T00:30:00Z)" in refused.value.message
    assert "2026-10-25T02:30:00+01:00 (2026-10-25T01:30:00Z)" in refused.value.message


def test_a_time_never_shown_names_both_readings() -> None:
    with pytest.raises(UsageError) as refused:
        parse_point("2026-03-29T02:30 [Europe/Berlin]", NOW)

    assert "never" in refused.value.message
    assert "2026-03-29T02:30:00+01:00 (2026-03-29T01:30:00Z)" in refused.value.message
    assert "2026-03-29T02:30:00+02:00 (2026-03-29T00:30:00Z)" in refused.value.message


def test_an_offset_chooses_between_two_readings_but_invents_none() -> None:
    assert at("2026-10-25T02:30+02:00 [Europe/Berlin]") == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert at("2026-10-25T02:30+01:00 [Europe/Berlin]") == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    for offset in ("+01:00", "+02:00"):
        with pytest.raises(UsageError):
            parse_point(f"2026-03-29T02:30{offset} [Europe/Berlin]", NOW)


def test_the_other_forms() -> None:
    assert parse_point("latest", NOW) == parse_point(" Latest ", NOW) == Latest()
    assert parse_point("position:1763884800.123456", NOW) == Position(Decimal("1763884800.123456"))
    assert parse_point("backup:20261123T080000Z-0123abcd", NOW) == OfBackup("20261123T080000Z-0123abcd")
    assert parse_point("before:/system/SYSTEM/3", NOW) == BeforeEvent("", "system", "SYSTEM", 3)
    assert parse_point("before:i/user/a/b c/7", NOW) == BeforeEvent("i", "user", "a/b c", 7)


def test_every_advertised_form_is_read() -> None:
    for form in FORMS:
        words = form.strip('"').replace("SEQUENCE", "1")
        point = parse_point(words, NOW)
        assert parse_point(point_text(point), NOW) == point


OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda m: timezone(timedelta(minutes=m)))


@given(
    st.datetimes(
        min_value=datetime(2, 1, 1),
        max_value=datetime(9998, 1, 1),
        timezones=OFFSETS,
    )
)
def test_any_instant_with_an_offset_is_read_back_exactly(instant: datetime) -> None:
    assert at(instant.isoformat()) == instant
    assert at(instant.isoformat(sep=" ")) == instant


@given(
    st.datetimes(min_value=datetime(1950, 1, 1), max_value=datetime(2100, 1, 1)),
    st.sampled_from(["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]),
)
def test_a_zoned_time_means_what_its_clocks_show_or_is_refused(local: datetime, zone: str) -> None:
    """
    An accepted local time, shown on the zone's clocks again, is the same; a refused one has two readings.
    """
    text = f"{local.isoformat()} [{zone}]"
    readings = {local.replace(tzinfo=ZoneInfo(zone), fold=fold).utcoffset() for fold in (0, 1)}
    if len(readings) == 2:
        with pytest.raises(UsageError):
            parse_point(text, NOW)
    else:
        assert at(text).astimezone(ZoneInfo(zone)).replace(tzinfo=None) == local


PARTS = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(
    PARTS | st.just(""),
    PARTS,
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.integers(0, 2**63 - 1),
)
def test_an_event_is_read_back_exactly(instance: str, kind: str, aggregate: str, sequence: int) -> None:
    point = BeforeEvent(instance, kind, aggregate, sequence)

    assert parse_point(point_text(point), NOW) == point


@given(st.decimals(min_value=0, max_value=Decimal("1e20"), places=9))
def test_a_position_keeps_every_digit(value: Decimal) -> None:
    point = parse_point(point_text(Position(value)), NOW)

    assert isinstance(point, Position)
    assert point.value == value


@given(st.text(max_size=40) | st.from_regex(r"(?:[0-9]{1,30} ?[a-z]{1,7} ?){1,3}ago"))
def test_any_text_is_a_point_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse_point(text, NOW)
