"""Drills as an operator holds them: what comes back, what fails, and that nothing is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests import fixture_data
from tests.cli.conftest import Ran, Zbackup
from tests.drill.conftest import ROOT, VERSION, Made, StandIn, lives
from tests.encrypted import MASTERKEY, OTHER
from tests.fix_archive import execute
from tests.fix_vices import StoreWrapper
from tests.fix_whole import one
from tests.zitadel.api import eventually
from zbackup.archive.archive import Archive
from zbackup.archive.names import RECORDS
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.database.scratch import scratch_name
from zbackup.database.throwaway import sweep
from zbackup.drill import DrillOptions, drill
from zbackup.errors import AccessDenied, NotSupported
from zbackup.event import instant_text
from zbackup.moment import Latest
from zbackup.progress import Progress, Warned, silent
from zbackup.restore import RestoreOptions
from zbackup.store.local import LocalStore

SECRETS = {"AWS_SECRET_ACCESS_KEY": "not-for-nobody", "PGPASSWORD": "not-for-nobody"}
"""of whoever holds a drill in a process of its own"""

DATABASES = "SELECT array_agg(datname::text ORDER BY 1) FROM pg_database"


class ReadOnly(StoreWrapper):
    """Takes nothing."""

    def put(self, name: str, body: BinaryIO, *, size: int, sha256: str) -> None:  # noqa: ARG002
        raise AccessDenied(f"{name}: read-only")


def failed(ran: Ran, made: Made, step: str, reason: str) -> None:
    """See that a drill failed as it should, and that the record says so."""
    assert ran.code == 36, ran.out
    assert ran.result["message"].startswith(f"the drill failed ({step}): ")
    (record,) = made.records()
    assert not record.ok
    assert (record.figures["failed_step"], record.figures["failed_class"]) == (step, reason)
    assert record.figures["recovery_seconds"] is None


def test_zitadel_starts_on_any_moment_and_reaches_nobody(
    made: Made, masterkey: str, stand_in: Callable[..., StandIn], temporary: Path, zbackup: Zbackup
) -> None:
    """
    Restored into a server of its own, held against the masterkey, set up, started, asked for its instance; the record
    tells the instant and the time of each step, and nothing is left.
    """
    binary = stand_in()

    ran = zbackup(
        "drill", "--archive", str(made.path), "--at", "random", "--zitadel", str(binary.path),
        "--masterkey-file", masterkey, "--json",
    )  # fmt: skip

    assert ran.code == 0, ran.out
    result = ran.result
    assert (result["point"], result["place"], result["masterkey"]) == ("random", "embedded", "fits")
    assert (result["zitadel"], result["instances"]) == (VERSION, 1)
    steps = [step["step"] for step in result["steps"]]
    assert steps == [
        "plan", "server", "load", "index", "proof", "tables", "publish", "masterkey", "setup", "start", "resolve",
        "remove",
    ]  # fmt: skip
    seconds = {step["step"]: step["seconds"] for step in result["steps"]}
    beside = sum(seconds[step] for step in ("server", "masterkey", "remove"))
    assert round(result["recovery_seconds"] + beside - sum(seconds.values()), 2) == 0
    setup, start = binary.said()
    assert (setup["command"], start["command"]) == ("setup", "start")
    assert {setup["loopback"], start["loopback"]} == {"Connection refused"}
    assert {setup["internet"], start["internet"]} == {"Network is unreachable"}
    assert setup["external"] == ["localhost", 18100, False]
    assert not setup["powerful"]
    assert not lives(start["pid"])
    assert list(temporary.iterdir()) == []
    (record,) = made.records()
    assert (record.ok, record.id, record.backup) == (True, result["id"], result["backup"])
    assert record.figures["at"] == result["at"]
    assert record.figures["setup_seconds"] == seconds["setup"]
    (resolved,) = (record for record in ran.records if record["type"] == "resolved")
    assert (resolved["point"], resolved["at"]) == ("random", result["at"])


def test_a_drill_on_a_given_server(
    made: Made, masterkey: str, postgres: EmbeddedPostgres, temporary: Path, zbackup: Zbackup
) -> None:
    """
    It makes a database of its own and drops it, compares with the source, and touches no other database.
    """
    at = instant_text(fixture_data.truths(VERSION)[0].time)
    before = one(postgres.dsn(), DATABASES)

    ran = zbackup(
        "drill", "--archive", str(made.path), "--target", postgres.dsn(), "--at", at, "--source", made.source,
        "--masterkey-file", masterkey, "--metrics-file", "drill.prom", "--json",
    )  # fmt: skip

    assert ran.code == 0, ran.out
    assert one(postgres.dsn(), DATABASES) == before
    result = ran.result
    assert (result["place"], result["at"], result["final"], result["recorded"]) == ("target", at, True, True)
    assert result["compared"] == result["events"] > 600
    assert made.records()[0].figures["compared"] == result["compared"]
    told = Path("drill.prom").read_text()
    seconds = {step["step"]: step["seconds"] for step in result["steps"]}
    assert f'zbackup_drill_step_seconds{{archive="{made.path}",step="load"}} {seconds["load"]}\n' in told
    assert f'zbackup_last_exit_code{{archive="{made.path}",command="drill"}} 0' in told


def test_a_source_that_was_changed_fails_a_drill(
    made: Made, postgres: EmbeddedPostgres, new_database: Callable[[], str], zbackup: Zbackup
) -> None:
    source = new_database()
    with psycopg.connect(source) as connection:
        fixture_data.load(connection, VERSION, slice(fixture_data.truths(VERSION)[0].events))
    execute(source, "UPDATE eventstore.events2 SET creator = 'me' WHERE event_type = 'org.added'")

    ran = zbackup(
        "drill", "--archive", str(made.path), "--target", postgres.dsn(), "--source", source, "--json"
    )  # fmt: skip

    failed(ran, made, "compare", "Different")
    assert "events differ from the source: differs: " in ran.result["message"]
    assert "org.added" in ran.result["message"]


def test_a_damaged_archive_fails_a_drill(
    made: Made, postgres: EmbeddedPostgres, temporary: Path, zbackup: Zbackup
) -> None:
    """
    The error names the step and the object, the record says so, and the database is gone.
    """
    chunk = max((made.path / "events").rglob("*.zst"), key=lambda path: path.stat().st_size)
    body = bytearray(chunk.read_bytes())
    body[len(body) // 2] ^= 1
    chunk.chmod(0o600)
    chunk.write_bytes(body)
    before = one(postgres.dsn(), DATABASES)

    ran = zbackup("drill", "--archive", str(made.path), "--target", postgres.dsn(), "--json")

    failed(ran, made, "load", "Damaged")
    assert chunk.name in ran.result["message"]
    assert one(postgres.dsn(), DATABASES) == before


def test_another_masterkey_fails_a_drill(made: Made, postgres: EmbeddedPostgres, zbackup: Zbackup) -> None:
    """
    What was restored cannot be decrypted with it: the recovery would be none.
    """
    Path("masterkey").write_bytes(OTHER)

    ran = zbackup(
        "drill", "--archive", str(made.path), "--target", postgres.dsn(), "--masterkey-file", "masterkey", "--json"
    )  # fmt: skip

    failed(ran, made, "masterkey", "Findings")
    assert "does not fit" in ran.result["message"]


def test_an_archive_without_a_backup_fails_a_drill(bare: Path, zbackup: Zbackup) -> None:
    """
    Nothing can be brought back, which no nightly drill may pass over.
    """
    address = str(bare / "empty")
    assert zbackup("init", "--archive", address).code == 0

    failed(zbackup("drill", "--archive", address, "--json"), Made(Path(address), ""), "plan", "OutsideWindow")


def test_a_read_only_archive_is_a_warning(made: Made, postgres: EmbeddedPostgres) -> None:
    """
    The drill is held all the same; only its record is not stored.
    """
    said: list[Progress] = []
    archive = Archive.open(ReadOnly(LocalStore(made.path)))

    result = drill(archive, Latest(), DrillOptions(RestoreOptions(), target=postgres.dsn()), report=said.append)

    assert not result.recorded
    assert made.records() == []
    warned = [one.message for one in said if isinstance(one, Warned) and "record" in one.message]
    assert warned == [result.warnings[-1]]
    assert RECORDS in warned[0]


def test_a_stopped_drill_leaves_nothing(
    made: Made, masterkey: str, stand_in: Callable[..., StandIn], temporary: Path
) -> None:
    """
    SIGTERM in the middle of ZITADEL's setup: server, files, ZITADEL are gone when it ends, with 130 and no record.

    None of what it started was given a secret of its environment.
    """
    binary = stand_in(STAND_IN_FAULT="hang")
    with drilling(made, binary, masterkey, temporary) as child:
        (setup,) = eventually(binary.said, bool, 120)
        server = server_of(temporary)
        assert lives(setup["pid"])
        inside = {pid: variables_of(pid) for pid in (server, setup["pid"], *children_of(child.pid))}
        child.send_signal(signal.SIGTERM)
        out, _ = child.communicate(timeout=60)

    assert child.returncode == 130, out
    assert len(inside) == 3  # the server, ZITADEL, and what holds the namespace
    assert all("PATH" in variables and not variables & SECRETS.keys() for variables in inside.values())
    assert not lives(server)
    assert not lives(setup["pid"])
    assert list(temporary.iterdir()) == []
    assert made.records() == []


def test_what_a_killed_drill_left_the_next_removes(
    made: Made, masterkey: str, stand_in: Callable[..., StandIn], temporary: Path, postgres: EmbeddedPostgres,
    zbackup: Zbackup,
) -> None:  # fmt: skip
    """
    SIGKILL leaves a server and its files, and on a given server a database; ZITADEL dies with the drill. A drill that
    lives, and databases of another name, are left alone.
    """
    left, alive = scratch_name(datetime.now(UTC)), scratch_name(datetime.now(UTC))
    other = f"{left}_kept"
    binary = stand_in(STAND_IN_FAULT="hang")
    with (
        drilling(made, binary, masterkey, temporary) as child,
        psycopg.connect(postgres.dsn(), autocommit=True, application_name=alive) as owner,
    ):
        for name in (left, alive, other):
            owner.execute(f"CREATE DATABASE {name}".encode())
        (setup,) = eventually(binary.said, bool, 120)
        server = server_of(temporary)
        (living,) = temporary.iterdir()
        sweep(silent)
        assert living.exists()
        assert lives(setup["pid"])

        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert lives(server)
        assert eventually(lambda: lives(setup["pid"]), lambda living: not living, 20) is False
        ran = zbackup("drill", "--archive", str(made.path), "--target", postgres.dsn())

        assert ran.code == 0, ran.err
        assert f"removed {living}, which a drill left that died" in ran.err
        assert f"removed database {left}, which a drill left that died" in ran.err
        assert list(temporary.iterdir()) == []
        assert not lives(server)
        names = one(postgres.dsn(), DATABASES)
        assert (left in names, alive in names, other in names) == (False, True, True)
        for name in (alive, other):
            owner.execute(f"DROP DATABASE {name}".encode())


def test_zitadel_is_not_started_where_it_could_reach_somebody(
    made: Made, masterkey: str, denied: list[str], stand_in: Callable[..., StandIn], temporary: Path
) -> None:
    """
    Without a network namespace the drill is refused before anything is restored.
    """
    binary = stand_in()
    command = [*denied, *drill_command(made, binary, masterkey)]

    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(temporary))

    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last["class"]) == (3, "NotSupported"), done.stdout
    assert "no network namespace may be made here" in last["message"]
    assert '"step"' not in done.stdout
    assert binary.said() == []
    assert made.records() == []


def test_what_zitadel_could_not_see_is_refused(
    made: Made, stand_in: Callable[..., StandIn], runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Nothing is restored into a folder that is hidden inside, nor for a binary that lies in one.
    """
    archive = Archive.open(LocalStore(made.path))
    binary = Path(shutil.copy(stand_in().path, runtime))

    with pytest.raises(NotSupported, match=f"{binary} lies in /run, which is hidden"):
        drill(archive, Latest(), DrillOptions(RestoreOptions(), masterkey=MASTERKEY, zitadel=binary))
    monkeypatch.setattr(tempfile, "tempdir", str(runtime))
    with pytest.raises(NotSupported, match=f"{runtime} lies in /run, .*") as refused:
        drill(archive, Latest(), DrillOptions(RestoreOptions(), masterkey=MASTERKEY, zitadel=stand_in().path))

    assert "TMPDIR" in refused.value.hint
    assert made.records() == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--zitadel", "nowhere", "--masterkey-file", "key"), "zitadel from --zitadel: nowhere is not there"),
        (("--zitadel", ".", "--masterkey-file", "key"), "zitadel from --zitadel: . is no file"),
        (("--zitadel", "key", "--masterkey-file", "key"), "key is not executable"),
        (("--zitadel", "zitadel"), "does not start without its masterkey"),
        (("--zitadel", "zitadel", "--masterkey-file", "key", "--target", "service=x"), "exclude each other"),
        (("--rate-limit", "1MB"), "--rate-limit would have no effect"),
        (("--at", "tomorrow"), "tomorrow"),
        (("--target", ""), "the target is empty"),
        (("--target", "postgres://x:secretly@y@z/"), "target from --target"),
    ],
)
def test_a_wrong_command_line_is_refused(made: Made, zbackup: Zbackup, flags: tuple[str, ...], words: str) -> None:
    Path("key").write_text("MasterkeyNeedsToHave32Characters")
    Path("zitadel").write_text("#!/bin/sh\n")
    Path("zitadel").chmod(0o755)

    ran = zbackup("drill", "--archive", str(made.path), *flags)

    assert ran.code == 2, ran.err
    assert words in ran.err
    assert "secretly" not in ran.err
    assert made.records() == []


def test_a_role_that_may_not_make_databases_is_told(made: Made, postgres: EmbeddedPostgres, zbackup: Zbackup) -> None:
    execute(postgres.dsn(), "DROP ROLE IF EXISTS no_maker")
    execute(postgres.dsn(), "CREATE ROLE no_maker LOGIN")
    target = make_conninfo(postgres.dsn(), user="no_maker")

    ran = zbackup("drill", "--archive", str(made.path), "--target", target)

    execute(postgres.dsn(), "DROP ROLE no_maker")
    assert (ran.code, made.records()) == (13, [])
    assert 'ALTER ROLE "no_maker" CREATEDB' in ran.err


def drill_command(made: Made, binary: StandIn, masterkey: str) -> list[str]:
    return [
        sys.executable, "-m", "zbackup", "drill", "--archive", str(made.path), "--zitadel", str(binary.path),
        "--masterkey-file", masterkey, "--json",
    ]  # fmt: skip


def environment(temporary: Path) -> dict[str, str]:
    return {**os.environ, **SECRETS, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}


def drilling(made: Made, binary: StandIn, masterkey: str, temporary: Path) -> subprocess.Popen[str]:
    command = drill_command(made, binary, masterkey)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(temporary))


def server_of(temporary: Path) -> int:
    (pid_file,) = temporary.glob("zbackup-drill-*/cluster/data/postmaster.pid")
    return int(pid_file.read_text().partition("\n")[0])


def variables_of(pid: int) -> set[str]:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return {variable.partition(b"=")[0].decode(errors="replace") for variable in variables}


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
