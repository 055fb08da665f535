"""What ZITADEL leaves behind, or takes from others, when objects are removed."""

from __future__ import annotations

import pytest

from tests.unit.pushes import Happening, History, event
from zbackup.zitadel.constraints import doubts


def saml(app: str, entity: str, project: str = "p", org: str = "o") -> Happening:
    return event("project.application.config.saml.added", project, org, appId=app, entityId=entity)


def saml_changed(app: str, entity: str = "", project: str = "p", org: str = "o") -> Happening:
    return event("project.application.config.saml.changed", project, org, appId=app, entityId=entity)


def test_what_is_in_a_removed_project_stays() -> None:
    """
    Names of applications, roles, grants and members block their reuse, should the project's id be used again.
    """
    history = History()
    history.push(event("project.added", "p", "o", name="Web"))
    history.push(event("project.application.added", "p", "o", appId="a", name="App"))
    history.push(event("project.role.added", "p", "o", key="reader"))
    history.push(event("project.grant.added", "p", "o", grantId="g", grantedOrgId="o2"))
    history.push(event("project.grant.member.added", "p", "o", grantId="g", userId="u"))
    history.push(event("project.member.added", "p", "o", userId="u"))
    history.push(event("project.removed", "p", "o"))
    rows = {row for row in history.fold().rows() if row[0] == "i"}

    assert rows == {
        ("i", "appname", "app:p"), ("i", "project_role", "reader:p"), ("i", "project_grant", "o2:p"),
        ("i", "project_grant_member", "p:u:g"), ("i", "member", "p:u"),
    }  # fmt: skip


def test_what_is_in_a_removed_organization_stays() -> None:
    """
    Its projects, actions, identity providers, groups, grants and members keep their rows.
    """
    history = History()
    history.push(event("org.added", "o", name="Acme"))
    history.push(event("org.domain.verified", "o", domain="acme.test"))
    history.push(event("project.added", "p", "o", name="Web"))
    history.push(event("action.added", "a", "o", name="Act"))
    history.push(event("org.idp.config.added", "o", idpConfigId="c", name="G"))
    history.push(event("group.added", "g", "o", name="Staff"))
    history.push(event("user.grant.added", "ug", "o", userId="u", projectId="p"))
    history.push(event("org.member.added", "o", userId="u"))
    history.push(event("org.removed", "o"))
    rows = {row for row in history.fold().rows() if row[0] == "i"}

    assert rows == {
        ("i", "project_names", "webo"), ("i", "action_names", "act:o"), ("i", "idp_config_names", "go"),
        ("i", "group_name", "staff:o"), ("i", "user_grant", "o:u:p:"), ("i", "member", "o:u"),
    }  # fmt: skip


def test_a_removed_project_releases_its_entity_ids() -> None:
    """
    As they were changed last; a change without an entity id is none for the project.
    """
    history = History()
    history.push(saml("a", "urn:a")).push(saml("b", "urn:b")).push(saml("c", "urn:c"))
    history.push(saml_changed("a", "urn:a2")).push(saml_changed("b"))
    history.push(event("project.application.removed", "p", "o", appId="c"))
    history.push(event("project.removed", "p", "o"))

    assert history.rows("entity_ids") == set()


@pytest.mark.parametrize("removed", ["project.removed", "org.removed"])
def test_the_entity_id_of_a_removed_application_belongs_to_who_has_it_now(removed: str) -> None:
    """
    Neither its project nor its organization releases it again.
    """
    history = History()
    history.push(event("project.added", "p", "o", name="Web")).push(saml("a", "urn:a"))
    history.push(event("project.application.removed", "p", "o", appId="a"))
    history.push(saml("b", "urn:a", "q", "other"))
    history.push(event(removed, "p" if removed.startswith("project") else "o", "o"))

    assert history.rows("entity_ids") == {"urn:a"}


def test_an_organization_forgets_the_entity_id_of_a_change_without_one() -> None:
    """
    That row leaks when the organization is removed.
    """
    history = History()
    history.push(saml("a", "urn:a")).push(saml("b", "urn:b")).push(saml_changed("a"))
    history.push(event("org.removed", "o"))

    assert history.rows("entity_ids") == {"urn:a"}


def test_a_removed_organization_takes_entity_ids_of_projects_removed_before() -> None:
    """
    It does not notice that the project released them, and removes the row of who registered one since.
    """
    history = History()
    history.push(saml("a", "urn:a")).push(event("project.removed", "p", "o"))
    history.push(saml("b", "urn:a", "q", "other"))

    assert history.rows("entity_ids") == {"urn:a"}

    history.push(event("org.removed", "o"))

    assert history.rows("entity_ids") == set()


def test_a_project_id_used_twice_releases_the_entity_ids_of_both_lives() -> None:
    """
    Applications that went with the project are still on its list.
    """
    history = History()
    history.push(event("project.added", "p", "o", name="Web")).push(saml("a", "urn:a"))
    history.push(event("project.removed", "p", "o"))
    history.push(event("project.added", "p", "o", name="Shop"))
    history.push(saml("b", "urn:a", "q", "other")).push(saml("c", "urn:c"))
    history.push(event("project.removed", "p", "o"))

    assert history.rows("entity_ids") == set()
    assert history.rows("project_names") == set()


def test_unverified_domains_have_no_effect() -> None:
    """
    Only the organization that had verified a domain releases it, once.
    """
    history = History()
    history.push(event("org.domain.verified", "o", domain="x"))
    for org in ("other", "o"):
        history.push(event("org.domain.added", org, domain="x"))
    history.push(event("org.domain.removed", "other", domain="x"))

    assert history.rows("org_domain") == {"x"}

    history.push(event("org.domain.removed", "o", domain="x"))
    history.push(event("org.domain.verified", "other", domain="x"))
    history.push(event("org.domain.removed", "o", domain="x"))

    assert history.rows("org_domain") == {"x"}


def test_a_domain_removed_without_its_name_stays() -> None:
    """
    The relational mode of the development line writes such events.
    """
    history = History("main")
    history.push(event("org.domain.verified", "o", domain="x"))
    history.push(event("org.domain.removed", "o"))

    assert history.rows("org_domain") == {"x"}


def test_domains_outlive_their_organization() -> None:
    """
    Created again and removed again, it releases a domain that another one has verified since.
    """
    history = History()
    history.push(event("org.added", "o", name="a")).push(event("org.domain.verified", "o", domain="x"))
    history.push(event("org.removed", "o")).push(event("org.domain.verified", "p", domain="x"))
    history.push(event("org.added", "o", name="a")).push(event("org.removed", "o"))

    assert history.rows("org_domain") == set()


def test_an_identity_provider_removed_as_a_template_leaks() -> None:
    """
    The event of the newer API has no constraint, and the name stays refused.
    """
    history = History()
    history.push(event("org.idp.config.added", "o", idpConfigId="c", name="G"))
    history.push(event("org.idp.removed", "o", id="c"))

    assert history.rows("idp_config_names") == {"go"}


@pytest.mark.parametrize("kind", ["org.mail.text.removed", "instance.mail.text.removed"])
def test_a_mail_text_that_is_not_named_is_doubtful(kind: str) -> None:
    """
    ZITADEL wrote no payload to such events: the row stays, and the fold says so.
    """
    history = History()
    history.push(event(kind.replace("removed", "added"), "o", mailTextType="InitCode", language="de"))
    history.push(event(kind, "o"))
    fold = history.fold()

    assert ("i", "mail_text", "o:initcode:de") in fold.rows()
    assert doubts(fold) == ("removed by an event that does not say which: mail texts of o in instance i",)


def test_projects_whose_owner_was_wrong_keep_the_rows_of_that_time() -> None:
    """
    Setup step 45 put the right owner into events of before, not into the rows that were written under the wrong one.
    """
    history = History()
    history.push(event("project.added", "p", "o", name="A"))
    history.push(event("project.changed", "p", "o", name="B"))
    history.push(event("project.role.added", "p", "o", key="reader"))
    history.push(event("project.changed", "p", "o", name="C"))

    assert history.rows("project_names") == {"co"}

    history.push(event("project.owner.corrected", "p", "o", previousOwners={"2": "wrong", "3": "wrong"}))

    # B was added for the wrong owner, whose A was not there to be removed; C for the right one, who had no B.
    assert history.rows("project_names") == {"ao", "bwrong", "co"}

    history.push(event("project.removed", "p", "o"))

    assert history.rows("project_names") == {"ao", "bwrong"}


def test_objects_that_were_never_added_are_not_missed() -> None:
    """
    A history that begins in the middle removes nothing that it does not know, and does not fail.
    """
    history = History()
    for kind in ("org.removed", "project.removed", "target.removed", "user.removed", "user.grant.removed"):
        history.push(event(kind, "x", "o"))
    history.push(event("user.username.changed", "u", "o", userName="ann"))
    history.push(event("project.changed", "p", "o", name="Web"))
    history.push(event("org.changed", "o", name="Acme"))

    assert {row for row in history.fold().rows() if row[0] == "i"} == {
        ("i", "usernames", "ann"), ("i", "project_names", "webo"), ("i", "org_name", "acme"),
    }  # fmt: skip
