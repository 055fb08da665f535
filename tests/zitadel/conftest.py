"""The binary that ZBACKUP_ZITADEL names, and what its cases need; without one each test is skipped and says why."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests import fix_postgres, fixture_data
from tests.zitadel.drill import Case, World
from tests.zitadel.network import Network
from tests.zitadel.past import log_at, zitadel_version
from tests.zitadel.restored import Restored, restored
from tests.zitadel.server import version_of
from zbackup.database.embedded import EmbeddedPostgres

BINARY = "ZBACKUP_ZITADEL"

OPEN = "ZBACKUP_ZITADEL_OPEN"

Program = Callable[[str], Path]

needs_full = pytest.mark.skipif(fixture_data.full_place() is None, reason="the full fixtures are not at hand")


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def closed(network: Network) -> Network:
    if network.why_open:
        pytest.skip(network.why_open)
    return network


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Write a shell script that stands for the binary."""

    def write(script: str) -> Path:
        path = tmp_path / "zitadel"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture(scope="session")
def world(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    named = os.environ.get(BINARY)
    if not named:
        pytest.skip(f"no ZITADEL: {BINARY} names no binary")
    binary = Path(named).absolute()
    version = _fixture_of(version_of(binary))
    if network.why_open and not os.environ.get(OPEN):
        pytest.skip(f"{network.why_open}; {OPEN}=1 trusts ZITADEL's configuration instead")
    if not fix_postgres.VERSIONS:
        pytest.skip("no PostgreSQL server on this machine: pip install 'zbackup[demo]'")
    server = EmbeddedPostgres(version=fix_postgres.VERSIONS[0], settings=fix_postgres.SETTINGS, port=0)
    try:
        network.call(server.start)
        yield World(version, binary, network, server, tmp_path_factory.mktemp("zitadel"))
    finally:
        server.close()


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, world: World) -> Iterator[Restored]:
    case: Case = request.param
    if case.version != world.version:
        pytest.skip(f"the binary is of {world.version}")
    with restored(world, case) as found:
        yield found


def _fixture_of(said: str) -> str:
    """Return the fixture that a binary of this version wrote."""
    known = {zitadel_version(log_at(version, "T1-fresh", full=False)): version for version in fixture_data.VERSIONS}
    if said not in known:
        pytest.skip(f"no fixture of ZITADEL {said}; there are those of {', '.join(known)}")
    version = known[said]
    if fixture_data.full_place() is None:
        pytest.skip("the full fixtures are not at hand: set ZBACKUP_FIXTURES")
    end = fixture_data.truths(version, full=True)[-1].time
    if end > datetime.now(UTC):
        pytest.skip(f"the clock is behind the fixture, which ends at {end}")
    return version
