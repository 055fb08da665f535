"""The scripts that people and CI start do what they say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.fix_postgres import VERSIONS

ROOT = Path(__file__).parents[2]

needs_postgres = pytest.mark.skipif(not VERSIONS, reason="no PostgreSQL server on this machine")


def run(folder: Path, module: str, *arguments: str) -> str:
    """Run a script's module with `folder` as the place for temporary files; return what it printed."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder() -> Generator[Path]:
    """A temporary folder that the server's user may enter, which pytest's own are not."""
    place = Path("/tmp") / f"zb-scripts-{os.getpid()}"
    place.mkdir(mode=0o755)
    yield place
    shutil.rmtree(place, ignore_errors=True)


@needs_postgres
@pytest.mark.slow
def test_the_demo_ends_well_and_leaves_nothing(folder: Path) -> None:
    """
    scripts/demo restores what a DELETE took away, says so in ten lines, and removes all its files.
    """
    output = run(folder, "scripts.demo")

    lines = output.partition("=== What this showed ===\n")[2].splitlines()
    assert len(lines) == 12
    assert "equal those before the disaster" in lines[-3]
    folder.rmdir()


@needs_postgres
@pytest.mark.slow
def test_the_bench_compares_ours_with_theirs(folder: Path, tmp_path: Path) -> None:
    """
    scripts/bench prints ratios and writes every figure as JSON.
    """
    output = run(folder, "scripts.bench", "--events", "3000", "--output", str(tmp_path / "bench.json"))

    assert "zbackup restore / pg_restore -j2" in output
    report = json.loads((tmp_path / "bench.json").read_text())
    assert report["facts"]["events"] == 3000
    assert {"zbackup backup / pg_dump -Fc -Z1", "zbackup restore / pg_restore -j2"} < set(report["ratios"])
    ours = [figure for figure in report["figures"] if figure["what"].startswith("zbackup")]
    assert all(figure["peak_rss_bytes"] > 1 << 20 for figure in ours)
    folder.rmdir()


@needs_postgres
@pytest.mark.slow
def test_the_bench_tells_what_a_load_loses(folder: Path, tmp_path: Path) -> None:
    """
    scripts/bench load prints what the load does beside each command, and writes the figures as JSON.
    """
    wanted = ("--events", "3000", "--seconds", "0.3", "--rounds", "1", "--writers", "2")
    output = run(folder, "scripts.bench", "load", *wanted, "--output", str(tmp_path / "load.json"))

    report = json.loads((tmp_path / "load.json").read_text())
    assert "zbackup backup --low-impact" in output
    assert [figure["what"] for figure in report["figures"]][1::2] == list(report["ratios"])
    assert all(figure["pushes_per_second"] > 0 for figure in report["figures"])
    folder.rmdir()


@needs_postgres
@pytest.mark.slow
def test_the_soak_prints_its_seeds(folder: Path) -> None:
    """
    scripts/soak plays a schedule, says its seed and what it did, and leaves nothing.
    """
    output = run(folder, "scripts.soak", "late", "--seed", "5")

    assert re.search(r"^seed 5: \d+ acts, \d+ backups, \d+ events, \d+ withheld; \d+ s$", output, re.MULTILINE)
    assert "failed: none" in output
    folder.rmdir()


def test_the_lock_names_no_host_and_hashes_everything() -> None:
    """
    requirements.txt pins each package with hashes and leaves the choice of the registry to the machine.
    """
    text = (ROOT / "requirements.txt").read_text()
    pinned = re.findall(
        r"^[a-z0-9][\w.-]*==[^\n]*\\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", text, re.MULTILINE
    )

    assert "://" not in text
    assert len(pinned) == len(re.findall(r"^\w", text, re.MULTILINE)) > 50


@pytest.mark.parametrize(
    "name", ["bootstrap", "test", "check", "demo", "playground", "bench", "soak", "lock", "../.ci/run"]
)
def test_scripts_can_be_run(name: str) -> None:
    """
    Each script is executable and is valid bash.
    """
    script = ROOT / "scripts" / name

    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_the_bench_of_the_catalog_counts_requests(tmp_path: Path) -> None:
    """
    scripts/bench catalog tells requests, time and memory of each question, and holds them against its bounds.
    """
    output = run(tmp_path, "scripts.bench", "catalog", "--runs", "1500", "--chunks", "--output", str(tmp_path / "out"))

    figures = {figure["question"]: figure for figure in json.loads((tmp_path / "out").read_text())}
    assert "1,500 runs" in output
    assert figures["head"]["lists"] == 4
    assert figures["plan middle"]["gets"] <= 10
