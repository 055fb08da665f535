"""
The contract of a store: named immutable bytes.

Names are relative, of ASCII letters, digits and `._-/=~`; no part between slashes is empty or begins with a
dot, and no name is the folder of another. No name is used twice for different content: callers put a digest
or a run id into every name. Nothing here relies on a store's preconditions; where the store has them they
are a second belt.

A write ends in one of three ways: done (returns), not done (StoreError), unknown (CommitUnknown, after
reading back did not settle it). Implementations retry what can be retried and read back what may have been
stored; they delete nothing on their own.

A store may be used from 16 threads at once; a stream belongs to one.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, runtime_checkable

from zbackup.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

_NAME = re.compile(r"(?!\.)[A-Za-z0-9._=~-]+(/(?!\.)[A-Za-z0-9._=~-]+)*")

# Bytes are hashed, copied and fetched in blocks of this size: a call costs microseconds, so larger gains
# nothing, and 16 of them at once are no memory worth counting.
BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stat:
    name: str
    size: int
    """bytes as stored"""
    modified: datetime | None = field(default=None, compare=False)
    """when it was stored, by the store's clock"""


class Store(Protocol):
    @property
    def address(self) -> str:
        """Where this is, fit to be shown: no secrets."""
        ...

    def put(self, name: str, body: BinaryIO, *, size: int, sha256: str) -> None:
        """
        Store `size` bytes read from the start of `body` (seekable) under `name`, durably.

        `sha256` is the hex digest of exactly these bytes, and what is stored is checked against it. Putting
        the same bytes again under the same name succeeds. An object is visible whole or not at all.

        Raises StoreError when it is not stored (AccessDenied, StoreFull … say why), also when the name holds
        other bytes (a store that ignores preconditions may overwrite them instead, see docs/stores.md).
        Raises CommitUnknown when it may be stored: nothing may be concluded, nothing removed.
        """
        ...

    def get(self, name: str) -> bytes:
        """Return a whole object. Raises ObjectMissing, StoreError."""
        ...

    def open(self, name: str) -> BinaryIO:
        """
        Return a stream over a whole object, to be closed by the caller. Raises ObjectMissing, StoreError.

        A connection that breaks in the middle is resumed where it broke, against the same object; the
        stream then ends either complete or with StoreError, never short.
        """
        ...

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`. Raises ObjectMissing; StoreError if it is shorter."""
        ...

    def stat(self, name: str) -> Stat | None:
        """Return name and size, or None when there is no such object."""
        ...

    def list(self, prefix: str, *, fold: bool = False) -> Iterator[Stat]:
        """
        Yield every object whose name begins with `prefix`, in byte order of names.

        With `fold`, names that have a slash behind the prefix are told as one, up to that slash, of size 0: what
        lies in a folder costs as much as it has entries, however many objects are below. A folder store may
        show folders that hold nothing.

        Sees every object whose put returned before the call. What could not be a name is not listed: it
        is not ours, and no other method could reach it.
        """
        ...

    def delete(self, name: str) -> None:
        """
        Remove an object; removing one that is not there succeeds. Only `prune` and `probe` call this.

        Raises Locked when this object is kept by a lock or a retention of the store, whatever the rights of
        who asks; AccessDenied when they lack the right to delete.
        """
        ...

    def clock(self) -> datetime:
        """Return the store's own time, the one clock that all who use it share. Raises StoreError."""
        ...

    def close(self) -> None: ...


Written = Literal["stored", "exists", "refused", "unsupported"]
"""How a bare write ended: done; the name was taken; the digest was wrong; create-only is not to be had."""


@runtime_checkable
class Probed(Protocol):
    """What a store lets `probe` see beneath `put`, which hides it behind retries and reading back."""

    def write_once(self, name: str, data: bytes, *, declare: bytes | None = None) -> Written:
        """
        Write an object once, create-only as far as the store knows how.

        `declare` are the bytes whose digest is sent along instead of the right one. Raises StoreError.
        """
        ...


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def check_name(name: str) -> str:
    """Return the name. Raises StoreError when it is none, so that no name leads out of the store."""
    if not is_name(name):
        raise StoreError(
            f"{name[:200]!r} is not the name of an object",
            hint="What named it is damaged or was not written by zbackup.",
        )
    return name


def check_prefix(prefix: str) -> str:
    """Return the prefix of a listing. Raises StoreError when no name can begin with it."""
    if prefix and not is_name(prefix.removesuffix("/")):
        raise StoreError(f"{prefix[:200]!r} is not the beginning of a name")
    return prefix


def check_body(name: str, size: int, sha256: str, *, counted: int, found: str) -> None:
    """Raise StoreError when a body was not what the caller of `put` said."""
    if (counted, found) != (size, sha256):
        raise StoreError(
            f"{name}: {counted} bytes with sha256 {found} to be stored, {size} bytes with {sha256} announced",
            hint="Nothing was stored. The memory or the spool disk of this machine may be damaged.",
        )


def digest_of(body: BinaryIO) -> tuple[int, str]:
    """Return the length and SHA-256 of the rest of a stream."""
    counted, sha = 0, hashlib.sha256()
    while block := body.read(BLOCK_BYTES):
        counted += len(block)
        sha.update(block)
    return counted, sha.hexdigest()


class OtherContent(StoreError):
    """A name holds other bytes than were to be stored under it."""


def check_same(name: str, wanted: tuple[int, str], found: tuple[int, str]) -> None:
    """Raise OtherContent when what a name already holds is not what was to be stored (length, SHA-256)."""
    if wanted != found:
        raise OtherContent(
            f"{name} exists with other content: {found[0]} bytes, sha256 {found[1]}; "
            f"{wanted[0]} bytes, {wanted[1]} were to be stored",
            hint="Nothing was changed. Run `zbackup verify`: the object there may be damaged.",
        )
