"""The program, as a process of its own."""

from __future__ import annotations

import gc
import sys

# Rows come by the million as lists of bytes, among which there are no cycles: a collection every 700 of them, the
# default, took half of the time that reading their keys takes (docs/decisions/0005-speed.md).
COLLECT_AFTER = 100_000


def main() -> None:
    gc.set_threshold(COLLECT_AFTER)
    # All other commands need the parser, which takes longer to load than to find the versions.
    if sys.argv[1:] in (["--version"], ["--version", "--json"]):
        from zbackup.cli.version import run
    else:
        from zbackup.cli.main import run

    run()


if __name__ == "__main__":
    main()
