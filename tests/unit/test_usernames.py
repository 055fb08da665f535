"""User names: their scope, what a change of policy does to them, and the names that are left behind."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.pushes import Happening, History, event

MILLISECOND = timedelta(milliseconds=1)

VERSIONS = pytest.mark.parametrize("version", ["v4", "main"])


def policy(kind: str, *, scoped: bool, org: str = "o") -> Happening:
    """A domain policy; false is left out of those added, as ZITADEL does."""
    data: dict[str, object] = {"userLoginMustBeDomain": scoped} if scoped or kind.endswith("changed") else {}
    return event(kind, "i" if kind.startswith(("instance", "iam")) else org, **data)


def with_users(version: str = "v4", *, scoped: bool = False) -> History:
    """An instance, two organizations, one user in each."""
    history = History(version)
    history.push(policy("instance.policy.domain.added", scoped=scoped))
    history.push(event("org.added", "o", name="one")).push(event("org.added", "p", name="two"))
    history.push(event("user.human.added", "u", "o", userName="ann"))
    return history.push(event("user.machine.added", "v", "p", userName="bea"))


@VERSIONS
def test_a_policy_scopes_the_names_of_those_added_under_it(version: str) -> None:
    """
    Names are unique in the instance, or in the organization with its id appended.
    """
    history = with_users(version)
    history.push(policy("org.policy.domain.added", scoped=True))
    history.push(event("user.human.added", "w", "o", userName="Cid"))

    assert history.rows("usernames") == {"ann", "bea", "cido"}


@VERSIONS
def test_a_changed_policy_renames_in_its_push(version: str) -> None:
    """
    Names renamed in the push of the policy leave their old scope for the new one, in both directions.
    """
    history = with_users(version)
    history.push(
        policy("org.policy.domain.added", scoped=True), event("user.username.changed", "u", "o", userName="ann")
    )
    scoped = history.rows("usernames")
    history.push(
        policy("org.policy.domain.changed", scoped=False), event("user.username.changed", "u", "o", userName="ann@o.x")
    )
    unscoped = history.rows("usernames")
    history.push(
        policy("org.policy.domain.changed", scoped=True), event("user.username.changed", "u", "o", userName="ann")
    )
    history.push(
        policy("org.policy.domain.removed", scoped=False), event("user.username.changed", "u", "o", userName="ann@o.x")
    )

    assert scoped == {"anno", "bea"}
    assert unscoped == {"ann@o.x", "bea"}
    assert history.rows("usernames") == {"ann@o.x", "bea"}


@VERSIONS
def test_the_instances_policy_is_for_organizations_without_their_own(version: str) -> None:
    """
    A change of the instance's policy renames where no policy of the organization stands.
    """
    history = with_users(version)
    history.push(policy("org.policy.domain.added", scoped=False, org="p"))
    history.push(
        policy("instance.policy.domain.changed", scoped=True), event("user.username.changed", "u", "o", userName="ann")
    )

    assert history.rows("usernames") == {"anno", "bea"}

    history.push(event("user.human.added", "w", "p", userName="cid"))
    history.push(policy("org.policy.domain.removed", scoped=False, org="p"),
                 event("user.username.changed", "v", "p", userName="bea"),
                 event("user.username.changed", "w", "p", userName="cid"))  # fmt: skip

    assert history.rows("usernames") == {"anno", "beap", "cidp"}


def test_a_policy_that_changes_something_else_keeps_the_scope() -> None:
    """
    A changed policy without the field leaves it as it was; an added one without it says no.
    """
    history = with_users()
    history.push(policy("org.policy.domain.added", scoped=True), event("user.username.changed", "u", "o", userName="a"))
    history.push(event("org.policy.domain.changed", "o", validateOrgDomains=True))
    history.push(event("user.human.added", "w", "o", userName="cid"))

    assert history.rows("usernames") == {"ao", "cido", "bea"}

    history.push(event("org.policy.domain.removed", "o"), event("user.username.changed", "u", "o", userName="a@o.x"),
                 event("user.username.changed", "w", "o", userName="cid@o.x"))  # fmt: skip
    history.push(event("org.policy.domain.added", "o", validateOrgDomains=True))
    history.push(event("user.human.added", "x", "o", userName="dan"))

    assert history.rows("usernames") == {"a@o.x", "cid@o.x", "bea", "dan"}


def test_a_rename_after_the_push_of_a_policy_is_a_plain_one() -> None:
    """
    The old name is looked for in the scope that the policy gives now.
    """
    history = with_users()
    history.push(policy("org.policy.domain.added", scoped=True))
    history.push(event("user.username.changed", "u", "o", userName="eve"))

    assert history.rows("usernames") == {"ann", "eveo", "bea"}


def test_older_names_of_policies_count() -> None:
    """
    Events of the first generation set the same policies.
    """
    history = History()
    history.push(policy("iam.policy.org.iam.added", scoped=True))
    history.push(event("user.human.added", "u", "o", userName="ann"))
    history.push(policy("org.policy.org.iam.added", scoped=False, org="p"))
    history.push(event("user.human.added", "v", "p", userName="bea"))
    history.push(policy("org.policy.org.iam.changed", scoped=True, org="p"),
                 event("user.username.changed", "v", "p", userName="bea"))  # fmt: skip
    history.push(policy("iam.policy.org.iam.changed", scoped=False),
                 event("user.username.changed", "u", "o", userName="ann@o.x"))  # fmt: skip
    history.push(policy("org.policy.org.iam.removed", scoped=False, org="p"),
                 event("user.username.changed", "v", "p", userName="bea@p.x"))  # fmt: skip

    assert history.rows("usernames") == {"ann@o.x", "bea@p.x"}


def test_users_of_the_first_generation_are_in_no_list_of_their_organization() -> None:
    """
    Their own removal releases the name; that of the organization does not.
    """
    history = History()
    for user in "uvw":
        history.push(event("user.added" if user != "w" else "user.human.added", user, "o", userName=user))
    history.push(event("user.username.changed", "u", "o", userName="uu"))
    history.push(event("user.removed", "v", "o"))
    history.push(event("org.removed", "o"))

    assert history.rows("usernames") == {"uu"}


@VERSIONS
def test_a_removed_organization_releases_its_users(version: str) -> None:
    """
    Their present names, in the present scope.
    """
    history = with_users(version)
    history.push(policy("org.policy.domain.added", scoped=True), event("user.username.changed", "u", "o", userName="A"))
    history.push(event("user.human.added", "w", "o", userName="cid")).push(event("user.removed", "w", "o"))
    history.push(
        policy("org.policy.domain.removed", scoped=False), event("user.username.changed", "u", "o", userName="A@o.x")
    )
    history.push(event("user.human.added", "x", "p", userName="cid"))
    history.push(event("org.removed", "o"))

    assert history.rows("usernames") == {"bea", "cid"}


@VERSIONS
def test_a_rename_elsewhere_at_the_instant_of_a_policy_is_a_plain_one(version: str) -> None:
    """
    A change of policy is for its own organization, or for those without their own.
    """
    history = with_users(version)
    history.push(policy("org.policy.domain.added", scoped=False, org="p"))
    history.push(
        policy("org.policy.domain.added", scoped=True), event("user.username.changed", "u", "o", userName="ann")
    )
    history.push(event("user.username.changed", "v", "p", userName="dan"), after=0 * MILLISECOND, creator="x")
    history.push(policy("instance.policy.domain.changed", scoped=True))
    history.push(event("user.username.changed", "v", "p", userName="eve"), after=0 * MILLISECOND, creator="x")

    assert history.rows("usernames") == {"anno", "eve"}


def test_a_policy_of_the_instance_brings_names_of_removed_organizations_back() -> None:
    """
    Up to v4.13 users of removed organizations are renamed, too, and block their names.
    """
    history = with_users()
    history.push(event("org.removed", "o"))
    history.push(policy("instance.policy.domain.changed", scoped=True),
                 event("user.username.changed", "u", "o", userName="ann"),
                 event("user.username.changed", "v", "p", userName="bea"))  # fmt: skip

    assert history.rows("usernames") == {"anno", "beap"}


@VERSIONS
def test_the_policy_of_an_organization_outlives_it(version: str) -> None:
    """
    Created again under its id, the organization is still under its old policy.
    """
    history = with_users(version)
    history.push(policy("org.policy.domain.added", scoped=True), event("user.username.changed", "u", "o", userName="a"))
    history.push(event("org.removed", "o")).push(event("org.added", "o", name="one"))
    history.push(event("user.human.added", "w", "o", userName="cid"))

    assert history.rows("usernames") == {"cido", "bea"}


@VERSIONS
def test_a_claimed_user_leaks_the_temporary_name(version: str) -> None:
    """
    Commands on the user know the name from before the claim, and release that.
    """
    history = with_users(version)
    history.push(event("org.domain.verified", "p", domain="x"), event("user.domain.claimed", "u", "o", userName="tmp"))

    assert history.rows("usernames") == {"tmp", "bea"}

    history.push(event("user.human.added", "w", "p", userName="ann"))
    history.push(event("user.removed", "u", "o"))

    assert history.rows("usernames") == {"tmp", "bea"}


@VERSIONS
def test_a_second_claim_takes_the_name_of_who_has_it_now(version: str) -> None:
    """
    The row of a stranger who took the name after the first claim is removed, the first temporary name stays.
    """
    history = with_users(version)
    history.push(event("user.domain.claimed", "u", "o", userName="tmp"))
    history.push(event("user.human.added", "w", "p", userName="ann"))
    history.push(event("user.domain.claimed", "u", "o", userName="tmp2"))

    assert history.rows("usernames") == {"tmp", "tmp2", "bea"}


@VERSIONS
def test_lists_of_organizations_know_claimed_names(version: str) -> None:
    """
    A change of policy and the removal of the organization release the temporary name.
    """
    history = with_users(version)
    history.push(event("user.domain.claimed", "u", "o", userName="tmp@x"))
    removed = History(version, lines=[*history.lines], now=history.now)
    removed.push(event("org.removed", "o"))
    history.push(
        policy("org.policy.domain.added", scoped=True), event("user.username.changed", "u", "o", userName="tmp")
    )

    assert removed.rows("usernames") == {"bea"}
    assert history.rows("usernames") == {"tmpo", "bea"}


def test_a_user_id_used_twice_releases_the_links_of_both_lives() -> None:
    """
    Up to v4.13 a second removal takes what others have linked since; the development line begins anew.
    """
    left: dict[str, set[str]] = {}
    for version in ("v4", "main"):
        history = with_users(version)
        history.push(event("user.human.externalidp.added", "u", "o", idpConfigId="idp", userId="1"))
        history.push(event("user.removed", "u", "o"))
        history.push(event("user.human.externalidp.added", "v", "p", idpConfigId="idp", userId="1"))
        history.push(event("user.human.added", "u", "o", userName="ann"))
        history.push(event("user.human.externalidp.added", "u", "o", idpConfigId="idp", userId="2"))
        history.push(event("user.removed", "u", "o"))
        left[version] = history.rows("external_idps")

    assert left == {"v4": set(), "main": {"idp1"}}


def test_a_removed_organization_releases_the_links_of_users_removed_before() -> None:
    """
    Every link that was made in it and not taken back, whoever has it now.
    """
    history = with_users()
    history.push(event("user.human.externalidp.added", "u", "o", idpConfigId="idp", userId="1"))
    history.push(event("user.human.externalidp.added", "u", "o", idpConfigId="idp", userId="2"))
    history.push(event("user.human.externalidp.removed", "u", "o", idpConfigId="idp", userId="2"))
    history.push(event("user.removed", "u", "o"))
    for number in "12":
        history.push(event("user.human.externalidp.added", "v", "p", idpConfigId="idp", userId=number))

    assert history.rows("external_idps") == {"idp1", "idp2"}

    history.push(event("org.removed", "o"))

    assert history.rows("external_idps") == {"idp2"}


def test_a_migrated_link_keeps_the_row_of_its_old_id() -> None:
    """
    The new id never gets one; the user's removal releases the old.
    """
    history = with_users()
    history.push(event("user.human.externalidp.added", "u", "o", idpConfigId="idp", userId="old"))
    history.push(
        event("user.human.externalidp.id.migrated", "u", "o", idpConfigId="idp", previousId="old", newId="new")
    )

    assert history.rows("external_idps") == {"idpold"}

    history.push(event("user.removed", "u", "o"))

    assert history.rows("external_idps") == set()


def settings(*, scoped: bool, org: str = "o") -> Happening:
    """Settings; false is left out."""
    return event("settings.organization.set", org, **({"organizationScopedUsernames": True} if scoped else {}))


def test_settings_of_an_organization_move_its_names() -> None:
    """
    All names of the organization change their scope with the settings, and back when those are removed.
    """
    history = with_users("main")
    history.push(settings(scoped=True))
    history.push(event("user.human.added", "w", "o", userName="cid"))

    assert history.rows("usernames") == {"anno", "cido", "bea"}

    history.push(event("settings.organization.removed", "o"))

    assert history.rows("usernames") == {"ann", "cid", "bea"}


def test_settings_change_nothing_where_the_policy_says_it_already() -> None:
    """
    Policy and settings are alternatives: only where both say no are names unique in the instance.
    """
    history = with_users("main", scoped=True)
    history.push(settings(scoped=True))

    assert history.rows("usernames") == {"anno", "beap"}

    history.push(policy("org.policy.domain.added", scoped=False),
                 event("user.username.changed", "u", "o", userName="ann@o.x"))  # fmt: skip

    assert history.rows("usernames") == {"ann@o.xo", "beap"}


@pytest.mark.parametrize("end", ["org.removed", "org.added"])
def test_settings_end_with_the_organization(end: str) -> None:
    """
    Created again, it has none.
    """
    history = with_users("main")
    history.push(settings(scoped=True)).push(event(end, "o", name="other"))
    history.push(event("user.human.added", "w", "o", userName="cid"))

    assert "cid" in history.rows("usernames")


def test_the_instances_policy_overlooks_settings() -> None:
    """
    On the development line the scoped row of such an organization leaks, and the new one goes by the policy.
    """
    history = with_users("main")
    history.push(settings(scoped=True))
    history.push(policy("instance.policy.domain.changed", scoped=True),
                 event("user.username.changed", "u", "o", userName="an"),
                 event("user.username.changed", "v", "p", userName="bea"))  # fmt: skip
    scoped = history.rows("usernames")
    history.push(policy("instance.policy.domain.changed", scoped=False),
                 event("user.username.changed", "u", "o", userName="an@o.x"),
                 event("user.username.changed", "v", "p", userName="bea@p.x"))  # fmt: skip

    assert scoped == {"anno", "ano", "beap"}
    assert history.rows("usernames") == {"anno", "an@o.x", "bea@p.x"}


def test_what_a_push_removes_it_removes_first() -> None:
    """
    Of a scoped organization with `a` and `a@dom`, a policy turned off keeps both names.
    """
    history = with_users("main", scoped=True)
    history.push(settings(scoped=True))
    for user, name in (("w", "a"), ("x", "a@dom")):
        history.push(event("user.human.added", user, "o", userName=name))
    history.push(policy("org.policy.domain.added", scoped=False),
                 event("user.username.changed", "u", "o", userName="ann@dom"),
                 event("user.username.changed", "w", "o", userName="a@dom"),
                 event("user.username.changed", "x", "o", userName="a@dom@dom"))  # fmt: skip

    assert history.rows("usernames") == {"ann@domo", "a@domo", "a@dom@domo", "beap"}


def test_a_rename_to_the_same_name_and_scope_is_none_on_the_development_line() -> None:
    """
    It neither looks for the row nor makes one; v4 does both.
    """
    left: dict[str, bool] = {}
    for version in ("v4", "main"):
        history = with_users(version)
        history.push(event("user.domain.claimed", "u", "o", userName="tmp"))
        history.push(event("user.username.changed", "u", "o", userName="ann"))
        left[version] = "ann" in history.rows("usernames")

    assert left == {"v4": True, "main": False}


def test_before_v239_a_change_of_policy_renames_over_some_time() -> None:
    """
    Events of the first table have their own times; the renames that fit the policy follow it by the same hand.
    """
    history = History("v2.38")
    history.push(policy("instance.policy.domain.added", scoped=False))
    for user in "uvw":
        history.push(event("user.human.added", user, "o", userName=user))
    history.push(policy("org.policy.domain.added", scoped=True),
                 event("user.username.changed", "u", "o", userName="u"),
                 event("user.username.changed", "v", "o", userName="v"), creator="admin")  # fmt: skip
    history.push(event("user.username.changed", "w", "o", userName="ww"), creator="admin", after=MILLISECOND)

    assert history.rows("usernames") == {"uo", "vo", "wwo", "w"}

    history.push(policy("org.policy.domain.changed", scoped=False),
                 event("user.username.changed", "u", "o", userName="u@o.x"),
                 event("user.username.changed", "v", "o", userName="v@o.x"), creator="admin")  # fmt: skip

    assert history.rows("usernames") == {"u@o.x", "v@o.x", "wwo", "w"}


def test_before_december_2022_a_change_of_policy_renamed_nobody() -> None:
    """
    Names stay in the scope of their creation, and are not found by it later.
    """
    history = History("v2.38")
    history.push(event("user.human.added", "u", "o", userName="ann"))
    history.push(policy("org.policy.domain.added", scoped=True))
    history.push(event("user.removed", "u", "o"))

    assert history.rows("usernames") == {"ann"}
