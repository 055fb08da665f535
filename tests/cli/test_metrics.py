"""What commands leave for Prometheus, however they end."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from zbackup.metrics import parse
from zbackup.metrics_file import read_file

from .conftest import start

if TYPE_CHECKING:
    from tests.fix_promtool import Promtool

    from .conftest import Zbackup


@pytest.fixture
def file(bare: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The metrics file, which the environment names."""
    monkeypatch.setenv("ZBACKUP_METRICS_FILE", str(bare / "zbackup.prom"))
    return bare / "zbackup.prom"


def metrics(file: Path) -> dict[tuple[str, ...], float]:
    """The values in a file, by name and labels but for the archive's; each is there once."""
    samples = [line.rpartition(" ")[0] for line in file.read_text().splitlines()]
    assert len(samples) == len(set(samples))
    return {
        (one.name.removeprefix("zbackup_"), *(value for label, value in one.labels.items() if label != "archive")): (
            one.value
        )
        for one in read_file(file)
    }


def test_a_backup_tells_what_it_did_and_what_can_be_restored(
    archive: str, source: str, zbackup: Zbackup, file: Path, promtool: Promtool
) -> None:
    """
    The figures are those of its result and of `list`, and one who blocks the horizon is counted by kind, not by name.
    """
    began = time.time()
    with psycopg.connect(source, application_name="of somebody") as blocker:
        blocker.execute("SELECT pg_current_xact_id()")
        result = zbackup("backup", "--archive", archive, "--source", source, "--json").result
    told, listed = metrics(file), zbackup("list", "--archive", archive, "--json").result

    def instant(text: str) -> float:
        return datetime.fromisoformat(text).timestamp()

    newest = listed["windows"][0]
    assert began <= told["last_success_timestamp_seconds", "backup"] <= time.time()
    assert told["last_exit_code", "backup"] == 0
    assert told["restorable_newest_timestamp_seconds",] == instant(result["recovery_point"]) == instant(newest["last"])
    assert told["restorable_oldest_timestamp_seconds",] == instant(newest["first"])
    assert told["horizon_timestamp_seconds",] == instant(result["horizon"])
    age = instant(result["recovery_point"]) - instant(result["horizon"])
    assert told["horizon_age_seconds",] == pytest.approx(age, abs=1e-3)
    assert told["horizon_blockers", "backend"] == len(result["blockers"]) == 1
    assert told["horizon_blocker_age_seconds", "backend"] > 0
    assert told["horizon_blockers", "prepared"] == 0
    assert told["backups",] == newest["backups"] == 2
    assert told["audit_oldest_timestamp_seconds",] == instant(listed["oldest_uncounted_since"])
    assert told["backup_rows", "sealed"] == result["events"]
    assert told["backup_stored_bytes",] == result["stored_bytes"]
    assert {one.archive for one in read_file(file)} == {archive}
    assert "somebody" not in file.read_text()
    assert promtool("check", "metrics", page=file.read_text()).returncode == 0


def test_a_failing_run_leaves_what_others_measured(archive: str, source: str, zbackup: Zbackup, file: Path) -> None:
    """
    A backup that fails tells so, and the last success of it and of verify stay.
    """
    assert zbackup("backup", "--archive", archive, "--source", source).code == 0
    assert zbackup("verify", "--archive", archive).code == 0
    before = metrics(file)
    assert zbackup("backup", "--archive", archive, "--source", "host=127.0.0.1 port=1 dbname=x user=y").code == 10
    after = metrics(file)

    assert after["last_exit_code", "backup"] == 10
    assert after["last_failure_timestamp_seconds", "backup"] > after["last_success_timestamp_seconds", "backup"]
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {("last_exit_code", "backup"), ("last_duration_seconds", "backup")}


def test_findings_of_verify_and_what_prune_removed(archive: str, zbackup: Zbackup, file: Path) -> None:
    """
    A damaged chunk is a finding and a failure; a dry run of prune is nothing, one that does it is told.
    """
    assert zbackup("prune", "--archive", archive).code == 0
    assert not file.exists()
    assert zbackup("prune", "--archive", archive, "--yes").code == 0
    chunk = next(path for path in Path(archive, "events").rglob("*") if path.is_file())
    chunk.chmod(0o644)
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"\0")
    code = zbackup("verify", "--archive", archive).code
    told = metrics(file)

    assert code == told["last_exit_code", "verify"] == 31
    assert told["verify_findings", "damage", "default"] == 1
    assert ("verify_timestamp_seconds", "default") not in told
    assert told["prune_removed_objects",] == told["last_exit_code", "prune"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("backup", "--archive", "x", "--bogus"),
        ("backup", "--archive=x", "--jobs", "0"),
        ("backup", "--archive", "x", "--no-capture", "--pg-dump", "y"),
        ("backup", "--archive", "x"),
        ("verify", "--archive", "x", "--quick", "--full"),
        ("backup", "--archive", "x", "--tracing", "google"),
    ],
)
def test_a_wrong_command_line_is_told(zbackup: Zbackup, file: Path, arguments: tuple[str, ...]) -> None:
    """
    Wherever it is noticed: by a night's job that somebody broke, the last success alone would be missed much later.
    """
    assert zbackup(*arguments).code == 2

    assert metrics(file)["last_exit_code", arguments[0]] == 2
    assert {one.archive for one in read_file(file)} == {"x"}


def test_a_wrong_setting_in_a_file_is_told(
    zbackup: Zbackup, bare: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    By the other settings of that file, or where it cannot be read at all by the variables.
    """
    toml, other = bare / "work/zbackup.toml", bare / "other.prom"
    toml.write_text("archive =")
    assert zbackup("backup").code == 2
    assert metrics(file)["last_exit_code", "backup"] == 2
    monkeypatch.delenv("ZBACKUP_METRICS_FILE")
    monkeypatch.setenv("ZBACKUP_AUDIT_BUDGET", "soon")
    toml.write_text(f"archive = 'y'\nmetrics_file = '{other}'\n")
    assert zbackup("backup").code == 2

    assert {(one.archive, one.labels.get("command")) for one in read_file(other)} == {("y", "backup")}


def test_a_run_tells_of_itself_and_of_each_step(archive: str, source: str, zbackup: Zbackup, file: Path) -> None:
    """
    A step that fails has its own exit code, and gives it to the run; what was not reached is not told.
    """
    assert zbackup("run", "--archive", archive, "--source", source, "--prune", "--verify", "full").code == 0
    whole = metrics(file)
    assert zbackup("run", "--archive", archive, "--source", "host=127.0.0.1 port=1 dbname=x user=y").code == 10
    failed = metrics(file)

    commands = ("run", "backup", "verify", "prune")
    assert [whole["last_exit_code", one] for one in commands] == [0, 0, 0, 0]
    assert [failed["last_exit_code", one] for one in commands] == [10, 10, 0, 0]
    assert whole["verify_findings", "damage", "full"] == 0
    assert whole["last_success_timestamp_seconds", "run"] == failed["last_success_timestamp_seconds", "run"]


def test_follow_shows_how_things_stand(archive: str, source: str, file: Path) -> None:
    """
    After each look, over HTTP and in the file; while nothing is new no backup is made, and the lag stays small.
    """
    with start(
        "follow", "--archive", archive, "--source", source, "--every", "0.2s", "--listen", "127.0.0.1:0"
    ) as child:
        try:
            assert child.stderr is not None
            told = next(found for line in child.stderr if (found := re.search(r"metrics at (http://\S+)", line)))
            page, until = "", time.monotonic() + 60
            while "zbackup_lag_seconds{" not in page and time.monotonic() < until:
                with urllib.request.urlopen(told[1], timeout=10) as answer:  # noqa: S310
                    page = answer.read().decode()
        finally:
            child.send_signal(signal.SIGTERM)
            child.communicate(timeout=60)
    shown = {one.name: one.value for one in parse(page)}

    assert child.returncode == 0
    assert 0 <= shown["zbackup_lag_seconds"] < 60
    assert shown["zbackup_last_exit_code"] == metrics(file)["last_exit_code", "follow"] == 0


def test_commands_that_are_not_measured_write_nothing(zbackup: Zbackup, file: Path) -> None:
    assert zbackup("list", "--archive", "x", "--bogus").code == 2
    assert zbackup("bakcup", "--archive", "x").code == 2
    assert zbackup("list", "--archive", "x").code == 20

    assert not file.exists()


@pytest.mark.parametrize("where", ["none/zbackup.prom", "theirs", "folder", "pipe"])
def test_a_file_that_cannot_be_written_is_a_warning(archive: str, zbackup: Zbackup, bare: Path, where: str) -> None:
    """
    The run is what it was, and what stands there stays.
    """
    (bare / "theirs").write_text("root:x:0:0\n")
    (bare / "folder").mkdir()
    os.mkfifo(bare / "pipe")
    ran = zbackup("verify", "--archive", archive, "--metrics-file", str(bare / where))
    as_json = zbackup("verify", "--archive", archive, "--metrics-file", str(bare / where), "--json")

    assert (ran.code, as_json.code) == (0, 0)
    assert f"warning: metrics file {bare / where}: " in ran.err
    assert as_json.result["type"] == "result"
    assert as_json.result["ok"]
    assert (bare / "theirs").read_text() == "root:x:0:0\n"
    assert sorted(one.name for one in bare.iterdir()) == ["archive", "folder", "pipe", "theirs", "work"]


def test_a_run_that_is_stopped_is_told(archive: str, source: str, file: Path) -> None:
    """
    SIGTERM ends a backup that waits with 130, and so say its metrics.
    """
    with psycopg.connect(source) as writer:
        writer.execute("LOCK TABLE eventstore.events2 IN ACCESS EXCLUSIVE MODE")
        with start("backup", "--archive", archive, "--source", source) as child:
            assert child.stderr is not None
            assert "connect" in child.stderr.readline()
            child.send_signal(signal.SIGTERM)
            child.communicate(timeout=30)

    assert child.returncode == 130
    assert metrics(file)["last_exit_code", "backup"] == 130


def test_an_address_keeps_its_password(zbackup: Zbackup, file: Path) -> None:
    assert zbackup("backup", "--archive", "s3://someone:cAnAry-5ecret@bucket/x", "--source", "service=x").code

    assert "cAnAry" not in file.read_text()
