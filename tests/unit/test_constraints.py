"""Rows of the table as text, the comparison with a captured table, and what is doubtful."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.pushes import SECOND, History, event
from zbackup.zitadel.constraints import Fold, compare, doubts, line_of, row_of
from zbackup.zitadel.lowercase import go_lower

texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)))


@given(st.tuples(texts, texts, texts))
def test_rows_come_back_from_their_lines(row: tuple[str, str, str]) -> None:
    """
    Control characters and backslashes included; a line is one line.
    """
    line = line_of(row)

    assert row_of(line) == row_of(line.rstrip(b"\n") if not row[2].endswith("\r") else line) == row
    assert line.count(b"\n") == 1


def test_secret_generators_are_escaped() -> None:
    """
    As PostgreSQL writes them: TAB and line feed as letters, other control characters as they are.
    """
    assert line_of(("i", "secret_generator", "\t")) == b"i\tsecret_generator\t\\t\n"
    assert line_of(("i", "secret_generator", "\n")) == b"i\tsecret_generator\t\\n\n"
    assert line_of(("i", "secret_generator", "\x01")) == b"i\tsecret_generator\t\x01\n"


@pytest.mark.parametrize("line", [b"i\torg_name\n", b"i\torg_name\ta\tb\n"])
def test_lines_of_other_tables_are_refused(line: bytes) -> None:
    """
    There are three fields.
    """
    with pytest.raises(ValueError, match="values to unpack"):
        row_of(line)


def test_the_comparison_sorts_what_differs() -> None:
    """
    Missing rows, surplus that was released once, and surplus that nothing explains.
    """
    history = History("none")
    for name in "ab":
        history.push(event("org.added", name, name=name))
    history.push(event("org.changed", "a", name="c"))
    history.push(event("org.changed", "b", name="d"))
    captured = [("i", "org_name", name) for name in ("y", "c", "b", "x", "a")]
    difference = compare(history.fold(), captured)

    assert difference.equal == 1
    assert difference.missing == (("i", "org_name", "d"),)
    assert [row[2] for row, _ in difference.explained] == ["a", "b"]
    assert {why for _, why in difference.explained} == {
        "held before and released: commands that ran at once can leave it behind"
    }
    assert difference.unexplained == (("i", "org_name", "x"), ("i", "org_name", "y"))


def test_an_equal_table_differs_in_nothing() -> None:
    """
    Nor does an empty one from no events.
    """
    assert compare(Fold(go_lower), []) == compare(Fold(go_lower), iter(()))
    assert compare(Fold(go_lower), []).equal == 0


def test_rows_of_a_removed_instance_are_explained_if_it_had_them() -> None:
    """
    What it never had is not.
    """
    history = History()
    history.push(event("org.added", "o", name="Acme")).push(event("instance.removed", "i"))
    difference = compare(history.fold(), [*history.fold().rows(), ("i", "org_name", "acme"), ("i", "org_name", "x")])

    assert [row for row, _ in difference.explained] == [("i", "org_name", "acme")]
    assert difference.unexplained == (("i", "org_name", "x"),)


def test_a_user_created_while_the_policy_changed_is_doubtful() -> None:
    """
    The table may have the name under the older policy, and a command later misses it.
    """
    history = History()
    history.push(event("instance.policy.domain.added", "i"))
    history.push(event("org.policy.domain.added", "o", userLoginMustBeDomain=True))
    history.push(event("user.human.added", "u", "o", userName="ann"), after=SECOND / 100)
    history.push(event("user.human.added", "v", "p", userName="bea"), after=SECOND / 100)
    history.push(event("user.human.added", "w", "o", userName="cid"), after=SECOND)
    fold = history.fold()
    difference = compare(fold, {*fold.rows(), ("i", "usernames", "ann")} - {("i", "usernames", "anno")})

    assert doubts(fold) == (
        "created so shortly after a change of domain policy that the user's name may be kept under the older one: "
        "users u of instance i",
    )
    assert difference.missing == (("i", "usernames", "anno"),)
    assert difference.explained == ((("i", "usernames", "ann"), "user created while the domain policy changed"),)


def test_a_user_id_used_again_is_doubtful_where_scopes_differ() -> None:
    """
    Up to v4.13 its events have the owner of its first life; the development line writes the right one.
    """
    found: dict[str, int] = {}
    for version in ("v4", "main"):
        for scoped in (False, True):
            history = History(version)
            history.push(event("org.policy.domain.added", "p", **({"userLoginMustBeDomain": True} if scoped else {})))
            history.push(event("user.human.added", "u", "o", userName="ann")).push(event("user.removed", "u", "o"))
            history.push(event("user.human.added", "u", "o", userName="ann"))
            found[f"{version} {scoped}"] = len(doubts(history.fold()))

    assert found == {"v4 False": 0, "v4 True": 1, "main False": 0, "main True": 0}


def test_relational_tables_are_doubtful() -> None:
    """
    Switched on for an instance or for all; off is no doubt.
    """
    history = History("main")
    history.push(event("feature.instance.enable_relational_tables.set", "i", Value=True))
    history.push(event("feature.instance.enable_relational_tables.set", "j", Value=False), instance="j")
    history.push(event("feature.system.enable_relational_tables.set", "SYSTEM", Value=True), instance="")

    (doubt,) = doubts(history.fold())

    assert doubt.startswith("enable_relational_tables was on")
    assert doubt.endswith("in instances i, (all)")


def test_few_objects_are_named() -> None:
    """
    The others are counted.
    """
    history = History("main")
    for number in range(15):
        instance = f"i{number:02}"
        history.push(event("feature.instance.enable_relational_tables.set", instance, Value=True), instance=instance)

    (doubt,) = doubts(history.fold())

    assert doubt.endswith("i08, i09 and 5 more")
