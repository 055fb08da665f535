"""ZITADEL's processes in a namespace, with scripts in the place of the binary."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.drill.conftest import lives
from tests.zitadel.api import eventually
from zbackup import startup
from zbackup.errors import ZitadelFailed
from zbackup.namespace import Namespace
from zbackup.startup import Zitadel, expect_fitting
from zbackup.zitadel.copy import ELSEWHERE, Access, External, configuration

MASTERKEY = b"MasterkeyNeedsToHave32Characters"

EXTERNAL = External("login.example.com", 443, secure=True)

ANSWERS = """
import http.server
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{\\"issuer\\": \\"https://one.example.com\\"}")
http.server.HTTPServer(("127.0.0.1", 8080), Answers).serve_forever()
"""


@pytest.fixture
def zitadel(namespace: Namespace, tmp_path: Path) -> Callable[[str], Zitadel]:
    def make(script: str) -> Zitadel:
        path = tmp_path / "zitadel"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return Zitadel(path, namespace, tmp_path, "Port: 8080\n", MASTERKEY)

    return make


def test_a_failed_setup_shows_the_end_of_the_log(zitadel: Callable[[str], Zitadel]) -> None:
    with pytest.raises(ZitadelFailed, match="zitadel setup ended with 3") as failed:
        zitadel("seq 100; echo no such step >&2; exit 3").setup()

    assert failed.value.hint.endswith("\n  99\n  100\n  no such step")
    assert "\n  50\n" not in failed.value.hint


def test_a_start_that_ends_is_not_waited_for(zitadel: Callable[[str], Zitadel]) -> None:
    began = time.monotonic()

    with pytest.raises(ZitadelFailed, match="zitadel start ended with 1"), zitadel("exit 1").running():
        pass

    assert time.monotonic() - began < startup.READY_SECONDS / 10


def test_a_start_that_is_never_ready_is_given_up(
    zitadel: Callable[[str], Zitadel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    And killed, with what it started.
    """
    monkeypatch.setattr(startup, "READY_SECONDS", 1)
    never = zitadel(f"sleep 600 & echo $$ $! > {tmp_path}/pids; wait")

    with pytest.raises(ZitadelFailed, match="was not ready within 1 s"), never.running():
        pass

    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert eventually(lambda: [pid for pid in pids if lives(pid)], lambda left: not left, 20) == []


@pytest.mark.parametrize("code", [0, 3])
def test_what_a_command_leaves_running_is_killed(zitadel: Callable[[str], Zitadel], tmp_path: Path, code: int) -> None:
    """
    However the command itself ended.
    """
    leaving = zitadel(f"sleep 600 & echo $! > {tmp_path}/pid; exit {code}")

    with pytest.raises(ZitadelFailed) if code else nullcontext():
        leaving.setup()

    pid = int((tmp_path / "pid").read_text())
    assert eventually(lambda: lives(pid), lambda living: not living, 20) is False


def test_an_instance_that_is_not_found_is_named(
    zitadel: Callable[[str], Zitadel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The answer must be of the domain that was asked for.
    """
    monkeypatch.setattr(startup, "RESOLVE_SECONDS", 0.5)
    running = zitadel(f"exec {sys.executable} -c '{ANSWERS}'")
    with running.running():
        running.resolve(EXTERNAL, ["one.example.com"])
        with pytest.raises(ZitadelFailed, match=r"no instance of two\.example\.com within 0.5 s, of 2 domains"):
            running.resolve(EXTERNAL, ["one.example.com", "two.example.com"])


def test_secrets_are_neither_arguments_nor_open_to_others(
    zitadel: Callable[[str], Zitadel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    And nothing of our environment goes in: no proxy, no setting of another ZITADEL.
    """
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.1:3128")
    monkeypatch.setenv("ZITADEL_PORT", "9090")
    zitadel('echo "$@" "${#ZITADEL_MASTERKEY}" "$HTTPS_PROXY$ZITADEL_PORT"').setup()

    config = tmp_path / "zitadel.yaml"
    said = (tmp_path / "zitadel.log").read_text()
    assert said == f"setup --masterkeyFromEnv --init-projections=true --config {config} 32 \n"
    assert config.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("zitadel version v4.13.1", "v4.13.1"),
        ("zitadel version 2.71.19 >&2", "v2.71.19"),
        ("v5.0.0-main", "v5.0.0-main"),
        ("of today", None),
    ],
)
def test_a_binary_says_its_version(zitadel: Callable[[str], Zitadel], said: str, version: str | None) -> None:
    assert zitadel(f"echo {said}").version() == version


def test_an_older_binary_is_refused() -> None:
    with pytest.raises(ZitadelFailed, match=r"v2\.71\.19; what was restored needs v4\.13\.1 or newer"):
        expect_fitting("v2.71.19", "v4.13.1")

    expect_fitting("v4.13.1", "v4.13.1")
    expect_fitting(None, "v4.13.1")


def test_the_configuration_is_silent_and_reached_as_the_original_was() -> None:
    """
    The external address, the database by TCP; nothing that reports home, and a deny list that spares loopback.
    """
    read: dict[str, Any] = yaml.safe_load(configuration(EXTERNAL, Access(5432, "scratch", "postgres", "pa: #ss")))
    there = read["Database"]["postgres"]

    assert (read["ExternalDomain"], read["ExternalPort"], read["ExternalSecure"]) == ("login.example.com", 443, True)
    assert (there["Host"], there["Port"], there["Database"]) == ("127.0.0.1", 5432, "scratch")
    assert there["User"]["Password"] == "pa: #ss"
    assert not read["ServicePing"]["Enabled"]
    assert not read["Telemetry"]["Enabled"]
    assert not read["Machine"]["Identification"]["Webhook"]["Enabled"]
    denied = [ip_network(block) for block in ELSEWHERE]
    assert all(any(ip_address(one) in block for block in denied) for one in ("10.0.0.1", "192.0.2.1"))
    assert not any(ip_address("127.0.0.1") in block for block in denied)


@pytest.mark.parametrize(
    ("noted", "host"),
    [
        ({"externalDomain": "x.test", "externalPort": 443, "externalSecure": True}, "i1.x.test"),
        ({"externalDomain": "x.test", "externalPort": 18100, "externalSecure": False}, "i1.x.test:18100"),
        ({"externalDomain": "x.test", "externalPort": 80, "externalSecure": False}, "i1.x.test"),
        ({}, "i1.x.test"),
    ],
)
def test_a_domain_is_asked_for_as_a_browser_does(noted: dict[str, object], host: str) -> None:
    assert External.of(noted, "x.test").host("i1.x.test") == host
    assert External.of(noted, "x.test").domain == "x.test"
