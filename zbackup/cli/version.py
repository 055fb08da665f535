from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from zbackup.cli.records import plain
from zbackup.cli.render import Output
from zbackup.errors import OutputLost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zbackup.parts import Parts


def run() -> None:
    """Give it out without the rest of the program (zbackup/__main__.py)."""
    output = Output(sys.stdout, sys.stderr, as_json="--json" in sys.argv)
    print_version(output)
    output.finish()
    sys.exit(OutputLost.exit_code if output.lost else 0)


def print_version(output: Output) -> None:
    """Give out what --version asks for."""
    from zbackup.parts import parts

    found = parts()
    output.result("version", plain(found), _lines(found))


def _lines(found: Parts) -> Iterator[str]:
    yield f"zbackup {found.zbackup}, archive format {found.archive_format}"
    yield f"python {found.python}"
    yield f"psycopg {found.psycopg}, libpq {found.libpq}"
    yield f"boto3 {found.boto3}"
    yield f"zstandard {found.zstandard}, libzstd {found.libzstd}"
    for program in found.pg_dump:
        yield f"pg_dump {program.version}: {program.path}"
    if not found.pg_dump:
        yield "pg_dump: none, so that no schema can be captured"
