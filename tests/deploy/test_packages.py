"""The wheel and the source distribution, installed as the image installs them, on each Python that is promised."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.fix_postgres import VERSIONS as SERVERS
from zbackup import __version__

from .files import DEPLOY, ROOT, image_installs

PYTHONS = ("3.11", "3.12", "3.13")
RUNNING = ".".join(map(str, sys.version_info[:2]))
UV = Path(sys.executable).with_name("uv")
WHEEL = f"zbackup-{__version__}-py3-none-any.whl"

# As it is before a test takes the home away: what uv keeps there spares the registry.
_NOT_HANDED_ON = {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"}
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if key not in _NOT_HANDED_ON},
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_NO_CONFIG": "1",
}

IMPORT_ALL = """
import importlib, pkgutil, sys, zbackup
from zbackup.errors import UsageError
assert zbackup.__file__.startswith(sys.prefix), zbackup.__file__
for module in pkgutil.walk_packages(zbackup.__path__, "zbackup."):
    try:
        importlib.import_module(module.name)
    except UsageError as missing:
        assert (module.name, "zbackup[otel]" in missing.hint) == ("zbackup.telemetry", True), module.name
"""


def run(*command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def build(kind: str, folder: Path, source: Path = ROOT) -> Path:
    """Build a wheel or an sdist, as docs/deploy/Dockerfile says."""
    done = run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder, cwd=source)
    assert done.returncode == 0, done.stderr
    (made,) = folder.iterdir()
    return made


def interpreter(version: str) -> Path:
    """Find a Python of this version; where there is none, the test is skipped."""
    places = [Path(sys.base_prefix, "bin/python3"), Path(shutil.which(f"python{version}") or "none")]
    home = Path(ENVIRONMENT.get("HOME", "/root"))
    for root in (Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions", home / ".local/share/uv/python"):
        places += sorted(root.glob(f"*{version}.*/bin/python3"))
    for place in places:
        if place.is_file():
            said = run(place, "-c", "import sys; print(*sys.version_info[:2], sep='.')")
            if said.stdout.strip() == version:
                return place
    pytest.skip(f"no Python {version} on this machine")


def install(version: str, folder: Path) -> Path:
    """Install what the image installs, with the same arguments, into an environment of its own; return its programs."""
    python, packages, bin_ = interpreter(version), folder / "packages", folder / "venv/bin"
    wheel = build("wheel", packages)
    shutil.copy(DEPLOY / "requirements.txt", packages)
    commands = [["venv", "--quiet", "--python", str(python), str(folder / "venv")]]
    for action, *words in image_installs():
        here = [word.replace("/packages", str(packages)) for word in words if word != "--no-cache-dir"]
        here = [str(wheel) if word.endswith(".whl") else word for word in here]
        commands.append(["pip", action, "--python", str(bin_ / "python"), *here])
    for words in commands:
        done = run(UV, *words)
        if re.search(r"(?i)error sending request|failed to fetch|dns error", done.stderr):
            pytest.skip("no package registry is reached from here")
        assert done.returncode == 0, done.stderr
    return bin_


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS)
def test_the_wheel_works_on_each_python(version: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """
    With the locked packages and nothing else every module can be imported, and the program says which Python it runs
    on; on the one that runs the tests it also makes and verifies a backup.
    """
    programs = install(version, tmp_path)

    imported = run(programs / "python", "-W", "error", "-c", IMPORT_ALL, cwd=tmp_path)
    said = run(programs / "zbackup", "--version", cwd=tmp_path)
    assert (imported.returncode, imported.stderr) == (0, "")
    assert (said.returncode, said.stderr) == (0, "")
    assert re.search(rf"^zbackup {re.escape(__version__)},(.*\n)+python {re.escape(version)}\.", said.stdout)
    if version == RUNNING and SERVERS:
        archive, source = ("--archive", tmp_path / "archive"), request.getfixturevalue("source")
        for words in (("init",), ("backup", "--source", source), ("verify", "--full", "--source", source)):
            done = run(programs / "zbackup", *words, *archive, cwd=tmp_path)
            assert done.returncode == 0, done.stderr


def test_the_wheel_holds_the_program_and_nothing_else(tmp_path: Path) -> None:
    """
    All of zbackup/ with py.typed, the licence, the entry point; what the extras need is told.
    """
    wheel = build("wheel", tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        about = packed.read(f"zbackup-{__version__}.dist-info/METADATA").decode()
        licence = packed.read(f"zbackup-{__version__}.dist-info/licenses/LICENSE").decode()

    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "zbackup").rglob("*")
        if path.suffix != ".pyc" and path.is_file()
    }
    assert wheel.name == WHEEL
    assert {name for name in names if not name.startswith("zbackup-")} == ours
    assert "zbackup/py.typed" in ours
    assert licence == (ROOT / "LICENSE").read_text()
    assert "License-Expression: Apache-2.0" in about
    assert "Provides-Extra: demo" in about
    assert all(f"Python :: {version}\n" in about for version in PYTHONS)


def test_the_sdist_gives_the_same_wheel(tmp_path: Path) -> None:
    """
    From the source distribution, which has tests and documentation, comes the wheel that comes from the repository.
    """
    with tarfile.open(build("sdist", tmp_path / "sdist")) as packed:
        packed.extractall(tmp_path, filter="data")
    unpacked = tmp_path / f"zbackup-{__version__}"
    second = build("wheel", tmp_path / "second", unpacked)

    for name in ("README.md", "LICENSE", "CHANGELOG.md", "docs/deploy/crontab", "tests/conftest.py", ".ci/run"):
        assert (unpacked / name).is_file(), name
    with zipfile.ZipFile(build("wheel", tmp_path / "first")) as one, zipfile.ZipFile(second) as other:
        assert {name: one.read(name) for name in one.namelist()} == {
            name: other.read(name) for name in other.namelist()
        }


def test_the_image_gets_what_the_tests_ran_with() -> None:
    """
    Each package that the image installs is one of requirements.txt, in its version, with the same hashes.
    """

    def pins(path: Path) -> dict[str, str]:
        found = re.findall(r"^([\w.-]+==[^\s;]+)[^\n]*\n((?: +--hash.*\n)+)", path.read_text(), re.MULTILINE)
        return {name: re.sub(r"[\s\\]+", " ", hashes).strip() for name, hashes in found}

    image, everything = pins(DEPLOY / "requirements.txt"), pins(ROOT / "requirements.txt")
    assert len(image) > 20
    assert image.items() <= everything.items()
    assert not any(name.startswith("pytest") for name in image)
