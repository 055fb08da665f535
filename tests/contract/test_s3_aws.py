"""What is sent to AWS proper, as against other servers: digests, endpoints, addressing."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import TYPE_CHECKING, Any

import pytest

from tests.fix_store import QUICK
from tests.store_contract import put
from zbackup.store.s3 import S3Store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fix_store import MakeS3


def headers_of_puts(store: S3Store, *, answer: Any = None) -> list[dict[str, str]]:
    """Note the headers of what is put; with an answer, that is given instead of sending anything."""
    seen: list[dict[str, str]] = []

    def note(request: Any, **_: Any) -> Any:
        seen.append({k.lower(): v.decode() if isinstance(v, bytes) else v for k, v in request.headers.items()})
        return answer

    client: Any = store._client  # pyright: ignore[reportPrivateUsage]
    client.meta.events.register("before-send.s3.PutObject", note)
    return seen


def test_aws_proper_gets_sha256(aws_env: None) -> None:
    """
    AWS is sent MD5, the SHA-256 the archive knows the object by, and the precondition.
    """
    from botocore.awsrequest import AWSResponse
    from urllib3 import HTTPResponse

    headers: dict[str, str] = {}
    store = S3Store("zb", "x", retry=QUICK)
    seen = headers_of_puts(
        store, answer=AWSResponse("", 200, headers, HTTPResponse(io.BytesIO(), preload_content=False))
    )

    put(store, "n", b"body")

    store.close()
    assert base64.b64encode(hashlib.sha256(b"body").digest()).decode() == seen[0]["x-amz-checksum-sha256"]
    assert base64.b64encode(hashlib.md5(b"body").digest()).decode() == seen[0]["content-md5"]
    assert "*" == seen[0]["if-none-match"]
    assert "content-encoding" not in seen[0]


def test_other_servers_get_md5_only(make_s3: MakeS3, moto_endpoint: str) -> None:
    """
    Other servers are sent what all of them know.
    """
    store = make_s3(moto_endpoint)
    seen = headers_of_puts(store)

    put(store, "n", b"body")

    assert "content-md5" in seen[0]
    assert not [name for name in seen[0] if name.startswith(("x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer"))]


def test_endpoint_and_keys_from_aws_settings(
    moto_endpoint: str, make_s3: MakeS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    Endpoint, keys and addressing come from AWS's own files when nothing else is said.
    """
    bucket = make_s3(moto_endpoint).address.split("/")[2]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "config").write_text(
        f"[profile other]\nregion = eu-central-1\nendpoint_url = {moto_endpoint}\ns3 =\n  addressing_style = path\n"
    )
    (tmp_path / "keys").write_text("[other]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_PROFILE", "other")
    store = S3Store(bucket, "conf", retry=QUICK)

    put(store, "n", b"body")

    assert b"body" == store.get("n")
    assert not [name for name in headers_of_puts(store) if "x-amz-checksum-sha256" in name]
    store.close()


@pytest.mark.parametrize(
    ("addressing", "host", "path"),
    [
        ("path", "s3.example.org", "/bucket/p/n"),
        ("virtual", "bucket.s3.example.org", "/p/n"),
        ("auto", "s3.example.org", "/bucket/p/n"),
        (None, "s3.example.org", "/bucket/p/n"),
    ],
)
def test_addressing(aws_env: None, addressing: str | None, host: str, path: str) -> None:
    """
    The bucket is in the path unless host names are asked for.
    """
    from urllib.parse import urlsplit

    store = S3Store("bucket", "p", endpoint="https://s3.example.org", addressing=addressing)
    client: Any = store._client  # pyright: ignore[reportPrivateUsage]
    url = urlsplit(str(client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "p/n"})))
    store.close()

    assert (host, path) == (url.hostname, url.path)
