"""
What each event type does to the table (facts: 3.2, with the corrections of 3.6).

Sessions, metadata, features, identity provider templates and most others have no constraints; their types are
not here, and an input without them gives the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zbackup.zitadel.constraints import doubt, projects, users
from zbackup.zitadel.constraints.era import GLOBAL, LOWER
from zbackup.zitadel.constraints.event import Event
from zbackup.zitadel.constraints.state import State
from zbackup.zitadel.constraints.table import INSTANCE_DOMAIN, Actions, Table

Rule = Callable[[State, Event, Actions], None]
Field = Callable[[Event], str]
"""what of an event stands in the row, or names an object"""


def _adds(kind: str, field: Field) -> Rule:
    def rule(_: State, event: Event, actions: Actions) -> None:
        actions.add(event.instance, kind, field(event))

    return rule


def _removes(kind: str, field: Field) -> Rule:
    def rule(_: State, event: Event, actions: Actions) -> None:
        actions.remove(event.instance, kind, field(event))

    return rule


def _aggregate(event: Event) -> str:
    return event.aggregate


class Named:
    """An object with a name, which later events leave out: kept here until it is released."""

    def __init__(self, kind: str, value: Field, *, of: Field = _aggregate, scope: Field = lambda _: "") -> None:
        self.kind = kind
        self._value = value
        self._of = of
        self._scope = scope

    def added(self, state: State, event: Event, actions: Actions) -> None:
        name = self._value(event)
        state.instances[event.instance].names[self.kind][self._of(event)] = name
        actions.add(event.instance, self.kind, name + self._scope(event))

    def changed(self, state: State, event: Event, actions: Actions) -> None:
        new = self._value(event)
        if not new:
            return
        names, scope = state.instances[event.instance].names[self.kind], self._scope(event)
        old = names.get(self._of(event), "")
        names[self._of(event)] = new
        actions.replace(event.instance, self.kind, old + scope, new + scope)

    def removed(self, state: State, event: Event, actions: Actions) -> None:
        name = state.instances[event.instance].names[self.kind].pop(self._of(event), None)
        if name is not None:
            actions.remove(event.instance, self.kind, name + self._scope(event))


def _text(key: str) -> Field:
    return lambda event: event.text(key)


def _owner(event: Event) -> str:
    return event.owner


def _member(event: Event) -> str:
    return f"{event.aggregate}:{event.text('userId')}"


def _grant_member(event: Event) -> str:
    return f"{event.aggregate}:{event.text('userId')}:{event.text('grantId')}"


def _role(event: Event) -> str:
    return f"{event.text('key')}:{event.aggregate}"


def _generator(event: Event) -> str:
    return chr(event.number("generatorType"))


def _unit(event: Event) -> str:
    return str(event.number("unit"))


def _mail_text(event: Event) -> str:
    return f"{event.owner}:{event.text('mailTextType')}:{event.text('language')}"


def _config(event: Event) -> str:
    return f"{event.aggregate}/{event.text('idpConfigId')}"


def _grant(event: Event) -> str:
    return f"{event.aggregate}/{event.text('grantId')}"


def _colon(field: Field) -> Field:
    return lambda event: f":{field(event)}"


ORG = Named("org_name", _text("name"))
ACTION = Named("action_names", _text("name"), scope=_colon(_owner))
TARGET = Named("target", _text("name"))
SCHEMA = Named("user_schema_type", _text("schemaType"))
GROUP = Named("group_name", _text("name"), scope=_colon(_owner))
IDP_CONFIG = Named("idp_config_names", _text("name"), of=_config, scope=_owner)
PROJECT_GRANT = Named("project_grant", _text("grantedOrgId"), of=_grant, scope=_colon(_aggregate))


def _org_added(state: State, event: Event, actions: Actions) -> None:
    ORG.added(state, event, actions)
    state.instances[event.instance].orgs[event.aggregate].setting = False


def _org_removed(state: State, event: Event, actions: Actions) -> None:
    """Release an organization's name and lists; they and its policy outlive it, should its id be used again."""
    ORG.removed(state, event, actions)
    instance, org_id = state.instances[event.instance], event.aggregate
    org = instance.orgs[org_id]
    users.leave(instance, event.instance, org_id, actions)
    for domain in org.domains:
        actions.remove(event.instance, "org_domain", domain)
    for _, entity in org.entities:
        actions.remove(event.instance, projects.ENTITY_IDS, entity)
    org.setting = False


def _org_domain_verified(state: State, event: Event, actions: Actions) -> None:
    instance, domain = state.instances[event.instance], event.text("domain")
    instance.orgs[event.aggregate].domains.append(domain)
    instance.verified.add((event.aggregate, domain))
    actions.add(event.instance, "org_domain", domain)


def _org_domain_removed(state: State, event: Event, actions: Actions) -> None:
    instance, domain = state.instances[event.instance], event.text("domain")
    domains = instance.orgs[event.aggregate].domains
    if domain in domains:
        domains.remove(domain)
    if (event.aggregate, domain) in instance.verified:
        instance.verified.remove((event.aggregate, domain))
        actions.remove(event.instance, "org_domain", domain)


def _instance_domain_added(state: State, event: Event, actions: Actions) -> None:
    domain = event.text("domain")
    state.instances[event.instance].domains.append(domain)
    actions.add(actions.everywhere(event.instance), INSTANCE_DOMAIN, domain)


def _instance_domain_removed(state: State, event: Event, actions: Actions) -> None:
    domain, domains = event.text("domain"), state.instances[event.instance].domains
    if domain in domains:
        domains.remove(domain)
    actions.remove(actions.everywhere(event.instance), INSTANCE_DOMAIN, domain)


def _instance_removed(state: State, event: Event, actions: Actions) -> None:
    domains = state.instances[event.instance].domains
    for domain in domains:
        actions.remove(actions.everywhere(event.instance), INSTANCE_DOMAIN, domain)
    domains.clear()
    actions.cleared.append(event.instance)


def _user_grant_added(state: State, event: Event, actions: Actions) -> None:
    grant = ":".join([event.text("userId"), event.text("projectId"), event.text("grantId")])
    state.instances[event.instance].names["user_grant"][event.aggregate] = grant
    actions.add(event.instance, "user_grant", f"{event.owner}:{grant}")


def _user_grant_removed(state: State, event: Event, actions: Actions) -> None:
    grant = state.instances[event.instance].names["user_grant"].pop(event.aggregate, None)
    if grant is not None:
        actions.remove(event.instance, "user_grant", f"{event.owner}:{grant}")


def _device_added(_: State, event: Event, actions: Actions) -> None:
    actions.add(event.instance, "device_code", _device_code(event))
    actions.add(event.instance, "user_code", event.text("UserCode"))


def _device_removed(_: State, event: Event, actions: Actions) -> None:
    """Release the codes of a device; only ZITADEL up to v2.42 wrote such events."""
    actions.remove(event.instance, "device_code", f"{event.text('ClientID')}:{event.text('DeviceCode')}")
    actions.remove(event.instance, "user_code", event.text("UserCode"))


def _device_code(event: Event) -> str:
    """Return the code; up to v2.42, which gave such aggregates an id of their own, with the client before it."""
    code = event.text("DeviceCode")
    return code if code == event.aggregate else f"{event.text('ClientID')}:{code}"


def _mail_text_removed(state: State, event: Event, actions: Actions) -> None:
    if event.data:
        actions.remove(event.instance, "mail_text", _mail_text(event))
    else:
        state.doubts.add(doubt.MAIL_TEXT, f"{event.owner} in instance {event.instance}")


def _step_started(state: State, event: Event, actions: Actions) -> None:
    state.era.started(event.text("name"))
    actions.add("", "migration_started", event.text("name"))


def _step_ended(_: State, event: Event, actions: Actions) -> None:
    actions.remove("", "migration_started", event.text("name"))


def _step_done(state: State, event: Event, actions: Actions) -> None:
    step = event.text("name")
    state.era.done(step)
    actions.add("", "migration_done", step)
    if step == LOWER:
        actions.repairs.append(Table.lower_all)
    elif step == GLOBAL:
        actions.repairs.append(Table.move_domains)


def _relational(state: State, event: Event, _: Actions) -> None:
    if event.flag("Value"):
        state.doubts.add(doubt.RELATIONAL, event.instance or "(all)")


RULES: Mapping[str, Rule] = {
    "system.migration.started": _step_started,
    "system.migration.done": _step_done,
    "system.migration.failed": _step_ended,
    "system.migration.repeatable.done": _step_ended,
    "feature.system.enable_relational_tables.set": _relational,
    "feature.instance.enable_relational_tables.set": _relational,
    "instance.domain.added": _instance_domain_added,
    "instance.domain.removed": _instance_domain_removed,
    "instance.removed": _instance_removed,
    "instance.trusted_domains.added": _adds("trusted_domain", _text("domain")),
    "instance.trusted_domains.removed": _removes("trusted_domain", _text("domain")),
    "instance.secret.generator.added": _adds("secret_generator", _generator),
    "instance.secret.generator.removed": _removes("secret_generator", _generator),
    "instance.policy.domain.added": users.policy_of_instance,
    "instance.policy.domain.changed": users.policy_of_instance,
    "iam.policy.org.iam.added": users.policy_of_instance,
    "iam.policy.org.iam.changed": users.policy_of_instance,
    "org.added": _org_added,
    "org.changed": ORG.changed,
    "org.removed": _org_removed,
    "org.domain.verified": _org_domain_verified,
    "org.domain.removed": _org_domain_removed,
    "org.policy.domain.added": users.policy_of_org,
    "org.policy.domain.changed": users.policy_of_org,
    "org.policy.domain.removed": users.policy_of_org,
    "org.policy.org.iam.added": users.policy_of_org,
    "org.policy.org.iam.changed": users.policy_of_org,
    "org.policy.org.iam.removed": users.policy_of_org,
    "settings.organization.set": users.settings_set,
    "settings.organization.removed": users.settings_removed,
    "user.human.added": users.added,
    "user.human.selfregistered": users.added,
    "user.machine.added": users.added,
    "user.added": users.added_first,
    "user.selfregistered": users.added_first,
    "user.username.changed": users.renamed,
    "user.domain.claimed": users.claimed,
    "user.removed": users.removed,
    "user.human.externalidp.added": users.linked,
    "user.human.externalidp.removed": users.unlinked,
    "user.human.externalidp.cascade.removed": users.unlinked,
    "user.grant.added": _user_grant_added,
    "user.grant.removed": _user_grant_removed,
    "user.grant.cascade.removed": _user_grant_removed,
    "project.added": projects.added,
    "project.changed": projects.changed,
    "project.removed": projects.removed,
    "project.owner.corrected": projects.owner_corrected,
    "project.role.added": _adds("project_role", _role),
    "project.role.removed": _removes("project_role", _role),
    "project.grant.added": PROJECT_GRANT.added,
    "project.grant.removed": PROJECT_GRANT.removed,
    "project.grant.member.added": _adds("project_grant_member", _grant_member),
    "project.grant.member.removed": _removes("project_grant_member", _grant_member),
    "project.grant.member.cascade.removed": _removes("project_grant_member", _grant_member),
    "project.application.added": projects.app_added,
    "project.application.changed": projects.app_changed,
    "project.application.removed": projects.app_removed,
    "project.application.config.saml.added": projects.saml_added,
    "project.application.config.saml.changed": projects.saml_changed,
    "group.added": GROUP.added,
    "group.changed": GROUP.changed,
    "group.removed": GROUP.removed,
    "action.added": ACTION.added,
    "action.changed": ACTION.changed,
    "action.removed": ACTION.removed,
    "target.added": TARGET.added,
    "target.changed": TARGET.changed,
    "target.removed": TARGET.removed,
    "user_schema.created": SCHEMA.added,
    "user_schema.updated": SCHEMA.changed,
    "user_schema.deleted": SCHEMA.removed,
    "web_key.added": _adds("web_key", _aggregate),
    "web_key.removed": _removes("web_key", _aggregate),
    "device.authorization.added": _device_added,
    "device.authorization.removed": _device_removed,
    "quota.added": _adds("quota_units", _unit),
    "quota.removed": _removes("quota_units", _unit),
    **{f"{level}.idp.config.added": IDP_CONFIG.added for level in ("org", "iam")},
    **{f"{level}.idp.config.changed": IDP_CONFIG.changed for level in ("org", "iam")},
    **{f"{level}.idp.config.removed": IDP_CONFIG.removed for level in ("org", "iam")},
    **{f"{level}.mail.text.added": _adds("mail_text", _mail_text) for level in ("org", "instance")},
    **{f"{level}.mail.text.removed": _mail_text_removed for level in ("org", "instance")},
    **{f"{level}.member.added": _adds("member", _member) for level in ("instance", "iam", "org", "project")},
    **{f"{level}.member.removed": _removes("member", _member) for level in ("instance", "iam", "org", "project")},
    **{
        f"{level}.member.cascade.removed": _removes("member", _member)
        for level in ("instance", "iam", "org", "project")
    },
}
