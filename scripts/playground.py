"""
A ZITADEL-like database to try zbackup on: see docs/tutorial.md.

    python -m scripts.playground start FOLDER    a PostgreSQL with databases and a history; FOLDER/services leads there
    python -m scripts.playground work FOLDER     people sign in
    python -m scripts.playground stop FOLDER     stops and removes all of it
"""

from __future__ import annotations

import configparser
import shutil
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from scripts.demo import reserve_names, sign_in
from tests.history import create_schema, fill, fill_state
from zbackup.database.embedded import EmbeddedPostgres

EVENTS = 2_000
SIGN_INS = 50

SERVICES = {"zitadel": "zitadel", "restored": "zitadel_restored"}
"""service of libpq and its database"""


def start(folder: Path) -> None:
    """Make FOLDER, start a server in it that outlives this process, and fill a database."""
    if (folder / "server" / "data" / "postmaster.pid").exists():
        sys.exit(f"a server runs in {folder} already; `scripts/playground stop {folder}` removes it")
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder / "server", settings={"fsync": False})
    server.start()
    services = configparser.ConfigParser()
    for name, database in SERVICES.items():
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {database}".encode())
        services[name] = {key: str(value) for key, value in conninfo_to_dict(server.dsn(database)).items()}
    with (folder / "services").open("w") as file:
        services.write(file, space_around_delimiters=False)
    source = server.dsn(SERVICES["zitadel"])
    with psycopg.connect(source) as connection:
        now = datetime.now(UTC)
        create_schema(connection)
        fill(connection, events=EVENTS, start=now - timedelta(days=90), end=now - timedelta(minutes=1))
        fill_state(connection)
    reserve_names(source)
    print(f"PostgreSQL {server.version} runs in {folder}/server; database zitadel holds {EVENTS:,} events of 90 days")


def work(folder: Path) -> None:
    """Write what happens when people sign in."""
    services = configparser.ConfigParser()
    services.read(folder / "services")
    sign_in(make_conninfo("", **dict(services["zitadel"])), times=SIGN_INS)
    print(f"{SIGN_INS} people signed in")


def stop(folder: Path) -> None:
    """Stop the server, if it runs, and remove the folder with all that is in it."""
    services = configparser.ConfigParser()
    services.read(folder / "services")
    if (folder / "server" / "data" / "postmaster.pid").exists():
        server = EmbeddedPostgres(folder / "server")
        server.run("pg_ctl", "stop", "-D", server.data, "-m", "fast", "-w")
    if "zitadel" in services:
        shutil.rmtree(services["zitadel"]["host"], ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"stopped; {folder} is removed")


VERBS: Mapping[str, Callable[[Path], None]] = {"start": start, "work": work, "stop": stop}

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in VERBS:
        sys.exit(__doc__)
    VERBS[sys.argv[1]](Path(sys.argv[2]).absolute())
