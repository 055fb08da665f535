from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.rows import cursors, row_of
from zbackup.event import Cursor
from zbackup.merge import Change, merge


@given(st.sets(cursors, max_size=20), st.sets(cursors, max_size=20), st.sets(cursors, max_size=20))
def test_every_row_is_told_once(old: set[Cursor], new: set[Cursor], changed: set[Cursor]) -> None:
    """
    Merging tells kept, changed, added and removed rows apart, each exactly once.
    """
    old, new = old | changed, new | changed
    before = iter([row_of(cursor) for cursor in sorted(old)])
    after = iter([row_of(cursor, '{"a": 1}' if cursor in changed else "{}") for cursor in sorted(new)])

    told = list(merge(before, after))

    count = {change: sum(found is change for found, _ in told) for change in Change}
    assert len(old - new) == count[Change.REMOVED]
    assert len(new - old) == count[Change.ADDED]
    assert len(changed) == count[Change.CHANGED]
    assert len((old & new) - changed) == count[Change.SAME]
