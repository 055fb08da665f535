"""Each type of constraint: when its rows come, change and go."""

from __future__ import annotations

import pytest

from tests.unit.pushes import Happening, History, event
from zbackup.zitadel.constraints import EVENT_TYPES

Life = tuple[str, list[tuple[Happening, set[str]]]]

# Type, then events and what the table holds of the type after each.
LIVES: list[Life] = [
    (
        "org_name",
        [
            (event("org.added", "o", name="Acme"), {"acme"}),
            (event("org.changed", "o", name="Acme Two"), {"acme two"}),
            (event("org.removed", "o"), set()),
        ],
    ),
    (
        "org_domain",
        [
            (event("org.domain.verified", "o", domain="Acme.test"), {"acme.test"}),
            (event("org.domain.removed", "o", domain="Acme.test"), set()),
        ],
    ),
    (
        "trusted_domain",
        [
            (event("instance.trusted_domains.added", "i", domain="Login.test"), {"login.test"}),
            (event("instance.trusted_domains.removed", "i", domain="Login.test"), set()),
        ],
    ),
    (
        "usernames",
        [
            (event("user.human.added", "u", "o", userName="Ann"), {"ann"}),
            (event("user.username.changed", "u", "o", userName="Bea"), {"bea"}),
            (event("user.removed", "u", "o"), set()),
        ],
    ),
    ("usernames", [(event("user.human.selfregistered", "u", "o", userName="Ann"), {"ann"})]),
    ("usernames", [(event("user.machine.added", "u", "o", userName="Robot"), {"robot"})]),
    ("usernames", [(event("user.added", "u", "o", userName="Ann"), {"ann"}), (event("user.removed", "u", "o"), set())]),
    ("usernames", [(event("user.selfregistered", "u", "o", userName="Ann"), {"ann"})]),
    (
        "external_idps",
        [
            (event("user.human.externalidp.added", "u", "o", idpConfigId="idp", userId="X-1"), {"idpx-1"}),
            (event("user.human.externalidp.removed", "u", "o", idpConfigId="idp", userId="X-1"), set()),
            (event("user.human.externalidp.added", "u", "o", idpConfigId="idp", userId="X-2"), {"idpx-2"}),
            (event("user.human.externalidp.cascade.removed", "u", "o", idpConfigId="idp", userId="X-2"), set()),
        ],
    ),
    (
        "project_names",
        [
            (event("project.added", "p", "o", name="Web"), {"webo"}),
            (event("project.changed", "p", "o", projectRoleCheck=True), {"webo"}),
            (event("project.changed", "p", "o", name="Shop"), {"shopo"}),
            (event("project.removed", "p", "o"), set()),
        ],
    ),
    (
        "project_role",
        [
            (event("project.role.added", "p", "o", key="Reader"), {"reader:p"}),
            (event("project.role.removed", "p", "o", key="Reader"), set()),
        ],
    ),
    (
        "project_grant",
        [
            (event("project.grant.added", "p", "o", grantId="g", grantedOrgId="o2"), {"o2:p"}),
            (event("project.grant.removed", "p", "o", grantId="g"), set()),
        ],
    ),
    (
        "project_grant_member",
        [
            (event("project.grant.member.added", "p", "o", grantId="g", userId="u"), {"p:u:g"}),
            (event("project.grant.member.removed", "p", "o", grantId="g", userId="u"), set()),
            (event("project.grant.member.added", "p", "o", grantId="g", userId="v"), {"p:v:g"}),
            (event("project.grant.member.cascade.removed", "p", "o", grantId="g", userId="v"), set()),
        ],
    ),
    (
        "appname",
        [
            (event("project.application.added", "p", "o", appId="a", name="App"), {"app:p"}),
            (event("project.application.changed", "p", "o", appId="a", name="Other"), {"other:p"}),
            (event("project.application.removed", "p", "o", appId="a"), set()),
        ],
    ),
    (
        "entity_ids",
        [
            (event("project.application.config.saml.added", "p", "o", appId="a", entityId="urn:A"), {"urn:a"}),
            (event("project.application.config.saml.changed", "p", "o", appId="a", entityId="urn:B"), {"urn:b"}),
            (event("project.application.config.saml.changed", "p", "o", appId="a", metadata="x"), {"urn:b"}),
            (event("project.application.removed", "p", "o", appId="a"), set()),
        ],
    ),
    (
        "user_grant",
        [
            (event("user.grant.added", "g", "o", userId="u", projectId="p"), {"o:u:p:"}),
            (event("user.grant.removed", "g", "o", userId="u", projectId="p"), set()),
            (event("user.grant.added", "h", "o", userId="u", projectId="p", grantId="pg"), {"o:u:p:pg"}),
            (event("user.grant.cascade.removed", "h", "o"), set()),
        ],
    ),
    (
        "action_names",
        [
            (event("action.added", "a", "o", name="Act"), {"act:o"}),
            (event("action.changed", "a", "o", script="…"), {"act:o"}),
            (event("action.changed", "a", "o", name="Do"), {"do:o"}),
            (event("action.removed", "a", "o"), set()),
        ],
    ),
    (
        "target",
        [
            (event("target.added", "t", "i", name="Hook"), {"hook"}),
            (event("target.changed", "t", "i", timeout=1), {"hook"}),
            (event("target.changed", "t", "i", name="Hook 2"), {"hook 2"}),
            (event("target.removed", "t", "i"), set()),
        ],
    ),
    (
        "idp_config_names",
        [
            (event("org.idp.config.added", "o", idpConfigId="c", name="Google"), {"googleo"}),
            (event("org.idp.config.changed", "o", idpConfigId="c", stylingType=1), {"googleo"}),
            (event("org.idp.config.changed", "o", idpConfigId="c", name="G"), {"go"}),
            (event("org.idp.config.removed", "o", idpConfigId="c"), set()),
        ],
    ),
    (
        "idp_config_names",
        [
            (event("iam.idp.config.added", "i", idpConfigId="c", name="Google"), {"googlei"}),
            (event("iam.idp.config.removed", "i", idpConfigId="c"), set()),
        ],
    ),
    (
        "secret_generator",
        [
            (event("instance.secret.generator.added", "i", generatorType=9), {"\t"}),
            (event("instance.secret.generator.added", "i", generatorType=10), {"\t", "\n"}),
            (event("instance.secret.generator.removed", "i", generatorType=9), {"\n"}),
        ],
    ),
    ("device_code", [(event("device.authorization.added", "DC", "i", DeviceCode="DC", UserCode="UC"), {"dc"})]),
    ("user_code", [(event("device.authorization.added", "DC", "i", DeviceCode="DC", UserCode="UC"), {"uc"})]),
    (
        "device_code",
        [
            (
                event("device.authorization.added", "1", "i", ClientID="Cl", DeviceCode="DC", UserCode="UC"),
                {"cl:dc"},
            ),
            (
                event("device.authorization.removed", "1", "i", ClientID="Cl", DeviceCode="DC", UserCode="UC"),
                set(),
            ),
        ],
    ),
    (
        "user_code",
        [
            (event("device.authorization.added", "1", "i", ClientID="Cl", DeviceCode="DC", UserCode="UC"), {"uc"}),
            (event("device.authorization.removed", "1", "i", ClientID="Cl", DeviceCode="DC", UserCode="UC"), set()),
        ],
    ),
    ("web_key", [(event("web_key.added", "k", "i"), {"k"}), (event("web_key.removed", "k", "i"), set())]),
    (
        "user_schema_type",
        [
            (event("user_schema.created", "s", "i", schemaType="Person"), {"person"}),
            (event("user_schema.updated", "s", "i", schemaRevision=2), {"person"}),
            (event("user_schema.updated", "s", "i", schemaType="Human"), {"human"}),
            (event("user_schema.deleted", "s", "i"), set()),
        ],
    ),
    (
        "quota_units",
        [
            (event("quota.added", "q", "i", unit=1), {"1"}),
            (event("quota.set", "q", "i", unit=2), {"1"}),
            (event("quota.removed", "q", "i", unit=1), set()),
        ],
    ),
    (
        "mail_text",
        [
            (event("org.mail.text.added", "o", mailTextType="InitCode", language="de"), {"o:initcode:de"}),
            (event("org.mail.text.removed", "o", mailTextType="InitCode", language="de"), set()),
            (event("instance.mail.text.added", "i", mailTextType="InitCode", language="de"), {"i:initcode:de"}),
        ],
    ),
    (
        "group_name",
        [
            (event("group.added", "g", "o", name="Staff"), {"staff:o"}),
            (event("group.changed", "g", "o", description="…"), {"staff:o"}),
            (event("group.changed", "g", "o", name="All"), {"all:o"}),
            (event("group.removed", "g", "o", id="g"), set()),
        ],
    ),
    *[
        (
            "member",
            [
                (event(f"{level}.member.added", "x", userId="u"), {"x:u"}),
                (event(f"{level}.member.removed", "x", userId="u"), set()),
                (event(f"{level}.member.added", "x", userId="v"), {"x:v"}),
                (event(f"{level}.member.cascade.removed", "x", userId="v"), set()),
            ],
        )
        for level in ("instance", "iam", "org", "project")
    ],
]


@pytest.mark.parametrize("life", LIVES, ids=lambda life: f"{life[0]}-{life[1][0][0].kind}")
def test_rows_come_and_go_with_their_object(life: Life) -> None:
    """
    After each event the table holds what that type of event says.
    """
    kind, steps = life
    history = History()
    for happening, expected in steps:
        history.push(happening)

        assert history.rows(kind) == expected, happening.kind


def test_domains_of_instances_are_unique_in_the_whole_database() -> None:
    """
    They stand under the instance ''.
    """
    history = History()
    history.push(event("instance.domain.added", "i", domain="I.test"))
    history.push(event("instance.domain.added", "j", domain="J.test"), instance="j")

    assert history.rows("instance_domain", instance="") == {"i.test", "j.test"}

    history.push(event("instance.domain.removed", "i", domain="I.test"))

    assert history.rows("instance_domain", instance="") == {"j.test"}


def test_a_removed_instance_leaves_nothing() -> None:
    """
    All its rows go, and its domains; those of other instances stay.
    """
    history = History()
    for instance in "ij":
        history.push(
            event("instance.domain.added", instance, domain=f"{instance}.test"),
            event("instance.domain.added", instance, domain=f"{instance}2.test"),
            event("org.added", "o", name="Acme"),
            event("user.human.added", "u", "o", userName="ann"),
            instance=instance,
        )
    history.push(event("instance.domain.removed", "i", domain="i2.test"))
    history.push(event("instance.removed", "i"))
    rows = history.fold().rows()

    assert not [row for row in rows if row[0] == "i"]
    assert {row for row in rows if not row[1].startswith("migration")} == {
        ("", "instance_domain", "j.test"), ("", "instance_domain", "j2.test"), ("j", "org_name", "acme"),
        ("j", "usernames", "ann"),
    }  # fmt: skip


def test_setup_steps_have_rows() -> None:
    """
    Started ones stay beside those done; a failure or a repeatable step that is done takes them away.
    """
    history = History("none")
    history.steps("14_events_push")
    for name, ending in (("config_change", "repeatable.done"), ("05_last_failed", "failed")):
        history.push(event("system.migration.started", "SYSTEM", name=name), instance="")

        assert history.rows("migration_started", instance="") == {"14_events_push", name}

        history.push(event(f"system.migration.{ending}", "SYSTEM", name=name), instance="")

    assert history.rows("migration_started", instance="") == {"14_events_push"}
    assert history.rows("migration_done", instance="") == {"14_events_push"}


def test_what_has_no_rule_is_not_asked_for() -> None:
    """
    The types without constraints are left out of EVENT_TYPES, those of the rules are in.
    """
    ruled = {happening.kind for _, steps in LIVES for happening, _ in steps} - {"quota.set"}

    assert ruled <= EVENT_TYPES
    assert not EVENT_TYPES & {"session.added", "user.human.externalidp.id.migrated", "org.idp.removed", "quota.set"}
