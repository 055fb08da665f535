"""
The contract of a store, and what moto does not check, on two real S3 servers.

Both check signatures and digests. Swift keeps preconditions, but not when writers race; rclone ignores them.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import pytest

from tests.fix_store import SECRET_KEY
from tests.store_contract import CreateOnly, StoreContract, put
from zbackup.doctor import doctor
from zbackup.errors import AccessDenied, StoreError
from zbackup.init import init
from zbackup.store.probe import probe

if TYPE_CHECKING:
    from tests.fix_store import MakeS3
    from zbackup.store.s3 import S3Store


SERVERS = ("swift", "rclone")


@pytest.fixture(params=SERVERS)
def endpoint(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"{request.param}_endpoint")


@pytest.fixture
def store(make_s3: MakeS3, endpoint: str) -> S3Store:
    return make_s3(endpoint)


class TestSwift(StoreContract, CreateOnly):
    @pytest.fixture
    def store(self, make_s3: MakeS3, swift_endpoint: str) -> S3Store:
        return make_s3(swift_endpoint)


class TestRclone(StoreContract):
    @pytest.fixture
    def store(self, make_s3: MakeS3, rclone_endpoint: str) -> S3Store:
        return make_s3(rclone_endpoint)

    def test_other_bytes_under_a_name_replace_it(self, store: S3Store) -> None:
        """
        What is lost on a server without preconditions: nobody is told that a name was taken.
        """
        put(store, "x", b"some")
        put(store, "x", b"else")

        assert b"else" == store.get("x")
        assert "stored" == store.write_once("x", b"again")


def test_wrong_secret_is_refused(make_s3: MakeS3, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A wrong secret key is AccessDenied (22) in every call, and is never shown.
    """
    bucket = make_s3(endpoint).address.split("/")[2]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-and-secret")
    store = make_s3(endpoint, bucket=bucket)

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


def test_unknown_key_and_missing_bucket(make_s3: MakeS3, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A bucket that is not there and a key nobody knows are told apart.
    """
    with pytest.raises(StoreError, match="NoSuchBucket") as caught:
        list(make_s3(endpoint, bucket="nobody-made-this").list(""))
    assert 20 == caught.value.exit_code

    with pytest.raises(StoreError, match="NoSuchBucket"):
        put(make_s3(endpoint, bucket="nobody-made-this"), "x", b"x")

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody:knows")
    with pytest.raises(AccessDenied):
        list(make_s3(endpoint, bucket="nobody-made-this").list(""))


def test_wrong_digest_is_refused(store: S3Store) -> None:
    """
    Bytes that are not those announced are refused by the server, and nothing is stored.
    """
    assert "refused" == store.write_once("x", b"these", declare=b"those")

    assert store.stat("x") is None


@pytest.mark.parametrize(("endpoint", "create_only"), [("swift", "racy"), ("rclone", "no")], indirect=["endpoint"])
def test_probes_of_real_servers(store: S3Store, create_only: str) -> None:
    """
    The probe finds what is known of these servers: create-only writes racy or ignored, digests checked.
    """
    found = probe(store, "r1")

    assert create_only == found.create_only
    assert ("yes", "yes", "yes", "yes") == (
        found.read_back,
        found.listing,
        found.checksum,
        found.range_read,
    )
    assert found.clock_skew is not None
    assert abs(found.clock_skew) < 5
    assert ((), ()) == (found.notes, found.left)
    assert [] == list(store.list(""))


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [("swift", "from being written twice when writers race"), ("rclone", "from being written twice")],
    indirect=["endpoint"],
)
def test_doctor_names_the_vice(store: S3Store, says: str) -> None:
    """
    Doctor warns of what a server does to preconditions, and fails nothing for it.
    """
    init(store)

    result = doctor(store, None)

    checks = {check.name: check for check in result.checks}
    assert result.ok
    assert ("warn", True) == (checks["create-only"].verdict, checks["create-only"].message.endswith(says))
    assert "ok" == checks["checksum"].verdict


def test_listing_pages(make_s3: MakeS3, endpoint: str) -> None:
    """
    A listing of more than one page is whole and in order.
    """
    store = make_s3(endpoint, page=7)
    wanted = [f"m/{n:03d}" for n in range(23)]
    folders = [f"n/{n:02d}/" for n in range(10)]
    for name in (*wanted, *(f"{folder}{n}" for folder in folders for n in range(3))):
        put(store, name, b"")

    assert wanted == [found.name for found in store.list("m/")]
    assert folders == [found.name for found in store.list("n/", fold=True)]
