"""The versions of what zbackup is made of here: what a report of a bug should say."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import zstandard

from zbackup import __version__
from zbackup.archive import FORMAT
from zbackup.database.pg_dump import Program, installed


@dataclass(frozen=True, slots=True)
class PgDump:
    path: str
    version: str


@dataclass(frozen=True, slots=True)
class Parts:
    zbackup: str
    archive_format: int
    """the newest that is read, and the one that is written"""
    python: str
    psycopg: str
    libpq: str
    boto3: str
    zstandard: str
    libzstd: str
    pg_dump: tuple[PgDump, ...]
    """all that a backup may choose from, those first that it looks at first"""


def parts() -> Parts:
    """Look at what is installed: each pg_dump is asked while libpq is loaded; either takes half a tenth of a second."""
    programs: list[Program] = []
    asking = Thread(target=lambda: programs.extend(installed()))
    asking.start()
    from zbackup.database.connection import driver

    psycopg, libpq = driver()
    asking.join()
    return Parts(
        zbackup=__version__,
        archive_format=FORMAT,
        python=platform.python_version(),
        psycopg=psycopg,
        libpq=libpq,
        boto3=_recorded("boto3"),
        zstandard=zstandard.__version__,
        libzstd=".".join(map(str, zstandard.ZSTD_VERSION)),
        pg_dump=tuple(PgDump(str(one.path), one.version) for one in programs),
    )


def _recorded(package: str) -> str:
    """Read a version off the name that installers give the folder of its metadata; importing would take too long."""
    for folder in map(Path, sys.path):
        for found in folder.glob(f"{package}-*.dist-info"):
            return found.name.removeprefix(f"{package}-").removesuffix(".dist-info")
    return "unknown"
