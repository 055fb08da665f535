"""
A store in an S3 bucket, through boto3, which is imported only here and only when needed.

Credentials, region, endpoint and proxies come from where AWS's own tools take them. The SDK repeats
nothing: every repetition is ours (`retry`), because a write whose answer was lost has to be looked at
before it is sent again.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import re
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast
from urllib.parse import urlsplit

from zbackup.errors import Locked, ObjectMissing, StoreError, StoreUnreachable
from zbackup.progress import silent
from zbackup.store.base import (
    BLOCK_BYTES,
    Stat,
    Written,
    check_body,
    check_name,
    check_prefix,
    check_same,
    digest_of,
    is_name,
)
from zbackup.store.os_errors import os_errors
from zbackup.store.resume import Part, ResumingBody
from zbackup.store.retry import Retry
from zbackup.store.s3_errors import DigestRefused, Unsupported, s3_errors
from zbackup.store.write import NameTaken, NotTaken, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zbackup.progress import Report

# 16 workers, each with a stream open while it makes another request.
_CONNECTIONS = 32

# Seconds. Connecting takes one round trip; an answer may wait for a busy server to write 64 MiB.
_CONNECT_TIMEOUT, _READ_TIMEOUT = 10, 60

# Objects in one answer of a listing; S3 allows no more.
PAGE = 1000

_AWS_HOSTS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


class _Client(Protocol):
    """What is used of boto3's client, which has no types."""

    meta: Any

    def put_object(self, **request: object) -> dict[str, Any]: ...
    def get_object(self, **request: object) -> dict[str, Any]: ...
    def head_object(self, **request: object) -> dict[str, Any]: ...
    def list_objects_v2(self, **request: object) -> dict[str, Any]: ...
    def delete_object(self, **request: object) -> dict[str, Any]: ...
    def close(self) -> None: ...


class S3Store:
    """
    The store under `prefix` in `bucket`.

    `endpoint`, `addressing` (path, virtual, auto) and `region` win over AWS's own settings. A listing asks
    for `page` objects at a time. Nothing is asked of the server before the first call.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        addressing: str | None = None,
        region: str | None = None,
        retry: Retry | None = None,
        report: Report = silent,
        page: int = PAGE,
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._retry = retry or Retry()
        self._report = report
        self._create_only = True
        self._page = page
        with s3_errors(self.address):
            self._client = _client(endpoint, addressing, region)
        host = urlsplit(str(self._client.meta.endpoint_url)).hostname or ""
        self._is_aws = host.endswith(_AWS_HOSTS)

    @property
    def address(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def put(self, name: str, body: BinaryIO, *, size: int, sha256: str) -> None:
        what = self._shown(check_name(name))
        digests = self._check(what, body, size, sha256)

        def holds() -> bool:
            return self._holds(name, size, sha256)

        def send() -> None:
            try:
                if not self._create_only and holds():
                    return
            except StoreUnreachable as error:  # nothing is sent yet, so nothing is in doubt
                raise NotTaken(error.message, hint=error.hint) from error
            body.seek(0)
            try:
                self._send(name, body, digests, create_only=self._create_only)
            except Unsupported:
                if not self._create_only:
                    raise
                self._create_only = False
                send()

        write(what, send, holds, self._retry, self._report)

    def get(self, name: str) -> bytes:
        with self._body(name) as body:
            return body.readall()

    def open(self, name: str) -> BinaryIO:
        return io.BufferedReader(self._body(name), BLOCK_BYTES)

    def read(self, name: str, offset: int, length: int) -> bytes:
        if not length:
            return b""
        with self._body(name, start=offset, stop=offset + length) as body:
            return body.readall()

    def stat(self, name: str) -> Stat | None:
        try:
            found = self._head(name)
        except ObjectMissing:
            return None
        return Stat(name, int(found["ContentLength"]), found.get("LastModified"))

    def list(self, prefix: str, *, fold: bool = False) -> Iterator[Stat]:
        return self._pages(self._prefix + check_prefix(prefix), {"Delimiter": "/"} if fold else {})

    def delete(self, name: str) -> None:
        # A bucket with versions takes a plain delete of what is locked: it hides it, and nothing is gained.
        key = self._key(name)
        with contextlib.suppress(ObjectMissing):
            self._refuse_locked(name, self._head(name))
            self._request(name, lambda: self._client.delete_object(Bucket=self._bucket, Key=key))

    def close(self) -> None:
        self._client.close()

    def write_once(self, name: str, data: bytes, *, declare: bytes | None = None) -> Written:
        told = data if declare is None else declare
        digests = self._digests(hashlib.md5(told, usedforsecurity=False).digest(), hashlib.sha256(told).digest())
        try:
            self._send(name, io.BytesIO(data), digests, create_only=True)
        except NameTaken:
            return "exists"
        except DigestRefused:
            return "refused"
        except Unsupported:
            return "unsupported"
        return "stored"

    def clock(self) -> datetime:
        """Return the time of the server's answer, whole seconds."""
        request = {"Bucket": self._bucket, "Prefix": self._prefix, "MaxKeys": 1}
        # What follows the headers is there: the date is whole.
        answer = self._request("", lambda: _page(self.address, self._client.list_objects_v2(**request)))
        date = str(answer["ResponseMetadata"]["HTTPHeaders"].get("date", ""))
        try:
            found = parsedate_to_datetime(date)
        except ValueError:
            raise StoreError(f"{self.address}: answers without a date") from None
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    def _head(self, name: str) -> dict[str, Any]:
        key, what = self._key(name), self._shown(name)
        return self._request(
            name, lambda: _whole(what, self._client.head_object(Bucket=self._bucket, Key=key), "ContentLength")
        )

    def _refuse_locked(self, name: str, found: dict[str, Any]) -> None:
        hold = found.get("ObjectLockLegalHoldStatus") == "ON"
        until = found.get("ObjectLockRetainUntilDate")
        if hold or (until is not None and until > self.clock()):
            kept = "under a legal hold" if hold else f"locked ({found.get('ObjectLockMode')})"
            raise Locked(f"{self._shown(name)}: {kept}", until=None if hold else until)

    def _check(self, what: str, body: BinaryIO, size: int, sha256: str) -> dict[str, str]:
        """Hold the body against what the caller said of it; return the digests to send along."""
        md5, sha, counted = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
        with os_errors(f"{what}: reading what is to be stored"):
            body.seek(0)
            while block := body.read(BLOCK_BYTES):
                counted += len(block)
                md5.update(block)
                sha.update(block)
        check_body(what, size, sha256, counted=counted, found=sha.hexdigest())
        return self._digests(md5.digest(), sha.digest())

    def _digests(self, md5: bytes, sha256: bytes) -> dict[str, str]:
        # Content-MD5 is what most servers check. AWS proper checks SHA-256 too, which the archive knows
        # the object by; older servers refuse or ignore that header.
        digests = {"ContentMD5": base64.b64encode(md5).decode()}
        if self._is_aws:
            digests["ChecksumSHA256"] = base64.b64encode(sha256).decode()
        return digests

    def _send(self, name: str, body: BinaryIO, digests: dict[str, str], *, create_only: bool) -> None:
        condition = {"IfNoneMatch": "*"} if create_only else {}
        with s3_errors(self._shown(name)):
            self._client.put_object(Bucket=self._bucket, Key=self._key(name), Body=body, **digests, **condition)

    def _holds(self, name: str, size: int, sha256: str) -> bool:
        """Read back whether the store has exactly these bytes. Raises OtherContent when it has others."""
        # Two tries: enough to go on after a break, while the repetition as such is the caller's.
        try:
            with self._body(name, retry=replace(self._retry, tries=2)) as body:
                found = digest_of(cast("BinaryIO", body))
        except ObjectMissing:
            return False
        check_same(self._shown(name), (size, sha256), found)
        return True

    def _body(self, name: str, *, start: int = 0, stop: int | None = None, retry: Retry | None = None) -> ResumingBody:
        key, what = self._key(name), self._shown(name)
        last = "" if stop is None else str(stop - 1)

        def fetch(offset: int) -> Part:
            wanted = {"Range": f"bytes={offset}-{last}"} if offset or last else {}
            with s3_errors(what):
                answer = self._client.get_object(Bucket=self._bucket, Key=key, **wanted)
            return _part(what, answer, offset if wanted else None)

        return ResumingBody(what, fetch, retry or self._retry, self._report, start=start, stop=stop)

    def _pages(self, prefix: str, folded: dict[str, str]) -> Iterator[Stat]:
        request: dict[str, object] = {"Bucket": self._bucket, "Prefix": prefix, "MaxKeys": self._page, **folded}
        last = b""
        while True:
            page = self._request("", lambda: _page(self.address, self._client.list_objects_v2(**request)))
            # In order and once, whatever a page says: rclone lists what is being written twice, or out of its place.
            entries = {str(entry["Key"])[len(self._prefix) :]: entry for entry in page.get("Contents", [])}
            folders = {str(entry["Prefix"])[len(self._prefix) :] for entry in page.get("CommonPrefixes", [])}
            for name in sorted(entries.keys() | folders, key=str.encode):
                if name.encode() < last:
                    raise StoreError(
                        f"{self._shown(name)} is listed after {last.decode()}",
                        hint="Run again. If it stays so, use another store: zbackup needs listings in byte order.",
                    )
                if is_name(name.removesuffix("/") if name in folders else name) and name.encode() != last:
                    found = None if name in folders else entries[name]
                    yield Stat(name, int(found["Size"]), found.get("LastModified")) if found else Stat(name, 0)
                last = name.encode()
            if not page["IsTruncated"]:
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def _request(self, name: str, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        what = self._shown(name) if name else self.address

        def attempt() -> dict[str, Any]:
            with s3_errors(what):
                return act()

        return self._retry.call(what, attempt, self._report)

    def _key(self, name: str) -> str:
        return self._prefix + check_name(name)

    def _shown(self, name: str) -> str:
        return f"{self.address}/{name}"


def _client(endpoint: str | None, addressing: str | None, region: str | None) -> _Client:
    from boto3.session import Session
    from botocore.config import Config

    # Checksums "when required": our own are sent and held against what comes. The SDK's default breaks on
    # servers that know no trailers, and on those that send a whole object's checksum with a range of it.
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT,
        read_timeout=_READ_TIMEOUT,
        max_pool_connections=_CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": 1},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": addressing} if addressing else None,
    )
    session = Session()  # the shared default one is not for threads
    return cast("_Client", session.client("s3", endpoint_url=endpoint, region_name=region, config=config))


def _whole(what: str, answer: dict[str, Any], last: str) -> dict[str, Any]:
    """
    Refuse an answer that lacks what each has.

    To the SDK a connection that breaks among the headers is no error, and no body is an empty listing.
    """
    if last not in answer:
        raise StoreUnreachable(f"{what}: the answer was cut short (no {last})")
    return answer


def _page(what: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Refuse a page of a listing that is cut short."""
    if _whole(what, answer, "IsTruncated")["IsTruncated"]:
        _whole(what, answer, "NextContinuationToken")
    return answer


def _part(what: str, answer: dict[str, Any], offset: int | None) -> Part:
    """Read off an answer what it carries; with an offset it must be a range that begins there."""
    stream = answer["Body"]
    try:
        size = int(_whole(what, answer, "ContentLength")["ContentLength"])
    except StoreUnreachable:
        stream.close()
        raise
    if offset is not None:
        total = re.fullmatch(rf"bytes {offset}-\d+/(\d+)", str(answer.get("ContentRange", "")))
        if total is None:
            stream.close()
            raise StoreError(
                f"{what}: the store answers a part of an object with something else",
                hint="zbackup needs range requests: check a proxy or cache between.",
            )
        size = int(total[1])

    def read(length: int) -> bytes:
        with s3_errors(what):
            return bytes(stream.read(length))

    return Part(size, str(answer.get("ETag", "")), read, stream.close)
