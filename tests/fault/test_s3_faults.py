"""What breaks between zbackup and an S3 server, and what becomes of the write or the read."""

from __future__ import annotations

import socket
import traceback
from typing import TYPE_CHECKING

import pytest

from tests.fix_store import BUCKET, QUICK
from tests.store_contract import names, put
from zbackup.errors import AccessDenied, CommitUnknown, ObjectMissing, StoreError, StoreFull, StoreUnreachable
from zbackup.progress import Progress, Retrying
from zbackup.store.s3 import S3Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fix_s3_proxy import FaultyProxies, FaultyProxy
    from tests.fix_store import MakeS3

BIG = bytes(i * 11 % 253 for i in range(200_003)) * 5


@pytest.fixture
def proxy(faulty: FaultyProxies, moto_endpoint: str) -> FaultyProxy:
    return faulty(moto_endpoint)


@pytest.fixture
def store(make_s3: MakeS3, moto_endpoint: str, proxy: FaultyProxy) -> S3Store:
    make_s3(moto_endpoint)  # the bucket
    return make_s3(proxy.endpoint, bucket=BUCKET)


def test_put_recognises_its_own_lost_answer(store: S3Store, proxy: FaultyProxy) -> None:
    """
    An object whose answer was lost is found by reading it back, and not sent again.
    """
    proxy.arm("lose answer", "PUT")

    put(store, "x", BIG)

    assert BIG == store.get("x")
    assert ["PUT!", "GET"] == proxy.seen[:2]


def test_put_is_sent_again_when_it_did_not_arrive(store: S3Store, proxy: FaultyProxy) -> None:
    """
    A write in doubt that is not there is sent again, whole.
    """
    proxy.arm("refuse", "PUT", status=500)

    put(store, "x", BIG)

    assert ["PUT!", "GET", "PUT"] == proxy.seen
    assert BIG == store.get("x")


def test_put_believes_an_error_only_after_reading_back(store: S3Store, proxy: FaultyProxy) -> None:
    """
    A gateway's 502 about a write that the server did is found out.
    """
    proxy.arm("answer instead", "PUT", status=502, code="")

    put(store, "x", b"body")

    assert ["PUT!", "GET"] == proxy.seen


def test_412_about_our_own_object(store: S3Store, proxy: FaultyProxy) -> None:
    """
    "Exists already" about our own object is success: something repeated the request.
    """
    proxy.arm("answer instead", "PUT", status=412, code="PreconditionFailed")

    put(store, "x", b"body")

    assert ["PUT!", "GET"] == proxy.seen


def test_lost_answer_about_a_name_that_others_hold(store: S3Store, proxy: FaultyProxy) -> None:
    """
    A lost answer does not make another's object ours.
    """
    put(store, "x", b"theirs")
    proxy.arm("lose answer", "PUT")

    with pytest.raises(StoreError, match="exists with other content"):
        put(store, "x", b"ours..")

    assert b"theirs" == store.get("x")


def test_slow_down_twice(make_s3: MakeS3, proxy: FaultyProxy, store: S3Store) -> None:
    """
    A busy store is asked again, without reading back, and the repetitions are reported.
    """
    told: list[Progress] = []
    patient = make_s3(proxy.endpoint, bucket=BUCKET, report=told.append)
    proxy.arm("refuse", "PUT", times=2, status=503, code="SlowDown")

    put(patient, "x", b"body")

    assert ["PUT!", "PUT!", "PUT"] == proxy.seen
    assert [1, 2] == [t.attempt for t in told if isinstance(t, Retrying)]
    assert all("SlowDown" in t.reason for t in told if isinstance(t, Retrying))


def test_slow_down_for_ever(store: S3Store, proxy: FaultyProxy) -> None:
    """
    Turned away every time, the object is not stored, and that is certain.
    """
    proxy.arm("refuse", "PUT", times=99, status=503, code="SlowDown")

    with pytest.raises(StoreUnreachable, match="SlowDown") as caught:
        put(store, "x", b"body")

    assert 20 == caught.value.exit_code
    assert QUICK.tries == len(proxy.seen)


def test_unknown_when_nothing_answers_any_more(store: S3Store, proxy: FaultyProxy) -> None:
    """
    A write that may have arrived, on a store that cannot be asked, ends as unknown.
    """
    proxy.arm("lose answer", "PUT", times=99)
    proxy.arm("refuse", "GET", times=99, status=503, code="ServiceUnavailable")

    with pytest.raises(CommitUnknown, match="not known") as caught:
        put(store, "x", b"body")

    assert 23 == caught.value.exit_code
    assert "PUT" not in proxy.seen
    proxy.faults.clear()
    assert b"body" == store.get("x")


def test_unknown_when_reading_back_is_denied(store: S3Store, proxy: FaultyProxy) -> None:
    """
    A denied read-back says nothing about the write.
    """
    proxy.arm("lose answer", "PUT")
    proxy.arm("refuse", "GET", times=99, status=403, code="ExpiredToken")

    with pytest.raises(CommitUnknown, match="ExpiredToken"):
        put(store, "x", b"body")


def test_not_stored_when_the_last_look_finds_nothing(store: S3Store, proxy: FaultyProxy) -> None:
    """
    Errors to the end and nothing there: not stored, and not unknown.
    """
    proxy.arm("refuse", "PUT", times=99, status=500)

    with pytest.raises(StoreUnreachable, match="InternalError"):
        put(store, "x", b"body")

    assert "GET" == proxy.seen[-1]


def test_body_damaged_on_the_way_is_sent_again(store: S3Store, proxy: FaultyProxy) -> None:
    """
    A digest refused by the server means damage on the way, for we checked the body.
    """
    proxy.arm("refuse", "PUT", status=400, code="BadDigest")

    put(store, "x", BIG)

    assert BIG == store.get("x")


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "NotImplemented")])
def test_server_without_preconditions(store: S3Store, proxy: FaultyProxy, status: int, code: str) -> None:
    """
    A server that refuses If-None-Match is written to without it, after a look.
    """
    proxy.arm("refuse", "PUT", times=99, status=status, code=code, header="if-none-match")

    put(store, "x", b"body")
    put(store, "x", b"body")
    with pytest.raises(StoreError, match="exists with other content"):
        put(store, "x", b"else")

    assert b"body" == store.get("x")
    assert 1 == proxy.seen.count("PUT!")
    assert 1 == proxy.seen.count("PUT")


def test_without_preconditions_a_failed_look_leaves_no_doubt(store: S3Store, proxy: FaultyProxy) -> None:
    """
    When even the look before writing fails, nothing was sent, and that is certain.
    """
    proxy.arm("refuse", "PUT", times=99, status=501, code="NotImplemented", header="if-none-match")
    proxy.arm("refuse", "GET", times=99, status=500)

    with pytest.raises(StoreUnreachable, match="InternalError"):
        put(store, "x", b"body")

    assert "PUT" not in proxy.seen


def test_server_that_ignores_preconditions(store: S3Store, proxy: FaultyProxy) -> None:
    """
    On a server that ignores If-None-Match the same object may be put again.
    """
    proxy.arm("ignore", "PUT", times=99, header="if-none-match")

    put(store, "x", b"body")
    put(store, "x", b"body")

    assert b"body" == store.get("x")


@pytest.mark.parametrize("cut", [0, 1, 70_001])
def test_stream_goes_on_where_it_broke(store: S3Store, proxy: FaultyProxy, cut: int) -> None:
    """
    A stream whose connection breaks again and again still ends complete.
    """
    put(store, "x", BIG)
    proxy.arm("cut body", "GET", times=3, cut=cut)

    with store.open("x") as stream:
        blocks = list(iter(lambda: stream.read(50_000), b""))

    assert BIG == b"".join(blocks)
    assert 3 == proxy.seen.count("GET!")


def test_get_and_read_go_on_where_they_broke(store: S3Store, proxy: FaultyProxy) -> None:
    put(store, "x", BIG)
    proxy.arm("cut body", "GET", times=2, cut=1000)
    assert BIG == store.get("x")

    proxy.arm("cut body", "GET", times=2, cut=1000)
    assert BIG[7:90_000] == store.read("x", 7, 89_993)


def test_breaks_without_end_are_an_error(store: S3Store, proxy: FaultyProxy) -> None:
    """
    A stream that gets no further ends in an error, never short.
    """
    put(store, "x", BIG)
    proxy.arm("cut body", "GET", cut=10)
    proxy.arm("cut body", "GET", times=99, cut=0)

    with store.open("x") as stream, pytest.raises(StoreUnreachable):
        stream.read()

    assert 1 + QUICK.tries >= proxy.seen.count("GET!")


def test_replaced_object_is_not_continued(
    store: S3Store, proxy: FaultyProxy, make_s3: MakeS3, moto_endpoint: str
) -> None:
    """
    A stream is not continued with the bytes of another object.
    """
    put(store, "x", BIG)
    proxy.arm("cut body", "GET", cut=100_000)
    prefix = store.address.removeprefix(f"s3://{BUCKET}/")
    other = make_s3(moto_endpoint, bucket=BUCKET, prefix=prefix)

    with store.open("x") as stream:
        assert BIG[:1000] == stream.read(1000)
        other.delete("x")
        put(other, "x", BIG[::-1])
        with pytest.raises(StoreError, match="replaced while it was read"):
            stream.read()


def test_server_that_ignores_ranges(store: S3Store, proxy: FaultyProxy) -> None:
    """
    A whole object in place of a part of it is an error, not the wrong bytes.
    """
    put(store, "x", b"0123456789")
    proxy.arm("ignore", "GET", header="range")

    with pytest.raises(StoreError, match="part of an object"):
        store.read("x", 3, 4)


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_other_calls_are_repeated(store: S3Store, proxy: FaultyProxy, method: str) -> None:
    """
    Reads, listings and deletions outlive a bad moment of the store.
    """
    acts: dict[str, Callable[[], object]] = {
        "GET": lambda: (store.get("x"), names(store)),
        "HEAD": lambda: store.stat("x"),
        "DELETE": lambda: store.delete("x"),
    }
    for status, code in ((503, "SlowDown"), (500, "InternalError"), (429, ""), (502, "")):
        put(store, "x", b"body")
        proxy.arm("refuse", method, status=status, code=code)
        acts[method]()
    put(store, "x", b"body")
    proxy.arm("lose answer", method)
    acts[method]()

    assert 5 == proxy.seen.count(f"{method}!")


@pytest.mark.parametrize(
    ("status", "code", "kind", "exit_code"),
    [
        (403, "AccessDenied", AccessDenied, 22),
        (403, "InvalidAccessKeyId", AccessDenied, 22),
        (400, "ExpiredToken", AccessDenied, 22),
        (403, "RequestTimeTooSkewed", AccessDenied, 22),
        (403, "", AccessDenied, 22),
        (403, "QuotaExceeded", StoreFull, 24),
        (507, "XMinioStorageFull", StoreFull, 24),
        (507, "", StoreFull, 24),
        (404, "NoSuchBucket", StoreError, 20),
        (400, "AuthorizationHeaderMalformed", StoreError, 20),
        (400, "InvalidWhatever", StoreError, 20),
    ],
)
def test_answers_that_no_repetition_helps(
    store: S3Store, proxy: FaultyProxy, status: int, code: str, kind: type[StoreError], exit_code: int
) -> None:
    """
    What repeating cannot help is raised at once, in its class, with the object's name.
    """
    proxy.arm("refuse", "PUT", times=99, status=status, code=code)

    with pytest.raises(StoreError, match="some/name") as caught:
        put(store, "some/name", b"body")

    assert kind is type(caught.value)
    assert exit_code == caught.value.exit_code
    assert ["PUT!"] == proxy.seen


def test_nobody_there(aws_env: None) -> None:
    """
    A store nobody answers for is unreachable, for certain unwritten, and the reason is said.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    store = S3Store("bucket", endpoint=endpoint, addressing="path", retry=QUICK)

    for act in (lambda: put(store, "x", b"x"), lambda: store.get("x"), lambda: names(store)):
        with pytest.raises(StoreUnreachable, match=r"cannot connect .*refused"):
            act()
    store.close()


def test_keys_that_cannot_be_sent_are_not_shown(
    make_s3: MakeS3, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Keys with a line end are refused at once, and are in no message or traceback.
    """
    make_s3(moto_endpoint)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "secret-token\n")
    store = make_s3(moto_endpoint)

    with pytest.raises(AccessDenied, match="cannot be sent") as caught:
        put(store, "x", b"x")

    assert "secret-t" not in "".join(traceback.format_exception(caught.value)) + caught.value.hint


def test_settings_that_are_missing(monkeypatch: pytest.MonkeyPatch, aws_env: None) -> None:
    """
    No keys and no such profile are errors of ours, with a hint.
    """
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = S3Store("bucket", endpoint="http://127.0.0.1:9", addressing="path", retry=QUICK)
    with pytest.raises(AccessDenied, match="no credentials"):
        store.get("x")
    store.close()

    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreError, match="profile"):
        S3Store("bucket", retry=QUICK)


def test_missing_object_is_not_asked_for_again(store: S3Store, proxy: FaultyProxy) -> None:
    with pytest.raises(ObjectMissing):
        store.get("x")

    assert ["GET"] == proxy.seen
