"""What the schema text of an archive may hold, and what is refused by name."""

from __future__ import annotations

import hashlib

import pytest

from zbackup.database.schema_text import check_expression, entries, examine_schema
from zbackup.errors import Damaged, NotSupported

SCHEMAS = frozenset({"eventstore"})


def entry(statement: str, kind: str = "TABLE", schema: str = "eventstore", name: str = "thing") -> bytes:
    return f"--\n-- Name: {name}; Type: {kind}; Schema: {schema}; Owner: -\n--\n\n{statement}\n\n\n".encode()


def test_it_is_counted_and_summed_up() -> None:
    """
    Functions and triggers are counted by their statements, wherever they stand.
    """
    text = (
        entry("CREATE SCHEMA eventstore;", "SCHEMA", "-", "eventstore")
        + entry("CREATE FUNCTION eventstore.f(language text) RETURNS int LANGUAGE sql AS $_$SELECT 1; DROP$_$;")
        + entry(
            "CREATE FUNCTION eventstore.g() RETURNS int\n BEGIN ATOMIC\n SELECT CASE WHEN true THEN 1 END;\n "
            "SELECT 2;\nEND;",
            "FUNCTION",
        )
        + entry("CREATE TABLE eventstore.t (a text DEFAULT E'\\'; DROP ROLE x; --');")
    )
    after = entry("CREATE CONSTRAINT TRIGGER t AFTER INSERT ON t EXECUTE FUNCTION eventstore.f();", "TRIGGER")

    code = examine_schema(text, after, SCHEMAS)

    assert (code.functions, code.triggers, code.bytes) == (2, 1, len(text + after))
    assert code.sha256 == hashlib.sha256(text + after).hexdigest()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (entry("DROP SCHEMA public CASCADE;"), "DROP SCHEMA"),
        (entry("CREATE TABLE eventstore.t (a text); COPY t FROM PROGRAM 'id';"), "COPY"),
        (entry("ALTER SYSTEM SET archive_command = 'id';"), "ALTER SYSTEM"),
        (entry("CREATE ROLE evil SUPERUSER;"), "CREATE ROLE"),
        (entry("CREATE EXTENSION plpython3u;"), "CREATE EXTENSION"),
        (entry("CREATE EXTENSION x;", "EXTENSION", "-"), "EXTENSION thing"),
        (entry("CREATE LANGUAGE x;", "PROCEDURAL LANGUAGE", "-"), "PROCEDURAL LANGUAGE"),
        (entry("DO $$BEGIN PERFORM 1; END$$;"), "DO"),
        (entry("CALL x();"), "CALL"),
        (entry("SELECT pg_read_file('x');"), "SELECT"),
        (entry("SET session_authorization = x;"), "SET session_authorization"),
        (entry("SET ROLE x;"), "SET ROLE"),
        (entry("GRANT ALL ON SCHEMA eventstore TO PUBLIC;", "ACL"), "ACL eventstore.thing"),
        (entry("CREATE EVENT TRIGGER x ON sql_drop EXECUTE FUNCTION f();"), "CREATE EVENT TRIGGER"),
        (entry("CREATE FUNCTION f(text) RETURNS int LANGUAGE c AS 'libc', 'system';", "FUNCTION"), "language c"),
        (entry("CREATE FUNCTION f() RETURNS int AS 'x' LANGUAGE 'plpython3u';", "FUNCTION"), "in language"),
        (entry("CREATE TABLE public.x ();", "TABLE", "public"), "none of its schemas"),
        (entry("CREATE SCHEMA other;", "SCHEMA", "-", 'x"; DROP DATABASE y; --'), "none of its schemas"),
        (entry("\\! id"), "backslash"),
        (entry("CREATE TABLE eventstore.t (a text DEFAULT 'open);"), "open quote"),
        (entry("CREATE /* hidden */ TABLE eventstore.t ();"), "comment"),
        (entry("CREATE VIEW v AS SELECT $a$ open;"), "open quote"),
        (b"DROP TABLE x;\n\n" + entry("CREATE TABLE eventstore.t ();"), "before the first entry"),
        (b"DROP TABLE x;\n", "before the first entry"),
        (b"\xff\xfe\0", "before the first entry"),
    ],
)
def test_what_pg_dump_does_not_write_is_refused(text: bytes, words: str) -> None:
    """
    Other kinds, statements, languages and schemas are named; nothing runs.
    """
    with pytest.raises(NotSupported, match=words.replace("(", r"\(")):
        examine_schema(text, b"", SCHEMAS)
    with pytest.raises(NotSupported):
        examine_schema(b"", text, SCHEMAS)


def test_a_literal_hides_nothing() -> None:
    r"""
    What E'\'' means to PostgreSQL is what it means here: the statement behind it is seen.
    """
    with pytest.raises(NotSupported, match="DROP TABLE"):
        examine_schema(entry("COMMENT ON TABLE t IS E'\\\\'; DROP TABLE x; --';"), b"", SCHEMAS)


def test_many_open_quotes_take_no_time() -> None:
    """
    The end of a quote that has none is searched once.
    """
    with pytest.raises(NotSupported):
        list(entries(b"".join(b"$a%d$ " % number for number in range(500_000))))


@pytest.mark.parametrize(
    "text",
    [
        "btree (a); DROP TABLE x",
        "btree (a)) TO (b",
        "btree (a) -- ",
        "btree (a) /* */",
        "btree (a) WHERE (b = 'x)",
        "(",
    ],
)
def test_an_expression_is_one_expression(text: str) -> None:
    """
    A definition from a manifest that would end its statement, or go on after it, is damage.
    """
    with pytest.raises(Damaged, match="index i"):
        check_expression(text, "index i")


def test_definitions_of_postgresql_are_expressions() -> None:
    """
    What pg_get_indexdef writes is taken, odd literals and names included.
    """
    for text in (
        "btree (aggregate_type, event_type) WHERE (event_type = ANY (ARRAY['a;b'::text, '--'::text]))",
        "gin (payload jsonb_path_ops) WITH (fastupdate='off')",
        'btree (lower("odd ; "" name"), created_at DESC) WHERE (x <> E\'\\\\;\')',
    ):
        assert check_expression(text, "index i") == text
