"""The contract of a store, and what moto does not check, on a real S3 server."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import pytest

from tests.fix_store import SECRET_KEY
from tests.store_contract import StoreContract, put
from zbackup.errors import AccessDenied, StoreError
from zbackup.store.probe import probe

if TYPE_CHECKING:
    from tests.fix_store import MakeS3
    from zbackup.store.s3 import S3Store


@pytest.fixture
def swift_store(make_s3: MakeS3, swift_endpoint: str) -> S3Store:
    return make_s3(swift_endpoint)


class TestSwift(StoreContract):
    @pytest.fixture
    def store(self, swift_store: S3Store) -> S3Store:
        return swift_store


def test_wrong_secret_is_refused(make_s3: MakeS3, swift_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A wrong secret key is AccessDenied (22) in every call, and is never shown.
    """
    bucket = make_s3(swift_endpoint).address.split("/")[2]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-and-secret")
    store = make_s3(swift_endpoint, bucket=bucket)

    for act in (
        lambda: put(store, "x", b"x"),
        lambda: store.get("x"),
        lambda: store.stat("x"),
        lambda: list(store.list("")),
        lambda: store.delete("x"),
        lambda: store.write_once("x", b"x"),
        store.clock,
    ):
        with pytest.raises(AccessDenied) as caught:
            act()
        assert 22 == caught.value.exit_code
        assert caught.value.hint
        shown = "".join(traceback.format_exception(caught.value))
        assert "wrong-and-secret" not in shown
        assert SECRET_KEY not in shown.replace("store_contract", "")


def test_unknown_key_and_missing_bucket(make_s3: MakeS3, swift_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A bucket that is not there and a key nobody knows are told apart.
    """
    with pytest.raises(StoreError, match="NoSuchBucket") as caught:
        list(make_s3(swift_endpoint, bucket="nobody-made-this").list(""))
    assert 20 == caught.value.exit_code

    with pytest.raises(StoreError, match="NoSuchBucket"):
        put(make_s3(swift_endpoint, bucket="nobody-made-this"), "x", b"x")

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody:knows")
    with pytest.raises(AccessDenied):
        list(make_s3(swift_endpoint, bucket="nobody-made-this").list(""))


def test_wrong_digest_is_refused(swift_store: S3Store) -> None:
    """
    Bytes that are not those announced are refused by the server, and nothing is stored.
    """
    assert "refused" == swift_store.write_once("x", b"these", declare=b"those")

    assert swift_store.stat("x") is None


def test_probes_of_a_real_server(swift_store: S3Store) -> None:
    """
    The probe finds what is known of this server: racy create-only writes, digests checked.
    """
    found = probe(swift_store, "r1")

    assert "racy" == found.create_only
    assert ("yes", "yes", "yes", "yes") == (
        found.read_back,
        found.listing,
        found.checksum,
        found.range_read,
    )
    assert found.clock_skew is not None
    assert abs(found.clock_skew) < 5
    assert ((), ()) == (found.notes, found.left)
    assert [] == list(swift_store.list(""))


def test_listing_pages(make_s3: MakeS3, swift_endpoint: str) -> None:
    """
    A listing of more than one page is whole and in order.
    """
    store = make_s3(swift_endpoint, page=7)
    wanted = [f"m/{n:03d}" for n in range(23)]
    for name in wanted:
        put(store, name, b"")

    assert wanted == [found.name for found in store.list("m/")]
