"""Connection strings: read as libpq reads them, shown without secrets."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from zbackup import dsn
from zbackup.errors import UsageError

CANARY = "cAnAry-5ecret"

READABLE = [
    "",
    "  ",
    f"postgresql://u:{CANARY}@h:5433/db?sslmode=require&application_name=a%20b",
    f"postgres://u:{CANARY}@h1:1,[::1]:2,h3/db?target_session_attrs=any",
    f"postgres://u@h/db?password={CANARY}",
    f"postgres://u:{CANARY}@/db?host=%2Ftmp",
    f"postgres://u:{CANARY}?x@h/db",
    "postgres:///db",
    "postgresql://",
    "postgres://h?ssl=true",
    f"host=h password={CANARY} dbname=db",
    f"host = h password = '{CANARY} with \\' and \\\\' port=1",
    f"password={CANARY}\\ it's user=u",
    f"service=s\npassword='{CANARY}\n'",
    f"user='' password={CANARY}",
    f"host=h sslpassword={CANARY}",
]


@pytest.mark.parametrize("text", READABLE)
def test_it_is_read_as_libpq_reads_it(text: str) -> None:
    """
    Our parts equal those libpq itself finds.
    """
    theirs: dict[str, Any] = {key: str(value) for key, value in conninfo_to_dict(text).items()}

    assert {key: value for key, value in dsn.parse(text).items() if value} == {
        key: value for key, value in theirs.items() if value
    }


MALFORMED = [
    "\x1f",
    f"host=h\x1fpassword={CANARY}\x1f user",
    f"postgres://u:{CANARY}@x@h/db",
    f"postgres://u:a/{CANARY}@h/db",
    f"postgres://u:{CANARY}%zz@h/db",
    f"postgres://u:{CANARY}%00@h/db",
    f"postgres://u:pass {CANARY}@h/db",
    f"postgres://u@h:{CANARY}/db",
    f"postgres://u@[::1/{CANARY}",
    f"postgres://u@h/db?password={CANARY}=x",
    f"postgres://u@h/db?{CANARY}",
    f"mysql://u:{CANARY}@h/db",
    f"host=h password=a {CANARY}",
    f"host=h password='{CANARY}",
    f"host=h password='a'{CANARY}",
    f"{CANARY}",
    f"=  {CANARY}",
    f"password={CANARY}\\",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_what_cannot_be_read_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        dsn.parse(text)

    assert CANARY not in refused.value.message + refused.value.hint
    assert dsn.masked(text) == dsn.MASK


@pytest.mark.parametrize("text", [*READABLE, f"passwrd={CANARY}", f"dbname='postgres://u:{CANARY}@h/db' host=h"])
def test_a_shown_string_keeps_all_but_the_secret(text: str) -> None:
    shown = dsn.masked(text)

    assert CANARY not in shown
    assert (dsn.MASK in shown) == (CANARY in text)
    for key in ("host", "dbname", "user"):
        if (value := dsn.parse(text).get(key)) and CANARY not in value:
            assert all(part in shown.replace("%2F", "/") for part in value.split(","))


@pytest.mark.parametrize("text", [*READABLE, *MALFORMED, f"passwrd={CANARY}", f"https://u:{CANARY}@host/x"])
def test_every_secret_is_named(text: str) -> None:
    """
    After taking out what `secrets` names, no message that quotes the string gives the password away.
    """
    left = text
    for secret in sorted(dsn.secrets(text), key=len, reverse=True):
        left = left.replace(secret, "")

    assert CANARY not in left


def test_a_decoded_password_is_named_too() -> None:
    assert {"p%40ss", "p@ss"} <= dsn.secrets("postgres://u:p%40ss@h/db")


def test_a_password_that_is_also_the_user_is_not_hidden() -> None:
    assert not dsn.secrets("postgres://zitadel:zitadel@h/zitadel")


@pytest.mark.parametrize("address", ["s3://bucket/prefix", "/srv/backups", "file:///srv", "http://127.0.0.1:9000"])
def test_an_address_without_password_is_shown_whole(address: str) -> None:
    assert dsn.masked_url(address) == address
    assert not dsn.secrets(address) or "://" not in address


def test_a_password_in_an_address_is_masked() -> None:
    assert dsn.masked_url(f"https://key:{CANARY}@s3.example.com") == "https://key:***@s3.example.com"


KEYWORDS = st.dictionaries(
    st.sampled_from(["host", "port", "user", "password", "dbname", "options", "sslrootcert"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
)


@given(KEYWORDS)
def test_any_values_survive_quoting(keywords: dict[str, str]) -> None:
    """
    What is put together is read back, by us and by libpq.
    """
    assert dsn.parse(dsn.conninfo(keywords)) == keywords
    assert {key: str(value) for key, value in conninfo_to_dict(dsn.conninfo(keywords)).items()} == keywords


@given(st.text(max_size=60) | st.from_regex(r"postgres://[a-z:@/?=&%0-9\[\],]{0,40}", fullmatch=True))
def test_what_we_accept_libpq_reads_alike(text: str) -> None:
    """
    Nothing is accepted here that libpq refuses for its form or reads otherwise.
    """
    try:
        ours = dsn.parse(text)
    except UsageError:
        return
    assume(all(dsn.known(key) for key in ours) and "\0" not in text)

    theirs = {key: str(value) for key, value in conninfo_to_dict(text).items()}
    assert {key: value for key, value in ours.items() if value} == {
        key: value for key, value in theirs.items() if value
    }


@given(st.text(max_size=60))
def test_showing_and_hiding_never_fail(text: str) -> None:
    assert isinstance(dsn.masked(text), str)
    assert all(re.escape(secret) for secret in dsn.secrets(text))
    assert isinstance(dsn.masked_url(text), str)


def test_a_password_that_looks_like_an_address_is_a_secret() -> None:
    """
    Keywords stay keywords when a password holds `://`.
    """
    from zbackup.dsn import secrets as named

    assert "a://b" in named("host=h password='a://b'")
