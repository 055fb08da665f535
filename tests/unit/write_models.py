"""What ZITADEL's commands read: each model goes through the whole history anew, by events of its own choice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

INSTANCE = "i"
ADDED = ("user.human.added", "user.machine.added")
FIRST = "user.added"
POLICY = "org.policy.domain."


@dataclass(frozen=True)
class Fact:
    """What is in one event."""

    kind: str
    aggregate: str
    owner: str
    data: dict[str, object]

    def text(self, key: str) -> str:
        return str(self.data.get(key, ""))


@dataclass
class WriteModels:
    version: str
    facts: list[Fact] = field(default_factory=list[Fact])

    def of(self, aggregate: str, *kinds: str) -> list[Fact]:
        return [fact for fact in self.facts if fact.aggregate == aggregate and fact.kind in kinds]

    def exists(self, aggregate: str, added: Iterable[str], removed: str) -> bool:
        found = self.of(aggregate, *added, removed)
        return bool(found) and found[-1].kind != removed

    def org_exists(self, org: str) -> bool:
        return self.exists(org, ["org.added"], "org.removed")

    def user_exists(self, user: str) -> bool:
        return self.exists(user, [*ADDED, FIRST], "user.removed")

    def latest(self, aggregate: str, key: str, *kinds: str) -> str:
        named = [fact for fact in self.of(aggregate, *kinds) if key in fact.data]
        return named[-1].text(key) if named else ""

    def instance_policy(self) -> bool:
        kinds = ("instance.policy.domain.added", "instance.policy.domain.changed")
        found = self.of(INSTANCE, *kinds)
        return bool(found) and bool(found[-1].data.get("userLoginMustBeDomain"))

    def policy(self, org: str) -> bool:
        found = self.of(org, POLICY + "added", POLICY + "changed", POLICY + "removed")
        if not found or found[-1].kind == POLICY + "removed":
            return self.instance_policy()
        return bool(found[-1].data.get("userLoginMustBeDomain"))

    def has_policy(self, org: str) -> bool:
        return self.exists(org, [POLICY + "added", POLICY + "changed"], POLICY + "removed")

    def setting(self, org: str) -> bool:
        kinds = ("settings.organization.set", "settings.organization.removed", "org.added", "org.removed")
        found = self.of(org, *kinds)
        return bool(found) and bool(found[-1].data.get("organizationScopedUsernames"))

    def scoped(self, org: str) -> bool:
        return self.policy(org) or self.setting(org)

    def own_name(self, user: str) -> str:
        """Return the name that the user's model knows, which ignores claims."""
        return self.latest(user, "userName", *ADDED, FIRST, "user.username.changed")

    def login_name(self, user: str) -> str:
        return self.latest(user, "userName", *ADDED, FIRST, "user.username.changed", "user.domain.claimed")

    def owner(self, user: str) -> str:
        return self.of(user, *ADDED, FIRST)[-1].owner

    def listed(self, org: str) -> dict[str, str]:
        """Return users and names that the organization's list knows, which reads no events of the first generation."""
        names: dict[str, str] = {}
        for fact in self.facts:
            if fact.owner != org:
                continue
            known = fact.aggregate in names
            if fact.kind in ADDED or (known and fact.kind in {"user.username.changed", "user.domain.claimed"}):
                names[fact.aggregate] = fact.text("userName")
            elif fact.kind == "user.removed":
                names.pop(fact.aggregate, None)
        return names

    def links(self, facts: Iterable[Fact]) -> list[str]:
        links: list[str] = []
        for fact in facts:
            link = fact.text("idpConfigId") + fact.text("userId")
            if fact.kind == "user.human.externalidp.added":
                links.append(link)
            elif fact.kind == "user.human.externalidp.removed" and link in links:
                links.remove(link)
            elif fact.kind in ADDED and self.version == "main":
                links.clear()
        return links

    def links_of_user(self, user: str) -> list[str]:
        return self.links(fact for fact in self.facts if fact.aggregate == user)

    def links_of_org(self, org: str) -> list[str]:
        return self.links(fact for fact in self.facts if fact.owner == org and fact.kind not in ADDED)

    def entities(self, facts: Iterable[Fact], *, blanks: bool) -> list[str]:
        """Return the SAML entity ids, by a list that takes a change without one for a change, or not."""
        found: list[list[str]] = []
        for fact in facts:
            app, entity = fact.text("appId"), fact.text("entityId")
            if fact.kind == "project.application.config.saml.added":
                found.append([app, entity])
            elif fact.kind == "project.application.config.saml.changed" and (entity or blanks):
                for pair in [pair for pair in found if pair[0] == app][:1]:
                    pair[1] = entity
            elif fact.kind == "project.application.removed":
                for pair in [pair for pair in found if pair[0] == app][:1]:
                    found.remove(pair)
        return [entity for _, entity in found]

    def domains(self, org: str) -> list[str]:
        domains: list[str] = []
        for fact in self.of(org, "org.domain.verified", "org.domain.removed"):
            if fact.kind == "org.domain.verified":
                domains.append(fact.text("domain"))
            elif fact.text("domain") in domains:
                domains.remove(fact.text("domain"))
        return domains

    def project_exists(self, project: str) -> bool:
        return self.exists(project, ["project.added"], "project.removed")

    def project_name(self, project: str) -> str:
        return self.latest(project, "name", "project.added", "project.changed")

    def app_exists(self, project: str, app: str) -> bool:
        """Whether the application is there; it goes with its project, even if that comes back."""
        gone = False
        for fact in self.facts:
            if fact.aggregate == project and fact.kind == "project.removed":
                gone = True
            elif fact.aggregate == project and fact.text("appId") == app:
                gone = fact.kind == "project.application.removed"
        return bool(self.app(project, app, "project.application.added")) and not gone

    def entity(self, project: str, app: str) -> str:
        kinds = ("project.application.config.saml.added", "project.application.config.saml.changed")
        return [fact for fact in self.app(project, app, *kinds) if fact.text("entityId")][-1].text("entityId")

    def app(self, project: str, app: str, *kinds: str) -> list[Fact]:
        return [fact for fact in self.of(project, *kinds) if fact.text("appId") == app]
