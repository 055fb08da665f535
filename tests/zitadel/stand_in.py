"""
A stand-in for the binary: so much of ZITADEL that every test of test_restored.py can be run against it.

    init                        looks whether the database is there
    setup --for-mirror          makes what a real v4.13.1 made, from the fixture of a prepared database
    setup --init-projections    records a step, and mails like ZITADEL where handler states are missing
    start                       answers from the truth of the instant that the database holds

Tokens and names are checked against what was restored. It proves that the drill works, and nothing about ZITADEL.
With STAND_IN_FAULTY it mails, pushes and answers what it should not.
"""

from __future__ import annotations

import json
import os
import smtplib
import sys
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psycopg
import yaml

from tests import fixture_data
from tests.zitadel.past import Log, log_at, mail_ports
from tests.zitadel.tokens import OIDC_KEY, mint, open_key, read
from tests.zitadel.truth import Instance, read_truth
from zbackup.zitadel.copy import LOOPBACK

VERSION = "v4.13.1"

FAULTY = "STAND_IN_FAULTY" in os.environ

SESSION = "sess_"

LIVING = """
    SELECT instance_id FROM eventstore.events2 WHERE event_type = 'instance.added'
    EXCEPT SELECT instance_id FROM eventstore.events2 WHERE event_type = 'instance.removed'
"""


class Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def main(command: str, *flags: str) -> None:
    if command == "--version":
        print(f"zitadel version {VERSION}")  # noqa: T201 - it is a program
        return
    settings = yaml.safe_load(Path(flags[flags.index("--config") + 1]).read_text())
    with connect(settings) as connection:
        if command == "setup" and "--for-mirror" in flags:
            fixture_data.load(connection, f"{VERSION}-prepared", tables="all", full=True)
        elif command == "setup":
            assert "--init-projections=true" in flags
            push(connection, "user.human.added" if FAULTY else "system.migration.repeatable.done")
            mail_the_past(connection)
        elif command == "start":
            with HTTPServer((LOOPBACK, settings["Port"]), Answers) as server:
                Answers.world = World(connection)
                server.serve_forever()


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


def push(connection: psycopg.Connection[Any], event_type: str) -> None:
    connection.execute(
        """INSERT INTO eventstore.events2
           SELECT '', 'system', 'SYSTEM', %s, max("sequence") + 1, 1, now(),
                  '{"name": "stand_in", "lastRun": {}}', 'system', 'SYSTEM', extract(epoch FROM now()), 1
           FROM eventstore.events2 WHERE instance_id = '' AND aggregate_type = 'system' AND aggregate_id = 'SYSTEM'""",
        (event_type,),
    )


def mail_the_past(connection: psycopg.Connection[Any]) -> None:
    silent = "SELECT instance_id FROM projections.current_states WHERE projection_name = 'projections.notifications'"
    for (instance,) in connection.execute(LIVING if FAULTY else f"{LIVING} EXCEPT {silent}"):
        mail(log_of(connection)[1], "everybody@mail.test", f"the past of {instance}")


def log_of(connection: psycopg.Connection[Any]) -> tuple[str, Log]:
    """Return the instant that the database holds, by the events of its instances, and all that happened until then."""
    counted = dict(connection.execute("SELECT instance_id, count(*) FROM eventstore.events2 GROUP BY 1").fetchall())
    counted.pop("", None)
    for truth in fixture_data.truths(VERSION, full=True):
        if {instance: number for instance, number in truth.instances.items() if instance} == counted:
            return truth.label, log_at(VERSION, truth.label)
    raise AssertionError(f"the database holds no instant of the fixture: {counted}")


def mail(log: Log, recipient: str, subject: str) -> None:
    message = EmailMessage()
    message["To"], message["Subject"] = recipient, subject
    with smtplib.SMTP(LOOPBACK, min(mail_ports(log))) as server:
        server.send_message(message, from_addr="zitadel@localhost")


class World:
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        label, self.log = log_of(connection)
        self.instances = {instance.domain: instance for instance in read_truth(VERSION, label).values()}
        self.passwords: dict[str, str] = {}
        self.added: dict[str, dict[str, Any]] = {}
        stored = connection.execute("SELECT key FROM system.encryption_keys WHERE id = %s", (OIDC_KEY,)).fetchone()
        assert stored is not None
        self.oidc_key = open_key(stored[0], os.environ["ZITADEL_MASTERKEY"])

    def bearer(self, instance: Instance, token: str) -> str:
        """Return whose token it is."""
        try:
            token_id, user = read(self.oidc_key, token)
        except ValueError:
            raise Refused(401) from None
        if not token_id.startswith(SESSION):
            changes = self.connection.execute(
                """SELECT count(*) FILTER (WHERE event_type = 'user.pat.added'), count(*) FROM eventstore.events2
                   WHERE instance_id = %s AND aggregate_id = %s AND payload->>'tokenId' = %s""",
                (instance.id, user, token_id),
            ).fetchone()
            if changes != (1, 1):
                raise Refused(401)
        return user

    def add(self, instance: Instance, body: dict[str, Any]) -> dict[str, Any]:
        name, organisation = body["username"], body["organization"]["orgId"]
        fields = [name.lower(), (name + organisation).lower()]
        known = """SELECT FROM eventstore.unique_constraints
                   WHERE instance_id = %s AND unique_type = 'usernames' AND unique_field = ANY (%s)"""
        if self.connection.execute(known, (instance.id, fields)).fetchone() is not None:
            raise Refused(409)
        user = f"new{len(self.added)}"
        self.added[user] = {"userId": user, "username": name}
        return {"userId": user}

    def user(self, instance: Instance, user: str) -> dict[str, Any]:
        return {"user": self.added.get(user) or instance.answers.users[user]}

    def address(self, instance: Instance, user: str) -> str:
        return instance.answers.users[user]["human"]["email"]["email"]

    def set_password(self, instance: Instance, user: str, body: dict[str, Any]) -> None:
        self.passwords[user] = body["newPassword"]["password"]
        mail(self.log, self.address(instance, user), "password changed")

    def sign_in(self, instance: Instance, checks: dict[str, Any]) -> dict[str, Any]:
        named = checks["user"]["loginName"]
        user = next(user for user, said in instance.answers.users.items() if said["preferredLoginName"] == named)
        if self.passwords.get(user) != checks["password"]["password"]:
            raise Refused(400)
        return {"sessionToken": mint(self.oidc_key, f"{SESSION}{user}", user)}


class Answers(BaseHTTPRequestHandler):
    world: World

    def _answer(self) -> None:
        try:
            status, said = 200, self._said()
        except Refused as refused:
            status, said = refused.status, {"code": refused.status}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())

    def _said(self) -> object:
        world, body = self.world, self._body()
        if self.path == "/debug/ready":
            return {}
        if self.path == "/.well-known/openid-configuration":
            return {"issuer": f"http://{self._known_host()}"}
        instance = world.instances[self.headers["Host"].partition(":")[0]]
        world.bearer(instance, self.headers.get("Authorization", "").removeprefix("Bearer "))
        match [self.command, *self.path.removeprefix("/").split("/")]:
            case ["POST", "admin", "v1", "orgs", "_search"]:
                found = list(instance.answers.organisations.values())
                return _listed(found[1:] if FAULTY else found)
            case ["POST", "management", "v1", "projects", "_search"]:
                owner = {"resourceOwner": self.headers["x-zitadel-orgid"]}
                return _listed([one for one in instance.answers.projects.values() if one["details"] == owner])
            case ["POST", "v2", "users"]:
                return _listed([*instance.answers.users.values(), *world.added.values()])
            case ["GET", "v2", "users", user]:
                return world.user(instance, user)
            case ["POST", "v2", "users", "human"]:
                return world.add(instance, body)
            case ["POST", "v2", "users", user, "password"]:
                return world.set_password(instance, user, body)
            case ["POST", "v2", "users", user, "password_reset"]:
                return mail(world.log, world.address(instance, user), "a code")
            case ["POST", "v2", "sessions"]:
                return world.sign_in(instance, body["checks"])
            case _:
                raise Refused(404)

    def _known_host(self) -> str:
        """Return the Host header if it is of a domain of an instance."""
        known = self.world.connection.execute(
            "SELECT payload->>'domain' FROM eventstore.events2 WHERE event_type = 'instance.domain.added'"
        )
        host: str = self.headers["Host"]
        if host.partition(":")[0] not in {domain for (domain,) in known}:
            raise Refused(404)
        return host

    def _body(self) -> dict[str, Any]:
        length = int(self.headers.get("Content-Length") or 0)
        return json.loads(self.rfile.read(length)) if length else {}

    do_GET = do_POST = _answer  # noqa: N815 - names that http.server looks for


def _listed(found: list[Any]) -> dict[str, Any]:
    return {"details": {"totalResult": str(len(found))}, "result": found}


if __name__ == "__main__":
    main(*sys.argv[1:])
