"""What a server's programs are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from zbackup.database.programs import SURROUNDINGS, run_as, server_user


def test_a_program_sees_no_secret_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It runs as another user, whose processes may read its environment; only what is on a list is handed on.
    """
    for name in ("ZITADEL_MASTERKEY", "AWS_SECRET_ACCESS_KEY", "ZBACKUP_SOURCE", "PGPASSWORD", "LC_ALL", "ANYTHING"):
        monkeypatch.setenv(name, "for-nobody-else")
    monkeypatch.setenv("TZ", "UTC")

    said = run_as(server_user(), Path("/"), "env").stdout.splitlines()

    given = {line.partition("=")[0] for line in said}
    assert "TZ" in given
    assert given - {"PWD", "SHLVL", "_"} <= set(SURROUNDINGS)
    assert "for-nobody-else" not in "".join(said)
