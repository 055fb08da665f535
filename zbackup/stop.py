"""The wish that a run which would go on for ever ends."""

from __future__ import annotations

from contextlib import suppress
from queue import Empty, SimpleQueue


class Stop:
    """
    Asked for once, in a signal's handler, too.

    Hence the queue: whoever sets an Event in a handler, while the same thread waits for it, may wait for ever.
    """

    def __init__(self) -> None:
        self.asked = False
        self._wishes: SimpleQueue[None] = SimpleQueue()

    def ask(self) -> None:
        self.asked = True
        self._wishes.put(None)

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until somebody asks; tell whether somebody has."""
        if not self.asked:
            with suppress(Empty):
                self._wishes.get(timeout=max(seconds, 0))
        return self.asked
