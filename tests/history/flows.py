"""
What people and machines do with a ZITADEL, as generators of pushes (facts 8.2-8.4).

A flow yields one push at a time, so that many run interleaved. A push is a list of drafts; payloads are COPY text
already: plain JSON without a backslash, or passed through `copied`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.history.world import Drafts, Instance, World, copied, escaped

NULL = r"\N"

SCOPES = '["openid", "profile", "email", "urn:zitadel:iam:org:project:id:zitadel:aud"]'

NAMES = (
    "Ada", "Grace", "Jörg", "Łukasz", "Zoë", "Márton", "张伟", "Ольга", "محمد", "さくら", "O'Neil", "Žofia", "🦊 Fox",
    "Anna", "Tom", "Kim", "Lea", "Ben", "Mia", "Noah",
)  # fmt: skip

# Enough to be more than any cache sees, few enough to stay in memory.
MAX_USERS = 5000

Flow = Callable[[World, Instance], Iterator[Drafts]]


def founding(world: World, instance: Instance, permissions: int) -> Drafts:
    """Return the push that makes an instance: its settings, and a permission of each role."""
    config = world.aggregate(instance, "instance", instance.id, instance.id)
    grants = world.aggregate(instance, "permission", instance.id, instance.id)
    org = world.aggregate(instance, "org", world.maybe_odd_id(), instance.id)
    project = world.aggregate(instance, "project", world.new_id(), org.id)
    admin = world.aggregate(instance, "user", world.new_id(), org.id, 2)
    machine = world.aggregate(instance, "user", world.new_id(), org.id, 2)
    instance.orgs.append(org)
    instance.projects.append(project)
    instance.users.append(admin)
    instance.machines.append(machine)
    drafts: Drafts = [
        (config, "instance.added", copied({"name": f"ZITADEL {instance.id}"}), "system"),
        (config, "instance.domain.added", copied({"domain": f"{instance.id}.example.com"}), "system"),
        (config, "instance.policy.label.added", f'{{"primaryColor": "#5469d4", "css": "{world.token(600)}"}}', ""),
        (config, "instance.customtext.set", copied({"key": "Title", "text": "Größe\n\tund \\ 🦊 \u0001"}), ""),
        (org, "org.added", copied({"name": f'Org "{instance.id}"'}), "system"),
        (project, "project.added", '{"name": "ZITADEL"}', "system"),
        (admin, "user.human.added", _human(world, "zitadel-admin"), "system"),
        (machine, "user.machine.added", '{"name": "worker", "userName": "worker", "accessTokenType": 1}', ""),
    ]
    drafts += [
        (grants, "permission.added", f'{{"role": "ROLE_{number % 30}", "permission": "thing.{number}.read"}}', "")
        for number in range(permissions)
    ]
    return drafts


def login(world: World, instance: Instance) -> Iterator[Drafts]:
    rng, user = world.rng, world.user(instance)
    who = escaped(user.id) if user.id.isdigit() else ""
    client, session_id = world.new_id(), world.new_id()
    request = world.aggregate(instance, "auth_request", f"V2_{world.new_id()}", instance.id)
    session = world.aggregate(instance, "session", session_id, instance.id)
    yield [(request, "auth_request.added", (
        f'{{"state": "{world.token(12)}", "nonce": "{world.token(12)}", "scope": {SCOPES}, "issuer": "https://'
        f'login.example.com", "audience": ["{client}", "400839037427911718"], "client_id": "{client}", "redirect_uri"'
        f': "https://app.example.com/callback", "response_type": 0, "code_challenge": {{"Method": 1, "Challenge": '
        f'"{world.token(32)}"}}, "login_client": "400839037394685966", "need_refresh_token": true}}'
    ), "LOGIN")]  # fmt: skip
    yield [
        (session, "session.added", '{"user_agent": {"ip": "203.0.113.7", "description": "Firefox"}}', "login"),
        (session, "session.user.checked", f'{{"userID": "{who}", "checkedAt": "2026-01-01T10:00:00Z"}}', ""),
        (session, "session.token.set", f'{{"tokenID": "{session_id}"}}', ""),
    ]
    if rng.random() < 0.05:
        yield [(user, "user.human.password.check.failed", NULL, "")]
    yield [
        (user, "user.human.password.check.succeeded", rng.choice((NULL, "{}")), ""),
        (session, "session.password.checked", '{"checkedAt": "2026-01-01T10:00:01.123456789Z"}', ""),
        (session, "session.token.set", f'{{"tokenID": "{world.new_id()}"}}', ""),
    ]
    yield [(request, "auth_request.session.linked", f'{{"session_id": "{session_id}", "user_id": "{who}"}}', "")]
    yield [(request, "auth_request.code.added", NULL, "")]
    tokens = world.aggregate(instance, "oidc_session", f"V2_{world.new_id()}", user.owner)
    yield [
        (tokens, "oidc_session.added", _oidc_session(world, who, session_id, client), ""),
        (request, "auth_request.code.exchanged", NULL, ""),
        (tokens, "oidc_session.access_token.added", _access_token(world), ""),
        (tokens, "oidc_session.refresh_token.added", f'{{"id": "rt_{world.new_id()}", "lifetime": 7776000}}', ""),
        (request, "auth_request.succeeded", NULL, ""),
    ]
    while rng.random() < 0.75:
        yield [
            (tokens, "oidc_session.access_token.added", _access_token(world), "OIDC"),
            (tokens, "oidc_session.refresh_token.renewed", f'{{"id": "rt_{world.new_id()}"}}', "OIDC"),
        ]
    if rng.random() < 0.2:
        yield [(session, "session.terminated", NULL, who)]


def machine_token(world: World, instance: Instance) -> Iterator[Drafts]:
    user = world.rng.choice(instance.machines)
    tokens = world.aggregate(instance, "oidc_session", f"V2_{world.new_id()}", user.owner)
    drafts: Drafts = [
        (tokens, "oidc_session.added", _oidc_session(world, user.id, "", "worker"), user.id),
        (tokens, "oidc_session.access_token.added", _access_token(world), user.id),
    ]
    if world.rng.random() < 0.15:
        drafts.append((user, "user.token.v2.added", f'{{"tokenID": "at_{world.new_id()}"}}', ""))
    yield drafts


def new_user(world: World, instance: Instance) -> Iterator[Drafts]:
    rng, org = world.rng, world.rng.choice(instance.orgs)
    user = world.aggregate(instance, "user", world.maybe_odd_id(), org.id, 2)
    yield [
        (user, "user.human.added", _human(world, f"user-{user.id}"), world.creator()),
        (user, "user.human.email.code.added", _code(world), ""),
    ]
    if len(instance.users) < MAX_USERS:
        instance.users.append(user)
    else:
        instance.users[rng.randrange(1, MAX_USERS)] = user
    yield [(user, "user.human.email.code.sent", NULL, "NOTIFICATION")]
    yield [(user, "user.human.email.verified", NULL, "")]
    for _ in range(rng.randrange(4)):
        value = world.token(rng.randrange(20, 900))
        yield [(user, "user.metadata.set", f'{{"key": "k{rng.randrange(50)}", "value": "{value}"}}', "")]
    if rng.random() < 0.5:
        grant = world.aggregate(instance, "usergrant", world.new_id(), org.id)
        project = rng.choice(instance.projects)
        roles = copied({"userId": user.id, "projectId": project.id, "roleKeys": ["admin", "Prüfer"]})
        yield [(grant, "user.grant.added", roles, "")]
    if rng.random() < 0.1:
        yield [(user, "user.removed", NULL, ""), (org, "org.domain.verified", '{"domain": "example.com"}', "")]


def external_login(world: World, instance: Instance) -> Iterator[Drafts]:
    intent = world.aggregate(instance, "idpintent", world.new_id(), instance.id)
    yield [(intent, "idpintent.started", '{"successURL": "https://a.example.com", "idpId": "17"}', "")]
    token = world.token(world.rng.randrange(200, 2500))
    yield [(intent, "idpintent.succeeded", f'{{"idpUser": "{token}", "idpUserId": "4711"}}', "")]


def settings(world: World, instance: Instance) -> Iterator[Drafts]:
    """Change texts, and flip a policy in one push over many aggregates."""
    rng, org = world.rng, world.rng.choice(instance.orgs)
    text = {"text": rng.choice(NAMES) + "\x01\x1f\\\b\f\t\"' \u2028 end", "language": "de", "key": "Init"}
    yield [(org, "org.customtext.set", copied(text), world.creator())]
    if rng.random() < 0.3:
        key = world.aggregate(instance, "key_pair", world.new_id(), instance.id)
        yield [(key, "key_pair.added", f'{{"usage": 0, "privateKey": {{"Key": "{world.token(2400)}"}}}}', "system")]
    project = world.aggregate(instance, "project", world.maybe_odd_id(), org.id)
    if len(instance.projects) < MAX_USERS:
        instance.projects.append(project)
    yield [(project, "project.added", copied({"name": rng.choice(NAMES)}), "")]
    yield [(project, "project.application.config.oidc.added", f'{{"clientSecret": "{world.token(300)}"}}', "")]
    if rng.random() < 0.1:
        touched = rng.sample(instance.users, min(len(instance.users), 50))
        yield [
            (org, "org.policy.domain.changed", '{"userLoginMustBeDomain": true}', ""),
            *((user, "user.username.changed", f'{{"userName": "u{world.new_id()}"}}', "") for user in touched),
        ]


def huge_text(world: World, instance: Instance) -> Drafts:
    """Return a push with a payload of more than 1 MB, as custom texts and identity provider answers can be."""
    org = world.rng.choice(instance.orgs)
    return [(org, "org.customtext.set", f'{{"key": "huge", "text": "{world.token(900_000)}"}}', "")]


MIX: tuple[tuple[Flow, int], ...] = (
    (login, 24), (machine_token, 60), (new_user, 9), (external_login, 3), (settings, 1),
)  # fmt: skip


def _human(world: World, name: str) -> str:
    first, last = world.rng.choice(NAMES), world.rng.choice(NAMES)
    return copied({
        "userName": name, "firstName": first, "lastName": last, "displayName": f"{first} {last}", "gender": 1,
        "preferredLanguage": "en", "email": f"{world.new_id()}@example.com",
        "encodedHash": f"$2a$10${world.token(40)}",
    })  # fmt: skip


def _code(world: World) -> str:
    return (
        f'{{"code": {{"KeyID": "userKey", "Crypted": "{world.token()}", "Algorithm": "aes", "CryptoType": 0}},'
        ' "expiry": 3600000000000}'
    )


def _access_token(world: World) -> str:
    return f'{{"id": "at_{world.new_id()}", "scope": {SCOPES}, "reason": 2, "lifetime": 43199999999999}}'


def _oidc_session(world: World, user: str, session: str, client: str) -> str:
    return (
        f'{{"scope": {SCOPES}, "userID": "{user}", "audience": ["{client}", "400839037427911718"], "authTime": '
        f'"2026-01-01T10:00:00Z", "clientID": "{client}", "sessionID": "{session}", "authMethods": [1], "nonce": '
        f'"{world.token(12)}", "userAgent": {{"ip": "203.0.113.7", "header": {{"User-Agent": ["Mozilla/5.0 (X11; Linux'
        f' x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"]}}, "description": "Firefox", "fingerprint_id": '
        f'"{world.new_id()}"}}, "userResourceOwner": "400839037394357287", "preferredLanguage": "en"}}'
    )
