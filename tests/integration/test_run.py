"""When a run verifies everything, and when a sample."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.fix_archive import Backup
from tests.history import Command, create_schema, fill, push
from zbackup import verify as verification
from zbackup.archive import records
from zbackup.archive.archive import Archive
from zbackup.archive.needed import Rules
from zbackup.progress import silent
from zbackup.prune import prune
from zbackup.run import Depth, Run, RunResult, Work
from zbackup.verify import verify

AT = datetime(2026, 1, 1, tzinfo=UTC)
WEEK = timedelta(days=7)

Night = Callable[..., RunResult]


@pytest.fixture
def night(archive: Archive, database: str, back_up: Backup) -> Night:
    """Run at so many hours after a first instant."""
    with psycopg.connect(database) as connection:
        create_schema(connection)
        fill(connection, events=50)

    def run(hours: float, *, depth: Depth = "sample") -> RunResult:
        work = Work(
            archive=lambda: archive,
            backup=back_up,
            verify=lambda level: verify(archive, level=level),
            prune=lambda: prune(archive, Rules(), grace=timedelta(days=1), yes=True),
        )
        at = AT + timedelta(hours=hours)
        one = Run(work, job=None, verify=depth, full_every=WEEK, prune=False, now=lambda: at, report=silent)
        one.go()
        return one.result()

    return run


def levels(*results: RunResult) -> list[str]:
    return [one.verify.level if one.verify else "none" for one in results]


def test_a_full_verification_comes_by_schedule(night: Night, archive: Archive) -> None:
    """
    The first is full; so is that of the same hour a week later, though it begins a little earlier, and one whose last
    full one lies in the future, as a clock went back.
    """
    found = [night(hours) for hours in (0, 24, 6 * 24, 7 * 24 - 0.1, 8 * 24)]
    back = night(100)

    assert levels(*found, back) == ["full", "sample", "sample", "full", "sample", "full"]
    assert all(one.ok for one in (*found, back))
    assert len(records.newest(archive, "verify", 9)) == 6


def test_full_each_time_and_not_at_all(night: Night, archive: Archive) -> None:
    """
    As the setting says; what is not verified leaves no record.
    """
    assert levels(night(0), night(1, depth="full"), night(2, depth="none")) == ["full", "full", "none"]

    assert len(records.newest(archive, "verify", 9)) == 2


def test_a_record_that_cannot_be_read_makes_the_next_one_full(night: Night, tmp_path: Path) -> None:
    """
    Nobody knows then when the last full one was.
    """
    assert levels(night(0), night(1)) == ["full", "sample"]
    for path in (tmp_path / "archive/records/verify").iterdir():
        path.chmod(0o644)
        path.write_bytes(b"{}")

    after = night(2)

    assert levels(after) == ["full"]
    assert after.exit_code == 31


def test_nights_with_a_clock_ahead_do_not_count(night: Night) -> None:
    """
    Five of them, a year ahead: what they found is looked for once more, and then the schedule holds, with a warning.
    """
    ahead = [night(9000 + hours) for hours in range(5)]
    after = [night(hours) for hours in (0, 24, 48, 7 * 24)]

    assert levels(*ahead) == ["full", *["sample"] * 4]
    assert levels(*after) == ["full", "sample", "sample", "full"]
    assert all("5 record(s) of verifications lie in the future" in one.warnings[0] for one in after)


def test_a_damaged_record_after_a_good_one_is_told(night: Night, tmp_path: Path) -> None:
    """
    It may have found something: everything is verified, and a warning says why.
    """
    night(0)
    before = set((tmp_path / "archive/records/verify").iterdir())
    night(1)
    (path,) = set((tmp_path / "archive/records/verify").iterdir()) - before
    path.chmod(0o644)
    path.write_bytes(b"{}")

    after = night(2)

    assert levels(after) == ["full"]
    assert f"{path.name} is damaged" in after.warnings[0]


def test_a_sample_reads_what_is_new_and_some_of_the_rest(
    night: Night, archive: Archive, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Damage in a new object is found however small the sample, which reads no more than its bytes of the others.
    """
    night(0)
    with psycopg.connect(database) as connection:
        push(connection, "i1", Command("user", "new"))
    backup = night(1).backup
    assert backup is not None
    monkeypatch.setattr(verification, "SAMPLE_BYTES", 1)
    (new,) = (stat.name for stat in archive.objects() if stat.name.startswith("events/") and backup.backup in stat.name)

    sound = verify(archive, level="sample")
    path = tmp_path / "archive" / new
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    damaged = verify(archive, level="sample")

    assert (sound.ok, sound.chunks, sound.read) == (True, 2, 2)
    assert [found.object for found in damaged.findings] == [new]
    monkeypatch.setattr(verification, "SAMPLE_BYTES", 0)
    assert verify(archive, level="sample").read == 1
