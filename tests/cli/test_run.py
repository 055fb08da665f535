"""`zbackup run` as a night sees it: steps in their order, pings, hooks, records, one exit code."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.fix_pings import Pings
from zbackup.archive.archive import Archive
from zbackup.archive.records import Record, newest
from zbackup.store.local import LocalStore

from .conftest import Ran, Zbackup, start

CANARY = "cAnAry-5ecret"
HOOK = (
    "import json, os, sys; open(sys.argv[1], 'a').write(json.dumps([json.load(sys.stdin), dict(os.environ)]) + '\\n')"
)


def toml(folder: Path, archive: str, source: str, pings: Pings, more: str = "") -> tuple[str, ...]:
    """Write a configuration with a job and hooks that note what they get; return the arguments of its run."""
    hooks = "".join(f"{name} = {json.dumps([sys.executable, '-c', HOOK, str(folder / name)])}\n" for name in HOOKS)
    (folder / "z.toml").write_text(
        f'archive = "{archive}"\n[profile.p]\nsource = {json.dumps(source)}\n'
        f'[job.nightly]\nprofile = "p"\nping_url = "{pings.url}"\n{hooks}{more}'
    )
    return "run", "nightly", "--config", str(folder / "z.toml")


HOOKS = ("on_success", "on_failure")


def hooked(folder: Path) -> list[tuple[str, dict[str, Any], dict[str, str]]]:
    """Return what each hook got, with its environment."""
    return [
        (name, *json.loads(line))
        for name in HOOKS
        if (folder / name).exists()
        for line in (folder / name).read_text().splitlines()
    ]


def recorded(archive: str, kind: Any = "verify", most: int = 9) -> list[Record]:
    """Return the records of a kind, the newest first."""
    found = newest(Archive.open(LocalStore(archive)), kind, most)
    return sorted(found, key=lambda record: record.started, reverse=True)


def outcomes(ran: Ran) -> list[tuple[str, str]]:
    return [(step["name"], step["outcome"]) for step in ran.result["steps"]]


def test_a_good_night(
    archive: str, source: str, zbackup: Zbackup, pings: Pings, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Backup, full verification and prune, then again with nothing new and a sample: 0, said to everybody and recorded.
    """
    monkeypatch.setenv("OF_THE_OPERATOR", "inherited")
    before = dict(os.environ)
    night = toml(bare, archive, source, pings, 'prune = true\nkeep_window = "0"\nkeep_captures = "1"\n')

    first, second = zbackup(*night, "--json"), zbackup(*night)

    assert (first.code, second.code) == (0, 0), first.out + second.out
    assert outcomes(first) == [("backup", "done"), ("verify", "done"), ("prune", "done")]
    assert first.result["verify"]["level"] == "full"
    assert first.result["prune"]["listed"] > 0
    assert "run nightly: ok" in second.out
    assert [line.split()[0] for line in second.out.splitlines()[1:4]] == ["backup", "verify", "prune"]
    assert "nothing new" in second.out
    assert " sample: " in second.out
    assert [line for line in second.err.splitlines() if line.startswith("run step")] == [
        f"run step {number} of 3: {name}" for number, name in ((1, "backup"), (2, "verify"), (3, "prune"))
    ]
    assert pings.got == [("GET", "/a-secret-uuid/start", ""), ("GET", "/a-secret-uuid", "")] * 2
    (_, got, environ), (name, _, _) = hooked(bare)
    assert name == "on_success"
    assert got == first.result
    # The last three: by Python's start, and by readline in this process.
    assert {name for name, _ in environ.items() - before.items()} <= {"LC_CTYPE", "COLUMNS", "LINES"}
    assert environ["OF_THE_OPERATOR"] == "inherited"
    verified, pruned = recorded(archive), recorded(archive, "prune")
    assert [(one.ok, one.figures["level"]) for one in verified] == [(True, "sample"), (True, "full")]
    assert verified[0].figures["full_at"] == verified[1].figures["full_at"]
    assert [one.backup for one in pruned] == [verified[0].backup, first.result["backup"]["backup"]]
    assert pruned[1].figures["listed"] == first.result["prune"]["listed"]


def test_two_settings_are_enough(archive: str, source: str, zbackup: Zbackup) -> None:
    """
    Source and archive: a backup and a verification, and nothing that was not asked for; metrics tell of each.
    """
    ran = zbackup("run", "--archive", archive, "--source", source, "--metrics-file", "m.prom", "--json")

    assert ran.code == 0
    told = Path("m.prom").read_text()
    codes = [line for line in told.splitlines() if line.startswith("zbackup_last_exit_code{")]
    assert {line.partition("command=")[2] for line in codes} == {
        f'"{one}"}} 0.0' for one in ("backup", "run", "verify")
    }
    assert outcomes(ran) == [("backup", "done"), ("verify", "done"), ("prune", "skipped")]
    assert ran.result["job"] is None
    assert ran.result["warnings"] == []


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_backup_that_fails_ends_the_run(
    archive: str, zbackup: Zbackup, pings: Pings, bare: Path, form: tuple[str, ...]
) -> None:
    """
    Its exit code, a ping with the reason, the hook for failures; no verification, no prune, and no password anywhere.
    """
    source = f"host=127.0.0.1 port=1 user=u password={CANARY}"
    ran = zbackup(*toml(bare, archive, source, pings, "prune = true\n"), *form)

    assert ran.code == 10
    assert pings.paths == ["/a-secret-uuid/start", "/a-secret-uuid/fail"]
    method, _, body = pings.got[1]
    assert (method, body[:14]) == ("POST", "exit code 10: ")
    assert "Connection refused" in body
    ((name, got, _),) = hooked(bare)
    assert (name, got["exit_code"], got["backup"]) == ("on_failure", 10, None)
    assert [step["outcome"] for step in got["steps"]] == ["failed", "skipped", "skipped"]
    assert CANARY not in ran.out + ran.err + body + json.dumps(got)
    assert "a-secret-uuid" not in ran.out + ran.err + body + json.dumps(got)
    assert form or "error: source host=127.0.0.1" in ran.err
    assert recorded(archive) == recorded(archive, "prune") == []


def test_damage_ends_with_its_code_and_prunes_nothing(
    archive: str, source: str, zbackup: Zbackup, pings: Pings, bare: Path
) -> None:
    """
    The backup is made; the record has no full verification any more, so that the next night looks at everything.
    """
    night = toml(bare, archive, source, pings, 'prune = true\nkeep_window = "0"\nkeep_captures = "1"\n')
    (capture,) = Path(archive, "captures").iterdir()
    with psycopg.connect(source) as connection:
        connection.execute("UPDATE system.encryption_keys SET id = id || 'x'")
    assert zbackup(*night, "--no-prune").code == 0
    body = capture.read_bytes()
    capture.unlink()

    ran = zbackup(*night)
    capture.write_bytes(body)
    healed = zbackup(*night, "--json")

    assert ran.code == 31
    assert "run nightly: FAILED with exit code 31" in ran.out
    assert f"damage: {capture.relative_to(archive)}: " in ran.out
    assert " prune   skipped  what came before did not go well" in ran.out
    assert pings.paths[3] == "/a-secret-uuid/fail"
    assert pings.got[3][2].startswith("exit code 31: captures/")
    assert healed.result["verify"]["level"] == "full"
    assert [one.figures["level"] for one in recorded(archive)] == ["full", "sample", "full"]
    assert [(one.ok, one.figures["full_at"] is None) for one in recorded(archive)] == [
        (True, False),
        (False, True),
        (True, False),
    ]


def test_a_backup_that_is_not_whole_is_verified_and_nothing_pruned(
    archive: str, source: str, zbackup: Zbackup, pings: Pings, bare: Path
) -> None:
    """
    Its exit code is 34: an older capture may be the only one with the keys.
    """
    with psycopg.connect(source) as connection:
        connection.execute("DROP ROLE IF EXISTS blind")
        connection.execute("CREATE ROLE blind LOGIN")
        connection.execute("GRANT pg_read_all_stats TO blind")
        connection.execute("GRANT USAGE ON SCHEMA eventstore, projections, system TO blind")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA eventstore, projections, system TO blind")
        connection.execute("REVOKE SELECT ON system.encryption_keys FROM blind")
    try:
        ran = zbackup(*toml(bare, archive, f"{source} user=blind", pings, "prune = true\n"), "--json")
    finally:
        with psycopg.connect(source) as connection:
            connection.execute("DROP OWNED BY blind")
            connection.execute("DROP ROLE blind")

    assert ran.code == 34, ran.out
    assert outcomes(ran) == [("backup", "failed"), ("verify", "done"), ("prune", "skipped")]
    assert "system.encryption_keys" in ran.result["reason"]
    assert "system.encryption_keys" in pings.got[1][2]


def test_wrong_settings_are_announced_too(
    archive: str, zbackup: Zbackup, pings: Pings, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A configuration of ZITADEL that is not there one night is an error of usage, and a failed run; secrets are taken out
    of what is told elsewhere, too.
    """
    monkeypatch.setenv("PGPASSWORD", CANARY)
    night = toml(bare, archive, "", pings, f'zitadel_config = ["/nowhere/{CANARY}.yaml"]\n')
    ran = zbackup(*night, "--json")

    assert (ran.code, ran.result["class"]) == (2, "UsageError")
    assert pings.paths == ["/a-secret-uuid/start", "/a-secret-uuid/fail"]
    assert pings.got[1][2] == "exit code 2: /nowhere/***.yaml: No such file or directory"
    ((name, got, _),) = hooked(bare)
    assert name == "on_failure"
    assert CANARY not in ran.out + ran.err + json.dumps(got)


def test_an_archive_whose_name_is_no_text_is_announced(zbackup: Zbackup, source: str, pings: Pings, bare: Path) -> None:
    """
    A byte that is not UTF-8 in the reason: the run's own exit code, its ping and its hook.
    """
    archive = str(bare / "no\udcff")
    ran = zbackup(*toml(bare, "/unused", source, pings), "--archive", archive)

    assert ran.code == 20, ran.err
    assert pings.paths == ["/a-secret-uuid/start", "/a-secret-uuid/fail"]
    assert "no\\udcff" in pings.got[1][2]
    ((name, got, _),) = hooked(bare)
    assert (name, got["exit_code"]) == ("on_failure", 20)
    assert "no\\udcff" in got["reason"]


def test_who_cannot_be_told_is_a_warning(archive: str, source: str, zbackup: Zbackup, pings: Pings) -> None:
    """
    A ping that is refused each time, a hook that is not there: 0, and the result says so.
    """
    pings.answers = [503] * 6
    arguments = ("--archive", archive, "--source", source, "--verify", "none", "--on-success", "/nowhere/hook a")
    ran = zbackup("run", "--ping-url", pings.url, *arguments, "--json")

    assert ran.code == 0
    assert ran.result["warnings"] == [
        "ping_url (start): the answer was 503",
        "ping_url (success): the answer was 503",
        "on_success (/nowhere/hook): No such file or directory",
    ]
    assert len(pings.got) == 6
    assert outcomes(ran)[1] == ("verify", "skipped")


def test_a_signal_in_the_middle_is_announced(archive: str, source: str, pings: Pings, bare: Path) -> None:
    """
    SIGTERM while the backup waits for a lock: 130, the ping and the hook say why, and no traceback.
    """
    night = toml(bare, archive, source, pings)
    with psycopg.connect(source, autocommit=True) as watcher, psycopg.connect(source) as writer:
        writer.execute("LOCK TABLE eventstore.events2 IN ACCESS EXCLUSIVE MODE")
        with start(*night) as child:
            for _ in range(3000):
                waiting = watcher.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
                if child.poll() is not None or (waiting and waiting[0]):
                    break
                time.sleep(0.01)
            child.send_signal(signal.SIGTERM)
            _, err = child.communicate(timeout=40)

    assert child.returncode == 130, err
    assert "stopped by a signal" in err
    assert "Traceback" not in err
    assert pings.paths == ["/a-secret-uuid/start", "/a-secret-uuid/fail"]
    assert pings.got[1][2] == "exit code 130: stopped by a signal"
    ((name, got, _),) = hooked(bare)
    assert (name, got["exit_code"], got["steps"][0]["outcome"]) == ("on_failure", 130, "failed")


@pytest.mark.parametrize(("more", "code"), [("", 0), ('zitadel_config = ["/nowhere.yaml"]\n', 2)])
def test_a_signal_during_a_hook_leaves_the_outcome(
    archive: str, source: str, pings: Pings, bare: Path, more: str, code: int
) -> None:
    """
    It was announced; the hook is cut off, and a warning says so.
    """
    night = toml(bare, archive, "" if code else source, pings, more)
    slow = f"import pathlib, time; pathlib.Path({str(bare / 'began')!r}).touch(); time.sleep(100)"
    hooks = [
        word for name in HOOKS for word in (f"--{name.replace('_', '-')}", shlex.join([sys.executable, "-c", slow]))
    ]
    with start(*night, *hooks) as child:
        for _ in range(6000):
            if child.poll() is not None or (bare / "began").exists():
                break
            time.sleep(0.01)
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=40)

    assert child.returncode == code, err
    assert f"{'on_failure' if code else 'on_success'} ({sys.executable}): a signal cut it off" in err
    assert pings.paths == ["/a-secret-uuid/start", "/a-secret-uuid/fail" if code else "/a-secret-uuid"]


def test_a_job_that_is_not_there(zbackup: Zbackup, archive: str, source: str, pings: Pings, bare: Path) -> None:
    """
    The nearest name, before anything happens; and `config` finds what is wrong in a job that nobody chose.
    """
    _, _, *config = toml(bare, archive, source, pings, "[job.weekly]\nverfy = 'full'\n")
    wrong = zbackup("config", *config)
    Path(config[1]).write_text(Path(config[1]).read_text().replace("verfy", "verify"))
    missing = zbackup("run", "nihgtly", *config)
    shown = zbackup("config", "--job", "nightly", *config, "--json").result["settings"]

    assert wrong.code == 2
    assert "[job.weekly]: unknown setting 'verfy'\n  Did you mean verify?" in wrong.err
    assert missing.code == 2
    assert "Did you mean nightly?" in missing.err
    assert pings.got == []
    found = {one["name"]: one for one in shown}
    assert (found["source"]["origin"], found["ping_url"]["origin"]) == ("profile", "job")
    assert found["ping_url"]["value"].endswith("/***")
    assert found["archive"]["where"] == config[1]
