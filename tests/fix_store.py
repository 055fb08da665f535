"""Stores to test with: a folder, and buckets on an S3 server in this process that forgets everything."""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from zbackup.store.retry import Retry
from zbackup.store.s3 import S3Store

pytest.register_assert_rewrite("tests.store_contract")

ACCESS_KEY, SECRET_KEY = "test:tester", "testing"  # Swift's; moto takes any

QUICK = Retry(tries=5, first=0.01, most=0.05)
"""As patient as in earnest, without the waiting."""

BUCKET = "zbackup-tests"
_WITH_BUCKET: set[str] = set()  # endpoints of this process where it exists

MakeS3 = Callable[..., S3Store]


FOREIGN = (
    "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
    "AWS_REGION", "AWS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY",
)  # fmt: skip
SETTINGS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session")
def described_once() -> Iterator[None]:
    """Let botocore parse its description of S3 once; for each client anew it is most of what that takes."""
    from botocore.loaders import JSONFileLoader

    loader: Any = JSONFileLoader()
    parsed = functools.cache(loader.load_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: parsed(path))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        yield


@pytest.fixture
def aws_env(monkeypatch: pytest.MonkeyPatch, described_once: None) -> None:
    """Give the SDK the test's keys, and nothing of this machine's settings."""
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


def bare_client(endpoint: str) -> Any:
    """Return boto3's own client, to do what S3Store cannot."""
    from boto3.session import Session
    from botocore.config import Config

    config = Config(
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    session: Any = Session()
    return session.client("s3", endpoint_url=endpoint, config=config)


def make_bucket(endpoint: str) -> None:
    """Make the tests' own bucket where it is not there."""
    if endpoint not in _WITH_BUCKET:
        with contextlib.closing(bare_client(endpoint)) as client:
            client.create_bucket(Bucket=BUCKET)
        _WITH_BUCKET.add(endpoint)


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    with moto() as endpoint:
        yield endpoint


@contextlib.contextmanager
def moto() -> Generator[str]:
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def make_s3(aws_env: None) -> Iterator[MakeS3]:
    """
    Make stores on an endpoint, each under a prefix of its own unless one is given.

    Without a bucket it is the tests' own, made when it is not there.
    """
    made: list[S3Store] = []

    def make(endpoint: str, *, bucket: str | None = None, prefix: str = "", **options: Any) -> S3Store:
        if bucket is None:
            make_bucket(endpoint)
        options = {"addressing": "path", "retry": QUICK, **options}
        prefix = prefix or f"archive/{uuid.uuid4().hex}"
        made.append(S3Store(bucket or BUCKET, prefix, endpoint=endpoint, **options))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def moto_store(make_s3: MakeS3, moto_endpoint: str) -> S3Store:
    return make_s3(moto_endpoint)
