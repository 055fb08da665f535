"""What waits to be stored or loaded: in memory while it is small, then in a nameless file in the spool folder."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

from zbackup.errors import StoreError, StoreFull

# What waits grows in memory up to this size, then in the spool folder.
SPOOL_BYTES = 32 << 20

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Spool(tempfile.SpooledTemporaryFile[bytes]):
    """
    A temporary file whose failures are StoreErrors that name the folder, not what is to be stored.

    Raises StoreFull when there is no room. It is closed by a failure.
    """

    def __init__(
        self, folder: str | None, *, memory: int = SPOOL_BYTES, way_out: str = "name another folder with --spool"
    ) -> None:
        super().__init__(max_size=memory, dir=folder)
        self._folder, self._way_out = folder, way_out

    def write(self, s: Any) -> int:
        with self._errors():
            return super().write(s)

    def read(self, *args: int) -> bytes:
        with self._errors():
            return super().read(*args)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with self._errors():
            return super().seek(offset, whence)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        # What could not be written is tried again here, and nobody wants it any more.
        with suppress(OSError):
            super().close()

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            self.close()
            kind = StoreFull if error.errno in _FULL else StoreError
            raise kind(
                f"spool {self._folder or tempfile.gettempdir()}: {error.strerror or error}",
                hint=f"Make room there, or {self._way_out}; then run again.",
            ) from error
