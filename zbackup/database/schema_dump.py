"""
The schema as text, written by pg_dump in the snapshot of a backup.

In two parts, before and after the data, without owners and privileges, so that everything belongs to whoever
restores it. The same schema gives the same bytes: what pg_dump varies from run to run is taken out.

pg_dump locks every table of these schemas against changes of their shape (ACCESS SHARE) until it is done: 0.1
to 0.3 s per part for ZITADEL's 134 tables (15, 16 and 18, two cores). It may not be older than the server,
and its role must be able to read every table, for the locks. Where it cannot run, the note says why; that is
never an error.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from zbackup.database.connection import APPLICATION, Connection
from zbackup.database.programs import available_versions
from zbackup.dsn import MASK

# While it waits for one table pg_dump holds the locks on those before it, and logins queue behind whoever
# waits for one of these.
LOCK_WAIT_MS = 3000

# A schema takes a second; a server that does not answer takes for ever.
LONGEST_SECONDS = 300

# Where distributions put the programs of one version: Debian, then Red Hat.
_PLACES = (("/usr/lib/postgresql", "*/bin"), ("/usr", "pgsql-*/bin"))

# These name another server than the one that the snapshot is on.
_NOT_HANDED_ON = {"PGSERVICE", "PGSERVICEFILE", "PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS"}


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


@dataclass(frozen=True, slots=True)
class SchemaText:
    pre_data: bytes | None
    post_data: bytes | None
    note: str
    """which pg_dump wrote it, or why none did"""


class _Failed(Exception):
    pass


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


def dump_schema(
    connection: Connection, snapshot: str | None, schemas: Iterable[str], *, pg_dump: str | None = None
) -> SchemaText:
    """
    Write the definitions of these schemas as the snapshot shows them, or without one as they are now.

    `connection` is the session that holds the snapshot: pg_dump connects to where it is, as it did.
    """
    try:
        program = find_program(connection.info.server_version // 10000, pg_dump)
        seen = [] if snapshot is None else ["--snapshot", snapshot]
        pre_data, post_data = (
            _run(program, connection, [*seen, "--section", section], schemas) for section in ("pre-data", "post-data")
        )
    except (NoProgram, _Failed) as failure:
        return SchemaText(None, None, str(failure))
    return SchemaText(pre_data, post_data, f"pg_dump {program.version}")


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
    done = subprocess.run(command, env=_surroundings(), capture_output=True, timeout=LONGEST_SECONDS, check=False)
    return done.stdout.decode(errors="replace")


def _run(
    program: Program, connection: Connection, options: list[str], schemas: Iterable[str], *, tries: int = 2
) -> bytes:
    command = [
        str(program.path), "--schema-only", "--encoding=UTF8", "--no-password", f"--lock-wait-timeout={LOCK_WAIT_MS}",
        "--no-owner", "--no-privileges", "--no-tablespaces", "--no-publications", "--no-subscriptions",
        "--no-security-labels", *options,
        *(f'--schema="{schema}"' for schema in schemas),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command,
            env=environment(connection),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LONGEST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _Failed(f"{program.path} took longer than {LONGEST_SECONDS} s") from None
    except OSError as error:
        raise _Failed(f"{program.path} cannot be run: {error.strerror or error}") from None
    if done.returncode and tries > 1 and b"connection" in done.stderr:
        # It broke. Were it for the server, we are about to hear of it; else this capture would lack its schema.
        return _run(program, connection, options, schemas, tries=tries - 1)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        if connection.info.password:
            said = said.replace(connection.info.password, MASK)
        lines = "; ".join(line.removeprefix("pg_dump: ") for line in said.splitlines()[:3])
        raise _Failed(f"{program.path} failed: {lines or f'exit code {done.returncode}'}")
    return normal(done.stdout)


def environment(connection: Connection) -> dict[str, str]:
    """
    Write the variables by which libpq connects to the very server that a session is on.

    Nothing of it is in argv, and a password is there wherever it came from. Keywords that have no variable
    (keepalives, the passphrase of a client key) are left out.
    """
    variables = _surroundings()
    for option in connection.pgconn.info:
        if option.envvar and option.val:
            variables[option.envvar.decode()] = os.fsdecode(option.val)
    info = connection.info
    variables |= {"PGHOST": info.host, "PGPORT": str(info.port), "PGAPPNAME": APPLICATION}
    variables |= {"PGHOSTADDR": info.hostaddr, "PGPASSWORD": info.password}
    return {key: value for key, value in variables.items() if value and key not in _NOT_HANDED_ON}


def _surroundings() -> dict[str, str]:
    """Return the environment in English and without libpq's variables, by which Debian's pg_dump goes too."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


# Lines of pg_dump's head and foot that differ between two runs, between versions of pg_dump, or that an older
# server would refuse.
_VARYING = re.compile(
    rb"^(?:\\(?:un)?restrict \w+|-- Dumped (?:from|by) .*|SET transaction_timeout = 0;)\n+", re.MULTILINE
)
_FIRST = re.compile(rb"^-- Name: ", re.MULTILINE)
_LAST = b"\n-- PostgreSQL database dump complete\n"


def normal(text: bytes) -> bytes:
    """Take out of pg_dump's text what is not schema; nothing between its head and its foot is touched."""
    first = _FIRST.search(text)
    foot = max(text.rfind(_LAST), first.start() if first else 0)
    head = first.start() if first else foot
    return _VARYING.sub(b"", text[:head]) + text[head:foot] + _VARYING.sub(b"", text[foot:])
