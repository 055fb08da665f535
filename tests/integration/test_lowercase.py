"""LOWER of real servers, code point by code point."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import psycopg
import pytest

from tests.fix_postgres import every_version
from zbackup.database.connection import connect
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.database.identity import read_identity
from zbackup.zitadel.lowercase import database_lower

# The oldest Unicode of any of the servers; a Python with a newer one knows more letters.
SERVERS = "14.0.0"

# What follows a letter, or stands before it, matters to some.
WORDS = (
    "ΟΔΥΣΣΕΥΣ", "ΣΑΣ Σ", "Σ", "AΣ'B", "AΣ1", "AΣ.", "ΔΣ\u0301", "Δ\u0301Σ", "İSTANBUL", "I\u0307x", "IĞDIR", "ÄÖÜ",
    "STRASSE ẞ", "ǅ", "Ω", "K",
)  # fmt: skip

LOCALES = {
    "C": "LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'",
    "C.UTF-8": "LOCALE_PROVIDER libc LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'",
    "by ctype": "LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'",
    **{f"icu {name}": f"LOCALE_PROVIDER icu ICU_LOCALE '{name}' LOCALE 'C.UTF-8'" for name in ("und", "en-US", "tr")},
    **{
        f"builtin {name}": f"LOCALE_PROVIDER builtin BUILTIN_LOCALE '{name}' LOCALE 'C.UTF-8'"
        for name in ("C", "C.UTF-8", "PG_UNICODE_FAST")
    },
}


@pytest.fixture
def located(postgres: EmbeddedPostgres, request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of a database in the locale that the test asks for."""
    name = "located"
    with psycopg.connect(postgres.dsn(), autocommit=True) as session:
        try:
            session.execute(
                f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' {LOCALES[request.param]}".encode()
            )
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.SyntaxError) as error:
            pytest.skip(f"PostgreSQL {postgres.version}: {error.diag.message_primary}")
        yield postgres.dsn(name)
        session.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@every_version
@pytest.mark.parametrize("located", LOCALES, indirect=True)
def test_every_code_point_is_lower_cased_as_the_server_does(located: str) -> None:
    """
    All letters that this Python knows, and words in which letters depend on one another.
    """
    with connect(located) as session:
        identity = read_identity(session)
        changed = session.execute(
            """SELECT chr(i), lower(chr(i)) FROM generate_series(1, 1114111) i
                WHERE i NOT BETWEEN 55296 AND 57343 AND lower(chr(i)) <> chr(i)"""
        ).fetchall()
        words = session.execute("SELECT word, lower(word) FROM unnest(%s::text[]) word", (list(WORDS),)).fetchall()
    lower = database_lower(identity.locale_provider, identity.collation, identity.ctype, identity.icu_locale)
    server = {char: low for char, low in changed if unicodedata.category(char) != "Cn"}
    ours = {char: lower(char) for char in map(chr, range(1, 0x110000)) if lower(char) != char}
    beyond = ours.keys() - server.keys()

    assert {char: lower(char) for char in server} == server
    assert not beyond or unicodedata.unidata_version > SERVERS, beyond
    assert {word: lower(word) for word, _ in words} == dict(words)
