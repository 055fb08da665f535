"""What the probe says of stores whose abilities are known."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.fix_store import BUCKET
from tests.store_contract import names
from zbackup.errors import AccessDenied, StoreError
from zbackup.store.local import LocalStore
from zbackup.store.probe import probe

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fix_s3_proxy import FaultyProxies, FaultyProxy
    from tests.fix_store import MakeS3
    from zbackup.store.base import Written
    from zbackup.store.s3 import S3Store


@pytest.fixture
def proxy(faulty: FaultyProxies, moto_endpoint: str) -> FaultyProxy:
    return faulty(moto_endpoint)


@pytest.fixture
def store(make_s3: MakeS3, proxy: FaultyProxy, moto_store: S3Store) -> S3Store:
    return make_s3(proxy.endpoint, bucket=BUCKET)


def test_folder(tmp_path: Path) -> None:
    """
    A folder can do everything, and its probe leaves nothing.
    """
    store = LocalStore(tmp_path)

    found = probe(store, "r1")

    assert ("yes", "yes", "yes", "yes", "yes") == (
        found.create_only,
        found.read_back,
        found.listing,
        found.checksum,
        found.range_read,
    )
    assert found.clock_skew is not None
    assert abs(found.clock_skew) < 2
    assert ((), ()) == (found.notes, found.left)
    assert [] == names(store)
    assert asdict(found)["clock"] == json.loads(json.dumps(asdict(found)))["clock"]


def test_bucket(store: S3Store) -> None:
    """
    The mock refuses a second write and checks no digest.
    """
    found = probe(store, "r1")

    assert found.create_only in {"yes", "racy"}
    assert "no" == found.checksum
    assert ("yes", "yes", "yes") == (found.read_back, found.listing, found.range_read)
    assert [] == names(store)


def test_bucket_that_ignores_preconditions(store: S3Store, proxy: FaultyProxy) -> None:
    proxy.arm("ignore", "PUT", times=99, header="if-none-match")

    assert "no" == probe(store, "r1").create_only


def test_bucket_that_refuses_preconditions(store: S3Store, proxy: FaultyProxy) -> None:
    proxy.arm("refuse", "PUT", times=99, status=501, code="NotImplemented", header="if-none-match")

    assert "no" == probe(store, "r1").create_only


def test_bucket_that_ignores_ranges(store: S3Store, proxy: FaultyProxy) -> None:
    proxy.arm("ignore", "GET", times=99, header="range")

    found = probe(store, "r1")

    assert "no" == found.range_read
    assert "range: " in found.notes[0]


def test_objects_that_may_not_be_removed_are_named(store: S3Store, proxy: FaultyProxy) -> None:
    """
    Without the right to delete, the probe says what it left, and that is no failure.
    """
    proxy.arm("refuse", "DELETE", times=99, status=403, code="AccessDenied")

    found = probe(store, "r1")

    assert set(names(store)) == set(found.left) & set(names(store))
    assert "probes/r1-object" in found.left
    assert () == found.notes


def test_store_that_takes_nothing(store: S3Store, proxy: FaultyProxy) -> None:
    proxy.arm("refuse", "PUT", times=99, status=403, code="AccessDenied")

    with pytest.raises(AccessDenied):
        probe(store, "r1")


def test_racy_store_is_found_out(tmp_path: Path) -> None:
    """
    Create-only that holds in sequence and not in a race is racy.
    """

    class Racy(LocalStore):
        def write_once(self, name: str, data: bytes, *, declare: bytes | None = None) -> Written:
            written = super().write_once(name, data, declare=declare)
            return "stored" if "race" in name else written

    assert "racy" == probe(Racy(tmp_path), "r1").create_only


def test_clock_that_is_wrong(tmp_path: Path) -> None:
    """
    The skew is how far the store's clock is ahead of ours.
    """

    def late() -> datetime:
        return datetime.now(UTC) - timedelta(minutes=10)

    found = probe(LocalStore(tmp_path), "r1", now=late)

    assert found.clock_skew is not None
    assert 598 < found.clock_skew < 602


def test_store_without_a_clock(tmp_path: Path) -> None:
    class NoClock(LocalStore):
        def clock(self) -> datetime:
            raise StoreError("answers without a date")

    found = probe(NoClock(tmp_path), "r1")

    assert (None, None) == (found.clock, found.clock_skew)
    assert ("clock: answers without a date",) == found.notes
