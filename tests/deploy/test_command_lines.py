"""What the files of docs/deploy ask of the program is what the program takes."""

from __future__ import annotations

import pytest

from zbackup.settings import KNOWN, OTHER_VARIABLES

from .files import GROUP, command_lines, variables

VARIABLES = {*(known.variable for known in KNOWN.values()), *OTHER_VARIABLES}
LINES = sorted(set(command_lines()))


@pytest.mark.parametrize(("place", "words"), LINES, ids=[f"{place}: {' '.join(words)}" for place, words in LINES])
def test_the_program_takes_each_command_line(place: str, words: tuple[str, ...]) -> None:
    """
    The parser of the command itself takes all options and values; one that it does not know raises.
    """
    command = GROUP.commands.get(words[0])

    assert command or words[0].startswith("-"), words[0]
    (command or GROUP).make_context(words[0], list(words[1:] if command else words))


def test_command_lines_of_all_kinds_are_found() -> None:
    found = {place for place, _ in LINES}

    assert found >= {"crontab", "zbackup.service", "zbackup-follow.service", "run.yaml", "restore.yaml", "README.md"}


@pytest.mark.parametrize(("place", "name"), sorted(set(variables())))
def test_each_variable_is_one_of_a_setting(place: str, name: str) -> None:
    assert name in VARIABLES
