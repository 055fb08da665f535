"""The versions of what zbackup is made of here: what a report of a bug should say."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import zstandard

from zbackup import __version__
from zbackup.archive.manifest import FORMAT
from zbackup.database.connection import driver
from zbackup.database.schema_dump import installed


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
    """Look at what is installed. Takes a tenth of a second: libpq and libzstd are loaded, each pg_dump is asked."""
    psycopg, libpq = driver()
    return Parts(
        zbackup=__version__,
        archive_format=FORMAT,
        python=platform.python_version(),
        psycopg=psycopg,
        libpq=libpq,
        boto3=_recorded("boto3"),
        zstandard=zstandard.__version__,
        libzstd=".".join(map(str, zstandard.ZSTD_VERSION)),
        pg_dump=tuple(PgDump(str(one.path), one.version) for one in installed()),
    )


def _recorded(package: str) -> str:
    """Read a version off the name that installers give the folder of its metadata; importing would take too long."""
    for folder in map(Path, sys.path):
        for found in folder.glob(f"{package}-*.dist-info"):
            return found.name.removeprefix(f"{package}-").removesuffix(".dist-info")
    return "unknown"
