"""The program, as a process of its own."""

from __future__ import annotations

import gc
import signal
import sys
from types import FrameType

from zbackup.stop import Stop

# Rows come by the million as lists of bytes, among which there are no cycles: a collection every 700 of them, the
# default, took half of the time that reading their keys takes (docs/decisions/0005-speed.md).
COLLECT_AFTER = 100_000


def main() -> None:
    gc.set_threshold(COLLECT_AFTER)
    # All other commands need the parser, which takes longer to load than to find the versions.
    if sys.argv[1:] in (["--version"], ["--version", "--json"]):
        from zbackup.cli.version import run

        run()
        return
    stop = None
    if next((word for word in sys.argv[1:] if not word.startswith("-")), "") == "follow":
        stop = asked_early()
    from zbackup.cli.main import run

    run(stop)


def asked_early() -> Stop:
    """Heed signals while the program is loaded, which takes a moment: `follow` ends well from its beginning on."""
    stop = Stop()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.ask()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return stop


if __name__ == "__main__":
    main()
