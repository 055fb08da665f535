"""What a restore says of ZITADEL's own configuration, and that it does not depend on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Zbackup


def test_a_cache_that_outlives_a_restore_is_named(
    archive: str, zbackup: Zbackup, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    With the step to take; a configuration that cannot be read is a warning, unless a flag asks for it.
    """
    file = bare / "zitadel.yaml"
    file.write_text("Database: {postgres: {Host: h}}\nCaches: {Instance: {Connector: redis}}\n")
    arguments = ("restore", "--archive", archive, "--dry-run", "--events-only")
    asked = zbackup(*arguments, "--zitadel-config", str(file))
    monkeypatch.setenv("ZBACKUP_ZITADEL_CONFIG", str(file))
    monkeypatch.setenv("ZITADEL_CACHES_INSTANCE_CONNECTOR", "postgres")
    over = zbackup(*arguments)
    file.unlink()
    gone, wanted = zbackup(*arguments), zbackup(*arguments, "--zitadel-config", str(file))

    assert (asked.code, over.code, gone.code, wanted.code) == (0, 0, 0, 2)
    assert "warning: Caches.Instance: kept in Redis at localhost:6379, which outlives a restore" in asked.err
    assert "FLUSHDB in databases 11 and up" in asked.err
    assert "Redis" not in over.err
    assert f"warning: {file}: No such file" in gone.err
    assert wanted.err.startswith(f"error: {file}: No such file")
