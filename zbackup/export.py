"""
Write events out, as JSON lines or as the COPY text that they are archived as.

A file gets its name when it is whole and on disk; what did not come so far is removed, or hidden when it was killed.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zbackup.archive.between import Block
from zbackup.archive.rows import split_rows
from zbackup.archive.sound import rows_of
from zbackup.errors import OutputLost, UsageError
from zbackup.event_json import event_of
from zbackup.log import Log

Format = Literal["jsonl", "copy"]
Write = Callable[[bytes], None]

# Payloads hold personal data, and hashes of passwords.
_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Exported:
    events: int
    bytes: int


def export(log: Log, form: Format, write: Write) -> Exported:
    """Hand the events over, the oldest first, in whole lines. Raises Damaged, StoreError after part of them."""
    events = size = 0
    for block in log.blocks():
        events += block.rows.count(b"\n")
        for part in (block.rows,) if form == "copy" else _json_lines(block):
            write(part)
            size += len(part)
            del part
        del block
    return Exported(events, size)


@contextmanager
def whole_file(path: Path, *, replace: bool = False) -> Generator[Write]:
    """
    Write a file; it has its name when the block has ended well.

    Only its owner may read it, unless it is to replace what is there: then as the umask says.

    Raises UsageError when there is something of that name, OutputLost when it cannot be written.
    """
    if path.is_dir() or (not replace and os.path.lexists(path)):
        raise UsageError(f"{path} is there already", hint="Choose another name, or remove it.")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if replace else _MODE)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor, for its mode

                def write(data: bytes) -> None:
                    file.write(data)

                yield write
                file.flush()
                os.fsync(descriptor)
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise OutputLost(
            f"{path}: {error.strerror or error}", hint="Make room there or choose another place, then run again."
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some file systems have no such thing
            raise
    finally:
        os.close(descriptor)


def _json_lines(block: Block) -> Iterator[bytes]:
    with rows_of(block.chunk):
        for row in split_rows(block.rows):
            yield event_of(row).to_json(payload=True).encode() + b"\n"
