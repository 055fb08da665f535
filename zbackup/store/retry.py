"""Try again with growing pauses: the only place of this program that sleeps."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from zbackup.errors import StoreError
from zbackup.progress import Report, Retrying

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retry:
    """
    How often and how patiently a call is repeated whose error says that this can help.

    The pause doubles from `first` to `most` seconds; half of it is random, so that workers turned away
    together do not come back together. With the defaults a call is given up after about half a minute
    of pauses, which outlasts the failover of a storage node.
    """

    tries: int = 8
    first: float = 0.25
    most: float = 15.0
    sleep: Callable[[float], None] = time.sleep

    def call(self, what: str, act: Callable[[], T], report: Report) -> T:
        """Return what `act` returns. Raises its first error that no repetition can help, or the last one."""
        for attempt in range(1, self.tries):
            try:
                return act()
            except StoreError as error:
                if not error.retry:
                    raise
                report(Retrying(what, attempt, error.message))
            pause = min(self.most, self.first * 2 ** (attempt - 1))
            self.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  jitter, not a secret
        return act()
