"""What the suite stands on, without a binary: network, sinks, configuration, processes, tokens, truths."""

from __future__ import annotations

import base64
import os
import re
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
import yaml

from tests import fix_postgres, fixture_data
from tests.zitadel import past, tokens
from tests.zitadel.api import eventually, request
from tests.zitadel.conftest import Program, needs_full
from tests.zitadel.network import Network
from tests.zitadel.server import Zitadel, ZitadelFailed, configuration, version_of
from tests.zitadel.sinks import Call, Mail, MailSink, WebhookSink, serving
from tests.zitadel.truth import Answers, answers, differences, read_truth
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.zitadel.copy import ELSEWHERE, LOOPBACK, External

every_fixture = pytest.mark.parametrize("version", fixture_data.VERSIONS)

SAYS = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
    print("connected")
except OSError as exc:
    print(exc.strerror)
"""
"""tries to connect and says what came of it"""


@pytest.fixture
def zitadel(network: Network, program: Program, tmp_path: Path) -> Callable[[str], Zitadel]:
    """Configure a script as if it were the binary; ZITADEL's port is one that nobody listens at."""

    def make(script: str) -> Zitadel:
        with socket.create_server((LOOPBACK, 0)) as listener:
            port = listener.getsockname()[1]
        return Zitadel(program(script), network, tmp_path, {"Port": port})

    return make


def test_a_process_inside_reaches_nothing_outside(closed: Network) -> None:
    """
    Neither another network nor a server on this machine's own loopback.
    """
    with socket.create_server((LOOPBACK, 0)) as outside:
        port = outside.getsockname()[1]
        assert tried(closed, "192.0.2.1", 443) == "Network is unreachable"
        assert tried(closed, LOOPBACK, port) == "Connection refused"


def test_a_process_inside_reaches_what_is_inside(network: Network) -> None:
    with network.call(socket.create_server, (LOOPBACK, 0)) as inside:
        assert tried(network, LOOPBACK, inside.getsockname()[1]) == "connected"


def test_a_database_inside_is_reached_from_both_sides(network: Network) -> None:
    """
    ZITADEL comes with a password over TCP, the tests through the socket.
    """
    if not fix_postgres.VERSIONS:
        pytest.skip("no PostgreSQL server on this machine")
    server = EmbeddedPostgres(version=fix_postgres.VERSIONS[0], settings=fix_postgres.SETTINGS, port=0)
    try:
        network.call(server.start)
        with psycopg.connect(server.dsn()) as outside:
            outside.execute("SELECT")
        network.call(psycopg.connect, server.dsn(tcp=True)).close()
        if not network.why_open:
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(server.dsn(tcp=True))
    finally:
        server.close()


def test_the_deny_list_leaves_loopback_alone() -> None:
    """
    Where no namespace can be had, outgoing calls are denied but those to the sinks.
    """
    denied = [ip_network(block) for block in ELSEWHERE]

    assert all(
        any(ip_address(one) in block for block in denied) for one in ("10.0.0.1", "126.255.255.255", "192.0.2.1")
    )
    assert not any(ip_address(LOOPBACK) in block for block in denied)


@every_fixture
def test_every_mail_server_of_a_fixture_is_on_loopback(version: str) -> None:
    """
    Mail has no deny list.
    """
    log = log_of(version)

    assert past.mail_ports(log)
    assert all(server.startswith(f"{LOOPBACK}:") for server in past.mail_servers(log))


def test_mails_end_in_the_sink(network: Network) -> None:
    with serving(network, MailSink) as sink:
        send(network, sink.port, ["a@mail.test", "b@mail.test"], "Subject: one\r\n\r\nA line\r\n.\r\n..\r\n")
        send(network, sink.port, ["c@mail.test"], "Subject: =?utf-8?q?zw=C3=B6lf?=\r\n\r\n")
        got = eventually(lambda: sink.got, lambda got: len(got) == 2, 10)

    assert got == (Mail(("a@mail.test", "b@mail.test"), "one"), Mail(("c@mail.test",), "zwölf"))


def test_a_connection_without_a_mail_is_no_silence(network: Network) -> None:
    with serving(network, MailSink) as sink:
        network.call(socket.create_connection, (LOOPBACK, sink.port)).close()
        got = eventually(lambda: sink.got, bool, 10)

    assert got == (Mail(),)


def test_webhooks_end_in_the_sink(network: Network) -> None:
    with serving(network, WebhookSink) as sink:
        said = request(network, sink.port, "POST", "/hook/0?a=b", '{"ä": 1}'.encode())

    assert (said.status, said.text) == (200, "{}")
    assert sink.got == (Call("POST", "/hook/0?a=b", '{"ä": 1}'),)


def test_a_failed_setup_shows_the_end_of_the_log(zitadel: Callable[[str], Zitadel]) -> None:
    with pytest.raises(ZitadelFailed, match=r"setup ended with 3\n(.*\n)*no such step") as failed:
        zitadel("seq 100; echo no such step >&2; exit 3").setup()

    assert "\n50\n" not in str(failed.value)


def test_a_start_that_ends_is_not_waited_for(zitadel: Callable[[str], Zitadel]) -> None:
    began = time.monotonic()

    with pytest.raises(ZitadelFailed, match=r"start ended with 1\nno key"), zitadel("echo no key; exit 1").running():
        pass

    assert time.monotonic() - began < 10


def test_a_start_that_is_never_ready_is_given_up(zitadel: Callable[[str], Zitadel], tmp_path: Path) -> None:
    never = zitadel(f"echo $$ > {tmp_path}/pid; exec sleep 600")

    with pytest.raises(ZitadelFailed, match="not ready within 1 s"), never.running(ready_seconds=1):
        pass

    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_ready_is_what_the_server_says(network: Network, zitadel: Callable[[str], Zitadel]) -> None:
    """
    Starting waits for /debug/ready, and the process ends with the block.
    """
    stand_in = zitadel("exec sleep 600")

    with serving(network, WebhookSink, stand_in.port) as sink, stand_in.running():
        assert sink.got[0] == Call("GET", "/debug/ready", "")


def test_secrets_are_neither_arguments_nor_open_to_others(zitadel: Callable[[str], Zitadel], tmp_path: Path) -> None:
    zitadel('echo "$@" "${#ZITADEL_MASTERKEY}"').setup("--for-mirror")

    config = tmp_path / "zitadel.yaml"
    assert (tmp_path / "zitadel.log").read_text() == f"setup --masterkeyFromEnv --for-mirror --config {config} 32\n"
    assert config.stat().st_mode & 0o077 == 0


def test_the_configuration_is_what_zitadel_reads(
    network: Network, postgres: EmbeddedPostgres, program: Program, tmp_path: Path
) -> None:
    """
    The original's address, the database by TCP, and nothing that reports home.
    """
    external = External("localhost", 18100, secure=False)
    Zitadel(program(""), network, tmp_path, configuration(postgres, "restored", external)).init()

    read: dict[str, Any] = yaml.safe_load((tmp_path / "zitadel.yaml").read_text())
    there = read["Database"]["postgres"]
    assert (read["ExternalDomain"], read["ExternalPort"], read["ExternalSecure"]) == ("localhost", 18100, False)
    assert (there["Host"], there["Port"], there["Database"]) == (LOOPBACK, postgres.port, "restored")
    assert not read["ServicePing"]["Enabled"]
    assert not read["Telemetry"]["Enabled"]
    assert not read["Machine"]["Identification"]["Webhook"]["Enabled"]


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("zitadel version v4.13.1", "v4.13.1"),
        ("zitadel version 2.71.19 >&2", "v2.71.19"),
        ("v5.0.0-main", "v5.0.0-main"),
    ],
)
def test_a_binary_says_its_version(program: Program, said: str, version: str) -> None:
    assert version_of(program(f"echo {said}")) == version


@every_fixture
def test_keys_open_what_the_events_hold(version: str) -> None:
    """
    The masterkey opens the keys, and these every encrypted value.
    """
    keys = keys_of(version)
    texts = [
        tokens.decrypt(keys[key], crypted).decode()
        for event in log_of(version)
        for key, crypted in encrypted(event.payload)
    ]

    assert texts


@every_fixture
def test_a_minted_token_is_of_its_user(version: str) -> None:
    """
    It is base64url without padding, and says nothing under another key.
    """
    token = next(iter(past.owner_tokens(log_of(version)).values()))
    key = keys_of(version)[tokens.OIDC_KEY]

    minted = tokens.mint(key, token.id, token.user)

    assert re.fullmatch(r"[\w-]+", minted)
    assert tokens.read(key, minted) == (token.id, token.user)
    with pytest.raises(ValueError, match="decode"):
        tokens.read(keys_of(version)["samlKey"], minted)


@every_fixture
@needs_full
def test_every_instant_has_what_the_tests_act_on(version: str) -> None:
    """
    An old token for each instance of each truth, people to sign in, names given up, tokens taken back.
    """
    for truth in fixture_data.truths(version, full=True)[1:]:
        log, instances = past.log_at(version, truth.label), read_truth(version, truth.label)
        owners = past.owner_tokens(log)

        assert all(instance.id in owners for instance in instances.values())
        assert len(instances["alpha"].people) > 4
        assert past.removed_users(log)
        assert past.revoked_tokens(log)
        assert past.loopback_endpoints(log)
        assert all(server.startswith(f"{LOOPBACK}:") for server in past.mail_servers(log))


@every_fixture
def test_versions_are_those_the_servers_recorded(version: str) -> None:
    said = past.zitadel_version(log_of(version))

    assert said == ("v5.0.0-main" if version == "main" else version)


def test_a_difference_names_the_object() -> None:
    """
    What is missing, what should not be there, and each field that changed; order and volatile fields do not count.
    """
    was = said(
        {"id": "1", "name": "Org", "details": {"resourceOwner": "1"}},
        {
            "userId": "2",
            "preferredLoginName": "ada",
            "loginNames": ["a", "b"],
            "human": {"email": {"isVerified": True}},
        },
        {"userId": "3", "preferredLoginName": "bob"},
    )
    now = said(
        {"id": "1", "name": "Örg", "details": {"resourceOwner": "1", "sequence": "7", "changeDate": "now"}},
        {"userId": "2", "preferredLoginName": "ada", "loginNames": ["b", "a"], "human": {"email": {}}},
        {"userId": "4", "preferredLoginName": "eve"},
    )

    assert differences(was, was) == []
    assert differences(was, now) == [
        'organisation 1 (Org): name is "Örg", was "Org"',
        "user 2 (ada): human.email.isVerified is absent, was true",
        "user 3 (bob) is missing",
        "user 4 (eve) should not be there",
    ]


@needs_full
def test_instants_differ() -> None:
    """
    The truths of two instants are told apart, and each equals itself.
    """
    early, late = (read_truth("v4.13.1", label)["alpha"].answers for label in ("T4-configured", "T7-end"))

    assert differences(late, late) == []
    assert len(differences(early, late)) > 100


def log_of(version: str) -> past.Log:
    """Return the log of the last instant that the compact fixtures hold."""
    return past.log_at(version, fixture_data.truths(version)[-1].label, full=False)


def keys_of(version: str) -> dict[str, bytes]:
    rows = fixture_data.table(version, "system.encryption_keys")
    return {row["id"]: tokens.open_key(row["key"]) for row in rows}


def encrypted(payload: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Find what is encrypted in a payload: the id of its key, and IV and ciphertext."""
    if "Crypted" in payload:
        yield payload["KeyID"], base64.b64decode(payload["Crypted"])
    for part in payload.values():
        if isinstance(part, dict):
            yield from encrypted(cast("dict[str, Any]", part))


def tried(network: Network, host: str, port: int) -> str:
    """Let a process inside connect, and return what it says."""
    command = [sys.executable, "-c", SAYS, host, str(port)]
    return network.call(subprocess.run, command, capture_output=True, text=True, check=True).stdout.strip()


def send(network: Network, port: int, recipients: list[str], message: str) -> None:
    with network.call(smtplib.SMTP, LOOPBACK, port) as client:
        client.sendmail("zitadel@localhost", recipients, message)


def said(organisation: dict[str, Any], *users: dict[str, Any]) -> Answers:
    return answers([organisation], list(users), [])
