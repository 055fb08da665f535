"""What is to be said about a fold: how a captured table differs from it, and what it cannot know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from zbackup.zitadel.constraints.fold import Fold
from zbackup.zitadel.constraints.row import Row
from zbackup.zitadel.constraints.table import INSTANCE_DOMAIN
from zbackup.zitadel.lowercase import go_lower


@dataclass(frozen=True, slots=True)
class Difference:
    equal: int
    """rows on both sides"""
    missing: tuple[Row, ...]
    """not in the table: serious, for such a name can be given twice"""
    explained: tuple[tuple[Row, str], ...]
    """in the table alone, and how ZITADEL leaves such rows behind"""
    unexplained: tuple[Row, ...]
    """in the table alone"""


def compare(fold: Fold, captured: Iterable[Row]) -> Difference:
    """Compare the table with all that was given to the fold; sorted."""
    expected, found = fold.rows(), frozenset(captured)
    explained: list[tuple[Row, str]] = []
    unexplained: list[Row] = []
    for row in sorted(found - expected):
        reason = _reason(fold, row)
        if reason is None:
            unexplained.append(row)
        else:
            explained.append((row, reason))
    return Difference(len(expected & found), tuple(sorted(expected - found)), tuple(explained), tuple(unexplained))


def doubts(fold: Fold) -> tuple[str, ...]:
    """Say what no fold can know, where the events given to this one show that it may matter; a few sentences."""
    return fold.doubts()


def _reason(fold: Fold, row: Row) -> str | None:
    """Say how a row that no rule asks for can be there."""
    instance, kind, field = row
    if fold.table.released(row):
        return "held before and released: commands that ran at once can leave it behind"
    if row in fold.state.otherwise:
        return fold.state.otherwise[row]
    if (lowered := go_lower(field)) != field and _known(fold, (instance, kind, lowered)):
        return "mixed case, as v2.39 to v2.41 kept names"
    if kind == INSTANCE_DOMAIN and instance and _known(fold, ("", kind, field)):
        return "kept under the instance, as v2.39 to v2.47 did"
    if kind == "device_code" and _known(fold, (instance, kind, field.partition(":")[2])):
        return "with the client before it, as up to v2.42"
    if kind in {"quota_units", "mail_text"} and fold.state.era.born_first:
        return "no longer written since v2.38"
    return None


def _known(fold: Fold, row: Row) -> bool:
    return fold.table.holds(row) or fold.table.released(row)
