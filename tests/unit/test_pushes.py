"""What was pushed together, where times tie and frames end anywhere."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.pushes import History, event
from zbackup.event import cursor_of
from zbackup.zitadel.constraints import EVENT_TYPES, Fold, doubts
from zbackup.zitadel.constraints.event import pushes, read_event
from zbackup.zitadel.lowercase import go_lower

NOW = timedelta(0)


def grouped(history: History) -> list[list[tuple[str, str]]]:
    """Instance and aggregate of the events in each push."""
    lines = sorted(history.lines, key=cursor_of)
    return [
        [(found.instance, found.aggregate) for found in push]
        for push in pushes([read_event(line.decode().rstrip("\n").split("\t")) for line in lines])
    ]


def test_a_push_is_of_one_instance() -> None:
    """
    Two instances at one instant stand mixed in the archive, and are told apart, even where their order grows.
    """
    history = History("none")
    history.push(event("org.added", "a"), event("user.human.added", "u", "a"), instance="i")
    history.push(event("org.added", "b"), event("user.human.added", "v", "b"), instance="j", after=NOW)
    growing = History("none")
    growing.push(event("org.added", "a"), instance="i").push(event("org.added", "b"), instance="j", after=NOW, order=2)

    assert grouped(history) == [[("i", "a"), ("i", "u")], [("j", "b"), ("j", "v")]]
    assert grouped(growing) == [[("i", "a")], [("j", "b")]]


def test_pushes_of_one_instant_go_by_their_creator() -> None:
    """
    Where the order begins anew there is another push; what follows goes to that of the same creator.
    """
    history = History("none")
    history.push(event("org.added", "a"), event("org.added", "d"), creator="x")
    history.push(event("org.added", "b"), event("org.added", "c"), creator="y", after=NOW)

    assert grouped(history) == [[("i", "a"), ("i", "d")], [("i", "b"), ("i", "c")]]


def test_aggregates_go_by_their_sequence() -> None:
    """
    Of two pushes in one transaction, which share their time, the one with the lower sequence came first.
    """
    history = History("none")
    history.push(event("org.added", "o", name="first"), order=5)
    history.push(event("org.changed", "o", name="second"), event("user.human.added", "u", "o", userName="a"), after=NOW)
    history.push(event("org.changed", "o", name="third"), after=NOW)

    assert grouped(history) == [[("i", "o")], [("i", "o"), ("i", "u")], [("i", "o")]]
    assert history.rows("org_name") == {"third"}


def test_what_ties_and_concerns_one_row_is_doubtful() -> None:
    """
    Two pushes of the same microsecond that free and take a name cannot be put in order.
    """
    history = History()
    history.push(event("org.added", "a", name="Acme"))
    history.push(event("org.removed", "a"), creator="x").push(event("org.added", "b", name="Acme"), after=NOW)
    history.push(event("org.added", "c", name="c"), creator="x").push(event("org.added", "d", name="d"), after=NOW)

    assert doubts(history.fold()) == (
        "pushed in the same microsecond, in an order that cannot be told, and both concern the row: "
        "rows org_name 'Acme' of instance i at 2026-01-01 00:00:14+00",
    )


@pytest.fixture(scope="module")
def flips() -> list[bytes]:
    """Rows with large pushes, ties, and types without a rule."""
    history = History()
    for number in range(12):
        history.push(event("user.human.added", str(number), "o", userName=f"U{number}"))
        history.push(event("session.added", f"s{number}", "i"), after=NOW, order=2)
    for scoped in (True, False, True):
        renamed = [event("user.username.changed", str(number), "o", userName=f"U{number}") for number in range(12)]
        history.push(event("instance.policy.domain.changed", "i", userLoginMustBeDomain=scoped),
                     event("instance.features.set", "i"), *renamed)  # fmt: skip
        history.push(event("org.added", str(scoped), name=str(scoped)), after=NOW, creator="x")
    return sorted(history.lines, key=cursor_of)


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(0, 10_000)), dropped=st.booleans())
def test_frames_may_end_anywhere(flips: list[bytes], cuts: list[int], dropped: bool) -> None:
    """
    The same rows come out however the lines are split, and without the types that have no rule.
    """
    whole = Fold(go_lower)
    whole.add(b"".join(flips))
    lines = [line for line in flips if not dropped or line.split(b"\t")[7].decode() in EVENT_TYPES]
    bounds = sorted(cut % (len(lines) + 1) for cut in cuts)
    fold = Fold(go_lower)
    for lo, hi in zip([0, *bounds], [*bounds, len(lines)], strict=True):
        fold.add(b"".join(lines[lo:hi]))

    assert fold.rows() == whole.rows()
    assert doubts(fold) == doubts(whole)
    assert len(fold.rows()) > 20


def test_rows_can_be_asked_for_again() -> None:
    """
    Between instants the fold can be looked at, and go on.
    """
    history = History("none")
    fold = Fold(go_lower)
    for name in ("one", "two"):
        history.push(event("org.added", name, name=name))
        fold.add(history.lines[-1])

        assert ("i", "org_name", name) in fold.rows()
        assert fold.rows() == fold.rows()


def test_ids_may_hold_what_copy_escapes() -> None:
    """
    Backslashes and tabs in ids and names come through.
    """
    history = History("none", instance="i\\1\t")
    history.push(event("action.added", "a", "o\\2", name='quo"te\\ \u0007'))

    assert history.rows("action_names", instance="i\\1\t") == {'quo"te\\ \u0007:o\\2'}


@pytest.mark.parametrize("line", [b"one\ttwo\n", b"\t".join([b"x"] * 7 + [b"org.added", b"1\tc\to\t{}"]) + b"\n"])
def test_what_is_no_row_is_refused(line: bytes) -> None:
    """
    Lines with too few fields or without numbers are errors.
    """
    fold = Fold(go_lower)

    with pytest.raises(ValueError, match=r"row of 2 columns|invalid literal"):
        fold.add(line)
        fold.rows()
