"""The commands end to end: a real database, a folder, and what an operator reads."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.fix_store import SECRET_KEY, bare_client
from zbackup.event import instant_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Ran, Zbackup


def rows(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT count(*) FROM eventstore.events2").fetchone()
    assert found is not None
    return int(found[0])


def test_the_main_job(archive: str, source: str, new_database: Callable[[], str], zbackup: Zbackup) -> None:
    """
    Back up, look at it, plan, restore, verify: each says in words what an operator wants to know.
    """

    def run(*arguments: str) -> Ran:
        ran = zbackup(*arguments, "--archive", archive)
        assert ran.code == 0, ran.err
        return ran

    target = new_database()
    assert "(incremental" in run("backup", "--source", source).out
    listed = run("list").out
    assert " of database " in listed
    assert listed.count("\n20") == 2
    assert "any moment from" in listed
    first = listed.splitlines()[1].split()[0]
    assert f"backup {first} (full" in run("show", first).out
    assert "PostgreSQL" in run("show").out
    assert "600 events in 1 chunk," in run("show").out
    assert "lost      " in run("plan", "--at", f"backup:{first}").out
    planned = run("plan", "--target", target).out
    assert "an empty database: schema and tables are made (no object in ZITADEL's schemas)" in planned
    assert "system.encryption_keys" in planned
    restored = run("restore", "--target", target)
    assert "restored 594 events" in restored.out
    assert "6 removed: setup: fields catch up" in restored.out
    assert "\n       zitadel setup --init-projections=true" in restored.out
    assert "latest is the whole of backup" in restored.err
    assert "already done" in run("restore", "--target", target).out
    assert "zitadel setup" in run("restore", "--target", target).out
    assert "unique constraints of backup" in run("show", "--constraints").out
    assert run("verify", "--full").out.startswith("ok: 2 backups")
    assert rows(target) == 594


def test_the_main_job_on_s3(
    aws_env: None, moto_endpoint: str, source: str, new_database: Callable[[], str], zbackup: Zbackup
) -> None:
    """
    Endpoint and addressing by flag and by variable, keys by AWS's own settings.
    """
    with contextlib.closing(bare_client(moto_endpoint)) as client:
        client.create_bucket(Bucket="of-the-command-line")
    target = new_database()
    for command in (
        ("init",),
        ("backup", "--source", source),
        ("list",),
        ("verify", "--full"),
        ("log", "--limit", "5", "--until", "10 min ago"),
        ("diff", "10 min ago"),
        ("restore", "--target", target, "--events-only"),
        ("doctor",),
    ):
        ran = zbackup(
            *command, "--archive", "s3://of-the-command-line/a/b", "--s3-endpoint", moto_endpoint,
            "--s3-addressing", "path",
        )  # fmt: skip
        assert ran.code == 0, ran.err + ran.out
        assert SECRET_KEY not in ran.out + ran.err
    assert rows(target) == 600


def test_the_resolved_instant_is_told_before_anything_happens(
    archive: str, new_database: Callable[[], str], zbackup: Zbackup
) -> None:
    target = new_database()
    before = datetime.now(UTC) - timedelta(minutes=6)
    ran = zbackup("restore", "--archive", archive, "--target", target, "--at", "6 min ago", "--json")

    kinds = [record["type"] for record in ran.records]
    resolved = ran.records[kinds.index("resolved")]
    steps = [record["name"] for record in ran.records[: kinds.index("resolved")] if record["type"] == "step"]
    assert steps == ["plan"]
    assert instant_text(before) <= resolved["at"] <= instant_text(before + timedelta(seconds=60))
    assert resolved["at"] == ran.result["at"]


def test_a_dry_run_changes_nothing_and_needs_no_target(
    archive: str, new_database: Callable[[], str], zbackup: Zbackup
) -> None:
    target = new_database()

    assert zbackup("restore", "--archive", archive, "--dry-run").code == 0
    assert zbackup("restore", "--archive", archive, "--dry-run", "--target", target).code == 0
    with psycopg.connect(target) as connection:
        assert connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'eventstore'").fetchone() is None


def test_exit_codes_of_what_can_go_wrong(
    archive: str, source: str, database: str, zbackup: Zbackup, bare: Path
) -> None:
    def code(*arguments: str) -> int:
        return zbackup(*arguments, "--archive", archive).code

    assert code("init") == 30
    assert code("backup", "--source", database) == 11
    assert code("backup", "--source", "host=127.0.0.1 port=1") == 10
    assert code("restore", "--target", "host=127.0.0.1 port=1") == 12
    assert code("restore", "--target", source) == 13
    assert code("restore", "--target", database, "--without", "assets") == 2
    assert code("restore", "--target", database, "--without", "system.nothing") == 2
    assert code("restore", "--target", database, "--events-only", "--cold") == 2
    assert code("restore", "--target", database, "--auth-requests") == 2
    assert code("plan", "--at", "2001-01-01T00:00Z") == 32
    assert code("plan", "--at", datetime.now(UTC).isoformat()) == 32  # after the backup
    assert code("show", "nothing") in {2, 32}
    with psycopg.connect(source) as connection:
        connection.execute("UPDATE eventstore.events2 SET creator = 'me'")
    assert code("verify", "--source", source) == 33
    assert code("verify") == 0
    for path in (Path(archive) / "events").rglob("*.zst"):
        path.write_bytes(b"x" * path.stat().st_size)
    assert code("verify", "--quick") == 0
    assert code("verify") == 31
    assert code("verify", "--source", source) == 31
    assert code("restore", "--target", database) == 31


@pytest.mark.parametrize("way", ["file", "variables", "toml", "libpq", "flag"])
def test_the_source_may_stand_in_many_places(
    archive: str, source: str, zbackup: Zbackup, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    parts = dict(part.split("=") for part in source.split())
    names = {"host": "Host", "port": "Port", "dbname": "Database"}
    flags: tuple[str, ...] = ()
    if way == "file":
        lines = [f"    {names[key]}: {value}" for key, value in parts.items() if key in names]
        Path("zitadel.yaml").write_text("Database:\n  postgres:\n" + "\n".join(lines))
        Path("secret.yaml").write_text("Database.Postgres.User.Username: postgres")
        flags = ("--zitadel-config", "zitadel.yaml", "--zitadel-config", "secret.yaml")
    elif way == "variables":
        for key, name in {**names, "user": "User_Username"}.items():
            monkeypatch.setenv(f"ZITADEL_DATABASE_POSTGRES_{name.upper()}", parts[key])
    elif way == "toml":
        Path("zbackup.toml").write_text(f'source = "{source}"\narchive = "{archive}"\n')
    elif way == "libpq":
        for key, value in parts.items():
            monkeypatch.setenv({"dbname": "PGDATABASE"}.get(key, f"PG{key.upper()}"), value)
    else:
        flags = ("--source", source)
    where = () if way == "toml" else ("--archive", archive)

    ran = zbackup("backup", *where, *flags)
    assert ran.code == 0, ran.err
    assert "(incremental" in ran.out
    ran = zbackup("verify", *where, "--compare", *flags)
    assert ran.code == 0, ran.err
    assert "comparing" in ran.err


def test_a_more_direct_source_beats_the_other_kind(
    archive: str, source: str, zbackup: Zbackup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A flag beats a variable whichever of the two names it sets; two of one strength are refused.
    """
    Path("zitadel.yaml").write_text("Database: {postgres: {Host: 127.0.0.1, Port: 1}}")
    monkeypatch.setenv("ZBACKUP_ZITADEL_CONFIG", "zitadel.yaml")
    assert zbackup("backup", "--archive", archive).code == 10
    assert zbackup("backup", "--archive", archive, "--source", source).code == 0
    monkeypatch.setenv("ZBACKUP_SOURCE", source)
    assert zbackup("backup", "--archive", archive).code == 2
    assert zbackup("backup", "--archive", archive, "--zitadel-config", "zitadel.yaml").code == 10


def test_verify_leaves_a_source_alone_that_nobody_asked_for(
    archive: str, zbackup: Zbackup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZBACKUP_SOURCE", "host=127.0.0.1 port=1")

    assert zbackup("verify", "--archive", archive).code == 0
    assert zbackup("verify", "--archive", archive, "--compare").code == 10


def test_doctor_says_what_to_do_next(archive: str, source: str, zbackup: Zbackup) -> None:
    Path("zitadel.yaml").write_text("AssetStorage: {Type: s3}\nDatabase: {postgres: {Host: 127.0.0.1, Port: 1}}")

    assert zbackup("doctor", "--archive", archive, "--source", source).code == 0
    ran = zbackup("doctor", "--archive", archive, "--zitadel-config", "zitadel.yaml")
    assert ran.code == 34
    assert "fail" in ran.out
    assert "-> " in ran.out
    assert "GRANT" in zbackup("doctor", "--source", source, "--grants").out


def test_the_grants_alone_can_be_had(source: str, bare: Path) -> None:
    """
    The line of docs/security.md leaves SQL in a file that a server takes, and none where doctor ends with an error.
    """
    page = (Path(__file__).parents[2] / "docs/security.md").read_text()
    (line,) = re.findall(r"^(zbackup doctor .*?)^psql", page, re.MULTILINE | re.DOTALL)
    (bare / "zbackup").write_text(f'#!/bin/sh\nexec {sys.executable} -m zbackup "$@"\n')
    (bare / "zbackup").chmod(0o755)

    def written(dsn: str) -> tuple[int, str]:
        ran = subprocess.run(
            ["sh", "-c", line.replace('"service=zitadel"', '"$DSN"')],
            cwd=bare,
            env={**os.environ, "PATH": f"{bare}:{os.environ['PATH']}", "DSN": dsn},
            capture_output=True,
            check=False,
        )
        return ran.returncode, (bare / "grants.sql").read_text()

    code, text = written(source)

    assert code == 0
    with psycopg.connect(source) as connection:
        connection.execute(text.encode())
        connection.rollback()
    assert "GRANT SELECT ON ALL TABLES" in text
    assert written("no DSN") == (1, "")


def test_config_shows_each_value_and_where_it_came_from(zbackup: Zbackup, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("zbackup.toml").write_text('audit_budget = "7s"')
    monkeypatch.setenv("ZBACKUP_JOBS", "5")
    monkeypatch.setenv("ZBACKUP_ARCHIV", "x")
    ran = zbackup("config", "--source", "postgres://u:secret-word@h/db")

    lines = {line.split()[0]: line.split()[1:] for line in ran.out.splitlines()}
    assert lines["file:"] == ["zbackup.toml"]
    assert lines["audit_budget"] == ["7s", "zbackup.toml"]
    assert lines["jobs"] == ["5", "ZBACKUP_JOBS"]
    assert lines["source"] == ["postgres://u:***@h/db", "--source"]
    assert lines["proof"] == ["sample", "default"]
    assert "ZBACKUP_ARCHIVE?" in ran.err


def test_config_shows_a_source_that_no_setting_names(zbackup: Zbackup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "h")
    assert source_line(zbackup("config")) == "source PG… variables"
    monkeypatch.setenv("ZITADEL_DATABASE_POSTGRES_HOST", "db")
    monkeypatch.setenv("ZITADEL_DATABASE_POSTGRES_USER_PASSWORD", "secret-word")
    assert source_line(zbackup("config")) == (
        "source host=db port=5432 user=zitadel password=*** dbname=zitadel sslmode=disable ZITADEL_… variables"
    )
    assert source_line(zbackup("config", "--source", "service=x")) == "source service=x --source"


def source_line(ran: Ran) -> str:
    assert ran.code == 0
    return next(" ".join(line.split()) for line in ran.out.splitlines() if line.startswith("source"))


def test_a_damaged_archive_gives_what_it_has_and_never_looks_whole(
    zbackup: Zbackup, archive: str, new_database: Callable[[], str]
) -> None:
    """
    Without the flag a damaged chunk stops the restore; with it the rest comes back, with an exit code of its own.
    """
    chunk = max(Path(archive).glob("events/*/*.zst"), key=lambda path: path.stat().st_size)
    chunk.unlink()
    next(Path(archive).glob("archive/*")).write_bytes(b"{}")
    restore, target = ("restore", "--archive", archive, "--events-only", "--target"), new_database()
    assert zbackup(*restore, target).code == 31

    ran = zbackup(*restore, target, "--skip-damaged")
    again = zbackup(*restore, target, "--skip-damaged", "--json")

    assert (ran.code, again.code) == (34, 34)
    assert "the archive is damaged: 2 objects" in ran.err
    assert "the archive is damaged: 2 objects" in ran.out
    assert chunk.name in ran.out
    assert {"events", "record"} == {one["kind"] for one in again.result["missing"]}
    assert zbackup(*restore, new_database(), "--skip-damaged", "--dry-run").code == 0
