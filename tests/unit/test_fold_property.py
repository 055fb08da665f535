"""The fold beside a naive write side, under any commands."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.write_side import WriteSide
from zbackup.zitadel.lowercase import database_lower

orgs = st.sampled_from(["o1", "o2", "o3"])
users = st.sampled_from(["u1", "u2", "u3", "u4"])
projects = st.sampled_from(["p1", "p2"])
apps = st.sampled_from(["a1", "a2"])
domains = st.sampled_from(["d.x", "e.x"])
# Few, so that they are taken; with letters whose lower case is disputed, and some that a policy makes of others.
names = st.sampled_from(["ann", "Ann", "ann@d.x", "ann@e.x", "ÄNN", "ΑΝΝΑΣ", "bea", "bea@d.x", "1@temporary"])
externals = st.sampled_from(["X", "y"])
entities = st.sampled_from(["urn:A", "urn:B", "urn:c"])

Step = tuple[str, tuple[str | bool, ...]]
"""a command of the write side, and its arguments"""


def call(name: str, *arguments: st.SearchStrategy[str] | st.SearchStrategy[bool]) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(name), st.tuples(*arguments))


steps = st.one_of(
    call("add_org", orgs, names),
    call("rename_org", orgs, names),
    call("remove_org", orgs),
    call("add_user", orgs, users, names),
    call("add_user", orgs, users, names, st.sampled_from(["user.human.added", "user.machine.added", "user.added"])),
    call("rename_user", users, names),
    call("remove_user", users),
    call("verify_domain", orgs, domains),
    call("remove_domain", orgs, domains),
    call("set_policy", orgs, st.booleans()),
    call("remove_policy", orgs),
    call("set_instance_policy", st.booleans()),
    call("set_setting", orgs, st.booleans()),
    call("remove_setting", orgs),
    call("link", users, externals),
    call("unlink", users, externals),
    call("add_project", orgs, projects, names),
    call("rename_project", projects, names),
    call("remove_project", projects),
    call("add_app", projects, apps, names, entities),
    call("change_app", projects, apps, st.one_of(entities, st.just(""))),
    call("remove_app", projects, apps),
)


# Something to work on: most commands are refused in an empty instance.
START: list[Step] = [
    ("set_instance_policy", (False,)),
    *[("add_org", (org, org)) for org in ("o1", "o2")],
    *[("add_user", args) for args in (("o1", "u1", "ann"), ("o1", "u2", "bea@d.x"), ("o2", "u3", "Ann@e.x"))],
    ("link", ("u1", "X")),
    ("verify_domain", ("o1", "d.x")),
    ("add_project", ("o1", "p1", "ann")),
    ("add_app", ("p1", "a1", "ann", "urn:A")),
]


@pytest.mark.parametrize("collation", ["C", "C.UTF-8", "icu"])
@pytest.mark.parametrize("version", ["v4", "main"])
@settings(max_examples=int(os.environ.get("ZBACKUP_EXAMPLES", "150")), deadline=None)
@given(commands=st.lists(steps, min_size=5, max_size=60))
def test_the_fold_gives_what_the_commands_wrote(version: str, collation: str, commands: list[Step]) -> None:
    """
    Whatever is done in whatever order, the table computed from the events is the one the commands left.
    """
    lower = database_lower("icu" if collation == "icu" else "libc", "C", collation, None)
    side = WriteSide(version, lower=lower)
    for name, arguments in (*START, *commands):
        getattr(side, name)(*arguments)

    rows = {row for row in side.history.fold(lower).rows() if not row[1].startswith("migration_")}

    assert rows == side.table
