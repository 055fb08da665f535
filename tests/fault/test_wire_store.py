"""
The wire between zbackup and a bucket breaks: what was under way is tried again, and nothing is lost.

A wire (fix_wire.py) counts the bytes of an undisturbed run, and is cut at some of them; with ZBACKUP_CUTS at more.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest

from tests.cli import conftest as cli
from tests.cli.conftest import Ran, Zbackup
from tests.fault import test_kill as kill
from tests.fault.test_kill import Databases, events_of, write_users
from tests.fault.test_wire_database import CUTS, SMALL, spread
from tests.fix_store import MakeS3, bare_client
from tests.fix_wire import Fault, Way, Wire
from tests.fix_zitadel import zitadel
from zbackup.store.base import Stat

bare, zbackup = cli.bare, cli.zbackup
databases = kill.databases

pytestmark = [pytest.mark.slow, *([pytest.mark.timeout(0)] if CUTS > 2 else [])]

BUCKET = "behind-a-wire"

# A prime, so that it falls in step with nothing.
STEP = 1 if CUTS > 2 else 7


@pytest.fixture
def source(new_database: Callable[[], str]) -> str:
    """The DSN of a ZITADEL with a few chunks of events."""
    dsn = new_database()
    zitadel(dsn)
    write_users(dsn, 0, 100)
    return dsn


def test_a_bucket_cut_off_anywhere(
    aws_env: None, swift_endpoint: str, source: str, databases: Databases, zbackup: Zbackup
) -> None:
    """
    Backup and restore outlive a connection that breaks after any number of bytes, and what they leave is whole.

    The server is Swift: moto takes a request whose head was cut off for one without a body, and stores that.
    """
    server = urlsplit(swift_endpoint)
    wire = Wire((server.hostname or "", server.port or 0))
    with contextlib.closing(bare_client(swift_endpoint)) as client:
        client.create_bucket(Bucket=BUCKET)

    def run(prefix: str, command: str, *flags: str, met: Fault | None = None) -> Ran:
        endpoint = f"http://127.0.0.1:{wire.port}"
        where = ("--archive", f"s3://{BUCKET}/{prefix}", "--s3-endpoint", endpoint, "--s3-addressing", "path")
        wire.arm(met)
        ran = zbackup(command, *where, *flags)
        assert wire.met.is_set() == (met is not None), (prefix, met)
        assert ran.code == 0, (prefix, command, met, ran.err)
        return ran

    def whole(prefix: str, backup: Fault | None = None, restore: Fault | None = None) -> list[dict[Way, int]]:
        """Go there and back; returns the bytes of either."""
        run(prefix, "init")
        run(prefix, "backup", "--source", source, *SMALL, met=backup)
        passed = [wire.passed]
        run(prefix, "verify", "--full")
        with databases.like() as target:
            run(prefix, "restore", "--target", target, met=restore)
            passed.append(wire.passed)
            assert events_of(target) == events_of(source), (backup, restore)
        return passed

    with wire:
        there, back = whole("undisturbed")
        for number, (backup, restore) in enumerate(zip(spread(there, CUTS // 2), spread(back, CUTS // 2), strict=True)):
            whole(f"cut{number}", replace(backup, whole=False), replace(restore, whole=False))


# The SDK reads half a timestamp, and leaves the connection that it came from to the collector.
@pytest.mark.filterwarnings("ignore:tzname", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_answer_cut_off_at_any_byte(make_s3: MakeS3, moto_endpoint: str) -> None:
    """
    Wherever an answer ends, among its headers as well, it is asked for again: a listing is never taken for shorter,
    an object never for another.
    """
    body = b"some bytes"
    server = urlsplit(moto_endpoint)
    with Wire((server.hostname or "", server.port or 0)) as wire:
        direct = make_s3(moto_endpoint, prefix="every-byte")
        store = make_s3(f"http://127.0.0.1:{wire.port}", prefix="every-byte", bucket="zbackup-tests")
        direct.put("events/a", io.BytesIO(body), size=len(body), sha256=hashlib.sha256(body).hexdigest())
        calls: dict[Callable[[], object], object] = {
            lambda: list(store.list("")): [Stat("events/a", len(body))],
            lambda: store.get("events/a"): body,
            lambda: abs(store.clock() - datetime.now(UTC)) < timedelta(minutes=1): True,
        }
        for call, wanted in calls.items():
            wire.arm(None)
            assert call() == wanted
            for after in range(0, wire.passed["down"], STEP):
                wire.arm(Fault("cut", after=after))
                assert call() == wanted, after
                assert wire.met.is_set()
    gc.collect()  # here, not in another test
