from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

from zbackup.__main__ import FOLLOWING_COLLECT_AFTER

pytest_plugins = [
    "tests.fix_archive",
    "tests.fix_browser",
    "tests.fix_clock",
    "tests.fix_collector",
    "tests.fix_disk",
    "tests.fix_lived",
    "tests.fix_pings",
    "tests.fix_postgres",
    "tests.fix_promtool",
    "tests.fix_s3_proxy",
    "tests.fix_store",
    "tests.fix_rclone",
    "tests.fix_swift",
    "tests.fix_whole",
    "tests.fix_writers",
    "tests.fix_zitadel",
    "tests.fix_damage",
]

gc.set_threshold(FOLLOWING_COLLECT_AFTER)  # as the program does that runs for long


def _look(descriptor: int) -> None:
    os.fstat(descriptor)


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """
    Let fsync(2) in this process only look whether there is such a file.

    No test cuts the power, and a suite of backups waits for the disk thousands of times. Tests of how syncing fails,
    and in which order it is done, put their own in its place.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", _look)
        yield
