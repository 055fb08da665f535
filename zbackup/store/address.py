"""
Addresses of archives, and the stores behind them.

    /srv/backups/zitadel, backups        a folder
    file:///srv/backups/zitadel          the same, special characters percent-encoded
    s3://bucket/prefix                   a bucket, or a part of one
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from zbackup.errors import UsageError
from zbackup.progress import Report, silent
from zbackup.store.local import LocalStore

if TYPE_CHECKING:
    from zbackup.store.base import Store

ACCEPTED = "An archive's address is a path, file:///absolute/path or s3://bucket/prefix."

ADDRESSING = ("path", "virtual", "auto")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_PREFIX = re.compile(r"[^\x00-\x20\x7f\\?#]+")


def open_store(
    address: str,
    *,
    s3_endpoint: str | None = None,
    s3_addressing: str | None = None,
    create: bool = False,
    report: Report = silent,
) -> Store:
    """
    Open the store at an address.

    `create` makes a missing folder; a bucket must exist. A bucket is not asked for anything yet. Raises
    UsageError when the address or an option is not one, StoreError when there is no such folder.
    """
    scheme = _SCHEME.match(address)
    kind = scheme[1].lower() if scheme else ""
    if kind == "s3":
        return _open_bucket(address, s3_endpoint, s3_addressing, report)
    for flag, value in (("--s3-endpoint", s3_endpoint), ("--s3-addressing", s3_addressing)):
        if value is not None:
            raise UsageError(
                f"{flag} would have no effect: the archive is not in a bucket",
                hint=f"Leave it out, or give a bucket. {ACCEPTED}",
            )
    if kind == "file":
        return LocalStore(_folder_of_url(address), create=create)
    if scheme and scheme[2]:
        raise UsageError(f"{kind}:// is not an address zbackup knows", hint=ACCEPTED)
    if not address or "\0" in address:
        raise UsageError("the address of the archive is empty or holds a zero byte", hint=ACCEPTED)
    try:
        return LocalStore(Path(address).expanduser(), create=create)
    except RuntimeError:
        raise UsageError(f"{address}: no home folder is known for `~`", hint="Write the path out.") from None


def _folder_of_url(address: str) -> Path:
    parts = urlsplit(address)
    folder = unquote(parts.path)
    if (
        not address.lower().startswith("file://")
        or parts.netloc not in {"", "localhost"}
        or parts.query
        or parts.fragment
        or not folder.startswith("/")
        or "\0" in folder
    ):
        raise UsageError(
            "a file:// address has three slashes, an absolute path, and nothing else",
            hint=f"{ACCEPTED} Write `?` and `#` in a name as %3F and %23.",
        )
    return Path(folder)


def _open_bucket(address: str, endpoint: str | None, addressing: str | None, report: Report) -> Store:
    from zbackup.store.s3 import S3Store

    # What is wrong is described, not quoted: people write keys into addresses.
    if not address[3:].startswith("//") or "@" in address:
        raise UsageError(
            "an s3:// address holds a bucket and a prefix, and neither server nor keys",
            hint=f"{ACCEPTED} The server goes into --s3-endpoint, keys into AWS's own settings.",
        )
    bucket, _, prefix = address[5:].partition("/")
    prefix = prefix.strip("/")
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{bucket!r} is not the name of a bucket", hint=ACCEPTED)
    if prefix and (not _PREFIX.fullmatch(prefix) or {"", ".", ".."} & set(prefix.split("/"))):
        raise UsageError(
            f"{prefix!r} cannot be the prefix of an archive",
            hint="Leave out spaces, `?`, `#`, backslashes, and empty, `.` or `..` parts.",
        )
    if addressing is not None and addressing not in ADDRESSING:
        raise UsageError(f"{addressing!r} is not a way to address buckets", hint=f"One of {', '.join(ADDRESSING)}.")
    if endpoint is not None:
        _check_endpoint(endpoint)
    return S3Store(bucket, prefix, endpoint=endpoint, addressing=addressing, report=report)


def _check_endpoint(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        fit = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or True)
    except ValueError:
        fit, parts = False, urlsplit("")
    if not fit or "@" in parts.netloc or parts.query or parts.fragment or re.search(r"\s", endpoint):
        raise UsageError(
            "the S3 endpoint is not the plain http:// or https:// address of a server",
            hint="For example https://s3.example.org:9000; keys go into AWS's own settings.",
        )
