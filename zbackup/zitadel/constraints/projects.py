"""Names of projects and of their applications, and the entity ids of SAML applications."""

from __future__ import annotations

from typing import cast

from zbackup.zitadel.constraints.event import Event
from zbackup.zitadel.constraints.row import Row
from zbackup.zitadel.constraints.state import State
from zbackup.zitadel.constraints.table import Actions
from zbackup.zitadel.lowercase import go_lower

PROJECT_NAMES = "project_names"
APPNAME = "appname"
ENTITY_IDS = "entity_ids"


def added(state: State, event: Event, actions: Actions) -> None:
    name = event.text("name")
    state.instances[event.instance].projects[event.aggregate].append((event.sequence, name))
    actions.add(event.instance, PROJECT_NAMES, name + event.owner)


def changed(state: State, event: Event, actions: Actions) -> None:
    if "name" not in event.data:
        return
    new, names = event.text("name"), state.instances[event.instance].projects[event.aggregate]
    old = names[-1][1] if names else None
    names.append((event.sequence, new))
    actions.replace(event.instance, PROJECT_NAMES, (old or "") + event.owner, new + event.owner)


def removed(state: State, event: Event, actions: Actions) -> None:
    """Release a project's name and all entity ids it ever had; names of applications, roles and grants stay."""
    instance = state.instances[event.instance]
    names = instance.projects[event.aggregate]
    if names and names[-1][1] is not None:
        actions.remove(event.instance, PROJECT_NAMES, names[-1][1] + event.owner)
        names.append((event.sequence, None))
    for _, entity in instance.entities[event.aggregate]:
        actions.remove(event.instance, ENTITY_IDS, entity)


def owner_corrected(state: State, event: Event, actions: Actions) -> None:
    """
    Tell what rows a project really had while its events named another owner.

    Setup step 45 rewrote the owners in the events of before, which the fold has read, and left the rows alone.
    """
    previous = event.data.get("previousOwners")
    if not isinstance(previous, dict):
        return
    wrong = {int(sequence): str(owner) for sequence, owner in cast("dict[str, object]", previous).items()}
    names = state.instances[event.instance].projects[event.aggregate]
    assumed, real = _rows(event, names, {}), _rows(event, names, wrong)
    actions.repairs.append(lambda table: table.correct(assumed, real))


def _rows(event: Event, names: list[tuple[int, str | None]], wrong: dict[int, str]) -> set[Row]:
    rows: set[Row] = set()
    before = ""
    for sequence, name in names:
        owner = wrong.get(sequence, event.owner)
        rows.discard((event.instance, PROJECT_NAMES, go_lower(before + owner)))
        if name is not None:
            rows.add((event.instance, PROJECT_NAMES, go_lower(name + owner)))
        before = name or ""
    return rows


def app_added(state: State, event: Event, actions: Actions) -> None:
    name = event.text("name")
    state.instances[event.instance].names[APPNAME][_app(event)] = name
    actions.add(event.instance, APPNAME, f"{name}:{event.aggregate}")


def app_changed(state: State, event: Event, actions: Actions) -> None:
    names, new = state.instances[event.instance].names[APPNAME], event.text("name")
    old = names.get(_app(event), "")
    names[_app(event)] = new
    actions.replace(event.instance, APPNAME, f"{old}:{event.aggregate}", f"{new}:{event.aggregate}")


def app_removed(state: State, event: Event, actions: Actions) -> None:
    instance, app = state.instances[event.instance], event.text("appId")
    name = instance.names[APPNAME].pop(_app(event), None)
    if name is not None:
        actions.remove(event.instance, APPNAME, f"{name}:{event.aggregate}")
    entity = instance.names[ENTITY_IDS].pop(_app(event), None)
    if entity:
        actions.remove(event.instance, ENTITY_IDS, entity)
    of_project = instance.entities[event.aggregate]
    of_project[:] = [pair for pair in of_project if pair[0] != app]
    of_org = instance.orgs[event.owner].entities
    first = next((at for at, pair in enumerate(of_org) if pair[0] == app), None)
    if first is not None:
        del of_org[first]


def saml_added(state: State, event: Event, actions: Actions) -> None:
    instance, app, entity = state.instances[event.instance], event.text("appId"), event.text("entityId")
    instance.names[ENTITY_IDS][_app(event)] = entity
    instance.entities[event.aggregate].append((app, entity))
    instance.orgs[event.owner].entities.append((app, entity))
    actions.add(event.instance, ENTITY_IDS, entity)


def saml_changed(state: State, event: Event, actions: Actions) -> None:
    """Change an entity id; without one, only the organization's list takes that for a change, and forgets it."""
    instance, app, new = state.instances[event.instance], event.text("appId"), event.text("entityId")
    of_org = instance.orgs[event.owner].entities
    first = next((at for at, pair in enumerate(of_org) if pair[0] == app), None)
    if first is not None:
        of_org[first] = app, new
    if not new:
        return
    of_project = instance.entities[event.aggregate]
    of_project[:] = [(app, new) if pair[0] == app else pair for pair in of_project]
    old = instance.names[ENTITY_IDS].get(_app(event), "")
    instance.names[ENTITY_IDS][_app(event)] = new
    actions.replace(event.instance, ENTITY_IDS, old, new)


def _app(event: Event) -> str:
    return f"{event.aggregate}/{event.text('appId')}"
