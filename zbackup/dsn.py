"""
Connection strings as libpq reads them: taken apart, put together, shown without their secrets.

A string that libpq would not read, or would read differently from what its writer meant (a password with
an unescaped `@` or `/`), is refused here and never handed on: libpq's own messages repeat pieces of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from zbackup.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MASK = "***"

# Every other keyword is masked when shown: a misspelt `passwrd` is still a password.
_SHOWN = frozenset({
    "host", "hostaddr", "port", "dbname", "user", "passfile", "service", "servicefile", "options",
    "application_name", "fallback_application_name", "connect_timeout", "client_encoding", "keepalives",
    "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
    "target_session_attrs", "load_balance_hosts", "replication", "require_auth", "channel_binding",
    "gssencmode", "gssdelegation", "gsslib", "krbsrvname", "requirepeer", "requiressl", "ssl",
    "sslmode", "sslnegotiation", "sslcompression", "sslcert", "sslkey", "sslrootcert", "sslcrl",
    "sslcrldir", "sslsni", "sslcertmode", "ssl_min_protocol_version", "ssl_max_protocol_version",
    "sslkeylogfile", "min_protocol_version", "max_protocol_version", "oauth_issuer", "oauth_client_id",
    "oauth_scope",
})  # fmt: skip

_SECRET = frozenset({
    "password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key",
})  # fmt: skip

_URI = re.compile(
    r"(?P<scheme>postgres(?:ql)?://)(?:(?P<user>[^:@/]*)(?P<password>:[^@/]*)?@)?"
    r"(?P<hosts>[^/?@]*)(?P<dbname>/[^?@]*)?(?:\?(?P<query>.*))?"
)
_HOST = re.compile(r"(?P<host>\[[^\[\]]+\]|[^:\[\]]*)(?::(?P<port>[0-9]*))?")
_PAIR = re.compile(
    r"\s*(?P<key>[^\s=']+)\s*=\s*(?:'(?P<quoted>(?:[^\\']|\\.)*)'(?=\s|$)|(?P<plain>(?:(?:[^\s\\']|\\.)(?:[^\s\\]|\\.)*)?))",
    re.DOTALL | re.ASCII,
)
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")

_SMELLS = re.compile(r"://|pas|pw|secret", re.IGNORECASE)
_WORDS = frozenset({"postgres", "postgresql", "password", "http", "https", "file"})
# What libpq takes for a space; Python knows more.
_SPACES = " \t\n\v\f\r"
_SEPARATORS = re.compile(r"[\s'\"=:/@?&,;\\]+")
_URL_PASSWORD = re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://[^:]*:)(?P<password>.*)(?P<after>@)")


def parse(dsn: str) -> dict[str, str]:
    """Take a connection string apart, URI or keywords. Raises UsageError, which repeats nothing of it."""
    if "\0" in dsn or any("\ud800" <= letter <= "\udfff" for letter in dsn):
        raise _refused("it is not UTF-8 text")
    if "://" in dsn.partition("=")[0] or _is_uri(dsn):
        return _of_uri(dsn)
    return {key: value for key, _, value in _written(dsn)}


def conninfo(keywords: Mapping[str, str]) -> str:
    """Put a connection string together, every value quoted as far as it needs to be."""
    return " ".join(f"{key}={_quoted(value)}" for key, value in keywords.items())


def masked(dsn: str) -> str:
    """Write a connection string as it may be shown."""
    try:
        keywords = parse(dsn)
    except UsageError:
        return MASK
    if not _is_uri(dsn):
        return " ".join(f"{key}={_quoted(value) if _may_show(key, value) else MASK}" for key, value in keywords.items())
    parts = _parts(dsn)
    user = "" if parts["user"] is None else f"{parts['user']}{parts['password'] and ':' + MASK}@"
    query = "&".join(f"{key}={value if _may_show(key, value) else MASK}" for key, value in _pairs(parts["query"] or ""))
    return f"{parts['scheme']}{user}{parts['hosts']}{parts['dbname'] or ''}{query and '?' + query}"


def masked_url(url: str) -> str:
    """Write an address that should hold no password as it may be shown, should it hold one."""
    return _URL_PASSWORD.sub(rf"\g<before>{MASK}\g<after>", url)


def secrets(text: str) -> frozenset[str]:
    """
    Name every piece of a connection string that must not be repeated: passwords, raw and decoded.

    Of one that cannot be read that is every piece; of any other address only the password in it.
    """
    if "://" in text.partition("=")[0] and not _is_uri(text):
        url = _URL_PASSWORD.match(text)
        return frozenset({url["password"], unquote(url["password"])} - {""}) if url else frozenset()
    try:
        keywords = parse(text)
    except UsageError:
        pieces = {*_SEPARATORS.split(text), text}
        return frozenset(piece for piece in pieces - _SHOWN - _WORDS if len(piece) > 2)
    found = {value for key, value in keywords.items() if not _may_show(key, value)}
    open_ = {value for key, value in keywords.items() if _may_show(key, value)}
    if _is_uri(text):
        parts = _parts(text)
        found.add((parts["password"] or "")[1:])
        found.update(value for key, value in _pairs(parts["query"] or "") if not _may_show(key, value))
    else:
        found.update(raw for key, raw, value in _written(text) if not _may_show(key, value))
    # A password that is also the user's name gives nothing away where that name is printed.
    return frozenset(found - open_ - {""})


def known(keyword: str) -> bool:
    """Whether libpq takes this keyword."""
    return keyword in _SHOWN or keyword in _SECRET


def may_hold_secret(text: str) -> bool:
    """Whether a word of unknown meaning looks as if `secrets` should be asked about it."""
    return _SMELLS.search(text) is not None


def _written(dsn: str) -> Iterator[tuple[str, str, str]]:
    """Yield each keyword, its value as written and what it means."""
    at, end = 0, len(dsn.rstrip(_SPACES))
    while at < end:
        match = _PAIR.match(dsn, at)
        if match is None:
            raise _refused("it is neither a URI nor a list of keyword=value")
        raw = match["plain"] if match["quoted"] is None else match["quoted"]
        yield match["key"], raw, re.sub(r"\\(.)", r"\1", raw, flags=re.DOTALL)
        at = match.end()
        if at < end and dsn[at] not in _SPACES:
            raise _refused("it has a quote or a backslash in the wrong place")


def _is_uri(dsn: str) -> bool:
    return dsn.startswith(("postgres://", "postgresql://"))


def _may_show(key: str, value: str) -> bool:
    # libpq takes a whole connection string as dbname.
    return key in _SHOWN and not (key == "dbname" and ("=" in value or "://" in value))


def _quoted(value: str) -> str:
    if value and not re.search(r"[\s'\\]", value, re.ASCII):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _refused(why: str) -> UsageError:
    return UsageError(
        f"the connection string cannot be read: {why}",
        hint="Write postgresql://USER@HOST:PORT/DATABASE, with @ as %40 and / as %2F inside a part, "
        "or host=… dbname=… with values in single quotes.",
    )


def _parts(uri: str) -> dict[str, str | None]:
    match = _URI.fullmatch(uri)
    if match is None:
        raise _refused("an unescaped @ or / stands in user, password or database")
    return match.groupdict()


def _of_uri(uri: str) -> dict[str, str]:
    if re.search(r"\s", uri):
        raise _refused("a URI holds no spaces")
    if _PERCENT.search(uri):
        raise _refused("a % is not followed by two hex digits")
    parts = _parts(uri)
    found: dict[str, str] = {}
    if parts["user"]:
        found["user"] = parts["user"]
    if parts["password"]:
        found["password"] = parts["password"][1:]
    hosts = [_HOST.fullmatch(host) for host in (parts["hosts"] or "").split(",")]
    if any(host is None for host in hosts):
        raise _refused("a port is not a number")
    names = ",".join(host["host"].strip("[]") for host in hosts if host)
    ports = ",".join(host["port"] or "" for host in hosts if host)
    found |= {"host": names} if names else {}
    found |= {"port": ports} if ports else {}
    if parts["dbname"] and parts["dbname"] != "/":
        found["dbname"] = parts["dbname"][1:]
    found |= dict(_pairs(parts["query"] or ""))
    if found.get("ssl") == "true":  # as libpq does, for the sake of JDBC
        del found["ssl"]
        found["sslmode"] = "require"
    try:
        return {key: unquote(value, errors="strict") for key, value in found.items()}
    except UnicodeDecodeError:
        raise _refused("a %XX is not UTF-8") from None


def _pairs(query: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for pair in query.removesuffix("&").split("&") if query else ():
        key, equals, value = pair.partition("=")
        if not key or not equals or "=" in value:
            raise _refused("a parameter is not KEY=VALUE")
        pairs.append((unquote(key), value))
    return pairs
