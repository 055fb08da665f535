"""The log on stderr: for people or for machines, of some level."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from zbackup.cli.logs import Log
from zbackup.cli.render import Output
from zbackup.errors import Damaged
from zbackup.progress import Advance, ObjectStored, Retrying, Step, Warned

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Zbackup

CANARY = "cAnAry-5ecret"


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def everything(log: Log, *, as_json: bool = False) -> tuple[str, str]:
    """Let happen what can happen, and return what came out."""
    out, err = io.StringIO(), io.StringIO()
    output = Output(out, err, as_json=as_json)
    output.log = log
    output.hide({CANARY})
    output.report(Step("export", f"3 slices of {CANARY}"))
    output.report(Advance(5, 10))
    output.report(ObjectStored("chunks/x", 7))
    output.report(Retrying("put chunks/y", 2, f"no answer of {CANARY}"))
    output.report(Warned(f"odd: {CANARY}", "look there"))
    output.report(Warned(f"odd: {CANARY}", "look there"))
    output.error(Damaged(f"chunk x: {CANARY} is damaged", hint="Restore it."))
    output.ended(31, 1.5)
    return out.getvalue(), err.getvalue()


def test_every_line_of_a_log_is_an_object_with_the_same_fields() -> None:
    """
    Each has time, level, message, event and the run's fields, and the fields of its event; none has a secret.
    """
    out, err = everything(Log("json", "debug", {"command": "backup", "run": "1"}))
    found = lines(err)

    assert out == ""
    assert CANARY not in err
    assert [(line["event"], line["level"]) for line in found] == [
        ("step", "info"), ("stored", "debug"), ("retrying", "warning"), ("warning", "warning"),
        ("progress", "info"), ("error", "error"), ("end", "error"),
    ]  # fmt: skip
    assert all({"time", "level", "message", "command", "run", "event"} <= line.keys() for line in found)
    by_event = {line["event"]: line for line in found}
    assert by_event["step"]["name"] == "export"
    assert by_event["progress"]["rows"] == 5
    assert by_event["error"]["message"] == "chunk x: *** is damaged"
    assert (by_event["error"]["hint"], by_event["error"]["exit_code"]) == ("Restore it.", 31)
    assert (by_event["end"]["exit_code"], by_event["end"]["seconds"]) == (31, 1.5)


@pytest.mark.parametrize(("level", "left"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 2)])
def test_what_is_below_the_level_is_left_out(level: str, left: int) -> None:
    """
    In both forms, and nothing of it is missing in the JSON lines on stdout.
    """
    assert len(lines(everything(Log("json", level))[1])) == left
    whole, some = everything(Log(), as_json=True), everything(Log("text", level), as_json=True)
    assert (len(whole[0].splitlines()), some[1]) == (len(some[0].splitlines()), "")


@pytest.mark.parametrize(
    ("level", "words"),
    [
        ("debug", ["export", "stored chunks/x", "put chunks/y", "warning: odd", "export: ", "error: "]),
        ("info", ["export", "put chunks/y", "warning: odd", "export: ", "error: "]),
        ("warning", ["put chunks/y", "warning: odd", "error: "]),
        ("error", ["error: "]),
    ],
)
def test_levels_for_people(level: str, words: list[str]) -> None:
    shown = [line for line in everything(Log("text", level))[1].splitlines() if not line.startswith("  ")]

    assert len(shown) == len(words)
    assert all(line.startswith(word) for line, word in zip(shown, words, strict=True))


def test_results_stay_what_they_are(archive: str, zbackup: Zbackup) -> None:
    """
    The log is stderr alone: stdout is the same, for people and with --json, which leaves stderr empty otherwise.
    """
    for more in ((), ("--json",)):
        plain, logged = (zbackup("list", "--archive", archive, *more, *log) for log in ((), ("--log-format", "json")))
        assert (plain.code, plain.out) == (logged.code, logged.out)
        assert plain.err == ""
        assert [line["event"] for line in lines(logged.err)] == ["end"]
        assert lines(logged.err)[0]["archive"] == archive


@pytest.mark.parametrize("way", ["flag", "equals", "variable", "file"])
def test_it_is_chosen_like_every_setting(
    zbackup: Zbackup, bare: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """
    Errors of a command line are in that form, too, as far as the form is known by then.
    """
    more = {"flag": ("--log-format", "json"), "equals": ("--log-format=json",)}.get(way, ())
    if way == "variable":
        monkeypatch.setenv("ZBACKUP_LOG_FORMAT", "json")
    if way == "file":
        (bare / "work/zbackup.toml").write_text('log_format = "json"\n')
    ran = zbackup("list", "--archive", "none", *more)
    error, end = lines(ran.err)

    assert (ran.code, ran.out) == (20, "")
    assert (error["event"], error["command"], error["exit_code"]) == ("error", "list", 20)
    assert (end["event"], end["run"]) == ("end", error["run"])
    if way != "file":
        assert lines(zbackup("list", "--bogus", *more).err)[0]["class"] == "UsageError"


def test_what_is_no_form_and_no_level(zbackup: Zbackup) -> None:
    for flag, value in (("--log-format", "xml"), ("--log-level", "loud")):
        ran = zbackup("list", "--archive", "x", flag, value)
        assert ran.code == 2
        assert value in ran.err
