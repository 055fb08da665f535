"""Make visible what steers a terminal, or a reader's eye, instead of being read."""

from __future__ import annotations

import re

# Also what makes text run the other way, or ends a line: what is reviewed must look as it is.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Write control characters out: names from a database must not steer a terminal, nor a page."""
    return _CONTROL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"
