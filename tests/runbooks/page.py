"""A Markdown page as a scenario and commands with the output that they must have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_SCENARIO = re.compile(r"<!-- scenario: ([\w-]+) -->\n")
_EXIT = re.compile(r"\[exit code (\d+)\]")


@dataclass(frozen=True, slots=True)
class Step:
    line: int
    """of the page, where the command begins"""
    command: str
    output: tuple[str, ...]
    code: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    scenario: str
    steps: tuple[Step, ...]


def read_page(path: Path) -> Page:
    """Read a page. Raises ValueError where it names no scenario, has no command, or output before one."""
    return parse(path.read_text())


def parse(text: str) -> Page:
    named = _SCENARIO.match(text)
    if named is None:
        raise ValueError("the first line names no scenario")
    steps: list[Step] = []
    fence, begun = "", False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            fence, begun = "" if fence else line.removeprefix("```") or "text", False
        elif fence != "console":
            continue
        elif begun and steps[-1].command.endswith("\\"):
            steps[-1] = Step(steps[-1].line, f"{steps[-1].command}\n{line}", ())
        elif line.startswith("$ "):
            steps.append(Step(number, line.removeprefix("$ "), ()))
            begun = True
        elif not begun:
            raise ValueError(f"line {number}: output before any command")
        else:
            last = steps[-1]
            code = _EXIT.fullmatch(line)
            output = last.output if code else (*last.output, line)
            steps[-1] = Step(last.line, last.command, output, int(code[1]) if code else last.code)
    if not steps:
        raise ValueError("there is no command")
    return Page(named[1], tuple(steps))
