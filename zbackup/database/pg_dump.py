"""Find the pg_dump programs of this machine, and the one that fits a server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from zbackup.database.programs import available_versions

# A schema takes a second; a server that does not answer takes for ever.
LONGEST_SECONDS = 300

# Where distributions put the programs of one version: Debian, then Red Hat.
_PLACES = (("/usr/lib/postgresql", "*/bin"), ("/usr", "pgsql-*/bin"))


@dataclass(frozen=True, slots=True)
class Program:
    path: Path
    version: str
    """as it says itself, such as 15.18 (Debian 15.18-0+deb12u1)"""

    @property
    def major(self) -> int:
        return int(re.split(r"\D", self.version, maxsplit=1)[0])


class NoProgram(Exception):
    """There is no pg_dump that fits. Its text says which were found."""


def installed() -> list[Program]:
    """Return each pg_dump of this machine, in the order in which they are looked at."""
    return [program for path in dict.fromkeys(_candidates()) if (program := _program(path))]


def find_program(server_major: int, given: str | None = None) -> Program:
    """
    Find the pg_dump that is nearest to the server's version and not older.

    `given` is a path or a name on the PATH; then no other is looked for. Raises NoProgram.
    """
    programs = [program for program in [_program(given)] if program] if given else installed()
    fitting = [program for program in programs if program.major >= server_major]
    if fitting:
        return min(fitting, key=lambda program: program.major)
    if given:
        what = f"{given} is version {programs[0].version}" if programs else f"{given} is no pg_dump"
        raise NoProgram(f"{what}; the server needs {server_major} or later")
    found = ", ".join(f"{program.path} is {program.version}" for program in programs)
    raise NoProgram(f"there is no pg_dump of version {server_major} or later ({found or 'none at all'})")


def _candidates() -> Iterator[str]:
    if on_path := shutil.which("pg_dump"):
        yield on_path
    for place, below in _PLACES:
        for folder in sorted(Path(place).glob(below)):
            yield str(folder / "pg_dump")
    for folder in available_versions().values():
        yield str(folder / "pg_dump")


def _program(path: str) -> Program | None:
    executable = shutil.which(path)
    if executable is None:
        return None
    try:
        status = Path(executable).stat()
        said = _version_said(executable, status.st_mtime_ns, status.st_size)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.match(r"pg_dump \(PostgreSQL\) (\d.*)", said)
    return Program(Path(executable), version[1].strip()) if version else None


@cache
def _version_said(executable: str, _modified: int, _size: int) -> str:
    """Ask once for each file, and again when it was replaced."""
    command = [executable, "--version"]
    done = subprocess.run(command, env=surroundings(), capture_output=True, timeout=LONGEST_SECONDS, check=False)
    return done.stdout.decode(errors="replace")


def surroundings() -> dict[str, str]:
    """Return the environment in English and without libpq's variables, by which Debian's pg_dump goes too."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}
