"""
Execute a page: `python -m tests.runbooks PAGE` says where commands say something else than the page has.

With --fill it writes what they say below those that nothing stands below, to be shortened by hand.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.fix_postgres import SETTINGS, VERSIONS
from tests.runbooks.page import read_page
from tests.runbooks.run import run
from tests.runbooks.scenarios import SCENARIOS
from tests.runbooks.world import world
from zbackup.database.embedded import EmbeddedPostgres


def main(path: Path, *, fill: bool) -> None:
    page = read_page(path)
    lines = path.read_text().splitlines()
    added = 0
    with tempfile.TemporaryDirectory() as folder, started(VERSIONS[0]) as server, started(VERSIONS[-1]) as other:
        Path(folder).chmod(0o755)
        with world(server, other, Path(folder)) as made:
            SCENARIOS[page.scenario](made)
            for ran in run(page, made):
                step = ran.step
                sys.stdout.write(f"line {step.line}: {step.command}\n")
                if fill and not step.output and not step.code:
                    said = [*ran.said, *([f"[exit code {ran.code}]"] if ran.code else [])]
                    at = step.line + step.command.count("\n") + added
                    lines[at:at] = said
                    added += len(said)
                elif ran.problem:
                    sys.stdout.write(f"{ran.problem}\n")
    if fill:
        path.write_text("\n".join(lines) + "\n")


def started(version: int) -> EmbeddedPostgres:
    return EmbeddedPostgres(version=version, settings=SETTINGS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), fill="--fill" in sys.argv)
