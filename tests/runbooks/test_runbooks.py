"""Every runbook and the tutorial, executed as they stand; __init__.py tells the syntax."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fix_postgres import VERSIONS
from tests.runbooks.page import read_page
from tests.runbooks.run import check
from tests.runbooks.scenarios import SCENARIOS
from tests.runbooks.world import ROOT, world
from zbackup.database.embedded import EmbeddedPostgres

PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if path.read_text().startswith("<!-- scenario: "))


@pytest.mark.slow
@pytest.mark.skipif(not VERSIONS, reason="no PostgreSQL server on this machine")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_does_what_it_says(path: Path, servers: Callable[[int], EmbeddedPostgres], tmp_path: Path) -> None:
    """
    Every command gives the output and the exit code that stand there.
    """
    page = read_page(path)
    with world(servers(VERSIONS[0]), servers(VERSIONS[-1]), tmp_path) as made:
        SCENARIOS[page.scenario](made)

        check(page, made)


def test_every_runbook_is_executed_and_every_scenario_used() -> None:
    """
    No page without a scenario, no scenario without a page; the index names each.
    """
    folder = ROOT / "docs" / "runbooks"
    runbooks = {path for path in folder.glob("*.md") if path.name != "README.md"}
    index = (folder / "README.md").read_text()

    assert len(runbooks) == 8
    assert runbooks <= set(PAGES)
    assert {read_page(path).scenario for path in PAGES} == set(SCENARIOS)
    assert all(f"({path.name})" in index for path in runbooks)
