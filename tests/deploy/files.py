"""What lies ready in docs/deploy, taken apart."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import yaml

from zbackup.cli.main import app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs/deploy"
KUBERNETES = DEPLOY / "kubernetes"
UNITS = sorted(path for path in (DEPLOY / "systemd").iterdir() if path.suffix != ".conf")
DROP_INS = sorted((DEPLOY / "systemd").glob("*.conf"))
PROGRAM = "/usr/local/bin/zbackup"

GROUP: Any = typer.main.get_command(app)
"""The program itself."""


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each object for a cluster, with the name of its file."""
    for path in sorted(KUBERNETES.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            for document in yaml.safe_load_all(path.read_text()):
                yield path.name, document


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the specification of each pod that they make."""
    for name, manifest in manifests():
        spec = manifest.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield name, spec["template"]["spec"]


def command_lines() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield where a command line of zbackup stands, and its words after the program's name."""
    for name, pod in pods():
        for container in pod["containers"]:
            yield name, tuple(container["args"])
    for path in UNITS:
        for line in re.findall(rf"^ExecStart={PROGRAM} (.*)$", path.read_text(), re.MULTILINE):
            yield path.name, tuple(shlex.split(line))
    for line in re.findall(r"^[^#].*?\bzbackup (run[^)>&;]*?) (?:2>&1|\))", _text("crontab"), re.MULTILINE):
        yield "crontab", tuple(shlex.split(line))
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file():
            for line in re.findall(r"`zbackup ([^`]*)`", path.read_text()):
                yield path.name, tuple(shlex.split(line.replace("…", "latest")))
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", _text("README.md"), re.DOTALL | re.MULTILINE):
        for line in re.findall(r"^zbackup (.*)$", block, re.MULTILINE) if language == "sh" else ():
            yield "README.md", tuple(shlex.split(line, comments=True))


def variables() -> Iterator[tuple[str, str]]:
    """Yield where a variable of zbackup's stands, and its name."""
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file():
            for name in sorted(set(re.findall(r"\bZBACKUP_[A-Z0-9_]+", path.read_text()))):
                yield path.name, name


def image_installs() -> list[list[str]]:
    """Return the arguments of each pip that installs or checks the program in the image."""
    text = _text("Dockerfile").replace("\\\n", "")
    found = re.findall(r"/opt/zbackup/bin/pip ((?:install|check)\b.*?)(?= &&|$)", text, re.MULTILINE)
    return [line.split() for line in found]


def _text(name: str) -> str:
    return (DEPLOY / name).read_text()
