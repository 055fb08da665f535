"""docs/read_archive.py, which shares nothing with zbackup, prints the rows that a restore brings back."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.archived import Maker, continued
from tests.fix_archive import archived_rows, newest
from tests.fix_damage import flipped
from tests.unit.rows import EPOCH, row
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import Log
from zbackup.archive.rows import split_rows
from zbackup.errors import OutsideWindow
from zbackup.event import instant_text
from zbackup.moment import Instant
from zbackup.plan import resolve
from zbackup.state import State
from zbackup.store.local import LocalStore

READER = Path(__file__).parents[2] / "docs" / "read_archive.py"
FORMATS = sorted(path.parent for path in Path(__file__).parent.glob("v*/wanted.json"))


def read(folder: Path, *options: str) -> list[bytes]:
    return ran(folder, *options).stdout.splitlines(keepends=True)


def ran(folder: Path, *options: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-I", READER, folder, *options]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr.decode()
    return done


def exported(archive: Archive, instant: datetime) -> list[bytes]:
    """Return the rows of an instant as `zbackup export` takes them from the archive."""
    state = State.of(archive, resolve(archive, Instant(instant, instant_text(instant))))
    return [event for block in state.blocks() for event in split_rows(block.rows)]


def test_it_imports_nothing_of_ours() -> None:
    """
    The standard library and zstandard are enough.
    """
    tree = ast.parse(READER.read_text())
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}

    assert {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names) == {"zstandard"}


@pytest.mark.parametrize("place", FORMATS, ids=lambda path: path.name)
def test_frozen_archives_are_read(place: Path, tmp_path: Path) -> None:
    """
    Of each the newest backup, and the points whose digests were taken at the source when it was made.
    """
    if (place / "archive.zip").exists():
        shutil.unpack_archive(place / "archive.zip", tmp_path)
    else:
        shutil.copytree(place / "archive", tmp_path / "archive")
    archive = Archive.open(LocalStore(tmp_path / "archive"))
    assert read(tmp_path / "archive") == archived_rows(archive)
    wanted = json.loads((place / "wanted.json").read_text())
    for point, told in wanted.items():
        kind, _, backup = point.partition(":")
        rows = read(tmp_path / "archive", *(("--backup", backup) if kind == "backup" else ("--at", point)))
        if "tables" in told:  # without the events of setup
            rows = [event for event in rows if b"\tSYSTEM\t" not in event]
        assert (len(rows), hashlib.sha256(b"".join(rows)).hexdigest()) == (told["rows"], told["sha256"])


def at(number: int) -> datetime:
    return EPOCH + timedelta(seconds=number)


@pytest.fixture
def amended(tmp_path: Path) -> Iterator[Archive]:
    """
    Four backups: one that came late and one that is gone are found by the second, whose tail is torn by a moment.

    The third adds to the past once more, so that moments of the first two have it, too; the fourth names an index.
    """
    maker = Maker.at(tmp_path / "archive", chunk_rows=3, frame_bytes=1)
    rows = [row(at(number), aggregate=f"a\\{number % 3}\t", sequence=number + 1) for number in range(12)]
    maker.backup(rows, horizon=at(8), snapshot=at(20))
    late = row(at(4), aggregate="late", position="99.5")
    torn = [row(at(30), aggregate="torn", sequence=2), row(at(30), aggregate="push", sequence=1)]
    torn += [row(at(31), aggregate="push", sequence=2), row(at(32), aggregate="torn", sequence=1)]
    rows = [*rows[:2], *rows[3:], late, *torn]
    maker.backup(rows, horizon=at(31), snapshot=at(40), added=[late], removed=1)
    later = [row(at(5), aggregate="later", position="1"), row(at(33), aggregate="push", sequence=3)]
    made = maker.backup(
        [*rows, *later], horizon=at(50), snapshot=at(51), added=[row(at(4), aggregate="late", position="99.6"), *later]
    )
    archive, head = maker.archive, maker.archive.catalog().head()
    assert head is not None
    index = archive.put_index(made.backup, made.log.chunks[:2])
    log = Log((index,), made.log.chunks[2:])
    archive.commit(replace(continued(made, head), backup=f"{made.backup[:-8]}0000abcd", log=log))
    yield archive
    archive.store.close()


def test_every_moment_is_that_of_an_export(amended: Archive, tmp_path: Path) -> None:
    """
    Whole backups with log, index and tail, and each instant: what came late, what is gone, what is withheld.
    """
    folder = tmp_path / "archive"
    for entry in amended.catalog().entries:
        assert read(folder, "--backup", entry.backup) == archived_rows(amended, amended.manifest(entry))
    found: dict[int, list[bytes]] = {}
    for number in (1, 4, 7, 8, 25, 30, 31, 32, 50):
        found[number] = read(folder, "--at", instant_text(at(number)))
        assert found[number] == exported(amended, at(number))

    assert sum(b"torn" in event or b"push" in event for event in found[30]) == 0
    assert any(b"later" in event for event in found[7])
    assert len(found[7]) == 8 + 2
    assert b"reaches" in ran(folder, "--at", instant_text(at(52)), code=1).stderr
    assert b"needs an offset" in ran(folder, "--at", "2026-01-01", code=2).stderr
    assert b"no such backup" in ran(folder, "--backup", "none", code=1).stderr


def test_before_the_first_event_there_is_no_answer(amended: Archive, tmp_path: Path) -> None:
    """
    Nothing is no state of the database: the reader refuses what zbackup refuses, up to the last microsecond.
    """
    first, before = at(0), at(0) - timedelta(microseconds=1)
    for instant in (before, first - timedelta(days=9)):
        with pytest.raises(OutsideWindow):
            exported(amended, instant)
        refused = ran(tmp_path / "archive", "--at", instant_text(instant), code=1)
        assert (refused.stdout, b"before the first event" in refused.stderr) == (b"", True)
    assert read(tmp_path / "archive", "--at", instant_text(first)) == exported(amended, first) != []


def test_what_is_damaged_is_not_printed(amended: Archive, tmp_path: Path) -> None:
    """
    A flipped bit in any object that is read ends it with the object's name.
    """
    folder, manifest = tmp_path / "archive", newest(amended)
    head = amended.catalog().head()
    for name in (str(head), manifest.log.indexes[0].name, manifest.log.chunks[-1].name):
        path, body = folder / name, (folder / name).read_bytes()
        path.write_bytes(flipped(body, len(body) // 2))
        assert name.encode() in ran(folder, code=1).stderr
        path.write_bytes(body)
