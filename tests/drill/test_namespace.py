"""A network namespace: who is inside reaches nobody outside, and does not outlive who made it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.drill.conftest import ROOT, lives
from tests.zitadel.api import eventually
from tests.zitadel.test_harness import SAYS
from zbackup import inside
from zbackup.errors import NotSupported
from zbackup.namespace import Namespace

KNOCKS = """
import socket, sys
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
    print("connected")
except OSError as exc:
    print(exc.strerror)
"""

LISTENS = """
import socket
with socket.create_server(("127.0.0.1", 8080)) as listener:
    print("ready", flush=True)
    with listener.accept()[0] as connection:
        connection.sendall(b"hello from inside")
"""

HOLDS = """
import subprocess, sys
from zbackup.namespace import Namespace
with Namespace() as namespace:
    print(namespace._holder.pid, flush=True)
    subprocess.run([*namespace.enter, "-", "/bin/sh", "-c", "echo $$; exec sleep 600"])
"""


def tried(namespace: Namespace, host: str, port: int) -> str:
    command = [*namespace.enter, "-", sys.executable, "-c", SAYS, host, str(port)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_who_is_inside_reaches_nobody_outside(namespace: Namespace) -> None:
    """
    Neither another network nor a server on this machine's own loopback.
    """
    with socket.create_server(("127.0.0.1", 0)) as outside:
        assert tried(namespace, "192.0.2.1", 25) == "Network is unreachable"
        assert tried(namespace, "127.0.0.1", outside.getsockname()[1]) == "Connection refused"


def test_who_is_inside_reaches_no_socket_of_a_service(namespace: Namespace, runtime: Path) -> None:
    """
    Those in the file system need no network; that of the drill's own database lies elsewhere, and is reached.
    """
    with tempfile.TemporaryDirectory() as elsewhere, ExitStack() as stack:
        commands: list[list[str]] = []
        for folder in (runtime, Path(elsewhere)):
            path = str(folder / "socket")
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(path)
            listener.listen()
            knock = [sys.executable, "-c", KNOCKS, path]
            commands += [knock, [*namespace.enter, "-", *knock]]
        said = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands]

    assert said == ["connected\n", "No such file or directory\n", "connected\n", "connected\n"]


def test_what_is_hidden_inside_stays_as_it_is_outside(namespace: Namespace, runtime: Path) -> None:
    """
    Nothing is mounted but in the namespace, and its working folder is the one it was started in.
    """
    before = Path("/proc/self/mounts").read_text()
    command = [*namespace.enter, "-", "/bin/sh", "-c", "pwd; ls -A /run /var/run/"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout

    assert said == f"{ROOT}\n/run:\n\n/var/run/:\n"
    assert Path("/proc/self/mounts").read_text() == before
    assert runtime.is_dir()
    with pytest.raises(NotSupported, match=r"^/run/zitadel lies in /run, which is hidden from ZITADEL"):
        namespace.expect_visible(Path("/run/zitadel"), "")


def test_a_server_inside_is_reached_by_who_holds_it(namespace: Namespace) -> None:
    """
    And by nobody else of this machine.
    """
    command = [*namespace.enter, "-", sys.executable, "-c", LISTENS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        assert tried(namespace, "127.0.0.1", 8081) == "Connection refused"
        with pytest.raises(ConnectionRefusedError):
            namespace.connect(8081)
        with namespace.connect(8080) as connection:
            assert connection.recv(100) == b"hello from inside"


def test_two_namespaces_know_nothing_of_each_other(namespace: Namespace) -> None:
    command = [*namespace.enter, "-", sys.executable, "-c", LISTENS]
    with Namespace() as other, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        assert tried(other, "127.0.0.1", 8080) == "Connection refused"
        server.kill()


def test_whoever_runs_inside_stays_who_they_are(namespace: Namespace) -> None:
    command = [*namespace.enter, "-", "id", "-u"]

    assert int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) == os.geteuid()


@pytest.mark.usefixtures("namespace")
def test_nothing_outlives_a_killed_parent() -> None:
    """
    Neither the process that holds the namespace nor one that runs inside.
    """
    command = [sys.executable, "-c", HOLDS]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in ("holder", "inside")]
        assert all(map(lives, pids))
        parent.send_signal(signal.SIGKILL)

    assert eventually(lambda: [pid for pid in pids if lives(pid)], lambda left: not left, 20) == []


def test_where_none_may_be_made_it_says_why(denied: list[str]) -> None:
    """
    And what to do about it.
    """
    code = "from zbackup.namespace import Namespace\ntry: Namespace()\nexcept Exception as e: print(e, e.hint)"
    command = [*denied, sys.executable, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout

    assert said.startswith("no network namespace may be made here: unshare: No space left on device Run it as root")


def test_a_way_out_is_seen() -> None:
    """
    What refuses a namespace with a route would refuse this machine's own network, where it has one.
    """
    routes = Path("/proc/net/route").read_text()
    if "\t00000000\t" not in routes:
        pytest.skip("this machine has no default route itself")

    with pytest.raises(OSError, match=r"there is a route to 192\.0\.2\.1"):
        inside.expect_closed()


def test_other_systems_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    with pytest.raises(NotSupported, match="darwin has no network namespaces"):
        Namespace()
