"""The world of a generated history: instances, their long-lived aggregates, ids and chance."""

from __future__ import annotations

import binascii
import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Ids are decimal numbers with rare exceptions: system users, user schemas and the API's own ids are free text.
ODD_IDS = ("two words", "a:b", "tab\there", "back\\slash", "line\nbreak", "ünï·çøde", "quo\"te'd", "%_", "\\N", " lead")

CREATORS = ("", "", "", "system", "LOGIN", "OIDC", "SAML", "NOTIFICATION", "login client")


@dataclass(slots=True)
class Push:
    """What one call wrote: rows of COPY text with one created_at."""

    microseconds: int
    """its created_at since 1970"""
    rows: list[str]
    committed: bool = False

    @property
    def created_at(self) -> datetime:
        return EPOCH + timedelta(microseconds=self.microseconds)


@dataclass(slots=True)
class Aggregate:
    """An aggregate under way: its key as COPY text, and where its sequence stands."""

    instance: Instance
    kind: str
    id: str
    owner: str
    prefix: str
    revision: int = 1
    sequence: int = 0
    held: Push | None = None
    """the push that has not committed yet (generator.History)"""


@dataclass(slots=True)
class Instance:
    id: str
    counter: int = 0
    """the instance-wide sequence of the old days"""
    orgs: list[Aggregate] = field(default_factory=list[Aggregate])
    users: list[Aggregate] = field(default_factory=list[Aggregate])
    machines: list[Aggregate] = field(default_factory=list[Aggregate])
    projects: list[Aggregate] = field(default_factory=list[Aggregate])


Draft = tuple[Aggregate, str, str, str]
"""aggregate, event type, payload, creator"""
Drafts = list[Draft]

# Ids grow like time does.
ID_STEP = 1 << 20


class World:
    """Ids, chance and the long-lived aggregates; the same seed gives the same world."""

    def __init__(self, seed: int, *, instances: int, odd: float) -> None:
        self.rng = random.Random(seed)
        self._chance = self.rng.random
        self.odd = odd
        self._id = 400839037394357286 + seed % 1000
        self.system = Instance("")
        self.instances = [Instance(self.new_id()) for _ in range(instances)]
        if odd and instances > 2:
            self.instances[2].id = "instance: 3\\"

    def new_id(self) -> str:
        self._id += 1 + int(self._chance() * ID_STEP)
        return str(self._id)

    def maybe_odd_id(self) -> str:
        number = self.new_id()
        return f"{self.rng.choice(ODD_IDS)} {number}" if self.rng.random() < self.odd else number

    def aggregate(self, instance: Instance, kind: str, identity: str, owner: str, revision: int = 1) -> Aggregate:
        prefix = f"{escaped(instance.id)}\t{kind}\t{escaped(identity)}\t"
        return Aggregate(instance, kind, identity, escaped(owner), prefix, revision)

    def instance(self) -> Instance:
        """Choose an instance; the first ones have most to do."""
        return self.instances[int(len(self.instances) * self.rng.random() ** 3)]

    def user(self, instance: Instance) -> Aggregate:
        return instance.users[int(self.rng.random() * len(instance.users))]

    def creator(self) -> str:
        return self.rng.choice(CREATORS)

    def token(self, size: int = 24) -> str:
        return binascii.b2a_base64(self.rng.randbytes(size), newline=False).decode()


def copied(value: object) -> str:
    """Write JSON as COPY text."""
    return json.dumps(value, ensure_ascii=False).replace("\\", "\\\\")


def escaped(text: str) -> str:
    """Escape a text for COPY."""
    if text.isdigit():
        return text
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
