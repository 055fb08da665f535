"""Which events of setup a restored database holds; every case decided by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest

from zbackup.zitadel import migrations
from zbackup.zitadel.events import COLUMN_ORDER
from zbackup.zitadel.migrations import DONE, FAILED, ID_GENERATED, REPEATED, STARTED, SystemEvent, parse

NOW = datetime(2026, 11, 26, 8, tzinfo=UTC)


def event(sequence: int, kind: str, payload: dict[str, Any] | None) -> SystemEvent:
    text = "\\N" if payload is None else json.dumps(payload).replace("\\", "\\\\")
    values = dict.fromkeys(COLUMN_ORDER, "1") | {
        "created_at": "2026-11-26 07:00:00+00",
        "instance_id": "",
        "aggregate_type": "system",
        "aggregate_id": "SYSTEM",
        "sequence": str(sequence),
        "event_type": kind,
        "payload": text,
    }
    return parse([("\t".join(values[name] for name in COLUMN_ORDER) + "\n").encode()])[0]


def history(*steps: str | tuple[str, dict[str, Any]], open_step: str = "", has_id: bool = True) -> list[SystemEvent]:
    """Steps that were done, or repeated with what they noted; the last may have been started only."""
    numbers = count(1)
    events: list[SystemEvent] = []
    for step in steps:
        name, last_run = step if isinstance(step, tuple) else (step, None)
        events.append(event(next(numbers), STARTED, {"name": name}))
        done: dict[str, Any] = {"name": name} if last_run is None else {"name": name, "lastRun": last_run}
        events.append(event(next(numbers), DONE if last_run is None else REPEATED, done))
    if has_id:
        events.append(event(next(numbers), ID_GENERATED, {"id": "x"}))
    if open_step:
        events.append(event(next(numbers), STARTED, {"name": open_step}))
    return events


def kept(events: Sequence[SystemEvent]) -> list[str]:
    return [found.step for found in events if found.kind in {DONE, REPEATED}]


CONFIG = ("config_change", {"externalDomain": "a"})
VERSION = ("projection_tables", {"version": "v4.13.1"})


def test_what_did_not_change_stays_but_for_the_markers() -> None:
    """
    Nothing but markers of projections and the field steps goes; side-effect handlers stay marked.
    """
    events = history(
        "01_tables", "29_init_fields_for_project_grant", CONFIG, VERSION, "projections.users14",
        "projections.notifications", "auth.tokens", "59_setup_webkeys",
    )  # fmt: skip

    schedule = migrations.with_schema(events, events)

    assert kept(schedule.kept) == [
        "01_tables", "config_change", "projection_tables", "projections.notifications", "59_setup_webkeys",
    ]  # fmt: skip
    assert [name for name, _ in schedule.rerun] == [
        "29_init_fields_for_project_grant",
        "auth.tokens",
        "projections.users14",
    ]
    assert len(schedule.gone) == 6
    assert not schedule.new


@pytest.mark.parametrize(
    ("at_t", "at_s", "wanted"),
    [
        (["59_setup_webkeys"], [], []),
        ([], ["59_setup_webkeys"], []),
        (["59_setup_webkeys"], ["59_setup_webkeys"], ["59_setup_webkeys"]),
        (["03_default_instance"], [], ["03_default_instance"]),
        ([], ["03_default_instance"], ["03_default_instance"]),
        (["99_unheard_of"], [], []),
        ([], ["99_unheard_of"], ["99_unheard_of"]),
        (["60_generate_system_id"], ["60_generate_system_id"], ["60_generate_system_id"]),
    ],
)
def test_a_step_by_where_it_was_done(at_t: list[str], at_s: list[str], wanted: list[str]) -> None:
    """
    Steps of the schema follow S; data steps are done where the data has what they wrote, or may never run again.
    """
    schedule = migrations.with_schema(history(*at_t), history(*at_s))

    assert kept(schedule.kept) == wanted


def test_a_system_id_that_was_cut_off_is_made_anew() -> None:
    """
    The step that makes it counts as done only where its event is.
    """
    schedule = migrations.with_schema(history(has_id=False), history("60_generate_system_id"))

    assert not kept(schedule.kept)


def test_the_external_domain_is_that_of_the_instant() -> None:
    """
    What setup noted of it follows T; before the first note the first one serves, for without any nothing is compared.
    """
    first, second = ("config_change", {"externalDomain": "a"}), ("config_change", {"externalDomain": "b"})

    later = migrations.with_schema(history(first, second), history(first))
    earlier = migrations.with_schema(history(first), history(first, second))
    before = migrations.with_schema(history(), history(first, second))

    assert migrations.external(later.kept) == {"externalDomain": "b"}
    assert migrations.external(earlier.kept) == {"externalDomain": "a"}
    assert migrations.external(before.kept) == {"externalDomain": "a"}


def test_nothing_is_left_started() -> None:
    """
    A step that has not ended goes, whether T or S cut it.
    """
    for at_t, at_s in ((history(open_step="70_x"), history()), (history(), history(open_step="70_x"))):
        schedule = migrations.with_schema(at_t, at_s)
        assert not migrations.unfinished(schedule.kept)
    once = migrations.with_schema(history(open_step="03_default_instance"), history())
    assert not migrations.unfinished(once.kept)


def test_a_prepared_target_keeps_its_own_steps() -> None:
    """
    All events of the source's setup go, the target's come back but for what must run again, and the domain of the
    source is noted where it differs.
    """
    fresh = history("01_tables", "03_default_instance", "29_init_fields_for_project_grant", CONFIG, VERSION,
                    "59_setup_webkeys", "73_fix_user_grant_roles")  # fmt: skip
    there = history("01_tables", ("config_change", {"externalDomain": 'other "\\ one'}), "59_setup_webkeys")

    schedule = migrations.with_prepared(there, fresh, NOW)

    assert [sequence for sequence, _ in schedule.gone] == [found.sequence for found in there]
    assert kept(schedule.kept) == ["01_tables", "03_default_instance", "config_change", "projection_tables",
                                   "59_setup_webkeys", "config_change"]  # fmt: skip
    assert migrations.external(schedule.kept) == {"externalDomain": 'other "\\ one'}
    assert schedule.kept[-1].sequence == max(found.sequence for found in fresh) + 1
    assert {name for name, _ in schedule.rerun} == {"29_init_fields_for_project_grant", "73_fix_user_grant_roles"}


def test_the_rows_follow_from_the_events() -> None:
    """
    Started and done leave two rows, failed and repeated none.
    """
    events = [*history("01_tables", CONFIG), event(90, STARTED, {"name": "70_x"}), event(91, FAILED, {"name": "70_x"})]

    assert migrations.constraints(events) == {
        ("", "migration_started", "01_tables"),
        ("", "migration_done", "01_tables"),
    }


def test_versions_are_compared_as_numbers() -> None:
    """
    v4.9 is older than v4.13; what is no version is neither.
    """
    assert migrations.is_older("v4.9.9", "v4.13.1")
    assert not migrations.is_older("v5.0.0-main", "v4.13.1")
    assert migrations.is_older("dev", "v4.13.1") is None
    assert migrations.newest("v4.9.9", None, "v4.13.1") == "v4.13.1"
    assert migrations.newest(None) is None
