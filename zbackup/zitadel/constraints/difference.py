"""What is to be said about a fold: how a captured table differs from it, and what it cannot know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from zbackup.zitadel.constraints.fold import Fold
from zbackup.zitadel.constraints.row import Row, rows_of
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
    """Compare the table, whose rows are not kept, with all that was given to the fold; sorted."""
    missing, equal = fold.held(), 0
    surplus: set[Row] = set()
    for row in captured:
        fields = missing.get(row[:2])
        if fields is not None and row[2] in fields:
            fields.remove(row[2])
            equal += 1
        elif not fold.table.holds(row):
            surplus.add(row)
    explained: list[tuple[Row, str]] = []
    unexplained: list[Row] = []
    for row in sorted(surplus):
        reason = _reason(fold, row)
        if reason is None:
            unexplained.append(row)
        else:
            explained.append((row, reason))
    return Difference(equal, tuple(rows_of(missing)), tuple(explained), tuple(unexplained))


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
