"""The versions of what zbackup is made of here: what a report of a bug should say."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version

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
        boto3=version("boto3"),
        zstandard=zstandard.__version__,
        libzstd=".".join(map(str, zstandard.ZSTD_VERSION)),
        pg_dump=tuple(PgDump(str(one.path), one.version) for one in installed()),
    )
