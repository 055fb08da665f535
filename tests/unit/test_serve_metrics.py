"""What Prometheus gets of a process over HTTP, and what nobody gets."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.fix_promtool import Promtool
from zbackup import serve_metrics
from zbackup.errors import UsageError
from zbackup.metrics import CONFIRMED, Board, Sample
from zbackup.serve_metrics import MOST_AT_ONCE, address, serve

Answer = tuple[int, str, str]


@pytest.fixture
def board() -> Board:
    board = Board()
    board.update([Sample(CONFIRMED, 1_700_000_000, {"archive": "a"})])
    return board


@pytest.fixture
def at(board: Board) -> Iterator[tuple[str, int]]:
    with serve("127.0.0.1:0", board) as where:
        yield address(where)


def ask(at: tuple[str, int], path: str, method: str = "GET") -> Answer:
    connection = http.client.HTTPConnection(*at, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        connection.close()


def test_prometheus_gets_what_the_board_shows(at: tuple[str, int], board: Board, promtool: Promtool) -> None:
    """
    In the text format, with the lag as of now; a later look shows what came meanwhile.
    """
    status, kind, page = ask(at, "/metrics")
    board.update([Sample("zbackup_backups", 3, {"archive": "a"})])

    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "zbackup_lag_seconds{" in page
    assert promtool("check", "metrics", page=page).returncode == 0
    assert 'zbackup_backups{archive="a"} 3.0' in ask(at, "/metrics?again=1")[2]


def test_there_are_three_pages_and_one_method(at: tuple[str, int]) -> None:
    assert ask(at, "/healthz")[::2] == (200, "alive\n")
    assert 'href="/metrics"' in ask(at, "/")[2]
    assert [ask(at, path)[0] for path in ("/etc/passwd", "/metrics/", "/../metrics")] == [404] * 3
    assert [ask(at, "/metrics", method)[0] for method in ("POST", "PUT", "DELETE", "HEAD")] == [501] * 4


def test_those_who_say_nothing_take_bounded_places(at: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    So many connections are held; the next is turned away at once, and all get their places back in time.
    """
    monkeypatch.setattr(serve_metrics, "LONGEST_SECONDS", 1.0)
    before = threading.active_count()
    with ExitStack() as opened:
        idle = [opened.enter_context(socket.create_connection(at, timeout=10)) for _ in range(MOST_AT_ONCE)]
        for one in idle:
            one.sendall(b"GET /metrics")
        turned_away = opened.enter_context(socket.create_connection(at, timeout=10))
        assert turned_away.recv(1) == b""
        assert threading.active_count() <= before + 2 * MOST_AT_ONCE
        assert [one.recv(100) for one in idle] == [b""] * MOST_AT_ONCE

    assert answered(at)


def answered(at: tuple[str, int]) -> bool:
    """Ask until there is an answer: a place is free a moment after its client knows."""
    for _ in range(200):
        with suppress(ConnectionError, http.client.RemoteDisconnected):
            return ask(at, "/healthz")[0] == 200
        time.sleep(0.05)
    return False


def test_who_cannot_be_answered_takes_no_place(at: tuple[str, int]) -> None:
    """
    While the system gives no thread all are turned away; as soon as it gives some again all places are there.
    """
    usual = threading.stack_size(1 << 47)  # more than there are addresses: no thread can start
    try:
        for _ in range(2 * MOST_AT_ONCE):
            with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
                ask(at, "/healthz")
    finally:
        threading.stack_size(usual)

    assert ask(at, "/healthz")[0] == 200


def test_who_could_not_be_cut_takes_no_place(at: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where only the second thread of an answer, which ends it in time, cannot start, it is the same.
    """

    def none_left(_: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Timer, "start", none_left)
        for _ in range(2 * MOST_AT_ONCE):
            with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
                ask(at, "/healthz")

    assert answered(at)


def test_it_ends_with_its_context(board: Board) -> None:
    """
    Nothing listens any more, and the port is free for the next.
    """
    with serve("127.0.0.1:0", board) as where:
        pass
    with pytest.raises(ConnectionRefusedError):
        ask(address(where), "/metrics")
    with serve(where, board) as again:
        assert again == where


def test_a_port_that_is_taken_is_named(at: tuple[str, int], board: Board) -> None:
    with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{at[1]}"), serve(f"127.0.0.1:{at[1]}", board):
        pass


@pytest.mark.parametrize(
    ("listen", "expected"),
    [("127.0.0.1:9187", ("127.0.0.1", 9187)), ("[::1]:1", ("::1", 1)), (":9187", ("", 9187)), ("host:0", ("host", 0))],
)
def test_addresses(listen: str, expected: tuple[str, int]) -> None:
    assert address(listen) == expected


@pytest.mark.parametrize(
    "listen", ["", "9187", "host", "host:", "host:x", "host:70000", "::1:9187", "[host]:1", "h:-1"]
)
def test_what_is_no_address(listen: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        address(listen)
