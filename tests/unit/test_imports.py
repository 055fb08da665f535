"""The house: imports point down only, and each foreign library has one home."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import zbackup

ROOT = Path(zbackup.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

# What a part may import of zbackup, beside itself and the values at the bottom.
BOTTOM = {"errors", "progress", "event", "source", "moment", "dsn", ""}
MAY_IMPORT = {
    "cli": None,
    "store": set[str](),
    "archive": {"store"},
    "database": {"zitadel", "archive"},
    "zitadel": set[str](),
}
HOMES = {
    "boto3": {"store"},
    "botocore": {"store"},
    "psycopg": {"database"},
    "typer": {"cli"},
    "rich": {"cli"},
    "yaml": {"zitadel"},
    "cryptography": {"zitadel"},
    "pydantic": {"archive"},
    "numpy": {"fields"},
    "opentelemetry": {"telemetry"},
    "prometheus_client": {"metrics"},
}
# A database is told by values of the archive what to load and proves rows like it; it opens no archive.
NOT_FOR_DATABASE = {f"zbackup.archive.{name}" for name in ("archive", "log", "sink", "table")}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
    return found


def part(path: Path) -> str:
    below = path.relative_to(ROOT).parts
    return below[0] if len(below) > 1 else "use case"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    """
    No module imports from a part above or beside its own.
    """
    here = part(path)
    ours = {name.split(".")[1] if "." in name else "" for name in imports(path) if name.split(".")[0] == "zbackup"}

    if here == "use case":
        name = path.stem
        if name in BOTTOM - {""}:
            assert ours <= BOTTOM
        assert "cli" not in ours or name == "__main__"
        return
    allowed = MAY_IMPORT[here]
    assert here != "database" or not imports(path) & NOT_FOR_DATABASE
    assert allowed is None or ours <= allowed | BOTTOM | {here}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_libraries_have_one_home(path: Path) -> None:
    """
    boto3, psycopg, typer and the like are imported in one place each.
    """
    for name in {name.split(".")[0] for name in imports(path)} & HOMES.keys():
        assert {part(path), path.stem} & HOMES[name], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_stay_small(path: Path) -> None:
    """
    No module has more than 400 lines.
    """
    assert len(path.read_text().splitlines()) <= 400
