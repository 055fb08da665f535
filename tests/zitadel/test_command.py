"""`zbackup drill` with the binary itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.zitadel.drill import World
from tests.zitadel.past import log_at, truth_named
from tests.zitadel.tokens import MASTERKEY
from zbackup.event import instant_text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_a_drill_starts_zitadel_and_finds_every_instance(world: World, tmp_path: Path) -> None:
    """
    Set up and started on what was restored, it answers for a domain of each instance of the instant.
    """
    if world.network.why_open:
        pytest.skip(world.network.why_open)
    (tmp_path / "masterkey").write_text(MASTERKEY)
    truth = truth_named(world.version, "T7-end")

    said = world.zbackup(
        "drill", "--archive", world.archive, "--at", instant_text(truth.time), "--json",
        "--zitadel", str(world.binary), "--masterkey-file", str(tmp_path / "masterkey"),
    )  # fmt: skip

    result = json.loads(said.splitlines()[-1])
    assert result["masterkey"] == "fits"
    assert result["zitadel"] is not None
    log = log_at(world.version, truth.label)
    added, removed = (
        {event.instance for event in log if event.type == f"instance.{what}"} for what in ("added", "removed")
    )
    assert result["instances"] == len(added - removed) > 1
