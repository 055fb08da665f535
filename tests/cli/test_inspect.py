"""log, diff and export as commands: what docs/inspect.md shows, and what goes out whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.fix_archive import options, source_rows
from tests.fix_postgres import VERSIONS, databases
from tests.history.generator import fill
from tests.history.schema import create_schema
from zbackup.archive import FORMAT
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ArchiveRecord
from zbackup.backup import backup
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.store.local import LocalStore

from .conftest import ROOT, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import Zbackup

PAGE = (ROOT / "docs/inspect.md").read_text()
LINES = [line for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]

ODD = "a\tb\nc\\d\re\x0bf\x08g\x1b[31m ä😀 \\N \\."


def insert_odd(dsn: str) -> None:
    """Add an event whose every text has what COPY, JSON or a terminal takes for something else."""
    with psycopg.connect(dsn) as connection:
        connection.execute(
            """INSERT INTO eventstore.events2 (instance_id, aggregate_type, aggregate_id, event_type, "sequence",
                   revision, created_at, payload, creator, "owner", "position", in_tx_order)
               VALUES (%s, %s, %s, %s, 1, 1, %s, %s, %s, %s, 1795414834.447704000010, 1)""",
            (
                ODD,
                "odd",
                ODD,
                "odd.added",
                datetime.now(UTC) - timedelta(minutes=6),
                Jsonb({ODD: [ODD, 0.1]}),
                ODD,
                ODD,
            ),
        )


@pytest.fixture(scope="module")
def backed_up(
    servers: Callable[[int], EmbeddedPostgres], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """A source with an odd event, and an archive with one backup of it; nobody changes either."""
    if not VERSIONS:
        pytest.skip("no PostgreSQL server on this machine: pip install 'zbackup[demo]'")
    place = tmp_path_factory.mktemp("inspect") / "archive"
    with databases(servers(VERSIONS[0])) as new:
        dsn = new("")
        with psycopg.connect(dsn) as connection:
            create_schema(connection, state=False)
            fill(connection, events=600, end=datetime.now(UTC) - timedelta(minutes=5))
        insert_odd(dsn)
        store = LocalStore(place, create=True)
        backup(Archive.create(store, ArchiveRecord(FORMAT, "a", datetime.now(UTC), "test")), dsn, options())
        store.close()
        yield dsn, place


@pytest.fixture
def odd(backed_up: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """The source; commands need not name the archive."""
    monkeypatch.setenv("ZBACKUP_ARCHIVE", str(backed_up[1]))
    return backed_up[0]


def test_the_examples_of_the_page(
    odd: str, zbackup: Zbackup, process: Zbackup, new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Each line that it shows runs; psql takes the exported file with the statement shown.
    """
    assert len(LINES) > 8
    for line in LINES:
        command, *arguments = shlex.split(line)
        if command == "psql":
            if shutil.which(command) is None:
                continue
            target = new_database()
            with psycopg.connect(target) as connection:
                create_schema(connection, state=False)
            done = subprocess.run([command, "-d", target, *arguments], capture_output=True, text=True, check=False)
            assert done.stdout == "COPY 601\n", done.stderr
            assert source_rows(target) == source_rows(odd)
            continue
        assert command == "zbackup", line
        redirected = ">" in arguments
        ran = (process if redirected else zbackup)(*(arguments[: arguments.index(">")] if redirected else arguments))
        assert ran.code == 0, ran.err


def test_exported_events_are_those_of_the_source(odd: str, zbackup: Zbackup, new_database: Callable[[], str]) -> None:
    """
    As COPY text a PostgreSQL makes the same rows of them; as JSON they have the same values.
    """
    assert zbackup("export", "--format", "copy", "--output", "events.copy").code == 0
    ran = zbackup("export", "--output", "events.jsonl", "--json")
    assert ran.code == 0
    columns = ran.result["columns"]
    target = new_database()
    with psycopg.connect(target) as connection:
        create_schema(connection, state=False)
        with connection.cursor().copy(f"COPY eventstore.events2 ({', '.join(columns)}) FROM STDIN".encode()) as copy:
            copy.write(Path("events.copy").read_bytes())
    assert source_rows(target) == source_rows(odd)

    with psycopg.connect(odd) as connection:
        rows = connection.execute(
            """SELECT created_at, position::text, in_tx_order, instance_id, aggregate_type, aggregate_id, "sequence",
                      event_type, revision, creator, "owner", payload FROM eventstore.events2"""
        ).fetchall()
    records = [json.loads(line) for line in Path("events.jsonl").read_text("ascii").splitlines()]
    assert ran.result["events"] == len(records) == 601
    assert all(list(record) == columns for record in records)

    def key(values: Any) -> tuple[Any, ...]:
        return tuple(values[3:7])

    read = [(datetime.fromisoformat(record["created_at"]), *list(record.values())[1:]) for record in records]
    assert sorted(read, key=key) == sorted(rows, key=key)
    assert stat.S_IMODE(Path("events.jsonl").stat().st_mode) == 0o600
    assert zbackup("export", "--output", "events.jsonl").code == 2
    assert zbackup("export", "--json").code == 2


def test_a_line_per_event_and_its_name_is_a_point(odd: str, zbackup: Zbackup) -> None:
    """
    Odd texts make no lines of their own and steer no terminal; what stands third can be asked for.
    """
    ran = zbackup("log", "--limit", "0", "--payload")
    lines = ran.out.splitlines()
    assert len(lines) == 601
    assert "\x1b" not in ran.out

    lines = [line.split("  ") for line in zbackup("log", "--limit", "0").out.splitlines()]
    name = lines[40][2]
    before = zbackup("log", "--limit", "0", "--at", f"before:{name}").out.splitlines()
    assert 540 < len(before) <= 560
    assert name not in "".join(before)
    assert [line.split("  ")[0] for line in before] == sorted((line.split("  ")[0] for line in before), reverse=True)
    assert zbackup("log", "--limit", "3").err.endswith("3 events; there may be more, --limit 0 shows all\n")


def test_nothing_selected_is_said(odd: str, zbackup: Zbackup) -> None:
    """
    It is no failure; what the archive cannot know is one.
    """
    ran = zbackup("log", "--instance", "nobody's")
    assert (ran.code, ran.out) == (0, "")
    assert "no event is selected" in ran.err
    ran = zbackup("export", "--aggregate", "nothing", "--output", "empty")
    assert ran.code == 0
    assert "no event is selected" in ran.err
    assert Path("empty").read_bytes() == b""
    assert zbackup("diff", "latest").out == "from latest to latest:\n  no difference\n"
    now = datetime.now(UTC).isoformat()
    for command in (("log", "--since", now), ("diff", now), ("export", "--until", now), ("log", "--at", now)):
        assert zbackup(*command).code == 32
    assert zbackup("log", "--aggregate", "/x").code == 2


def test_a_file_is_whole_or_not_there(
    backed_up: tuple[str, Path], zbackup: Zbackup, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Neither a damaged chunk nor a full disk leaves anything of it.
    """
    archive = shutil.copytree(backed_up[1], bare / "copy")
    monkeypatch.setenv("ZBACKUP_ARCHIVE", str(archive))
    command = f"ulimit -f 8; exec {sys.executable} -m zbackup export --output events"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert "events: File too large" in done.stderr
    assert os.listdir() == []  # noqa: PTH208
    chunk = max(archive.glob("events/*/*.zst"), key=lambda path: path.stat().st_size)
    body = bytearray(chunk.read_bytes())
    body[len(body) // 2] ^= 1
    chunk.write_bytes(body)

    ran = zbackup("export", "--output", "events")
    assert (ran.code, chunk.name in ran.err) == (31, True)
    assert os.listdir() == []  # noqa: PTH208
    for command in ("log", "diff"):
        ran = zbackup(command, *(("7 min ago",) if command == "diff" else ("--limit", "0")))
        assert (ran.code, chunk.name in ran.err) == (31, True)


@pytest.mark.parametrize(("command", "code"), [(("log", "--limit", "0", "--payload"), 0), (("export",), 4)])
def test_a_reader_that_goes_away(odd: str, command: tuple[str, ...], code: int) -> None:
    """
    Of `log` one may read so much as one likes; an export that was not taken is not whole.
    """
    with start(*command) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline()
        child.stdout.close()
        err = child.stderr.read()
    assert child.returncode == code, err
    assert ("error" in err) == bool(code)
