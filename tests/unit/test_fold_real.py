"""The fold alone beside the tables that real servers had."""

from __future__ import annotations

import random
from itertools import groupby

import pytest

from tests import fixture_data
from tests.fixture_data import COLLATIONS, VERSIONS, archived, constraints_at, truths
from zbackup.event import END, cursor_of
from zbackup.zitadel.constraints import EVENT_TYPES, Difference, Fold, compare, line_of, row_of
from zbackup.zitadel.lowercase import database_lower

full = pytest.param(
    True,
    marks=pytest.mark.skipif(fixture_data.full_place() is None, reason="the full fixtures are not at hand"),
    id="full",
)
amounts = pytest.mark.parametrize("whole", [pytest.param(False, id="compact"), full])
each_version = pytest.mark.parametrize("version", VERSIONS)


def differences(version: str, lines: list[bytes], *, whole: bool) -> dict[str, Difference]:
    """What differs at each instant, the lines given in frames that end anywhere."""
    cuts = [(truth.label, truth.time) for truth in truths(version, full=whole)]
    if whole:
        cuts.append(("end", END))
    fold = Fold(database_lower(*COLLATIONS[version]))
    found: dict[str, Difference] = {}
    for label, time in cuts:
        due = [line for line in lines if cursor_of(line).created_at <= time]
        lines = lines[len(due) :]
        for _, frame in groupby(due, key=lambda _: random.random() < 0.1):
            fold.add(b"".join(frame))
        found[label] = compare(fold, map(row_of, constraints_at(version, label, full=whole)))
    return found


@amounts
@each_version
def test_the_fold_equals_the_table_at_each_instant(version: str, whole: bool) -> None:
    """
    Row for row, with no help of the table.
    """
    found = differences(version, list(archived(version, full=whole)), whole=whole)

    assert found == {label: Difference(len(constraints_at(version, label, full=whole)), (), (), ()) for label in found}
    assert len(found) == (8 if whole else len(truths(version)))


@amounts
@each_version
def test_types_without_a_rule_do_not_matter(version: str, whole: bool) -> None:
    """
    Three events of four can be left out.
    """
    kinds = {kind.encode() for kind in EVENT_TYPES}
    lines = [line for line in archived(version, full=whole) if line.split(b"\t", 8)[7] in kinds]
    found = differences(version, lines, whole=whole)

    assert not [label for label, each in found.items() if each.missing or each.explained or each.unexplained]


@each_version
def test_captured_lines_are_written_back_as_they_were(version: str) -> None:
    """
    Those with control characters included.
    """
    for truth in truths(version):
        for line in constraints_at(version, truth.label):
            assert line_of(row_of(line)) == line


@pytest.mark.skipif(fixture_data.full_place() is None, reason="the full fixtures are not at hand")
def test_another_collation_gives_another_table() -> None:
    """
    Which lower case the database has is not a detail.
    """
    fold = Fold(database_lower("libc", "C", "C", None))
    fold.add(b"".join(archived("v4.13.1", full=True)))
    difference = compare(fold, map(row_of, constraints_at("v4.13.1", "end", full=True)))

    assert len(fold.rows()) - difference.equal > 100
    assert not difference.explained
    assert not difference.unexplained
