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
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from zbackup.database.connection import APPLICATION, Connection
from zbackup.database.pg_dump import LONGEST_SECONDS, NoProgram, Program, find_program, surroundings
from zbackup.dsn import MASK

# While it waits for one table pg_dump holds the locks on those before it, and logins queue behind whoever
# waits for one of these.
LOCK_WAIT_MS = 3000

# These name another server than the one that the snapshot is on.
_NOT_HANDED_ON = {"PGSERVICE", "PGSERVICEFILE", "PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS"}


@dataclass(frozen=True, slots=True)
class SchemaText:
    pre_data: bytes | None
    post_data: bytes | None
    note: str
    """which pg_dump wrote it, or why none did"""


class _Failed(Exception):
    pass


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
    variables = surroundings()
    for option in connection.pgconn.info:
        if option.envvar and option.val:
            variables[option.envvar.decode()] = os.fsdecode(option.val)
    info = connection.info
    variables |= {"PGHOST": info.host, "PGPORT": str(info.port), "PGAPPNAME": APPLICATION}
    variables |= {"PGHOSTADDR": info.hostaddr, "PGPASSWORD": info.password}
    return {key: value for key, value in variables.items() if value and key not in _NOT_HANDED_ON}


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
