r"""
Read the schema text of an archive before anything of it runs.

It is code: functions, triggers, defaults and views of whoever wrote the archive, run by the role that restores. A
look at its statements cannot make it harmless. What it can do is to count what is there, and to refuse what
pg_dump never writes for these schemas, so that nothing else runs unnoticed: other statements (COPY, DO, ALTER
SYSTEM, CREATE EXTENSION …), functions in other languages than sql and plpgsql, \commands, open quotes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from zbackup.errors import Damaged, NotSupported

# As PostgreSQL's scanner cuts with standard_conforming_strings, and the heads of pg_dump's entries. What opens a
# quote and does not close it is `open`, and the end of reading: the search for its end is made once.
_TOKEN = re.compile(
    rb"""(?P<head>^--\n--[ ]Name:[ ](?P<name>.{1,1000});[ ]Type:[ ](?P<kind>[A-Z][A-Z ]{1,40});
             [ ]Schema:[ ](?P<schema>.{1,200});[ ]Owner:[ ].{1,200}\n--\n)
       | (?P<space>\s+ | --[^\n]*)
       | (?P<text>[eE]'(?:[^'\\]|''|\\(?s:.))*+' | '(?:[^']|'')*+'
                  | (?P<tag>\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$)(?s:.*?)(?P=tag))
       | (?P<quoted>"(?:[^"]|"")*+")
       | (?P<open>'|"|/\*|\\|\$(?!\d))
       | (?P<word>[A-Za-z_\x80-\xff][\w$\x80-\xff]*)
       | (?P<mark>[;()]) | (?P<other>(?s:.))""",
    re.MULTILINE | re.VERBOSE,
)

# What pg_dump --schema-only writes of a schema's own objects, as "Type:" in its heads.
_KINDS = frozenset(
    """AGGREGATE, CHECK CONSTRAINT, COLLATION, COMMENT, CONSTRAINT, DEFAULT, DOMAIN, FK CONSTRAINT, FOREIGN TABLE,
    FUNCTION, INDEX, INDEX ATTACH, MATERIALIZED VIEW, POLICY, PROCEDURE, ROW SECURITY, RULE, SCHEMA, SEQUENCE,
    SEQUENCE OWNED BY, SHELL TYPE, STATISTICS, TABLE, TABLE ATTACH, TRIGGER, TYPE, VIEW""".replace("\n", " ")
    .replace("    ", "")
    .split(", ")
)

_SET = "default_tablespace|default_table_access_method|default_with_oids"
_MADE = (
    "SCHEMA|(?:UNLOGGED )?(?:TABLE|SEQUENCE)|FOREIGN TABLE|(?:UNIQUE )?INDEX|(?:OR REPLACE )?VIEW|MATERIALIZED VIEW|"
    "TYPE|DOMAIN|COLLATION|RULE|POLICY|STATISTICS"
)
_ALTERED = "TABLE|FOREIGN TABLE|INDEX|SEQUENCE|STATISTICS|VIEW|MATERIALIZED VIEW|DOMAIN"
_STATEMENT = re.compile(
    rf"(?:SET (?:{_SET})|COMMENT ON|ALTER (?:{_ALTERED})|CREATE (?:(?P<function>FUNCTION|PROCEDURE|AGGREGATE)|"
    rf"(?P<trigger>(?:CONSTRAINT )?TRIGGER)|{_MADE}))\b.*",
    re.IGNORECASE | re.DOTALL,
)

_BEFORE = re.compile(r"SET \w+\b.*|SELECT pg_catalog set_config", re.IGNORECASE)

_LANGUAGES = {"sql", "plpgsql", '"sql"', '"plpgsql"'}

_OTHERWISE = (
    "Review it with `zbackup show --schema`. What is good of it can be had by restoring into a database prepared by "
    "`zitadel init` and `zitadel setup --for-mirror`."
)


@dataclass(frozen=True, slots=True)
class SchemaCode:
    """What the schema text of an archive is, in numbers."""

    sha256: str
    """of both parts, one after the other"""
    bytes: int
    functions: int
    triggers: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of the schema."""

    name: str
    kind: str
    """as pg_dump says, such as TABLE or FK CONSTRAINT"""
    schema: str
    text: bytes

    def __str__(self) -> str:
        where = f"{self.schema}." if self.schema not in {"-", ""} else ""
        return f"{self.kind} {where}{self.name}"


def entries(text: bytes) -> Iterator[Entry]:
    """Take pg_dump's text apart. What looks like a head inside a quoted body is none. Raises NotSupported."""
    heads = [token for token in _tokens(text, "the captured schema") if token["head"] is not None]
    for head, following in zip(heads, [*heads[1:], None], strict=False):
        yield Entry(
            head["name"].decode(errors="replace"),
            head["kind"].decode(),
            head["schema"].decode(errors="replace"),
            text[head.end() : following.start() if following else len(text)],
        )


def examine_schema(pre_data: bytes, post_data: bytes, schemas: frozenset[str]) -> SchemaCode:
    """
    Say what the text is; `schemas` are those that it may be of.

    Raises NotSupported, naming the entry, when there is something in it that pg_dump does not write.
    """
    functions = triggers = 0
    for part in (pre_data, post_data):
        for words in _statements(part[: _first(part)], "what stands before the first entry"):
            if not _BEFORE.fullmatch(words):
                raise _refused("what stands before the first entry", words)
        for entry in entries(part):
            if entry.kind not in _KINDS:
                raise NotSupported(f"the captured schema holds {_shown(entry)}: no such entry is run", hint=_OTHERWISE)
            if (entry.name if entry.kind == "SCHEMA" else entry.schema) not in schemas | {"-"}:
                raise NotSupported(
                    f"the captured schema holds {_shown(entry)}, which is in none of its schemas", hint=_OTHERWISE
                )
            for words in _statements(entry.text, _shown(entry)):
                found = _STATEMENT.fullmatch(words)
                if found is None:
                    raise _refused(_shown(entry), words)
                functions += found["function"] is not None
                triggers += found["trigger"] is not None
                if found["function"] is not None:
                    _check_language(_shown(entry), words.split(" "))
    whole = pre_data + post_data
    return SchemaCode(hashlib.sha256(whole).hexdigest(), len(whole), functions, triggers)


def check_expression(text: str, what: str) -> str:
    """Return a piece of SQL, such as an index's definition, that can stand in one statement. Raises Damaged."""
    depth = 0
    try:
        for token in _tokens(text.encode(), what):
            depth += (token["mark"] == b"(") - (token["mark"] == b")")
            if depth < 0 or token["mark"] == b";" or (token["space"] or b"").lstrip().startswith(b"--"):
                raise NotSupported("it ends before its end")
    except NotSupported:
        depth = -1
    if depth:
        raise Damaged(
            f"{what} in the manifest is more than that: {text[:200]!r}",
            hint="PostgreSQL never wrote this. Find out who else can write into the archive.",
        )
    return text


def _tokens(text: bytes, where: str) -> Iterator[re.Match[bytes]]:
    for token in _TOKEN.finditer(text):
        if token["open"] is not None:
            said = text[token.start() : token.start() + 60].decode(errors="replace")
            raise NotSupported(f"{where}: an open quote, a comment or a backslash at {said!r}", hint=_OTHERWISE)
        yield token


def _statements(text: bytes, where: str) -> Iterator[str]:
    """Yield the words of each statement outside of parentheses, joined by spaces; literals are left out."""
    words: list[str] = []
    depth, body = 0, 0
    for token in _tokens(text, where):
        if token["mark"] == b";" and depth <= 0 and not body:
            yield " ".join(words)
            words, depth = [], 0
        elif token["mark"] in {b"(", b")"}:
            depth += 1 if token["mark"] == b"(" else -1
        elif token["word"] or token["quoted"]:
            word = token[0].decode(errors="replace")
            # The body of a function in standard SQL, BEGIN ATOMIC … END, holds statements of its own.
            if body:
                body += (word.upper() == "CASE") - (word.upper() == "END")
            elif word.upper() == "ATOMIC" and words[-1:] == ["BEGIN"]:
                body = 1
            elif depth <= 0:
                words.append(word)
    if words or body or depth:
        yield " ".join(words)


def _first(text: bytes) -> int:
    """Return where the first entry begins."""
    return next((token.start() for token in _tokens(text, "the captured schema") if token["head"]), len(text))


def _check_language(entry: str, words: list[str]) -> None:
    for at, word in enumerate(words):
        if word.upper() == "LANGUAGE" and (at + 1 == len(words) or words[at + 1].lower() not in _LANGUAGES):
            raise NotSupported(
                f"the captured schema holds {entry} in language {' '.join(words[at + 1 : at + 2])}: only sql and "
                "plpgsql are run",
                hint=_OTHERWISE,
            )


def _refused(entry: str, words: str) -> NotSupported:
    return NotSupported(
        f"the captured schema holds, in {entry}, a statement that pg_dump does not write there: {words[:100]}",
        hint=_OTHERWISE,
    )


def _shown(entry: Entry) -> str:
    return str(entry)[:300]
