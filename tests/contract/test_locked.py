"""Objects that a store keeps although somebody with the right to delete asks it to let go."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fix_store import MakeS3, bare_client
from tests.store_contract import names, put
from zbackup.errors import Locked
from zbackup.store.local import LocalStore
from zbackup.store.s3 import S3Store

BUCKET = "zbackup-locked"


@pytest.fixture
def client(aws_env: None, moto_endpoint: str) -> Iterator[Any]:
    with contextlib.closing(bare_client(moto_endpoint)) as client:
        if BUCKET not in {found["Name"] for found in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
        yield client


@pytest.fixture
def bucket(make_s3: MakeS3, moto_endpoint: str) -> S3Store:
    return make_s3(moto_endpoint, bucket=BUCKET)


def key(store: S3Store, name: str) -> dict[str, str]:
    return {"Bucket": BUCKET, "Key": f"{store.address.removeprefix(f's3://{BUCKET}/')}/{name}"}


def test_retention_in_a_bucket(client: Any, bucket: S3Store) -> None:
    """
    A locked object stays listed, and the error says until when; one whose lock has passed goes.
    """
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    for name, end in (("locked", until), ("free", datetime.now(UTC) + timedelta(seconds=1))):
        put(bucket, name, b"x")
        client.put_object_retention(**key(bucket, name), Retention={"Mode": "GOVERNANCE", "RetainUntilDate": end})
    put(bucket, "never", b"x")
    while bucket.clock() <= end:  # the store tells whole seconds
        pass

    with pytest.raises(Locked, match=r"locked: locked \(GOVERNANCE\)") as caught:
        bucket.delete("locked")
    bucket.delete("free")
    bucket.delete("never")

    assert caught.value.until == until
    assert names(bucket) == ["locked"]


def test_legal_hold_in_a_bucket(client: Any, bucket: S3Store) -> None:
    """
    It has no end that anybody could tell.
    """
    put(bucket, "held", b"x")
    client.put_object_legal_hold(**key(bucket, "held"), LegalHold={"Status": "ON"})

    with pytest.raises(Locked, match="legal hold") as caught:
        bucket.delete("held")

    assert caught.value.until is None
    assert names(bucket) == ["held"]


def test_a_read_only_file(tmp_path: Path) -> None:
    """
    A file that somebody made read-only stays, although its folder would let it go.
    """
    store = LocalStore(tmp_path)
    put(store, "a/x", b"x")
    (tmp_path / "a/x").chmod(0o440)

    with pytest.raises(Locked, match="a/x: the file is read-only"):
        store.delete("a/x")

    assert names(store) == ["a/x"]


def test_an_immutable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What the kernel says of chattr +i is a lock and no missing right.
    """
    store = LocalStore(tmp_path)
    put(store, "a/x", b"x")

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)

    with pytest.raises(Locked, match="immutable"):
        store.delete("a/x")
