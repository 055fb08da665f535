"""A real browser, and where its screenshots go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.chromium import NotThere, find

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ARTEFACTS = Path(os.environ.get("ZBACKUP_ARTEFACTS") or Path(__file__).parents[1] / "build/artefacts")

# Root needs the first; without the others it asks its maker for updates, and paints with a graphics card.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start a headless Chromium. Of a module: while it runs, nobody else can have a loop of events."""
    from playwright.sync_api import sync_playwright

    try:
        found = find()
    except NotThere as why:
        pytest.skip(str(why))
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=found.program, args=ARGUMENTS, env={**os.environ, **found.environment}
        )
        yield started
        started.close()


@pytest.fixture
def artefacts() -> Path:
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    return ARTEFACTS
