"""`zbackup prune` as an operator sees it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import Zbackup
from zbackup.archive.archive import Archive
from zbackup.archive.tombstones import put_list, read_lists
from zbackup.store.local import LocalStore


def objects(archive: str) -> set[str]:
    return {stat.name for stat in LocalStore(archive).list("")}


def let_the_grace_pass(archive: str) -> None:
    """Write the list again as one that has been due for a moment."""
    opened = Archive.open(LocalStore(archive))
    for name, record in read_lists(opened).items():
        put_list(opened, name.id, replace(record, due=record.at))


def test_prune_in_two_phases(archive: str, source: str, zbackup: Zbackup, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A dry run says what and why, --yes puts it on a list, and the run after the grace removes it; the window stays.
    """
    monkeypatch.setenv("ZBACKUP_KEEP_WINDOW", "0")
    assert zbackup("backup", "--archive", archive, "--source", source).code == 0
    arguments = ("prune", "--archive", archive, "--keep-captures", "1")
    Path(archive, "README").write_text("ours")
    there = objects(archive)

    dry = zbackup(*arguments)
    nothing = objects(archive)
    listed = zbackup(*arguments, "--yes")
    waiting = zbackup(*arguments, "--yes", "--json")
    let_the_grace_pass(archive)
    removed = zbackup(*arguments, "--yes")
    verified = zbackup("verify", "--full", "--archive", archive)

    assert nothing == there
    assert "a dry run; with --yes this\n  removes 0 objects" in dry.out
    assert " goes   superseded" in dry.out
    assert "not touched: README is none of zbackup's objects" in dry.out
    assert "before: 2 backups" in dry.out
    assert "after: 1 backup\n" in dry.out
    assert dry.out.count(": any moment from ") == 2
    assert "removed 0 objects, 0 B\nput " in listed.out
    assert "run it again with the same options from " in listed.out
    assert {one["state"] for one in waiting.result["going"]} == {"waiting"}
    assert "removed " in removed.out
    assert "removed 0 " not in removed.out
    assert len([name for name in objects(archive) if name.startswith("manifests/")]) == 1
    assert (verified.code, "belong to no backup" in verified.out) == (0, False)
    assert zbackup("list", "--archive", archive).out.count("\n20") == 1
    assert "Prune may have removed it" in zbackup("plan", "--archive", archive, "--at", "backup:nothing").err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--grace", "59m"), "too short"),
        (("--keep-captures", "a week"), "does not say how many captures"),
        (("--keep-window", "long"), "keep_window from --keep-window"),
        (("--forget-generation", "00000000"), "no generation 00000000"),
    ],
)
def test_options_that_make_no_sense(archive: str, zbackup: Zbackup, arguments: tuple[str, ...], said: str) -> None:
    ran = zbackup("prune", "--archive", archive, *arguments)

    assert ran.code == 2
    assert said in ran.err


def test_the_newest_generation_is_not_forgotten(archive: str, zbackup: Zbackup) -> None:
    generation = zbackup("list", "--archive", archive, "--json").result["windows"][0]["generation"]

    ran = zbackup("prune", "--archive", archive, "--forget-generation", generation, "--yes")

    assert ran.code == 2
    assert "is the newest, which is never forgotten" in ran.err


def test_an_archive_that_is_not_whole(archive: str, zbackup: Zbackup) -> None:
    """
    An exit code of its own, the object's name, and nothing done.
    """
    missing = next(name for name in objects(archive) if name.startswith("events/"))
    Path(archive, missing).unlink()

    ran = zbackup("prune", "--archive", archive, "--keep-window", "0", "--yes")

    assert ran.code == 35
    assert f"{missing} is named by a backup and is not listed (1 in all): nothing is removed" in ran.err
    assert not [name for name in objects(archive) if name.startswith("tombstones/")]
