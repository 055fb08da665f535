"""Execute a page in its scenario."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.runbooks.match import Values
from tests.runbooks.page import Page, Step
from tests.runbooks.shell import Shell
from tests.runbooks.world import World


@dataclass(frozen=True, slots=True)
class Ran:
    step: Step
    said: list[str]
    code: int
    problem: str
    """how it differs from the page; empty when it does not"""


def run(page: Page, world: World) -> Iterator[Ran]:
    """Type the commands of a page one after the other, and yield how each went."""
    values = Values()
    with Shell(world.folder / "work", world.environment) as shell:
        for step in page.steps:
            command = values.typed(step.command)
            for shown, real in world.places.items():
                command = command.replace(shown, real)
            said, code = shell.run(command)
            for shown, real in world.places.items():
                said = [line.replace(real, shown) for line in said]
            problem = values.difference(step.output, said)
            if code != step.code:
                problem += f"\nexit code {code} instead of {step.code}"
            yield Ran(step, said, code, problem)


def check(page: Page, world: World) -> None:
    """Execute a page up to the first command that says or returns something else. Raises AssertionError."""
    for ran in run(page, world):
        assert not ran.problem, f"line {ran.step.line}: $ {ran.step.command}\n{ran.problem}"
