"""
Real ZITADEL servers on restored databases, checked through their public APIs.

Each case is restored and started once. What must be seen before anybody acts (answers, silence, events of setup) was
looked at right after the start; so the tests, which act on different people, come in any order.
"""

from __future__ import annotations

import time

import pytest

from tests.zitadel.api import ApiError, eventually
from tests.zitadel.drill import CASES
from tests.zitadel.past import removed_users, revoked_tokens
from tests.zitadel.restored import ALPHA, QUIET_SECONDS, Restored, token_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.parametrize("running", CASES, indirect=True, ids=str, scope="module"),
]

PASSWORD = "Known-again-after-1-restore!"

MAIL_SECONDS = 60
"""for the first mail"""


def test_organisations_users_and_projects_are_those_of_the_instant(running: Restored) -> None:
    """
    Every instance answers what it answered at T, object by object.
    """
    assert not {name: found for name, found in running.quiet.differences.items() if found}


def test_setup_adds_nothing_but_its_own_records(running: Restored) -> None:
    """
    After a restore, setup pushes system.migration events and no others.
    """
    assert not {key for key in running.quiet.by_setup if key[0] or not key[1].startswith("system.migration.")}


def test_nothing_of_the_past_is_sent(running: Restored) -> None:
    """
    Neither setup nor the first seconds of start reach the mail server or a webhook.
    """
    assert running.quiet.mails == ()
    assert running.quiet.calls == ()
    assert not {key for key in running.quiet.by_start if key[1].endswith((".sent", ".notified"))}


def test_old_tokens_are_valid(running: Restored) -> None:
    """
    Tokens that were given out before the backup are what they were, in every instance.
    """
    for name, api in running.apis.items():
        bearer = running.owners[name].user
        assert api.user(bearer)["userId"] == bearer


def test_revoked_tokens_stay_revoked(running: Restored) -> None:
    revoked = [token for token in revoked_tokens(running.log) if token.instance == running.instances[ALPHA].id]
    api = running.alpha.bearing(token_of(running.oidc_key, revoked[0]))

    with pytest.raises(ApiError) as refused:
        api.user(revoked[0].user)

    assert refused.value.status == 401


def test_a_person_signs_in(running: Restored) -> None:
    """
    A new password opens a session, whose token may read the person's own record.
    """
    person = running.instances[ALPHA].people[1]

    running.alpha.set_password(person.id, PASSWORD)
    session = running.alpha.sign_in(person.login_name, PASSWORD)

    assert running.alpha.bearing(session).user(person.id)["username"] == person.name


def test_a_wrong_password_is_refused(running: Restored) -> None:
    person = running.instances[ALPHA].people[2]

    with pytest.raises(ApiError) as refused:
        running.alpha.sign_in(person.login_name, f"not {PASSWORD}")

    assert refused.value.status == 400


def test_a_taken_user_name_is_refused(running: Restored) -> None:
    """
    Names in use at T cannot be given again.
    """
    person = running.instances[ALPHA].people[3]

    with pytest.raises(ApiError) as refused:
        running.alpha.add_human(person.organisation, person.name, "taken@mail.test")

    assert refused.value.status == 409


def test_the_name_of_a_removed_user_is_free(running: Restored) -> None:
    """
    Names given up before T can be used again.
    """
    instance = running.instances[ALPHA]
    taken = {user["username"].lower() for user in instance.answers.users.values()}
    free = next(
        user
        for user in removed_users(running.log)
        if user.instance == instance.id and user.organisation in instance.active and user.name.lower() not in taken
    )

    added = running.alpha.add_human(free.organisation, free.name, "again@mail.test")

    seen = eventually(lambda: running.alpha.user(added), lambda user: user["username"] == free.name, MAIL_SECONDS)
    assert seen["username"] == free.name


def test_a_new_notification_is_sent_once(running: Restored) -> None:
    """
    Who asks for a code now gets one mail, by the restored provider.
    """
    person = running.instances[ALPHA].people[4]

    running.alpha.send_reset_code(person.id)

    eventually(lambda: running.mails_to(person.email), bool, MAIL_SECONDS)
    time.sleep(QUIET_SECONDS)
    assert len(running.mails_to(person.email)) == 1
