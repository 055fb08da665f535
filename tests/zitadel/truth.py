"""
What the public APIs said at an instant of a fixture, and how the answers of now differ from it.

    api.json.zst    {instances: {NAME: {instance, domains, orgs, users, org: {ID: {projects, …}}, …}}, …}

Volatile fields were removed from it; they are removed from what is compared with it, too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import zstandard

from tests.fixture_data import place_of

VOLATILE = {"sequence", "creationDate", "changeDate"}

Objects = Mapping[str, Any]
"""JSON objects by id"""

_NOTHING = object()


@dataclass(frozen=True, slots=True)
class Answers:
    """What one instance says about itself."""

    organisations: Objects
    users: Objects
    projects: Objects


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who signs in with a password alone, and whose verified address nobody else has; all is active."""

    id: str
    organisation: str
    name: str
    login_name: str
    email: str


@dataclass(frozen=True, slots=True)
class Instance:
    id: str
    name: str
    domain: str
    """the primary one"""
    active: frozenset[str]
    """organisations in which people can be added and sign in"""
    people: tuple[Person, ...]
    answers: Answers


def read_truth(version: str, label: str) -> dict[str, Instance]:
    """Return the instances of an instant by their names in the fixture, the first of which is alpha."""
    packed = (place_of(version, full=True) / "truth" / label / "api.json.zst").read_bytes()
    plain = json.loads(zstandard.ZstdDecompressor().decompressobj().decompress(packed))
    return {name: _instance(name, said) for name, said in plain["instances"].items()}


def answers(organisations: list[Any], users: list[Any], projects: list[Any]) -> Answers:
    """Sort what the APIs returned by id."""
    return Answers(
        organisations={found["id"]: found for found in organisations},
        users={found["userId"]: found for found in users},
        projects={found["id"]: found for found in projects},
    )


def differences(expected: Answers, found: Answers) -> list[str]:
    """Name each object that differs, and where."""
    return [
        *_compared("organisation", expected.organisations, found.organisations),
        *_compared("user", expected.users, found.users),
        *_compared("project", expected.projects, found.projects),
    ]


def _instance(name: str, said: Mapping[str, Any]) -> Instance:
    active = frozenset(found["id"] for found in said["orgs"] if found["state"] == "ORG_STATE_ACTIVE")
    projects = [project for organisation in said["org"].values() for project in organisation["projects"]]
    return Instance(
        id=said["instance"]["instance"]["id"],
        name=name,
        domain=next(entry["domain"] for entry in said["domains"] if entry.get("primary")),
        active=active,
        people=tuple(_people(said, active)),
        answers=answers(said["orgs"], said["users"], projects),
    )


def _people(said: Mapping[str, Any], active: frozenset[str]) -> Iterator[Person]:
    humans = [user for user in said["users"] if "human" in user]
    addresses = Counter(user["human"]["email"]["email"] for user in humans)
    for user in humans:
        methods = said["user"][user["userId"]]["auth_methods"].get("authMethodTypes")
        email = user["human"]["email"]
        if (
            user["state"] == "USER_STATE_ACTIVE"
            and user["details"]["resourceOwner"] in active
            and methods == ["AUTHENTICATION_METHOD_TYPE_PASSWORD"]
            and email.get("isVerified")
            and addresses[email["email"]] == 1
        ):
            yield Person(
                id=user["userId"],
                organisation=user["details"]["resourceOwner"],
                name=user["username"],
                login_name=user["preferredLoginName"],
                email=email["email"],
            )


def _compared(kind: str, expected: Objects, found: Objects) -> Iterator[str]:
    for key in sorted(expected.keys() | found.keys()):
        there = expected.get(key) or found[key]
        what = f"{kind} {key} ({there.get('name') or there.get('preferredLoginName')})"
        if key not in found:
            yield f"{what} is missing"
        elif key not in expected:
            yield f"{what} should not be there"
        else:
            yield from (f"{what}: {difference}" for difference in _fields(expected[key], found[key], ""))


def _fields(expected: Any, found: Any, path: str) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        was, now = cast("Objects", expected), cast("Objects", found)
        for key in sorted((was.keys() | now.keys()) - VOLATILE):
            yield from _fields(was.get(key, _NOTHING), now.get(key, _NOTHING), f"{path}.{key}".lstrip("."))
    elif _unordered(expected) != _unordered(found):
        yield f"{path} is {_shown(found)}, was {_shown(expected)}"


def _unordered(value: Any) -> Any:
    """Lists of these objects (login names, authentication methods) have no order."""
    return sorted(cast("list[Any]", value), key=repr) if isinstance(value, list) else value


def _shown(value: Any) -> str:
    return "absent" if value is _NOTHING else json.dumps(value, ensure_ascii=False)
