"""
ZITADEL's write side, as naive as it can be: what the fold is measured against.

Every command reads the whole history anew, decides, and writes its events and its constraints in one go, or
nothing when a name is taken. Two versions: v4.13 and the development line of July 2026 ("main").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tests.unit.pushes import Happening, History, event
from tests.unit.write_models import ADDED, FIRST, INSTANCE, POLICY, Fact, WriteModels
from zbackup.zitadel.constraints import Row
from zbackup.zitadel.lowercase import go_lower

Name = tuple[str, str]
"""type and field, before any lower case"""


@dataclass(frozen=True)
class Command:
    """One event of a push, and what it wants of the table."""

    fact: Fact
    remove: tuple[Name, ...] = ()
    add: tuple[Name, ...] = ()


def command(
    kind: str,
    aggregate: str,
    owner: str,
    remove: Iterable[Name] = (),
    add: Iterable[Name] = (),
    **data: object,
) -> Command:
    return Command(Fact(kind, aggregate, owner, data), tuple(remove), tuple(add))


@dataclass
class WriteSide(WriteModels):
    lower: Callable[[str], str] = go_lower
    """LOWER of the database"""
    table: set[Row] = field(default_factory=set[Row])
    history: History = field(default_factory=lambda: History("none"))
    temporary: int = 0

    def __post_init__(self) -> None:
        self.history = History(self.version)

    def push(self, *commands: Command) -> None:
        """Remove, then add; a name that is taken undoes all of it."""
        doomed = {row for each in commands for row in self.found(each.remove)}
        table = self.table - doomed
        for each in commands:
            for kind, name in each.add:
                row = INSTANCE, kind, go_lower(name)
                if row in table:
                    return
                table.add(row)
        self.table = table
        self.facts += [each.fact for each in commands]
        self.history.push(*[happening(each.fact) for each in commands])

    def found(self, wanted: Iterable[Name]) -> Iterator[Row]:
        for kind, name in wanted:
            exact, lowered = (INSTANCE, kind, name), (INSTANCE, kind, self.lower(name))
            if exact in self.table:
                yield exact
            elif lowered in self.table:
                yield lowered

    def add_org(self, org: str, name: str) -> None:
        if not self.org_exists(org):
            self.push(command("org.added", org, org, add=[("org_name", name)], name=name))

    def rename_org(self, org: str, name: str) -> None:
        old = self.latest(org, "name", "org.added", "org.changed")
        if self.org_exists(org) and old != name:
            self.push(command("org.changed", org, org, [("org_name", old)], [("org_name", name)], name=name))

    def remove_org(self, org: str) -> None:
        if not self.org_exists(org):
            return
        owned = [fact for fact in self.facts if fact.owner == org]
        removals = [
            ("org_name", self.latest(org, "name", "org.added", "org.changed")),
            *[("usernames", self.key(name, org, self.scoped(org))) for name in self.listed(org).values()],
            *[("external_idps", link) for link in self.links_of_org(org)],
            *[("org_domain", domain) for domain in self.domains(org)],
            *[("entity_ids", entity) for entity in self.entities(owned, blanks=True)],
        ]
        self.push(command("org.removed", org, org, removals))

    def add_user(self, org: str, user: str, name: str, kind: str = "user.human.added") -> None:
        known = self.of(user, *ADDED, FIRST)
        if self.user_exists(user) or not self.org_exists(org):
            return
        if known and self.version != "main" and known[-1].owner != org:
            return  # v4.13 would keep the owner of the first life in its events
        added = [("usernames", self.key(name, org, self.scoped(org)))]
        self.push(command(kind, user, org, add=added, userName=name))

    def rename_user(self, user: str, name: str) -> None:
        if not self.user_exists(user) or self.own_name(user) == name:
            return
        org = self.owner(user)
        self.push(self.renamed(user, org, self.own_name(user), name, self.scoped(org), self.scoped(org)))

    def remove_user(self, user: str) -> None:
        if not self.user_exists(user):
            return
        org = self.owner(user)
        name = self.key(self.own_name(user), org, self.scoped(org))
        removals = [("usernames", name), *[("external_idps", link) for link in self.links_of_user(user)]]
        self.push(command("user.removed", user, org, removals))

    def verify_domain(self, org: str, domain: str) -> None:
        """Verify a domain, and claim it from users of other organizations."""
        if not self.org_exists(org) or domain in self.domains(org):
            return
        commands = [command("org.domain.verified", org, org, add=[("org_domain", domain)], domain=domain)]
        for user in sorted({fact.aggregate for fact in self.facts if fact.kind in (*ADDED, FIRST)}):
            owner = self.owner(user)
            elsewhere = self.user_exists(user) and owner != org and not self.scoped(owner)
            if elsewhere and self.login_name(user).endswith("@" + domain):
                commands.append(self.claim(user, owner))
        self.push(*commands)

    def claim(self, user: str, org: str) -> Command:
        self.temporary += 1
        new, scoped = f"{self.temporary}@temporary", self.scoped(org)
        old = self.key(self.own_name(user), org, scoped)
        added = [("usernames", self.key(new, org, scoped))]
        return command("user.domain.claimed", user, org, [("usernames", old)], added, userName=new)

    def remove_domain(self, org: str, domain: str) -> None:
        if self.org_exists(org) and domain in self.domains(org):
            self.push(command("org.domain.removed", org, org, [("org_domain", domain)], domain=domain))

    def set_policy(self, org: str, scoped: bool) -> None:
        if not self.org_exists(org):
            return
        if not self.has_policy(org):
            changed = command(POLICY + "added", org, org, (), (), **({"userLoginMustBeDomain": True} if scoped else {}))
        elif self.policy(org) != scoped:
            changed = command(POLICY + "changed", org, org, userLoginMustBeDomain=scoped)
        else:
            changed = command(POLICY + "changed", org, org, userLoginMustBeDomain=scoped, validateOrgDomains=True)
        self.push(changed, *self.flipped(org, self.policy(org), scoped, self.setting(org)))

    def remove_policy(self, org: str) -> None:
        if self.org_exists(org) and self.has_policy(org):
            flipped = self.flipped(org, self.policy(org), self.instance_policy(), self.setting(org))
            self.push(command(POLICY + "removed", org, org), *flipped)

    def set_instance_policy(self, scoped: bool) -> None:
        before = self.instance_policy()
        if not self.of(INSTANCE, "instance.policy.domain.added"):
            self.push(command("instance.policy.domain.added", INSTANCE, INSTANCE, userLoginMustBeDomain=scoped))
            return
        if before == scoped:
            return
        # Up to v4.13 removed organizations are among those without a policy of their own, twice if they came back.
        orgs = [fact.aggregate for fact in self.facts if fact.kind == "org.added"]
        if self.version == "main":
            orgs = sorted({org for org in orgs if self.org_exists(org)})
        commands = [command("instance.policy.domain.changed", INSTANCE, INSTANCE, userLoginMustBeDomain=scoped)]
        for org in orgs:
            if not self.has_policy(org):
                # The development line asks for settings under the instance's id, which has none.
                commands += self.flipped(org, before, scoped, False)
        self.push(*commands)

    def flipped(self, org: str, before: bool, after: bool, setting: bool) -> list[Command]:
        if before == after:
            return []
        return [
            self.renamed(user, org, name, self.flipped_name(org, name, after), before or setting, after or setting)
            for user, name in self.listed(org).items()
        ]

    def flipped_name(self, org: str, name: str, scoped: bool) -> str:
        if not scoped:
            return f"{name}@{(self.domains(org) or [org])[0]}"
        cuts = [name.rfind("@" + domain) for domain in self.domains(org)]
        return next((name[:at] for at in cuts if at > 0), name)

    def renamed(self, user: str, org: str, old: str, new: str, before: bool, after: bool) -> Command:
        if self.version == "main" and old == new and before == after:
            return command("user.username.changed", user, org, userName=new)
        removed = [("usernames", self.key(old, org, before))]
        added = [("usernames", self.key(new, org, after))]
        return command("user.username.changed", user, org, removed, added, userName=new)

    def set_setting(self, org: str, scoped: bool) -> None:
        if self.version != "main" or not self.org_exists(org) or self.setting(org) == scoped:
            return
        effective = self.policy(org) or scoped
        moved = self.moved(org, self.scoped(org), effective)
        data: dict[str, object] = {"organizationScopedUsernames": True} if effective else {}
        self.push(command("settings.organization.set", org, org, *moved, **data))

    def remove_setting(self, org: str) -> None:
        if self.version == "main" and self.exists(org, ["settings.organization.set"], "settings.organization.removed"):
            moved = self.moved(org, self.scoped(org), self.policy(org))
            self.push(command("settings.organization.removed", org, org, *moved))

    def moved(self, org: str, before: bool, after: bool) -> tuple[list[Name], list[Name]]:
        names = [] if before == after else list(self.listed(org).values())
        return (
            [("usernames", self.key(name, org, before)) for name in names],
            [("usernames", self.key(name, org, after)) for name in names],
        )

    def link(self, user: str, external: str) -> None:
        if self.user_exists(user):
            added = [("external_idps", "idp" + external)]
            self.push(
                command(
                    "user.human.externalidp.added",
                    user,
                    self.owner(user),
                    add=added,
                    idpConfigId="idp",
                    userId=external,
                )
            )

    def unlink(self, user: str, external: str) -> None:
        if self.user_exists(user) and "idp" + external in self.links_of_user(user):
            removed = [("external_idps", "idp" + external)]
            self.push(
                command(
                    "user.human.externalidp.removed",
                    user,
                    self.owner(user),
                    removed,
                    idpConfigId="idp",
                    userId=external,
                )
            )

    def add_project(self, org: str, project: str, name: str) -> None:
        known = self.of(project, "project.added")
        if self.org_exists(org) and not self.project_exists(project) and all(fact.owner == org for fact in known):
            self.push(command("project.added", project, org, add=[("project_names", name + org)], name=name))

    def rename_project(self, project: str, name: str) -> None:
        old = self.project_name(project)
        if self.project_exists(project) and old != name:
            org = self.of(project, "project.added")[-1].owner
            removed, added = [("project_names", old + org)], [("project_names", name + org)]
            self.push(command("project.changed", project, org, removed, added, name=name))

    def remove_project(self, project: str) -> None:
        if not self.project_exists(project):
            return
        org = self.of(project, "project.added")[-1].owner
        facts = [fact for fact in self.facts if fact.aggregate == project]
        removed = [
            ("project_names", self.project_name(project) + org),
            *[("entity_ids", entity) for entity in self.entities(facts, blanks=False)],
        ]
        self.push(command("project.removed", project, org, removed))

    def add_app(self, project: str, app: str, name: str, entity: str) -> None:
        if not self.project_exists(project) or self.app(project, app, "project.application.added"):
            return
        org = self.of(project, "project.added")[-1].owner
        saml = command(
            "project.application.config.saml.added",
            project,
            org,
            add=[("entity_ids", entity)],
            appId=app,
            entityId=entity,
        )
        added = [("appname", f"{name}:{project}")]
        self.push(command("project.application.added", project, org, add=added, appId=app, name=name), saml)

    def change_app(self, project: str, app: str, entity: str) -> None:
        """Change a SAML configuration; an empty entity id stands for a change of something else."""
        if not self.app_exists(project, app):
            return
        org = self.of(project, "project.added")[-1].owner
        old = self.entity(project, app)
        removed, added = ([("entity_ids", old)], [("entity_ids", entity)]) if entity else ((), ())
        kind = "project.application.config.saml.changed"
        self.push(command(kind, project, org, removed, added, appId=app, entityId=entity))

    def remove_app(self, project: str, app: str) -> None:
        if not self.app_exists(project, app):
            return
        org = self.of(project, "project.added")[-1].owner
        name = self.app(project, app, "project.application.added")[-1].text("name")
        removed = [("appname", f"{name}:{project}"), ("entity_ids", self.entity(project, app))]
        self.push(command("project.application.removed", project, org, removed, appId=app))

    @staticmethod
    def key(name: str, org: str, scoped: bool) -> str:
        return name + org if scoped else name


def happening(fact: Fact) -> Happening:
    return event(fact.kind, fact.aggregate, fact.owner, **fact.data)
