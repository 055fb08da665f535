"""
What ZITADEL's commands know when they decide on constraints: names that are in no later payload.

ZITADEL reads it from the events each time, by models that differ: a user's own model ignores that a domain
was claimed, an organization's list does not; lists of an organization outlive it (facts: 3.3, 3.6). Nothing is
forgotten here when an object is removed, where a model does not forget it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from zbackup.zitadel.constraints.doubt import Doubts
from zbackup.zitadel.constraints.era import Era
from zbackup.zitadel.constraints.event import Event
from zbackup.zitadel.constraints.row import Row

Link = tuple[str, str]
"""identity provider, the user's id there"""
Entity = tuple[str, str]
"""application, its SAML entity id"""


@dataclass(slots=True)
class Org:
    policy: bool | None = None
    """whether its own domain policy wants user names to be unique in the organization only; None: it has none"""
    setting: bool = False
    """whether its settings want that; the development line of v5"""
    users: dict[str, str] = field(default_factory=dict[str, str])
    """names by user, without users that were added by events of the first generation"""
    links: Counter[Link] = field(default_factory=Counter[Link])
    entities: list[Entity] = field(default_factory=list[Entity])
    domains: list[str] = field(default_factory=list[str])
    """verified ones; recreated, an organization may have one twice"""


@dataclass(slots=True)
class Flip:
    """A change of policy, which renames users in the same push, and with it the scope of their names."""

    event: Event
    org: str | None
    """None: all that have no policy of their own"""
    scoped: bool
    """after it"""


@dataclass(slots=True)
class Instance:
    policy: bool | None = None
    """the domain policy, see `Org.policy`; None: not yet set"""
    flip: Flip | None = None
    """the latest one"""
    domains: list[str] = field(default_factory=list[str])
    orgs: defaultdict[str, Org] = field(default_factory=lambda: defaultdict(Org))
    users: dict[str, str] = field(default_factory=dict[str, str])
    """their names, as the users' own models know them"""
    links: dict[str, tuple[Link, ...]] = field(default_factory=dict[str, tuple[Link, ...]])
    """by user, where there are some: most users have none, and there are many"""
    former: dict[str, tuple[Link, ...]] = field(default_factory=dict[str, tuple[Link, ...]])
    """the same, of earlier lives under the same id"""
    names: defaultdict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """by type of constraint and object: what is in its row now, as far as no later payload tells"""
    verified: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """organization and domain"""
    projects: defaultdict[str, list[tuple[int, str | None]]] = field(default_factory=lambda: defaultdict(list))
    """the names of each, by sequence; None: removed"""
    entities: defaultdict[str, list[Entity]] = field(default_factory=lambda: defaultdict(list))
    """by project"""

    def by_policy(self, org: str) -> bool:
        own = self.orgs[org].policy
        return bool(self.policy) if own is None else own

    def scoped(self, org: str) -> bool:
        """Whether the names of an organization's users are unique in it only."""
        return self.by_policy(org) or self.orgs[org].setting


@dataclass(slots=True)
class State:
    era: Era = field(default_factory=Era)
    doubts: Doubts = field(default_factory=Doubts)
    instances: defaultdict[str, Instance] = field(default_factory=lambda: defaultdict(Instance))
    otherwise: dict[Row, str] = field(default_factory=dict[Row, str])
    """rows that the table may hold instead of what the rules say, and why"""
