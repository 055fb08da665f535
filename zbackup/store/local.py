"""
A store in a folder: one file per object.

An object is written to a hidden file beside its place, checked while it is copied, made durable, and only
then given its name by a hard link, which cannot replace anything. A run that is killed leaves at most a
hidden file `.tmp-…`, which no listing shows and nothing reads.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import secrets
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from zbackup.errors import CommitUnknown, Locked, ObjectMissing, StoreError
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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import WriteableBuffer

# An archive holds ZITADEL's keys: nothing for others; the umask decides about the group.
_FILE_MODE, _FOLDER_MODE = 0o640, 0o750

_KEPT = "Somebody protects it (chmod, chattr): take that back when it is to go."

# Remembered folders: whoever stores for days makes thousands.
_MOST_DURABLE = 1000

# What link(2) answers where the file system has no hard links (FAT, SMB, some FUSE).
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}

# What fsync(2) of a folder answers where it means nothing (SMB, some FUSE).
_NO_FOLDER_SYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}


class LocalStore:
    """
    The store in folder `path`, which must be there unless `create` says to make it.

    A missing folder is an error, not an empty store: it may be a disk that is not mounted.
    """

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        self._root = Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow links
        self._durable: set[Path] = set()  # folders whose own entry was synced by us
        if create:
            with os_errors(self.address):
                for folder in (*reversed(self._root.parents), self._root):
                    if not folder.exists():
                        _make_folder(folder)
        self._check_root()

    @property
    def address(self) -> str:
        return str(self._root)

    def put(self, name: str, body: BinaryIO, *, size: int, sha256: str) -> None:
        body.seek(0)
        path = self._root / check_name(name)
        with os_errors(self._shown(name)):
            made = self._write(path, body, size, sha256)
            if not made:
                with self.open(name) as stream:
                    check_same(self._shown(name), (size, sha256), digest_of(stream))
        try:
            if not made:  # by whom, and whether they lived to sync it, is not known
                _sync(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise CommitUnknown(
                f"{self._shown(name)}: written, but not known to be on disk: {error.strerror}",
                hint="Look at the kernel log; run again once the disk is sound.",
            ) from error

    def get(self, name: str) -> bytes:
        with self.open(name) as stream:
            return stream.read()

    def open(self, name: str) -> BinaryIO:
        return io.BufferedReader(_FileBody(self._root / check_name(name), self._shown(name)), BLOCK_BYTES)

    def read(self, name: str, offset: int, length: int) -> bytes:
        with self.open(name) as stream:
            stream.seek(offset)
            found = stream.read(length)
        if len(found) != length:
            raise StoreError(
                f"{self._shown(name)}: {len(found)} bytes at offset {offset}, {length} expected",
                hint="The object is shorter than what refers to it says: run `zbackup verify`.",
            )
        return found

    def stat(self, name: str) -> Stat | None:
        try:
            with os_errors(self._shown(name), missing=ObjectMissing):
                found = (self._root / check_name(name)).stat()
        except ObjectMissing:
            self._check_root()
            return None
        return _stat_of(name, found) if stat.S_ISREG(found.st_mode) else None

    def list(self, prefix: str, *, fold: bool = False) -> Iterator[Stat]:
        self._check_root()
        return self._walk(check_prefix(prefix).rpartition("/")[0], prefix, fold=fold)

    def delete(self, name: str) -> None:
        path = self._root / check_name(name)
        with os_errors(self._shown(name)):
            try:
                # We make none without this bit: somebody has taken it away.
                if not path.stat().st_mode & stat.S_IWUSR:
                    raise Locked(f"{self._shown(name)}: the file is read-only", hint=_KEPT)
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                self._check_root()
                return
            except OSError as error:
                if error.errno == errno.EPERM:  # not for want of rights to the folder, which is EACCES
                    raise Locked(f"{self._shown(name)}: the file or its folder is immutable", hint=_KEPT) from error
                raise
            _sync_folder(path.parent)

    def close(self) -> None: ...

    def write_once(self, name: str, data: bytes, *, declare: bytes | None = None) -> Written:
        announced = hashlib.sha256(data if declare is None else declare).hexdigest()
        if announced != hashlib.sha256(data).hexdigest():
            return "refused"
        with os_errors(self._shown(name)):
            made = self._write(self._root / check_name(name), io.BytesIO(data), len(data), announced)
        return "stored" if made else "exists"

    def clock(self) -> datetime:
        """Return the file system's time, which is another machine's on a network file system."""
        path = self._root / f".tmp-{secrets.token_hex(8)}"
        with os_errors(self.address):
            try:
                with path.open("xb") as file:
                    file.write(b"?")
                return datetime.fromtimestamp(path.stat().st_mtime, UTC)
            finally:
                path.unlink(missing_ok=True)

    def _write(self, path: Path, body: BinaryIO, size: int, sha256: str) -> bool:
        """Bring a checked, synced file to its place; False when something is there already."""
        self._make_parents(path.parent)
        temporary = path.parent / f".tmp-{secrets.token_hex(8)}"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
            with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123  a descriptor, for its mode
                counted, found = _copy(body, file)
                check_body(self._shown(path), size, sha256, counted=counted, found=found)
                os.fsync(descriptor)
            return _publish(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # a leftover does no harm
                temporary.unlink(missing_ok=True)

    def _make_parents(self, folder: Path) -> None:
        # A folder that another process made a moment ago, or one that was then killed, may not be durable:
        # each is synced once by us, whoever made it.
        inside = folder.relative_to(self._root)
        for part in (*reversed(inside.parents), inside):
            below = self._root / part
            if below != self._root and not (below in self._durable and below.is_dir()):
                _make_folder(below)
                if len(self._durable) >= _MOST_DURABLE:
                    self._durable.clear()
                self._durable.add(below)

    def _walk(self, folder: str, prefix: str, *, fold: bool) -> Iterator[Stat]:
        with os_errors(self._shown(folder)):
            try:
                with os.scandir(self._root / folder) as entries:
                    # A folder sorts as its objects do, by the slash after its name.
                    found = sorted((entry.name + "/" * entry.is_dir(), entry) for entry in entries)
            except (FileNotFoundError, NotADirectoryError):
                return
        for part, entry in found:
            name = f"{folder}/{part}" if folder else part
            if not is_name(name.removesuffix("/")):
                continue
            if part.endswith("/"):
                if fold and name.startswith(prefix):
                    yield Stat(name, 0)
                elif name.startswith(prefix) or prefix.startswith(name):
                    yield from self._walk(name[:-1], prefix, fold=fold)
            elif name.startswith(prefix):
                with os_errors(self._shown(name)), contextlib.suppress(FileNotFoundError):
                    if entry.is_file():
                        yield _stat_of(name, entry.stat())

    def _check_root(self) -> None:
        with os_errors(self.address):
            found = self._root.is_dir()
        if not found:
            raise StoreError(
                f"no folder {self._root}",
                hint="Mount the disk it is on, correct the address, or make an archive with `zbackup init`.",
            )

    def _shown(self, name: str | Path) -> str:
        return str(self._root / name)


def _stat_of(name: str, found: os.stat_result) -> Stat:
    return Stat(name, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


class _FileBody(io.RawIOBase):
    """A file read to the length it had when it was opened, failures translated."""

    def __init__(self, path: Path, shown: str) -> None:
        super().__init__()
        self._shown = shown
        with os_errors(shown, missing=ObjectMissing):
            self._file = io.FileIO(path, "rb")
            self._size = os.fstat(self._file.fileno()).st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: WriteableBuffer) -> int:
        with os_errors(self._shown):
            count = self._file.readinto(buffer) or 0
        if count == 0 and memoryview(buffer).nbytes and (at := self._file.tell()) < self._size:
            raise StoreError(f"{self._shown}: ended at {at} of {self._size} bytes while it was read")
        return count

    def close(self) -> None:
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
        super().close()


def _copy(body: BinaryIO, file: io.FileIO) -> tuple[int, str]:
    counted, sha = 0, hashlib.sha256()
    while block := body.read(BLOCK_BYTES):
        counted += len(block)
        sha.update(block)
        rest = memoryview(block)
        while rest:
            rest = rest[file.write(rest) :]
    return counted, sha.hexdigest()


def _publish(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Two writers may both come this far and the later replace the earlier. As no name is used for
        # two contents, it then replaces an object by itself.
        if os.path.lexists(path):
            return False
        temporary.rename(path)
    return True


def _make_folder(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(_FOLDER_MODE)
    _sync_folder(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
