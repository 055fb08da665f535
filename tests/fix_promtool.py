"""Prometheus' own tool, which knows whether metrics and rules are right."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

Promtool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    """Run promtool; what needs it is skipped where there is none to be had."""
    found = subprocess.run([ROOT / "scripts/promtool"], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"no promtool: {found.stderr.strip()}")

    def run(*arguments: str, page: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [found.stdout.strip(), *arguments]
        return subprocess.run(command, input=page, capture_output=True, text=True, check=False, timeout=60)

    return run
