"""
Writers at once, on servers that differ in what they make of preconditions.

`scripts/soak races` lets whole runs race for longer, and ZBACKUP_RACES=N makes N of each on every server;
tests/races.py says what is looked at.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.races import Races, folder_place, races, s3_place

SERVERS = ("folder", "moto", "swift", "rclone")

WHOLE = {"folder": 8, "moto": 3, "swift": 2, "rclone": 4}
"""Races of whole runs; Swift takes ten times as long as a folder."""

COMMITS = {"folder": 50, "moto": 20, "swift": 50, "rclone": 50}

RACES = int(os.environ.get("ZBACKUP_RACES", "0"))

pytestmark = [pytest.mark.slow, *([pytest.mark.timeout(0)] if RACES else [])]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def racing(
    request: pytest.FixtureRequest, server: str, aws_env: None, tmp_path: Path, new_database: Callable[[], str]
) -> Iterator[Races]:
    if server == "folder":
        place = folder_place(tmp_path / "archive")
    else:
        place = s3_place(request.getfixturevalue(f"{server}_endpoint"), f"races/{uuid.uuid4().hex}")
    with races(place, new_database, seed=7) as made:
        yield made


def test_whole_runs_race(racing: Races, server: str) -> None:
    """
    Runs at once, the first ones too: nothing is overwritten, each success comes back by its id, and the next run
    continues one of them and says so.
    """
    for _ in range(RACES or WHOLE[server]):
        racing.race()

    tally = racing.finish(restores=1)

    assert tally.most == 4
    assert tally.backups + tally.refused == 4 * tally.races


def test_commits_race(racing: Races, server: str) -> None:
    """
    Again and again, four manifests on one parent are stored at the same instant: all are there as they were written.
    """
    times = RACES or COMMITS[server]
    racing.race()
    racing.race_to_commit(times)
    racing.follow()

    assert racing.finish(restores=1).backups >= times * 4
