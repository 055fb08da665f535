"""
The file of metrics that Prometheus' node_exporter reads (its textfile collector).

A run replaces what it measured and keeps what other commands wrote. The file is replaced as a whole, so that nobody
reads half of one; runs at the same time take turns by a lock on the folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import tempfile
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

from zbackup.metrics import Sample, merged, parse, text

# Of a few dozen metrics of a few archives; what is larger is something else.
MOST_BYTES = 4 << 20

# Node_exporter runs as a user of its own.
MODE = 0o644

# Another run needs milliseconds; whoever holds the folder for longer is not waited for.
LOCK_TRIES, LOCK_PAUSE = 50, 0.1

# A run that was killed leaves its new file behind; one that lives has renamed it long before.
STALE_SECONDS = 3600.0


def update(path: Path, samples: Iterable[Sample]) -> None:
    """Put samples into the file. Raises OSError, and ValueError for a file that is none of zbackup's."""
    with _alone(path.parent):
        write_file(path, text(merged(read_file(path), samples)))
        _sweep(path)


def read_file(path: Path) -> list[Sample]:
    """
    Read a file; none is an empty one. Raises OSError, and ValueError for a file that is none of zbackup's.

    Others may write into the folder: no link is followed, no pipe is waited for, and no message tells what was read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError("it is a symbolic link") from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError("it is no file")
    with open(handle, "rb") as file:  # noqa: PTH123
        page = file.read(MOST_BYTES + 1)
    if len(page) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    try:
        return parse(page.decode())
    except Exception:  # the parser's own messages cite the line
        raise ValueError("it is not zbackup's own") from None


def write_file(path: Path, page: bytes) -> None:
    """Replace a file by a new one, whole or not at all. Raises OSError."""
    # Nothing but *.prom is read by the collector, and no file that begins with a dot is looked at by people.
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with open(handle, "wb") as file:  # noqa: PTH123
            file.write(page)
            file.flush()
            os.fchmod(handle, MODE)
            os.fsync(handle)
        os.replace(name, path)  # noqa: PTH105
    except BaseException:
        with suppress(OSError):
            os.unlink(name)  # noqa: PTH108
        raise


def _sweep(path: Path) -> None:
    """Remove the new files that killed runs left beside the file."""
    left = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}\.tmp")  # as mkstemp names them
    with suppress(OSError), os.scandir(path.parent) as there:
        for entry in there:
            if left.fullmatch(entry.name):
                with suppress(OSError):
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_SECONDS:
                        os.unlink(entry.path)  # noqa: PTH108


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Hold the folder's lock, where its file system has locks."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(LOCK_TRIES):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(LOCK_PAUSE)
            except OSError:
                break
            else:
                break
        yield
    finally:
        os.close(handle)
