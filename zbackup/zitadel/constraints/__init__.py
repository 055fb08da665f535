"""
`eventstore.unique_constraints`, computed from events.

ZITADEL keeps names unique by rows of this table, which its commands write beside the events from knowledge
that is not in their payloads. The fold carries that knowledge along and reproduces the rows, those that were
left behind included: the `event`s of one push become `Actions` by the `rules`, in an `Era`, on a `Table`.
Facts: ZITADEL v2.26 to v4.13.1 and its development line of July 2026.
"""

from zbackup.zitadel.constraints.difference import Difference, compare, doubts
from zbackup.zitadel.constraints.fold import EVENT_TYPES, Fold
from zbackup.zitadel.constraints.row import COLUMNS, Row, line_of, row_of, rows_of

__all__ = ["COLUMNS", "EVENT_TYPES", "Difference", "Fold", "Row", "compare", "doubts", "line_of", "row_of", "rows_of"]
