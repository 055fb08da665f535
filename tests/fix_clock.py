"""Clocks that step: a library before the system's own makes processes believe another time, which may change."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest


@dataclass(frozen=True)
class SteppingClock:
    """The clock of processes that are started with `environment`: ours plus an offset, none in the beginning."""

    library: Path
    offset: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.offset),
            "FAKETIME_NO_CACHE": "1",
            # Time that passes is measured with another clock, which never steps.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, offset: timedelta) -> None:
        """Put the clock ahead of ours, or behind it, from now on."""
        new = self.offset.with_name("new")
        new.write_text(f"{offset.total_seconds():+.6f}")
        new.chmod(0o644)
        new.replace(self.offset)

    @contextmanager
    def inherited(self) -> Generator[None]:
        """Let processes that are started in the block have this clock."""
        before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextmanager
def a_clock() -> Generator[SteppingClock]:
    """Make a clock of its own, or skip the test where there is none."""
    found = importlib.util.find_spec("libfaketime")
    if found is None or found.origin is None:
        pytest.skip("libfaketime is not installed (pip install zbackup[test])")
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("libfaketime comes compiled for Linux on x86_64 only")
    compiled = Path(found.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    # Any user may read it here; a server does not run as root.
    with tempfile.TemporaryDirectory(prefix="zbackup-clock-") as place:
        Path(place).chmod(0o755)
        library = Path(shutil.copy(compiled, place))
        library.chmod(0o644)
        clock = SteppingClock(library, Path(place) / "offset")
        clock.step(timedelta(0))
        yield clock


@pytest.fixture
def stepping_clock() -> Generator[SteppingClock]:
    with a_clock() as clock:
        yield clock
