"""
A stand-in for ZITADEL's binary that needs nothing but a restored database: it proves the drill, not ZITADEL.

    --version    as ZITADEL says it
    setup        records a step, as ZITADEL does
    start        answers /debug/ready, and the discovery document for each domain of an instance

What it was given and what it could reach it writes to the file $STAND_IN_NOTES, a line of JSON for each command.
$STAND_IN_OUTSIDE is a port of this machine's loopback. With STAND_IN_FAULT=hang no command ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psycopg
import yaml

VERSION = "v4.13.1"

FAULT = os.environ.get("STAND_IN_FAULT", "")

STEP = """
    INSERT INTO eventstore.events2
        (instance_id, aggregate_type, aggregate_id, event_type, "sequence", revision, created_at, payload, creator,
         "owner", "position", in_tx_order)
    SELECT '', 'system', 'SYSTEM', 'system.migration.repeatable.done', max("sequence") + 1, 1, now(),
           '{"name": "stand_in", "lastRun": {}}', 'system', 'SYSTEM', extract(epoch FROM now()), 1
      FROM eventstore.events2 WHERE instance_id = '' AND aggregate_type = 'system' AND aggregate_id = 'SYSTEM'
"""

DOMAINS = """
    SELECT payload->>'domain' FROM eventstore.events2 WHERE event_type = 'instance.domain.added'
"""


def main(command: str, *flags: str) -> None:
    if command == "--version":
        print(f"zitadel version {VERSION}")  # noqa: T201 - it is a program
        return
    settings = yaml.safe_load(Path(flags[flags.index("--config") + 1]).read_text())
    with connect(settings) as connection:
        note(command, flags, settings, connection)
        if FAULT == "hang":
            signal.pause()
        if command == "setup":
            connection.execute(STEP)
        else:
            Answers.domains = {domain for (domain,) in connection.execute(DOMAINS)}
            HTTPServer(("127.0.0.1", settings["Port"]), Answers).serve_forever()


def note(command: str, flags: tuple[str, ...], settings: dict[str, Any], connection: psycopg.Connection[Any]) -> None:
    powers = connection.execute("SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = user")
    outside = int(os.environ["STAND_IN_OUTSIDE"])
    line = {
        "command": command,
        "flags": flags,
        "powerful": powers.fetchall()[0][0],
        "external": [settings[name] for name in ("ExternalDomain", "ExternalPort", "ExternalSecure")],
        "loopback": reached("127.0.0.1", outside),
        "internet": reached("192.0.2.1", 25),
        "pid": os.getpid(),
    }
    with Path(os.environ["STAND_IN_NOTES"]).open("a") as notes:
        notes.write(json.dumps(line) + "\n")


def reached(host: str, port: int) -> str:
    try:
        socket.create_connection((host, port), 5).close()
    except OSError as error:
        return error.strerror or str(error)
    return "connected"


def connect(settings: dict[str, Any]) -> psycopg.Connection[Any]:
    there = settings["Database"]["postgres"]
    return psycopg.connect(
        host=there["Host"],
        port=there["Port"],
        dbname=there["Database"],
        user=there["User"]["Username"],
        password=there["User"]["Password"],
        autocommit=True,
    )


class Answers(BaseHTTPRequestHandler):
    domains: set[str]

    def do_GET(self) -> None:
        host = self.headers["Host"]
        found = self.path == "/debug/ready" or (
            self.path == "/.well-known/openid-configuration" and host.partition(":")[0] in self.domains
        )
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"issuer": f"https://{host}"}).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
