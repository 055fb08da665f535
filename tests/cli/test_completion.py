"""Real shells complete what the program takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ROOT

# Each makes proposals for the words that it is given, one per line, by what `zbackup completion` printed.
ASKS = {
    "bash": """
        source "$SCRIPT"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        $(complete -p zbackup | sed 's/.* -F \\([^ ]*\\) .*/\\1/') "$1"
        printf '%s\\n' "${COMPREPLY[@]}"
    """,
    "zsh": """
        compdef() { :; }
        compadd() { print -l -- ${(P)2}; }
        _files() { :; }
        source $SCRIPT
        words=("$@") CURRENT=$#
        _zbackup
    """,
    "fish": 'source $SCRIPT; complete -C "$argv"',
}


@pytest.fixture(params=["bash", "zsh", "fish"])
def complete(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., set[str]]:
    """Ask a shell for its proposals for the last of some words."""
    name = str(request.param)
    if not shutil.which(name):
        pytest.skip(f"no {name} on this machine")
    program = tmp_path / "bin/zbackup"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m zbackup "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    printed = subprocess.run(["zbackup", "completion", name], env=environment, capture_output=True, check=True)
    script = tmp_path / "script"
    script.write_bytes(printed.stdout)

    def ask(*words: str) -> set[str]:
        plain = {"bash": ["--norc", "-c"], "zsh": ["-f", "-c"], "fish": ["-N", "-c"]}[name]
        arguments = ["zbackup " + " ".join(words)] if name == "fish" else ["ask", "zbackup", *words]
        done = subprocess.run(
            [name, *plain, ASKS[name], *arguments],
            env={**environment, "SCRIPT": str(script)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return {line for line in done.stdout.splitlines() if line}

    return ask


def test_a_shell_completes(complete: Callable[..., set[str]]) -> None:
    """
    Commands, options of a command, and the values of a choice are proposed; for what is none of these, the
    program proposes nothing, so that the shell proposes files.
    """
    assert complete("ba") == {"backup"}
    assert complete("backup", "--low") == {"--low-impact"}
    assert complete("restore", "--proof", "") == {"sample", "full"}
    assert complete("backup", "--config", "scr") <= {"script"}
