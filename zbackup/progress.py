"""
What workers report while they work: frozen records, turned into text or JSON by cli/render.py.

A `Report` may be called from several threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """A new stage of the work has begun."""

    name: str
    """A stable word: connect, horizon, snapshot, export, audit, capture, commit, plan, load, index, proof, …"""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Advance:
    """Rows and raw bytes moved since the last record, of an expected total (0 = unknown)."""

    rows: int
    raw_bytes: int
    total_rows: int = 0
    total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ObjectStored:
    name: str
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Retrying:
    what: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the operator should know although the work goes on."""

    message: str
    hint: str = ""


Progress = Step | Advance | ObjectStored | Retrying | Warned
Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Report nothing."""
