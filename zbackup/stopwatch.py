"""How long each step of some work takes, as its reports tell when one begins."""

from __future__ import annotations

import time
from collections.abc import Mapping

from zbackup.progress import Progress, Report, Step


class Stopwatch:
    """Passes reports on and counts the seconds between their steps, under the names of `names`, else their own."""

    def __init__(self, report: Report, names: Mapping[str, str]) -> None:
        self._report, self._names = report, names
        self._began = self._last = time.monotonic()
        self._counted: dict[str, float] = {}
        self.step = ""
        """that is going on"""

    @property
    def seconds(self) -> dict[str, float]:
        """By step, in the order in which they began."""
        self._count()
        return {name: round(seconds, 3) for name, seconds in self._counted.items()}

    @property
    def total(self) -> float:
        return round(time.monotonic() - self._began, 3)

    def report(self, progress: Progress) -> None:
        if isinstance(progress, Step):
            self._begin(self._names.get(progress.name, progress.name))
        self._report(progress)

    def _begin(self, step: str) -> None:
        self._count()
        self.step = step
        self._counted.setdefault(step, 0.0)

    def _count(self) -> None:
        now = time.monotonic()
        if self.step:
            self._counted[self.step] += now - self._last
        self._last = now
