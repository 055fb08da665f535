"""The units, read by systemd itself where it is there, and by us everywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .files import DROP_INS, PROGRAM, UNITS

SECTIONS = {
    ".service": {"Unit", "Service", "Install"}, ".timer": {"Unit", "Timer", "Install"}, ".conf": {"Service"},
}  # fmt: skip
LISTS = {"LoadCredential", "Environment", "SystemCallFilter"}
LOCKED_IN = {
    "DynamicUser": "yes", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "ProtectSystem": "strict",
    "ProtectHome": "yes", "PrivateTmp": "yes", "PrivateDevices": "yes", "RestrictNamespaces": "yes",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6", "SystemCallArchitectures": "native", "UMask": "0077",
}  # fmt: skip

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze on this machine")


def read(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Read a unit: its sections with their lines. A line that is none of systemd's is an error."""
    unit: dict[str, list[tuple[str, str]]] = {}
    lines: list[tuple[str, str]] = []
    for line in path.read_text().splitlines():
        if head := re.fullmatch(r"\[(\w+)\]", line):
            assert head[1] not in unit, line
            lines = unit.setdefault(head[1], [])
        elif line and not line.startswith("#"):
            pair = re.fullmatch(r"([A-Z][A-Za-z]+)=(\S(?:.*\S)?|)", line)
            assert pair, f"{path.name}: {line}"
            lines.append((pair[1], pair[2]))
    return unit


@pytest.mark.parametrize("path", [*UNITS, *DROP_INS], ids=lambda path: path.name)
def test_a_unit_is_well_formed(path: Path) -> None:
    """
    It has the sections of its kind and no other, and says nothing twice.
    """
    unit = read(path)

    assert unit.keys() <= SECTIONS[path.suffix]
    for lines in unit.values():
        names = [name for name, _ in lines if name not in LISTS]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("path", [path for path in UNITS if path.suffix == ".service"], ids=lambda path: path.name)
def test_a_service_is_locked_in(path: Path) -> None:
    """
    It is nobody, may write nowhere but into its cache, and every file that its variables name is a credential.
    """
    service = read(path)["Service"]
    named = {name for key, value in service if key == "Environment" for name in re.findall(r"%d/(\S+)", value)}

    assert LOCKED_IN.items() <= dict(service).items()
    assert named == {value.partition(":")[0] for key, value in service if key == "LoadCredential"}
    assert all(value.startswith(PROGRAM) for key, value in service if key.startswith("Exec"))


def test_metrics_go_where_the_drop_in_lets_them() -> None:
    """
    The folder of the file is the one that it opens, of a group that is made as the comment says.
    """
    (path,) = DROP_INS
    service = dict(read(path)["Service"])
    name, _, file = service["Environment"].partition("=")

    assert (name, Path(file).suffix) == ("ZBACKUP_METRICS_FILE", ".prom")
    assert service["ReadWritePaths"] == str(Path(file).parent)
    assert f"install -d -m 2775 -g {service['SupplementaryGroups']} {Path(file).parent}\n" in path.read_text()


def test_the_timer_makes_up_for_a_night() -> None:
    timer = dict(next(read(path) for path in UNITS if path.suffix == ".timer")["Timer"])

    assert timer["Persistent"] == "yes"
    assert timer["RandomizedDelaySec"] == "20min"


@needs_systemd
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """
    `systemd-analyze verify` says nothing, and counts both services among the least exposed, also with the drop-in.
    """
    for path in UNITS:  # zbackup is not where it will be
        (tmp_path / path.name).write_text(path.read_text().replace(PROGRAM, "/bin/true"))
        for drop_in in DROP_INS if path.suffix == ".service" else ():
            (folder := tmp_path / f"{path.name}.d").mkdir()
            shutil.copy(drop_in, folder)
    copies = [str(tmp_path / path.name) for path in UNITS]

    verified = analyze("verify", *copies)
    exposed = analyze("security", "--offline=yes", "--threshold=20", *(name for name in copies if "service" in name))

    assert (verified.returncode, verified.stderr) == (0, "")
    assert exposed.returncode == 0, exposed.stdout


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)
