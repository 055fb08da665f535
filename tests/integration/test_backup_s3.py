"""The whole path on S3: moto, a real server that checks signatures, and one that ignores preconditions."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from tests.fix_archive import archived_rows, options, restored, source_rows
from tests.fix_store import MakeS3
from tests.history import create_schema, fill, push
from zbackup.archive.archive import Archive
from zbackup.backup import backup
from zbackup.init import init
from zbackup.inspect import listing
from zbackup.verify import verify


@pytest.mark.parametrize("server", ["moto_endpoint", "swift_endpoint", "rclone_endpoint"])
def test_the_whole_path_on_s3(
    request: pytest.FixtureRequest, server: str, make_s3: MakeS3, database: str, new_database: Callable[[], str]
) -> None:
    """
    Full backup, increment, capture, list, verify, restore: the same on a bucket as in a folder.
    """
    store = make_s3(request.getfixturevalue(server))
    with psycopg.connect(database) as connection:
        create_schema(connection)
        fill(connection, events=1500, seed=2)
    init(store)
    archive = Archive.open(store)

    first = backup(archive, database, options(capture=True))
    with psycopg.connect(database) as connection:
        push(connection, "i1", ("user", "new"))
    second = backup(archive, database, options(capture=True))

    assert ["full", "incremental"] == [first.kind, second.kind]
    assert first.generation == second.generation
    assert second.capture is not None
    assert 0 == second.capture.new_bytes, "nothing of the other tables changed"
    assert source_rows(database) == archived_rows(archive)
    assert [first.backup, second.backup] == [entry.backup for entry in listing(archive).backups]
    assert verify(archive, level="full", source=database).ok
    target = new_database()
    restored(archive, target, proof="full")
    assert source_rows(database) == source_rows(target)
