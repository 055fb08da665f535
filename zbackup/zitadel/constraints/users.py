"""User names: unique in an instance, or in their organization where a policy says so; and what users link to."""

from __future__ import annotations

from datetime import timedelta

from zbackup.event import parse_instant
from zbackup.zitadel.constraints import doubt
from zbackup.zitadel.constraints.era import Case
from zbackup.zitadel.constraints.event import Event
from zbackup.zitadel.constraints.state import Flip, Instance, Link, Org, State
from zbackup.zitadel.constraints.table import Actions

USERNAMES = "usernames"
EXTERNAL_IDPS = "external_idps"

# A command that read the policy before it changed may be written so long after.
RACE = timedelta(seconds=1)

# Before v2.39 each event has its own time; a change of policy with thousands of users takes so long at most.
FIRST_FLIP = timedelta(seconds=60)


def key(name: str, org: str, *, scoped: bool) -> str:
    return name + org if scoped else name


def added(state: State, event: Event, actions: Actions) -> None:
    instance = _added(state, event, actions)
    instance.orgs[event.owner].users[event.aggregate] = event.text("userName")


def added_first(state: State, event: Event, actions: Actions) -> None:
    """Add a user by an event of the first generation, which lists of organizations do not read."""
    _added(state, event, actions)


def renamed(state: State, event: Event, actions: Actions) -> None:
    instance, org = state.instances[event.instance], event.owner
    listed = instance.orgs[org].users
    old, new = instance.users.get(event.aggregate, ""), event.text("userName")
    before = after = instance.scoped(org)
    flip = instance.flip
    if flip is not None and _part_of(flip, event, instance, listed.get(event.aggregate, old), state.era.case):
        # The list of the organization is what a change of policy goes through, and it knows of claimed domains.
        old = listed.get(event.aggregate, old)
        # For all organizations alike, the development line asks for the settings of one that does not exist.
        setting = flip.org is not None and instance.orgs[org].setting
        before, after = not flip.scoped or setting, flip.scoped or setting
    instance.users[event.aggregate] = new
    if event.aggregate in listed:
        listed[event.aggregate] = new
    if state.era.main and old == new and before == after:
        return
    actions.replace(event.instance, USERNAMES, key(old, org, scoped=before), key(new, org, scoped=after))


def claimed(state: State, event: Event, actions: Actions) -> None:
    """Give a user a temporary name: another organization owns the domain in the present one."""
    instance, org = state.instances[event.instance], event.owner
    name = instance.users.setdefault(event.aggregate, "")
    scoped, new = instance.scoped(org), event.text("userName")
    actions.replace(event.instance, USERNAMES, key(name, org, scoped=scoped), key(new, org, scoped=scoped))
    listed = instance.orgs[org].users
    if event.aggregate in listed:
        listed[event.aggregate] = new


def removed(state: State, event: Event, actions: Actions) -> None:
    instance = state.instances[event.instance]
    instance.orgs[event.owner].users.pop(event.aggregate, None)
    name = instance.users.get(event.aggregate)
    if name is None:
        return
    if name:
        scoped = instance.scoped(event.owner)
        actions.remove(event.instance, USERNAMES, key(name, event.owner, scoped=scoped))
    former = () if state.era.main else instance.former.get(event.aggregate, ())
    for link in former + instance.links.get(event.aggregate, ()):
        actions.remove(event.instance, EXTERNAL_IDPS, "".join(link))


def linked(state: State, event: Event, actions: Actions) -> None:
    instance, link = state.instances[event.instance], _link(event)
    instance.users.setdefault(event.aggregate, "")
    instance.links[event.aggregate] = (*instance.links.get(event.aggregate, ()), link)
    instance.orgs[event.owner].links[link] += 1
    actions.add(event.instance, EXTERNAL_IDPS, "".join(link))


def unlinked(state: State, event: Event, actions: Actions) -> None:
    instance, link = state.instances[event.instance], _link(event)
    user = event.aggregate
    instance.users.setdefault(user, "")
    former, present = instance.former.get(user, ()), instance.links.get(user, ())
    if link in former:
        instance.former[user] = _without(former, link)
    elif link in present:
        instance.links[user] = _without(present, link)
    links = instance.orgs[event.owner].links
    if links[link] > 0:
        links[link] -= 1
    actions.remove(event.instance, EXTERNAL_IDPS, "".join(link))


def leave(instance: Instance, name: str, org_id: str, actions: Actions) -> None:
    """Release all that an organization's lists hold of its users, with the organization."""
    org, scoped = instance.orgs[org_id], instance.scoped(org_id)
    for user in org.users.values():
        actions.remove(name, USERNAMES, key(user, org_id, scoped=scoped))
    for link, count in org.links.items():
        if count > 0:
            actions.remove(name, EXTERNAL_IDPS, "".join(link))


def policy_of_org(state: State, event: Event, _: Actions) -> None:
    instance = state.instances[event.instance]
    org = instance.orgs[event.aggregate]
    before = instance.by_policy(event.aggregate)
    if event.type.endswith(".removed"):
        org.policy = None
    elif "userLoginMustBeDomain" in event.data or not event.type.endswith(".changed"):
        org.policy = event.flag("userLoginMustBeDomain")
    if instance.by_policy(event.aggregate) != before:
        instance.flip = Flip(event, event.aggregate, not before)


def policy_of_instance(state: State, event: Event, _: Actions) -> None:
    instance = state.instances[event.instance]
    before = instance.policy
    if "userLoginMustBeDomain" in event.data or not event.type.endswith(".changed"):
        instance.policy = event.flag("userLoginMustBeDomain")
    if before is not None and instance.policy is not before:
        instance.flip = Flip(event, None, not before)


def settings_set(state: State, event: Event, actions: Actions) -> None:
    _settings(state, event, actions, setting=event.flag("organizationScopedUsernames"))


def settings_removed(state: State, event: Event, actions: Actions) -> None:
    _settings(state, event, actions, setting=False)


def _settings(state: State, event: Event, actions: Actions, *, setting: bool) -> None:
    instance = state.instances[event.instance]
    org_id, org = event.aggregate, instance.orgs[event.aggregate]
    before = instance.scoped(org_id)
    org.setting = setting
    after = instance.scoped(org_id)
    if before != after:
        for name in org.users.values():
            actions.replace(
                event.instance, USERNAMES, key(name, org_id, scoped=before), key(name, org_id, scoped=after)
            )


def _added(state: State, event: Event, actions: Actions) -> Instance:
    instance = state.instances[event.instance]
    name, scoped = event.text("userName"), instance.scoped(event.owner)
    actions.add(event.instance, USERNAMES, key(name, event.owner, scoped=scoped))
    again = event.aggregate in instance.users
    instance.users[event.aggregate] = name
    if again:
        if links := instance.links.pop(event.aggregate, ()):
            instance.former[event.aggregate] = instance.former.get(event.aggregate, ()) + links
        _doubt_owner(state, event, instance)
    if instance.flip is not None:
        _doubt_policy(state, event, instance.flip, instance.orgs[event.owner])
    return instance


def _part_of(flip: Flip, event: Event, instance: Instance, old: str, case: Case) -> bool:
    """Whether a user was renamed because of the change of policy."""
    covered = flip.org == event.owner if flip.org is not None else instance.orgs[event.owner].policy is None
    if not covered:
        return False
    if flip.event.at == event.at:
        return True
    if case is not Case.FIRST or flip.event.creator != event.creator:
        return False
    new = event.text("userName")
    fits = (old + "@").startswith(new + "@") if flip.scoped else new.startswith(old + "@")
    return fits and parse_instant(event.at) - parse_instant(flip.event.at) < FIRST_FLIP


def _doubt_owner(state: State, event: Event, instance: Instance) -> None:
    """Note that the owner is that of the user's first life, whatever the command said (v2.66 to v4.13)."""
    if not state.era.main and any(instance.scoped(org) for org in list(instance.orgs)):
        state.doubts.add(doubt.AGAIN, f"{event.aggregate} of instance {event.instance}")


def _doubt_policy(state: State, event: Event, flip: Flip, org: Org) -> None:
    covered = flip.org == event.owner if flip.org is not None else org.policy is None
    if covered and not org.setting and flip.event.at != event.at:
        behind = parse_instant(event.at) - parse_instant(flip.event.at)
        if behind < RACE:
            state.doubts.add(doubt.FLIPPED, f"{event.aggregate} of instance {event.instance}")
            older = key(event.text("userName"), event.owner, scoped=not flip.scoped)
            state.otherwise[event.instance, USERNAMES, older] = "user created while the domain policy changed"


def _link(event: Event) -> Link:
    return event.text("idpConfigId"), event.text("userId")


def _without(links: tuple[Link, ...], link: Link) -> tuple[Link, ...]:
    at = links.index(link)
    return links[:at] + links[at + 1 :]
