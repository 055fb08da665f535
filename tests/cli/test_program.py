"""The program as a whole: help, version, exit codes, how it starts and ends."""

from __future__ import annotations

import platform
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import boto3
import psycopg
import pytest
import typer
import zstandard

from tests.cli.conftest import start
from zbackup import __version__, errors
from zbackup.archive import FORMAT
from zbackup.cli.main import app, exit_codes
from zbackup.cli.reference import cli_page, configuration_page, tables_page
from zbackup.errors import ZbackupError

from .conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Zbackup

GROUP: Any = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)


def test_every_class_of_error_is_drawn_with_its_code() -> None:
    """
    The tree in errors.py, the help and the classes agree.
    """

    def below(kind: type[ZbackupError]) -> dict[str, int]:
        return {kind.__name__: kind.exit_code} | {
            name: code for child in kind.__subclasses__() for name, code in below(child).items()
        }

    of_errors = {name: code for name, code in below(ZbackupError).items() if hasattr(errors, name)}
    told = {name: code for code, name, _ in exit_codes() if name}
    assert told.items() <= of_errors.items()
    assert set(told.values()) == set(of_errors.values())
    assert all("..." not in meaning for _, _, meaning in exit_codes())


def test_help_lists_commands_and_exit_codes(process: Zbackup) -> None:
    ran = process("--help")

    assert ran.code == 0
    assert ran.err == ""
    assert all(re.search(rf"^  {command} ", ran.out, re.MULTILINE) for command in COMMANDS)
    assert all(f"{code:>3}  {meaning}"[:70] in ran.out for code, _, meaning in exit_codes())


def test_starting_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['zbackup', '--help']\n"
        "from zbackup.cli.main import run\n"
        "try: run()\n"
        "except SystemExit: pass\n"
        "heavy = {'boto3', 'botocore', 'cryptography', 'psycopg', 'zstandard', 'yaml', 'rich.progress'}\n"
        "heavy &= set(sys.modules)\n"
        "heavy |= {name for name in sys.modules if name.startswith(('zbackup.archive', 'zbackup.store', "
        "'zbackup.database'))}\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stderr


def test_the_versions_of_all_parts_are_printed(process: Zbackup) -> None:
    """
    --version names what a report of a bug needs, as the parts themselves say it; --json has the same.
    """
    ran, told = process("--version"), process("--version", "--json").result

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[0].split() == ["zbackup", f"{__version__},", "archive", "format", str(FORMAT)]
    assert f"psycopg {psycopg.__version__}, libpq {told['libpq']}\n" in ran.out
    assert told["libpq"] == f"{psycopg.pq.version() // 10000}.{psycopg.pq.version() % 10000}"
    assert told["boto3"] == boto3.__version__
    assert told["libzstd"] == ".".join(map(str, zstandard.ZSTD_VERSION))
    assert told["python"] == platform.python_version()
    for program in told["pg_dump"]:
        said = subprocess.run([program["path"], "--version"], capture_output=True, text=True, check=True)
        assert said.stdout.strip().endswith(program["version"])
        assert f"pg_dump {program['version']}: {program['path']}\n" in ran.out


def test_the_version_names_the_pg_dump_of_the_path_first(
    process: Zbackup, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A pg_dump is named when it is there and says what it is, whatever comes after it.
    """
    program = bare / "pg_dump"
    program.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 99.1'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(bare))

    lines = process("--version").out.splitlines()
    assert next(line for line in lines if line.startswith("pg_dump")) == f"pg_dump 99.1: {program}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_the_common_options(zbackup: Zbackup, command: str) -> None:
    names = {name for one in GROUP.commands[command].params for name in one.opts}

    assert {"--config", "--profile", "--json", "--debug", "--tracing", "--log-format", "--log-level"} <= names


def test_the_pages_are_what_the_program_takes() -> None:
    """
    docs/cli.md, docs/tables.md and the table of docs/configuration.md are up to date; else run
    `python -m zbackup.cli.reference docs`.
    """
    assert (ROOT / "docs/cli.md").read_text() == cli_page()
    assert (ROOT / "docs/tables.md").read_text() == tables_page()
    configuration = (ROOT / "docs/configuration.md").read_text()
    assert configuration == configuration_page(configuration)
    assert "| `audit_budget` |" in configuration


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no command"),
        (("bakcup",), "backup"),
        (("backup", "--arcive", "x"), "--arcive"),
        (("list",), "--archive"),
        (("list", "--archive", "x", "surplus"), "surplus"),
        (("list", "--archive"), "--archive"),
        (("list", "--archive", "ftp://x/y"), "ftp"),
        (("list", "--archive", "x", "--s3-endpoint", "http://127.0.0.1:1"), "--s3-endpoint"),
        (("list", "--archive", "x", "--config", "none.toml"), "none.toml"),
        (("list", "--archive", "x", "--all", "--limit", "3"), "--limit"),
        (("backup", "--archive", "x"), "--zitadel-config"),
        (("backup", "--archive", "x", "--no-capture", "--auth-requests"), "--auth-requests would have no effect"),
        (("backup", "--archive", "x", "--low-impact", "--jobs", "4"), "--jobs would have no effect"),
        (("backup", "--archive", "x", "--rate-limit", "0"), "0 is less than 65536"),
        (("backup", "--archive", "x", "--rate-limit=-1MB"), "-1MB"),
        (("backup", "--archive", "x", "--rate-limit", "900GiB"), "more than 107374182400"),
        (("verify", "--archive", "x", "--rate-limit", "1MB"), "--rate-limit would have no effect"),
        (("verify", "--archive", "x", "--low-impact"), "--low-impact would have no effect"),
        (("restore", "--archive", "x", "--low-impact"), "--low-impact"),
        (("backup", "--archive", "x", "--source", ""), "PGHOST"),
        (("backup", "--archive", "x", "--source", "service=x", "--zitadel-config", "y"), "--source"),
        (("backup", "--archive", "x", "--source", "service=x", "--jobs", "0"), "--jobs"),
        (("backup", "--archive", "x", "--no-capture", "--pg-dump", "/usr/bin/pg_dump"), "--pg-dump"),
        (("backup", "--archive", "x", "--fence", "service=x", "--standby-lag", "1s"), "--standby-lag"),
        (("restore", "--archive", "x"), "--target"),
        (("plan", "--archive", "x", "--at", "yesterday"), "yesterday"),
        (("plan", "--archive", "x", "--at", "2026-11-23T08:00"), "time zone"),
        (("verify", "--archive", "x", "--quick", "--full"), "--full"),
        (("doctor",), "--archive"),
    ],
)
def test_a_wrong_command_line_ends_with_2(zbackup: Zbackup, arguments: tuple[str, ...], words: str) -> None:
    """
    As text it is told on stderr; as JSON it is the last and only record; nothing else is printed.
    """
    ran, as_json = zbackup(*arguments), zbackup(*arguments, "--json")

    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert ran.err.startswith("error: ")
    if arguments and arguments[-1] != "--archive":
        assert (as_json.code, as_json.err) == (2, "")
        assert as_json.result["class"] == "UsageError"
        assert as_json.result["exit_code"] == 2
        assert words in f"{as_json.result['message']} {as_json.result['hint']}"


def test_settings_of_other_commands_do_no_harm(zbackup: Zbackup, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is refused as a flag without effect may stand in the environment.
    """
    monkeypatch.setenv("ZBACKUP_S3_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("ZBACKUP_PROOF", "full")

    assert zbackup("list", "--archive", "nowhere").code == 20


def test_an_archive_that_is_not_there(zbackup: Zbackup, bare: Path) -> None:
    (bare / "empty").mkdir()

    assert zbackup("list", "--archive", str(bare / "none")).code == 20
    assert zbackup("list", "--archive", str(bare / "empty")).code == 30


def test_a_bug_ends_with_1_and_a_way_to_report_it(zbackup: Zbackup, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("zbackup.config.resolve", broken)
    ran = zbackup("config")
    assert (ran.code, ran.out) == (1, "")
    assert "ZeroDivisionError" in ran.err
    assert "Traceback" not in ran.err
    assert "Traceback" in zbackup("config", "--debug").err
    assert "Traceback" in zbackup("config", "--debug", "--json").result["traceback"]


def test_a_reader_that_goes_away_is_no_failure() -> None:
    """
    The work is done all the same, so the code is that of the work.
    """
    command = f"{{ {sys.executable} -m zbackup config; echo $? >&2; }} | true"
    ran = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)

    assert ran.stderr == "0\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_signal_ends_it_cleanly(archive: str, source: str, number: signal.Signals, form: str) -> None:
    """
    A backup that is told to stop while it waits ends with 130, says so in its last line, commits nothing.
    """
    with psycopg.connect(source) as writer:
        writer.execute("LOCK TABLE eventstore.events2 IN ACCESS EXCLUSIVE MODE")
        flags = ("--json",) if form == "json" else ()
        with start("backup", "--archive", archive, "--source", source, *flags) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            progress = child.stdout if form == "json" else child.stderr
            assert "connect" in progress.readline()
            wait_for_a_lock(source)
            child.send_signal(number)
            out, err = child.communicate(timeout=120)

    assert child.returncode == 130
    assert "Traceback" not in out + err
    last = (out if form == "json" else err).strip().splitlines()
    assert "Interrupted" in last[-1] if form == "json" else "stopped by a signal" in "".join(last[-2:])


def wait_for_a_lock(dsn: str) -> None:
    """Wait until somebody waits for a lock there."""
    waiting = """SELECT count(*) FROM pg_locks WHERE NOT granted
                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(6000):
            if connection.execute(waiting).fetchone() != (0,):
                return
            time.sleep(0.01)
    raise AssertionError("nobody waits for a lock")


HANGS = """
import sys, time
from zbackup.cli import main
def hang(arguments, output):
    said = False
    while True:
        try:
            said = said or not print("ready", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            print("told", flush=True)
main.GRACE_SECONDS, main.main = float(sys.argv[1]), hang
main.run()
"""


@pytest.mark.parametrize(("grace", "signals"), [("0.3", 1), ("600", 2)])
def test_a_worker_that_hangs_is_not_waited_for(grace: str, signals: int) -> None:
    """
    After the grace, or at the second signal, the program ends whatever its threads do.
    """
    command = [sys.executable, "-c", HANGS, grace]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGTERM)
        if signals > 1:  # two that come at once are one
            assert child.stdout.readline() == "told\n"
            child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=120)

    assert child.returncode == 130
    assert "Traceback" not in err
    assert ("stopped by a signal" in err) == (signals == 1)
