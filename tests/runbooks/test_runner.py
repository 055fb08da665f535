"""The runner: a page that says something else than what comes fails, and nothing else does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.runbooks.match import Values
from tests.runbooks.page import Step, parse
from tests.runbooks.shell import Shell

A, B = "20261126T170607Z-2d5fd05f", "20261126T170608Z-00000001"


def differs(wanted: str, said: str) -> bool:
    return bool(Values().difference(wanted.splitlines(), said.splitlines()))


def test_a_page_is_read_as_it_is_typed() -> None:
    """
    Commands may go on in the next line; other blocks are not run; the line of each is known.
    """
    page = parse(
        "<!-- scenario: x -->\n# Page\n```\n$ not run\n```\n"
        "```console\n$ one \\\n  two\nsaid\n\n[exit code 3]\n$ three\n```\n"
    )

    assert page.scenario == "x"
    assert page.steps == (Step(7, "one \\\n  two", ("said", ""), 3), Step(12, "three", ()))
    for broken in (
        "# Page\n```console\n$ x\n```\n",
        "<!-- scenario: x -->\n",
        "<!-- scenario: x -->\n```console\nx\n```\n",
    ):
        with pytest.raises(ValueError, match=r"scenario|command"):
            parse(broken)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("3 events", "3 events"),
        ("a\n…\nd", "a\nb\nc\nd"),
        ("a\n…\nd", "a\nd"),
        ("took … long", "took very long"),
        ("name   state", "name  state"),
        (f"backup {A} at 2026-11-26T17:06:07.247518Z", f"backup {B} at 2027-01-01T00:00:00.000000Z"),
        ("read 1.3 MiB in 0.4 s", "read 20 B in 61 s"),
        ("generation 6a189ebb begins", "generation 00000000 begins"),
        ("20261126T170607Z-2d5fd05f  full  4e1ac3f8", "20261126T170607Z-2d5fd05f  full  12345678"),
    ],
)
def test_what_may_differ(wanted: str, said: str) -> None:
    assert not differs(wanted, said)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("3 events", "4 events"),
        ("3 events", ""),
        ("", "3 events"),
        ("a\n…\nd", "a\nb"),
        ("a\nd", "a\nb\nd"),
        ("name state", "name  state"),
        (f"backup {A}", "backup none"),
        (f"{A} and {A}", f"{A} and {B}"),
        ("at 2026-11-26T17:06:07.247518Z", "at 2026-11-26T17:06:07Z"),
        ("read 1.3 MiB", "read nothing"),
    ],
)
def test_what_may_not(wanted: str, said: str) -> None:
    assert differs(wanted, said)


def test_a_value_is_the_same_on_the_whole_page() -> None:
    """
    What an id of the page stands for is typed in later commands, and expected in later outputs.
    """
    values = Values()
    assert not values.difference([f"made {A}"], [f"made {B}"])

    assert values.typed(f"zbackup show {A}") == f"zbackup show {B}"
    assert not values.difference([f"backup {A}"], [f"backup {B}"])
    assert values.difference([f"backup {A}"], [f"backup {A}"])


def test_a_shell_keeps_its_variables_and_tells_exit_codes(tmp_path: Path) -> None:
    """
    Stdout and stderr come as they mix; a command without a last newline is whole; one that reads gets nothing.
    """
    with Shell(tmp_path, dict(os.environ)) as shell:
        assert shell.run("NAME=value; mkdir -p deeper; cd deeper") == ([], 0)
        assert shell.run('printf "$NAME\\nand more"; echo err >&2; (exit 32)') == (["value", "and moreerr"], 32)
        assert shell.run("cat; basename $PWD") == (["deeper"], 0)
        with pytest.raises(AssertionError, match="the shell ended"):
            shell.run("exit 3")
