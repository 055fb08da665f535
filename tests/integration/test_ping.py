"""Pings: what is asked for, how often, and that nothing of it takes longer than it may."""

from __future__ import annotations

import base64
import io
import socket
import time
from http.client import HTTPMessage
from urllib.request import Request

import pytest

from tests.fix_pings import Pings
from zbackup.ping import BODY_BYTES, REDIRECTS, Event, Redirects, ping


@pytest.mark.parametrize(
    ("query", "event", "path"),
    [
        ("", "start", "/a-secret-uuid/start"),
        ("/", "start", "/a-secret-uuid/start"),
        ("?rid=1", "fail", "/a-secret-uuid/fail?rid=1"),
        ("?rid=1", "success", "/a-secret-uuid?rid=1"),
    ],
)
def test_each_event_has_its_path(pings: Pings, query: str, event: Event, path: str) -> None:
    """
    Before what follows a question mark.
    """
    assert ping(pings.url + query, event) is None

    assert pings.got == [("GET", path, "")]


def test_a_reason_travels_as_a_short_body(pings: Pings) -> None:
    """
    With POST, in UTF-8, and no more of it than services keep.
    """
    assert ping(pings.url, "fail", "ü" * 5000) is None

    method, path, body = pings.got[0]
    assert (method, path) == ("POST", "/a-secret-uuid/fail")
    assert body == "ü" * (BODY_BYTES // 2)
    assert "utf-8" in pings.headers[0]["Content-Type"]


def test_a_reason_may_hold_bytes_that_are_no_text(pings: Pings) -> None:
    """
    As the name of a file may: they are written as escapes.
    """
    assert ping(pings.url, "fail", "no\udcff") is None

    assert pings.got[0][2] == "no\\udcff"


def test_a_user_is_told_as_http_wants_it(pings: Pings) -> None:
    """
    A name and a password in the URL become a header.
    """
    assert ping(pings.url.replace("http://", "http://me:p%40ss@"), "success") is None

    assert base64.b64decode(pings.headers[0]["Authorization"].removeprefix("Basic ")) == b"me:p@ss"


def test_a_redirect_of_the_same_server_keeps_all(pings: Pings) -> None:
    """
    Method, body and user, with 307 and 308; so often, and no more.
    """
    url = pings.url.replace("http://", "http://me@")
    for status in (307, 308):
        pings.got.clear()
        pings.answers, pings.location = [status], "/moved"
        assert ping(url, "fail", "why") is None
        assert pings.got == [("POST", "/a-secret-uuid/fail", "why"), ("POST", "/moved", "why")]
        assert "Authorization" in pings.headers[-1]

    pings.got.clear()
    pings.answers = [307] * 99
    assert ping(url, "success") == "the answer was 307"
    assert len(pings.got) <= 3 * (REDIRECTS + 1)


def test_another_server_is_not_told_the_user(pings: Pings) -> None:
    """
    Another host or port gets the ping and its body, without the header.
    """
    pings.answers, pings.location = [307], pings.url.replace("127.0.0.1", "localhost") + "/other"

    assert ping(pings.url.replace("http://", "http://me@"), "fail", "why") is None

    assert pings.got[1] == ("POST", "/a-secret-uuid/other", "why")
    assert ["Authorization" in headers for headers in pings.headers] == [True, False]


@pytest.mark.parametrize(
    ("before", "after", "followed"),
    [("https", "http", False), ("https", "https", True), ("http", "https", True), ("http", "ftp", False)],
)
def test_what_was_asked_by_https_is_not_asked_by_http(before: str, after: str, followed: bool) -> None:
    """
    Nor by anything else than HTTP.
    """
    request = Request(f"{before}://h/", headers={"Authorization": "Basic x"})  # noqa: S310
    new = Redirects().redirect_request(request, io.BytesIO(), 302, "", HTTPMessage(), f"{after}://h/")

    assert (new is not None) == followed
    assert new is None or new.has_header("Authorization") == (before == after)


@pytest.mark.parametrize(
    ("answers", "told", "asked"), [([503] * 2, None, 3), ([404] * 3, "the answer was 404", 3), ([], None, 1)]
)
def test_it_is_tried_again_shortly(pings: Pings, answers: list[int], told: str | None, asked: int) -> None:
    """
    After an error; three times in all.
    """
    pings.answers = answers

    assert ping(pings.url, "success") == told
    assert len(pings.got) == asked


def test_nobody_is_waited_for_longer_than_allowed(pings: Pings) -> None:
    """
    A server that takes the connection and stays silent, one that trickles, one that is not there.
    """
    for answer in (0, -1):
        pings.answers = [answer] * 3
        begun = time.monotonic()
        assert "no answer within" in (ping(pings.url, "success", seconds=0.6) or "")
        assert time.monotonic() - begun < 20

    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert ping(f"http://127.0.0.1:{port}/a-secret-uuid", "success", seconds=3) == "Connection refused"
