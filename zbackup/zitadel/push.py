"""
How the installed push function dates events: seen in its text, since versions do not tell.

    transaction   NOW(): v2.66 - v3.4.1, v4.0 - v4.1, and the development line of v5 until July 2026
    statement     statement_timestamp(): v3.4.2, v4.2 and later
    row           clock_timestamp(): later than July 2026

Up to v2.65 there is no such function; ZITADEL inserts the rows itself and dates each (facts: 1.3).
"""

from __future__ import annotations

import re

FUNCTION = "commands_to_events"

STEP = "40_init_push_func"
"""The setup step that makes the function begins with this name."""

_CLOCKS = (
    (r"\bstatement_timestamp\s*\(", "statement"),
    (r"\bclock_timestamp\s*\(", "row"),
    (r"\bnow\s*\(|\btransaction_timestamp\s*\(", "transaction"),
)


def dated_by(source: str) -> str | None:
    """Return what gives an event its time: transaction, statement, row; None when the text does not say."""
    return next((clock for pattern, clock in _CLOCKS if re.search(pattern, source, re.IGNORECASE)), None)
