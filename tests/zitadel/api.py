"""ZITADEL's public APIs, as far as the tests need them: JSON over HTTP, the instance chosen by the Host header."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from typing import Any, TypeVar

from tests.zitadel.network import Network
from tests.zitadel.truth import Answers, answers
from zbackup.zitadel.copy import LOOPBACK

REQUEST_SECONDS = 60

LIMIT = 1000
"""ZITADEL's own for one answer; the largest list of the fixtures has 789 entries."""

ORGANISATION = "x-zitadel-orgid"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    text: str


def request(
    network: Network,
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Send one request to a server inside the network. Raises OSError, HTTPException."""
    connection = HTTPConnection(LOOPBACK, port)
    connection.sock = network.call(socket.create_connection, (LOOPBACK, port), REQUEST_SECONDS)
    with closing(connection):
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Response(response.status, response.read().decode())


class ApiError(Exception):
    def __init__(self, status: int, request: str, answer: str) -> None:
        super().__init__(f"{request}: {status} {answer}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Api:
    """One instance, as the bearer of a token sees it."""

    network: Network
    port: int
    host: str
    token: str | None = None

    def bearing(self, token: str | None) -> Api:
        return replace(self, token=token)

    def get(self, path: str) -> Any:
        return self._call("GET", path)

    def post(self, path: str, body: object, **headers: str) -> Any:
        return self._call("POST", path, body, headers)

    def answers(self) -> Answers:
        """Ask for everything that is compared with a truth."""
        organisations = self._list("/admin/v1/orgs/_search")
        projects = [
            project
            for organisation in organisations
            for project in self._list("/management/v1/projects/_search", **{ORGANISATION: organisation["id"]})
        ]
        return answers(organisations, self._list("/v2/users"), projects)

    def user(self, user: str) -> dict[str, Any]:
        return self.get(f"/v2/users/{user}")["user"]

    def add_human(self, organisation: str, name: str, email: str) -> str:
        """Add a person with a verified address, who is sent nothing; return the user's id."""
        body = {
            "organization": {"orgId": organisation},
            "username": name,
            "profile": {"givenName": "Ada", "familyName": "Again"},
            "email": {"email": email, "isVerified": True},
        }
        return self.post("/v2/users/human", body)["userId"]

    def set_password(self, user: str, password: str) -> None:
        self.post(f"/v2/users/{user}/password", {"newPassword": {"password": password, "changeRequired": False}})

    def sign_in(self, login_name: str, password: str) -> str:
        """Check a password in a new session; return the session's token."""
        checks = {"user": {"loginName": login_name}, "password": {"password": password}}
        return self.post("/v2/sessions", {"checks": checks})["sessionToken"]

    def send_reset_code(self, user: str) -> None:
        self.post(f"/v2/users/{user}/password_reset", {"sendLink": {"notificationType": "NOTIFICATION_TYPE_Email"}})

    def _list(self, path: str, **headers: str) -> list[dict[str, Any]]:
        said = self.post(path, {"query": {"limit": LIMIT}}, **headers)
        found = said.get("result", [])
        if len(found) != int(said["details"].get("totalResult", 0)):
            raise ApiError(200, f"POST {self.host}{path}", f"{len(found)} entries of {said['details']}")
        return found

    def _call(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
        sent = {"Host": f"{self.host}:{self.port}", "Content-Type": "application/json", **(headers or {})}
        if self.token is not None:
            sent["Authorization"] = f"Bearer {self.token}"
        said = request(self.network, self.port, method, path, None if body is None else json.dumps(body).encode(), sent)
        if said.status >= 300:
            raise ApiError(said.status, f"{method} {self.host}{path}", said.text)
        return json.loads(said.text) if said.text else None


def eventually(look: Callable[[], T], good: Callable[[T], bool], seconds: float) -> T:
    """Look again until it is good or the time is over; return what was seen last."""
    deadline = time.monotonic() + seconds
    while not good(seen := look()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return seen
