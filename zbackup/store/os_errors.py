"""What the operating system says about a file, translated once."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

from zbackup.errors import AccessDenied, StoreError, StoreFull

if TYPE_CHECKING:
    from collections.abc import Generator

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}

_BY_ERRNO: dict[int | None, tuple[type[StoreError], str]] = {
    errno.ENOSPC: (StoreFull, "Make room on the disk, then run again; nothing needs to be removed by hand."),
    errno.EDQUOT: (StoreFull, "The quota is used up: raise it or make room, then run again."),
    errno.EACCES: (AccessDenied, "Check owner and mode of the folder for the user zbackup runs as."),
    errno.EPERM: (AccessDenied, "Check owner and attributes of the folder for the user zbackup runs as."),
    errno.EROFS: (AccessDenied, "The file system is mounted read-only; it may have failed."),
    errno.EIO: (StoreError, "The disk reports a failure: look at the kernel log."),
    errno.ESTALE: (StoreError, "The network file system has gone: mount it again."),
}


@contextlib.contextmanager
def os_errors(what: str, *, missing: type[StoreError] = StoreError) -> Generator[None]:
    """Translate failures of a call about `what`; `missing` is raised when there is no such file."""
    try:
        yield
    except OSError as error:
        kind, hint = _BY_ERRNO.get(error.errno, (missing if error.errno in _ABSENT else StoreError, ""))
        raise kind(f"{what}: {error.strerror or type(error).__name__}", hint=hint) from error
