"""Whether a masterkey fits, held against what real servers encrypted."""

from __future__ import annotations

import base64
import json
import math
import random
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import fixture_data
from tests.encrypted import MASTERKEY, OTHER, encrypt, key_row, keys_of, payload, values_of
from tests.fixture_data import VERSIONS
from zbackup.masterkey import judged, summary
from zbackup.zitadel.masterkey import (
    CARRIERS,
    PROOF_BITS,
    Encrypted,
    KeyCheck,
    check,
    decrypt,
    decrypt_key,
    encrypted_in,
    evidence,
)

KEY = bytes(range(200, 232))

FULL = fixture_data.full_place() is not None
PEM = b"-----BEGIN RSA PRIVATE KEY-----\nMIIJKQIBAAKCAgEAyRLjI8kyBXyM\n-----END RSA PRIVATE KEY-----\n"


def values(key_id: str, *texts: bytes, key: bytes = KEY) -> list[Encrypted]:
    return [Encrypted("test.added", key_id, encrypt(key, text)) for text in texts]


def of_key(key_id: str, found: tuple[KeyCheck, ...]) -> KeyCheck:
    return next(key for key in found if key.id == key_id)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.skipif(not FULL, reason="no fixtures"))])
def test_the_masterkey_of_a_real_server_fits(version: str, full: bool) -> None:
    """
    It is proved by events, without one garbled value, and no key is said not to fit.
    """
    found = check(MASTERKEY, keys_of(version, full=full), values_of(version, full=full))

    assert found.verdict == "fits"
    assert found.absent == ()
    assert {key.verdict for key in found.keys} == {"fits", "unproven"}
    assert not any(key.garbled for key in found.keys)
    assert {"csrfCookieKey", "userAgentCookieKey"} <= set(found.ids("unproven"))
    if full:
        assert len(found.ids("fits")) >= 7
        assert of_key("oidcKey", found.keys).event_type in {"web_key.added", "key_pair.added"}
        assert judged(found).verdict == "ok"


@pytest.mark.parametrize("version", VERSIONS)
def test_all_that_a_real_server_encrypts_is_text(version: str) -> None:
    """
    Every value of every event is UTF-8, and comes from an aggregate type where it is looked for.
    """
    keys = {key_id: decrypt_key(MASTERKEY, row) for key_id, row in keys_of(version, full=FULL).items()}
    found = values_of(version, full=FULL)

    assert len(found) > 2
    for value in found:
        assert evidence(decrypt(keys[value.key_id], value.crypted)) is not None
    known = {event_type for event_types in CARRIERS.values() for event_type in event_types}
    others = {value.event_type for value in found} - known
    assert all(name.endswith(".changed") or ".migrated." in name for name in others), others
    names = fixture_data.columns(version, full=FULL)
    kind, event_type = names.index("aggregate_type"), names.index("event_type")
    rows = (row.split(b"\t") for row in fixture_data.rows(version, full=FULL))
    types = {value.event_type.encode() for value in found}
    assert {row[kind].decode() for row in rows if row[event_type] in types} <= CARRIERS.keys()


@given(st.binary(min_size=32, max_size=32).filter(lambda key: key != MASTERKEY), st.sampled_from(VERSIONS))
@settings(max_examples=200, deadline=None)
def test_no_other_masterkey_fits(wrong: bytes, version: str) -> None:
    """
    Any other 32 bytes are refuted by what real servers encrypted.
    """
    found = check(wrong, keys_of(version), values_of(version))

    assert found.verdict == "does_not_fit"
    assert found.ids("fits") == ()


@pytest.mark.parametrize("place", range(32))
def test_one_byte_off_does_not_fit(place: int) -> None:
    """
    A masterkey with one wrong character, wherever it is, or in another case, does not fit.
    """
    wrong = bytearray(MASTERKEY)
    wrong[place] ^= 0x20

    assert check(bytes(wrong), keys_of("v4.13.1"), values_of("v4.13.1")).verdict == "does_not_fit"


def test_keys_under_another_masterkey_are_named() -> None:
    """
    After a rotation that stopped half-way neither masterkey fits, and each names what the other one holds.
    """
    keys = keys_of("v4.13.1")
    moved = {key_id: key_row(OTHER, decrypt_key(MASTERKEY, keys[key_id])) for key_id in ("userKey", "smsKey")}

    old = check(MASTERKEY, keys | moved, values_of("v4.13.1"))
    new = check(OTHER, keys | moved, values_of("v4.13.1"))

    assert old.verdict == new.verdict == "does_not_fit"
    assert old.ids("does_not_fit") == new.ids("fits") == ("smsKey", "userKey")
    others = ("domainVerificationKey", "idpConfigKey", "oidcKey", "smtpKey", "targetKey")
    assert old.ids("fits") == new.ids("does_not_fit") == others
    assert "smsKey (" in judged(old).message


def test_without_keys_nothing_is_proved() -> None:
    """
    An empty table proves nothing, whatever the events hold; they show that keys are missing.
    """
    found = check(MASTERKEY, {}, values_of("v4.13.1"))

    assert (found.verdict, found.keys, found.absent) == ("unproven", (), ())
    assert judged(found).verdict == "warn"
    missing = check(MASTERKEY, {"userKey": key_row(MASTERKEY, KEY)}, values("gone", PEM))
    assert (missing.verdict, missing.absent) == ("unproven", ("gone",))


def test_without_events_nothing_is_proved() -> None:
    """
    Keys are random bytes: the right masterkey and a wrong one look alike without a value.
    """
    for masterkey in (MASTERKEY, OTHER):
        found = check(masterkey, keys_of("main"), ())
        assert found.verdict == "unproven"
        assert len(found.ids("unproven")) == 11


@pytest.mark.parametrize(
    "row",
    [
        "",
        "=",
        "not base64!",
        "ünlesbar",
        keys_of("main")["userKey"][:-1],
        keys_of("main")["userKey"][:-4],
        keys_of("main")["userKey"][:20],
        keys_of("main")["userKey"] + "AAAA",
    ],
)
def test_a_damaged_row_is_named_and_outvotes_nothing(row: str) -> None:
    """
    What is no AES key under any masterkey is unreadable; the others are judged as ever.
    """
    found = check(MASTERKEY, keys_of("main") | {"userKey": row}, values_of("main"))

    assert found.verdict == "fits"
    assert found.ids("unreadable") == ("userKey",)
    assert judged(found).verdict == "warn"
    assert "userKey" in summary(found)


def test_a_row_cut_to_a_shorter_key_does_not_fit() -> None:
    """
    A row whose rest still is an AES key (24 bytes) decrypts no value.
    """
    raw = base64.urlsafe_b64decode(keys_of("main")["oidcKey"])
    cut = {"oidcKey": base64.urlsafe_b64encode(raw[: 16 + 24]).decode()}

    assert check(MASTERKEY, keys_of("main") | cut, values_of("main")).ids("does_not_fit") == ("oidcKey",)


def test_a_key_of_an_operators_own_is_known_by_its_form() -> None:
    """
    `zitadel keys new` takes text: under the right masterkey it is that, under a wrong one nothing is known.
    """
    keys = {"rotated2026": key_row(MASTERKEY, b"an0perators0wnKey0f32Characters0")}

    right, wrong = check(MASTERKEY, keys, ()), check(OTHER, keys, ())
    assert right.keys == (KeyCheck("rotated2026", "fits", None, 0, 0),)
    assert right.verdict == "fits"
    assert "by its own form" in summary(right)
    assert wrong.verdict == "unproven"


def test_few_short_values_prove_nothing() -> None:
    """
    Codes of six letters prove a key from the fourth one on; one-letter passwords never do.
    """
    keys = {"userKey": key_row(MASTERKEY, KEY)}

    assert check(MASTERKEY, keys, values("userKey", b"GADLHN", b"PY0QQQ", b"86UEMJ")).verdict == "unproven"
    codes = values("userKey", b"GADLHN", b"PY0QQQ", b"86UEMJ", b"IX0PJK")
    assert check(MASTERKEY, keys, codes).verdict == "fits"
    assert check(MASTERKEY, keys, values("userKey", *([b"p"] * 30))).verdict == "unproven"


def test_values_of_a_lost_key_do_not_hide_the_right_one() -> None:
    """
    ZITADEL under a wrong masterkey goes on, and encrypts with garbage: the key fits all the same, and it is said.
    """
    keys = {"userKey": key_row(MASTERKEY, KEY)}
    astray = values("userKey", PEM, PEM[:90], key=decrypt_key(OTHER, keys["userKey"]))

    found = check(MASTERKEY, keys, [*astray, *values("userKey", PEM)])

    assert found.keys == (KeyCheck("userKey", "fits", "test.added", 1, 2),)
    assert judged(found).verdict == "warn"
    assert "2 values are garbled" in judged(found).message


def test_garbled_values_break_a_row() -> None:
    """
    Values count together only in a row: text that comes up between garbage by chance adds up to nothing.
    """
    keys = {"userKey": key_row(MASTERKEY, KEY)}
    garbled = [Encrypted("test.added", "userKey", encrypt(KEY, b"\xff\xfe"))]

    assert check(MASTERKEY, keys, (values("userKey", b"GADLHN") + garbled) * 50).verdict == "does_not_fit"


def test_no_more_is_read_than_needed() -> None:
    """
    Once every key that events can prove is proved, no further value is asked for.
    """
    taken = 0

    def source() -> Iterator[Encrypted]:
        nonlocal taken
        for value in values("userKey", PEM, PEM, PEM):
            taken += 1
            yield value

    keys = {name: key_row(MASTERKEY, KEY) for name in ("userKey", "csrfCookieKey", "userAgentCookieKey")}
    assert check(MASTERKEY, keys, source()).verdict == "fits"
    assert taken == 1


def test_only_what_is_encrypted_is_found_in_payloads() -> None:
    """
    Values are found at any depth; hashes, ids of other things, and what is cut short are left alone.
    """
    crypted = encrypt(KEY, b"secret")
    one = json.loads(payload("userKey", crypted))["code"]
    body = {
        "deep": [{"er": one}],
        "hash": one | {"CryptoType": 1, "Algorithm": "bcrypt"},
        "other": one | {"Algorithm": "enc"},
        "none": one | {"Crypted": None},
        "short": one | {"Crypted": base64.b64encode(crypted[:15]).decode()},
        "odd": one | {"Crypted": "*"},
        "keyId": "400839037428239398",
    }

    assert list(encrypted_in("x", json.dumps(body))) == [Encrypted("x", "userKey", crypted)]
    for other in ("null", "[]", '"KeyID"', "1"):
        assert list(encrypted_in("x", other)) == []
    with pytest.raises(ValueError):
        list(encrypted_in("x", "{"))


def test_results_hold_no_secret() -> None:
    """
    Neither masterkey nor key nor anything decrypted stands in a result or in its text.
    """
    keys = keys_of("v4.13.1")
    opened = {key_id: decrypt_key(MASTERKEY, row) for key_id, row in keys.items()}
    found = check(MASTERKEY, keys, values_of("v4.13.1"))

    told = f"{found!r} {judged(found)!r} {summary(found)}"
    secrets = [decrypt(opened[value.key_id], value.crypted).decode() for value in values_of("v4.13.1")]
    for secret in (MASTERKEY.decode(), *keys.values(), *secrets):
        assert len(secret) < 6 or secret not in told
    assert not any(repr(key)[2:-1] in told for key in opened.values())


def test_there_are_no_more_texts_than_the_evidence_allows_for() -> None:
    """
    Of n bytes at most 146^n are UTF-8 or its beginning, for every n that counts.
    """
    texts = [1]
    for n in range(1, 65):
        steps = ((1, 128), (2, 1920), (3, 61440), (4, 1048576))
        texts.append(sum(count * texts[n - size] for size, count in steps if size <= n))
        # begun and cut off: the first one, two or three bytes of a character
        begun = sum(count * texts[n - size] for size, count in ((1, 51), (2, 1984), (3, 65536)) if size <= n)
        assert texts[n] <= 146**n
        assert n < 64 or texts[n] + begun <= 146**n


def test_random_bytes_are_text_as_seldom_as_the_evidence_says() -> None:
    """
    Of random bytes no more than one in 2^b reaches b bits.
    """
    rng = random.Random(11)
    for size in (1, 2, 6, 12):
        bits = [evidence(rng.randbytes(size)) for _ in range(20_000)]
        for most in range(1, 12):
            reached = sum(one is not None and one >= most for one in bits)
            expected = 20_000 / 2**most
            assert reached <= expected + 5 * math.sqrt(expected) + 5
    assert evidence(b"") == 0
    assert evidence(b"\xff") is None
    assert (evidence(PEM) or 0) > PROOF_BITS


@pytest.mark.slow
def test_wrong_keys_prove_nothing_in_many_tries() -> None:
    """
    Hundreds of thousands of short garbled values never add up to a proof.
    """
    rng = random.Random(7)
    keys = {"userKey": key_row(MASTERKEY, KEY)}
    garbage = (Encrypted("x", "userKey", rng.randbytes(16 + rng.randint(1, 6))) for _ in range(200_000))

    found = check(MASTERKEY, keys, islice(garbage, 200_000))

    assert found.verdict == "does_not_fit"
    assert found.keys[0].decrypted > 1000
