"""
The most memory that processes take: the same for a large table as for a small one, and bounded by its largest row.

`scripts/bench memory` measures more commands on more events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from scripts.bench_memory import BOUND, PER_LARGEST_ROW, measured
from tests.history import create_schema, fill_state
from tests.history.large import Large, fill_large, fill_many

GROWTH = 24 << 20
"""bytes that a process may take more for four times the rows, which are 75 MB more"""

START = datetime.now(UTC) - timedelta(days=2)
END = START + timedelta(days=1)


@dataclass
class Peaks:
    """The most memory of each command, run as a process with two jobs."""

    folder: Path
    bytes: dict[str, int] = field(default_factory=dict[str, int])

    def run(self, source: str, target: str) -> dict[str, int]:
        archive = str(self.folder / "archive")
        self._zbackup("init", "--archive", archive)
        self._zbackup("backup", "--archive", archive, "--source", source, "--jobs", "2")
        self._zbackup("verify", "--full", "--archive", archive, "--jobs", "2")
        self._zbackup("verify", "--source", source, "--archive", archive, "--jobs", "2")
        self._zbackup("restore", "--proof", "full", "--archive", archive, "--target", target, "--jobs", "2")
        return self.bytes

    def _zbackup(self, *words: str) -> None:
        self.bytes[" ".join(words[:2])] = measured(list(words), self.folder)[1]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_table(new_database: Callable[[], str], tmp_path: Path) -> None:
    """
    Four times the events, 100 MB of rows instead of 25, take no more memory to back up, to verify and to restore.
    """
    peaks: list[dict[str, int]] = []
    for events in (25_000, 100_000):
        source = new_database()
        with psycopg.connect(source) as connection:
            create_schema(connection)
            fill_state(connection)
            fill_many(connection, events, start=START, end=END)
            connection.execute("ANALYZE")
        (tmp_path / str(events)).mkdir()
        peaks.append(Peaks(tmp_path / str(events)).run(source, new_database()))

    few, many = peaks
    assert {command: peak - few[command] for command, peak in many.items() if peak - few[command] > GROWTH} == {}
    assert max(many.values()) < BOUND


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row_bytes", "large"),
    [
        (20_000_000, Large(apart=2, together=2, spread=1, assets=2)),
        (50_000_000, Large(apart=1, together=0, spread=2, assets=1)),
    ],
    ids=["20 MB", "50 MB"],
)
def test_memory_is_bounded_by_the_largest_row(
    new_database: Callable[[], str], tmp_path: Path, row_bytes: int, large: Large
) -> None:
    """
    Huge rows after one another, of one instant, in several slices, and in a captured table: 200 MB and six times
    the largest are enough.
    """
    source = new_database()
    with psycopg.connect(source) as connection:
        create_schema(connection)
        fill_state(connection)
        fill_many(connection, 5_000, start=START, end=END)
        largest = fill_large(connection, row_bytes, start=START, end=END, large=large)
        connection.execute("ANALYZE")

    peaks = Peaks(tmp_path).run(source, new_database())

    assert largest >= row_bytes
    bound = BOUND + PER_LARGEST_ROW * largest
    assert {command: peak for command, peak in peaks.items() if peak > bound} == {}
