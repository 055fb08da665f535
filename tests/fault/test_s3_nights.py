"""Nights on which a bucket is full, gone, or takes our keys no more."""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli import conftest as cli
from tests.cli.conftest import Ran, Zbackup
from tests.fault.nights import Night, failed, grow, lived_in
from tests.fix_disk import zbackup_while
from tests.fix_s3_proxy import FaultyProxies, FaultyProxy
from tests.fix_store import bare_client

bare, zbackup = cli.bare, cli.zbackup

pytestmark = pytest.mark.slow

EVER = 10_000
"""times that a fault meets a request: as long as it is armed"""


@pytest.fixture
def proxy(moto_endpoint: str, faulty: FaultyProxies) -> FaultyProxy:
    return faulty(moto_endpoint)


@pytest.fixture
def bucket(bare: Path, moto_endpoint: str, aws_env: None) -> Iterator[str]:
    """A bucket of the test's own."""
    name = f"night-{uuid.uuid4().hex}"
    with contextlib.closing(bare_client(moto_endpoint)) as client:
        client.create_bucket(Bucket=name)
        yield name


@pytest.fixture
def night(
    bucket: str,
    proxy: FaultyProxy,
    zbackup: Zbackup,
    new_database: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> Night:
    """An archive in the bucket that has one backup."""
    monkeypatch.setenv("ZBACKUP_S3_ENDPOINT", proxy.endpoint)
    monkeypatch.setenv("ZBACKUP_S3_ADDRESSING", "path")
    source = lived_in(new_database(), users=60)
    night = Night(zbackup, new_database, source, f"s3://{bucket}/archive", proxy.endpoint)
    assert night.init().code == 0
    night.made()
    grow(source, 1000, 200)
    return night


QUOTA = "Raise the quota"

KEYS = "Check the access key"

FRESH = "Get fresh credentials"

RIGHTS = "Check the policy"


REFUSALS = (
    (403, "QuotaExceeded", 24, QUOTA),
    (507, "InsufficientStorage", 24, QUOTA),
    (413, "EntityTooLarge", 24, "quota may be used up"),
    (400, "ExpiredToken", 22, FRESH),
    (403, "InvalidAccessKeyId", 22, KEYS),
    (403, "SignatureDoesNotMatch", 22, KEYS),
    (403, "AccessDenied", 22, RIGHTS),
)


def test_puts_that_are_refused(night: Night, proxy: FaultyProxy) -> None:
    """
    A bucket that takes nothing any more ends the backup by its reason; what was there stays, and can be read.
    """
    for number, (status, code, exit_code, hint) in enumerate(REFUSALS):
        # A run takes over what the ones before it stored, so that it soon has little to put.
        proxy.arm("refuse", "PUT", times=EVER, status=status, code=code, after=number % 2 if number else 3)

        ran = night.zbackup(*night.backup)

        failed(ran, exit_code, night.address, code)
        assert hint in ran.result["hint"]
        assert proxy.seen.count("PUT!") <= 4, "asked again in vain"
        proxy.faults.clear()
        proxy.seen.clear()
    assert night.sound() == 1
    night.morning()


COMMANDS = ("list", "show", "plan", "verify", "backup", "restore", "init")


def ask(night: Night, command: str) -> Ran:
    """Run a command on the archive, as somebody would who suspects nothing."""
    match command:
        case "backup":
            return night.zbackup(*night.backup)
        case "plan":
            return night.ask(command, "--at", "latest")
        case "restore":
            return night.ask(command, "--target", night.new_database())
        case _:
            return night.ask(command)


DENIALS = (
    ("GET", "list-type=2", COMMANDS),
    ("GET", "/archive/manifests/", ("list", "show", "plan", "verify", "backup")),
    ("GET", "/archive/events/", ("verify", "restore")),
    ("PUT", "/archive/", ("backup",)),
    ("PUT", "/archive/manifests/", ("backup",)),
)


def test_one_right_that_is_missing(night: Night, proxy: FaultyProxy) -> None:
    """
    A policy that denies to list, to get or to put stops what needs it (22), and is never an empty archive.
    """
    for method, path, denied in DENIALS:
        proxy.arm("refuse", method, times=EVER, status=403, code="AccessDenied", path=path)

        for command in denied:
            failed(ask(night, command), 22, night.address, "AccessDenied")
        if method == "PUT":
            assert ask(night, "list").code == 0
        proxy.faults.clear()
    night.made()
    night.holds_the_source()


def test_a_bucket_that_is_gone(night: Night, bucket: str, moto_endpoint: str) -> None:
    """
    A bucket that is not there is an error of every command (20) and is not made; deleted in the middle, too.
    """

    def drop() -> None:
        with contextlib.closing(bare_client(moto_endpoint)) as client:
            for found in client.list_objects_v2(Bucket=bucket).get("Contents", []):
                client.delete_object(Bucket=bucket, Key=found["Key"])
            client.delete_bucket(Bucket=bucket)

    ran = zbackup_while('"type": "stored"', drop, *night.backup)

    for ended in (ran, *(ask(night, command) for command in COMMANDS)):
        failed(ended, 20, night.address, "NoSuchBucket")
        assert "Create the bucket" in ended.result["hint"]


def test_keys_that_expire(night: Night, proxy: FaultyProxy) -> None:
    """
    Keys that expire between two requests end a restore or a proof by their reason (22), and a rerun goes on.
    """
    target = night.new_database()
    for command in (("restore", "--target", target), ("verify", "--full")):
        proxy.arm("refuse", "GET", times=EVER, status=400, code="ExpiredToken", path="/archive/", after=6)

        ran = night.ask(*command)

        failed(ran, 22, night.address, "ExpiredToken")
        assert FRESH in ran.result["hint"]
        proxy.faults.clear()
        assert night.ask(*command).code == 0


def test_keys_that_are_renewed(night: Night, proxy: FaultyProxy, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Temporary keys that their source renews are renewed in the middle of a run, without a word.
    """
    calls = bare / "calls"
    program = bare / "keys"
    program.write_text(
        f"""#!{sys.executable}
import datetime, json, pathlib
calls = pathlib.Path({str(calls)!r})
calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
now = datetime.datetime.now(datetime.timezone.utc)
print(json.dumps({{
    "Version": 1, "AccessKeyId": f"KEY{{len(calls.read_text())}}", "SecretAccessKey": "secret",
    "SessionToken": "token", "Expiration": (now + datetime.timedelta(seconds=1)).isoformat(),
}}))
"""
    )
    program.chmod(0o755)
    config = bare / "aws"
    config.write_text(f"[default]\ncredential_process = {program}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))

    night.made()

    assert len(calls.read_text()) > 2
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    failed(night.ask("list"), 22, night.address, "no credentials found")
