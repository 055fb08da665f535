"""How older versions of ZITADEL wrote the table, told by the setup steps among the events."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.unit.pushes import History, event
from zbackup.zitadel.constraints import compare, doubts
from zbackup.zitadel.lowercase import database_lower

LOWER = "16_unique_constraint_lower"
GLOBAL = "23_correct_global_unique_constraints"

ICU = database_lower("icu", "C.UTF-8", "C.UTF-8", "en-US")
LIBC = database_lower("libc", "C.UTF-8", "C.UTF-8", None)
ASCII = database_lower("libc", "C", "C", None)


@pytest.mark.parametrize(
    ("lower", "left"),
    [(ASCII, {"ärger", "οδυσσευσ", "istanbul"}), (LIBC, set[str]()), (ICU, {"οδυσσευσ", "istanbul"})],
)
def test_names_that_the_database_lower_cases_otherwise_leak(lower: Callable[[str], str], left: set[str]) -> None:
    """
    ZITADEL adds in Go's lower case and removes in the database's.
    """
    history = History()
    for number, name in enumerate(("Ascii", "Ärger", "ΟΔΥΣΣΕΥΣ", "İstanbul")):
        history.push(event("org.added", str(number), name=name))
        history.push(event("org.removed", str(number)))

    assert history.rows("org_name", lower=lower) == left


def test_a_name_is_first_looked_for_as_it_is() -> None:
    """
    What was kept in mixed case is found before what equals it in lower case.
    """
    history = History("v2.41")
    history.push(event("org.added", "a", name="Acme")).push(event("org.added", "b", name="acme"))
    history.steps(LOWER)
    both = history.rows("org_name")
    history.push(event("org.removed", "a"))
    one = history.rows("org_name")
    history.push(event("org.removed", "b"))

    assert (both, one, history.rows("org_name")) == ({"Acme", "acme"}, {"acme"}, set())


def test_v239_kept_names_as_they_were_typed() -> None:
    """
    On adding and on removing: a name added before in lower case is not found.
    """
    history = History("v2.38")
    history.push(event("org.added", "o", name="Acme"))
    history.steps("14_events_push")
    history.push(event("org.removed", "o"))
    history.push(event("org.added", "p", name="Other"))

    assert history.rows("org_name") == {"acme", "Other"}

    history.push(event("org.changed", "p", name="Third"))

    assert history.rows("org_name") == {"acme", "Third"}


@pytest.mark.parametrize(("lower", "lowered"), [(ASCII, "Ärger und Öl"), (ICU, "ärger und öl")])
def test_step_16_lower_cases_what_collides_with_nothing(lower: Callable[[str], str], lowered: str) -> None:
    """
    In the database's lower case; two that would be one stay as they are.
    """
    history = History("v2.41")
    for number, name in enumerate(("Acme", "ACME", "Solo", "Ärger UND Öl")):
        history.push(event("org.added", str(number), name=name))
    history.steps(LOWER)
    history.push(event("org.added", "x", name="Übrig"))

    assert history.rows("org_name", lower=lower) == {"Acme", "ACME", "solo", lowered, "übrig"}


def test_v238_lower_cased_on_both_sides() -> None:
    """
    In Go, so that no collation matters, and name by name in the order of the events.
    """
    history = History("v2.38")
    history.push(event("org.added", "o", name="Ärger Σ"))
    history.push(event("org.removed", "o"))
    history.spread = timedelta(0)
    history.push(event("org.added", "p", name="x"), event("org.removed", "p"))

    assert history.rows("org_name", lower=ASCII) == set()


def test_later_versions_lower_case_before_step_16() -> None:
    """
    Their earlier steps tell them from those that kept names as they were typed.
    """
    history = History("v2.41")
    history.steps("40_init_push_func_v4")
    history.push(event("org.added", "o", name="Acme"), event("instance.domain.added", "i", domain="i.test"))

    assert history.rows("org_name") == {"acme"}
    assert history.rows("instance_domain", instance="") == {"i.test"}


@pytest.mark.parametrize("version", ["v2.38", "v2.47", "v4"])
def test_domains_of_instances_stood_under_them_once(version: str) -> None:
    """
    From v2.39 to v2.47, until step 23 moved them; before and after under ''.
    """
    history = History(version)
    history.push(event("instance.domain.added", "i", domain="i.test"))
    under = {"v2.38": "", "v2.47": "i", "v4": ""}[version]

    assert history.rows("instance_domain", instance=under) == {"i.test"}

    history.push(event("instance.domain.added", "i", domain="gone.test"))
    history.push(event("instance.domain.removed", "i", domain="gone.test"))
    history.steps(GLOBAL)

    assert history.rows("instance_domain", instance="") == {"i.test"}
    assert history.rows("instance_domain", instance="i") == set()


@pytest.mark.parametrize("version", ["v2.41", "v2.47", "v4", "main"])
def test_a_first_start_ends_in_lower_case(version: str) -> None:
    """
    What the first setup wrote before its step 16 is in lower case in the end, whatever the version.
    """
    history = History("none")
    history.steps("14_events_push", *(["40_init_push_func_v4"] if version in {"v4", "main"} else []), "01_tables")
    history.push(event("org.added", "o", name="ZITADEL"), event("instance.domain.added", "i", domain="Host.test"))
    history.steps("03_default_instance", LOWER, GLOBAL)
    fold = history.fold()

    assert {("i", "org_name", "zitadel"), ("", "instance_domain", "host.test")} <= fold.rows()
    assert doubts(fold) == ()


def test_older_versions_are_told() -> None:
    """
    A history that began before v2.39, or passed v2.39 to v2.41, says up to when; so does one that was mirrored.
    """
    first = History("v2.38")
    first.push(event("org.added", "o", name="a")).push(event("org.added", "p", name="b"))
    first.steps("14_events_push").push(event("org.added", "q", name="c"))
    first.steps(LOWER).push(event("org.added", "r", name="d"))
    mirrored = History("none")
    mirrored.push(event("org.added", "o", name="Acme"))
    mirrored.steps("14_events_push", "40_init_push_func_v4", LOWER)

    assert doubts(first.fold()) == (
        "written by ZITADEL up to v2.38, which is known from its source only: events up to 2026-01-01 00:00:06.006+00",
        "written by v2.39 to v2.41, which kept names as they were typed: events up to 2026-01-01 00:00:09.006+00",
    )
    assert mirrored.rows("org_name") == {"acme"}
    assert doubts(mirrored.fold()) == (
        "older than the setup of their database, as after `zitadel mirror`: their version is not known: instances i",
    )


def test_surplus_of_older_versions_is_explained() -> None:
    """
    Mixed case, domains under their instance, device codes with their client, quotas and mail texts.
    """
    history = History("v2.38")
    history.push(event("org.added", "o", name="Acme"))
    history.push(event("instance.domain.added", "i", domain="i.test"))
    history.steps("14_events_push", "40_init_push_func_v4", LOWER, GLOBAL)
    history.push(event("device.authorization.added", "code", "i", ClientID="cl", DeviceCode="code", UserCode="u"))
    fold = history.fold()
    surplus = [
        ("i", "device_code", "cl:code"), ("i", "instance_domain", "i.test"), ("i", "mail_text", "o:initcode:de"),
        ("i", "org_name", "Acme"), ("i", "quota_units", "1"),
    ]  # fmt: skip
    difference = compare(fold, [*fold.rows(), *surplus])

    assert difference.explained == (
        (surplus[0], "with the client before it, as up to v2.42"),
        (surplus[1], "kept under the instance, as v2.39 to v2.47 did"),
        (surplus[2], "no longer written since v2.38"),
        (surplus[3], "mixed case, as v2.39 to v2.41 kept names"),
        (surplus[4], "no longer written since v2.38"),
    )
    assert (difference.missing, difference.unexplained) == ((), ())
