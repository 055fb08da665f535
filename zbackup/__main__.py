"""The program, as a process of its own."""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType

from zbackup.stop import Stop

# Objects come by the million, and none of them is in a cycle: a collection every 700, the default, took half of the
# time that a fold takes (docs/decisions/0005-speed.md). Loading the program alone makes 100 000, of which one that
# came before the first command would look at each; a plan of 100 000 chunks holds 400 000. What runs for weeks keeps
# less garbage.
COLLECT_AFTER = 1_000_000
FOLLOWING_COLLECT_AFTER = 200_000

# Memory of a frame's size is taken and let go by the thousand. glibc gives back to the system what is larger than the
# largest that was given back before, at first 128 KiB (mallopt(3), M_MMAP_THRESHOLD), and the next one is then faulted
# in page by page: a fifth of what `verify --full` took.
KEPT_BYTES = 4 << 20


def main() -> None:
    # Of numpy's linear algebra, which would start a thread for each core, nothing is used.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.set_threshold(COLLECT_AFTER)
    bytes(KEPT_BYTES)
    # All other commands need the parser, which takes longer to load than to find the versions.
    if sys.argv[1:] in (["--version"], ["--version", "--json"]):
        from zbackup.cli.version import run

        run()
        return
    stop = None
    if next((word for word in sys.argv[1:] if not word.startswith("-")), "") == "follow":
        gc.set_threshold(FOLLOWING_COLLECT_AFTER)
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
