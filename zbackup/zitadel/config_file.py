"""
ZITADEL's own configuration: YAML files merged in order, ZITADEL_… variables on top.

Keys are case-insensitive, and `Database.Postgres.Host:` in one key is the same as three nested ones (and
stronger, as for ZITADEL). Of it all the connection of the user `User` to PostgreSQL, the external domain, the place
of assets and what running.py reads matter here; sections, and keys and variables of the connection, that ZITADEL does
not know are named. Facts: ZITADEL v2.71 to main, cmd/defaults.yaml, cmd/start/config.go, internal/database.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import yaml

from zbackup import dsn
from zbackup.errors import NotSupported, UsageError
from zbackup.zitadel.running import SECTIONS, Running, read_running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Path_ = tuple[str, ...]
"""Where a value stands, in lower case: ("database", "postgres", "host")."""

_POSTGRES = ("postgres", "pg")
_COCKROACH = ("cockroach", "crdb")

_CONNECTION = (
    "dsn", "host", "port", "database", "options", "user.username", "user.password",
    "user.ssl.mode", "user.ssl.rootcert", "user.ssl.cert", "user.ssl.key",
)  # fmt: skip
_IGNORED = (
    "awaitinitialconn", "maxopenconns", "maxidleconns", "maxconnlifetime", "maxconnidletime",
    "eventpushconnratio", "projectionspoolerconnratio", "admin.existingdatabase", "admin.username", "admin.password",
    "admin.ssl.mode", "admin.ssl.rootcert", "admin.ssl.cert", "admin.ssl.key",
)  # fmt: skip
_SECTIONS = frozenset({
    "actions", "admin", "assetstorage", "auditlogretention", "auth", "caches", "console", "customerportal", "database",
    "defaultinstance", "destination", "encryptionkeys", "eventstore", "executions", "externaldomain", "externalport",
    "externalsecure", "firstinstance", "formirror", "http1hostheader", "http2hostheader", "httpclient",
    "initprojections", "instancehostheaders", "instrumentation", "internalauthz", "log", "login", "logstore", "machine",
    "metrics", "mirror", "notifications", "oidc", "port", "profiler", "projections", "publichostheaders", "quotas",
    "saml", "scim", "serviceping", "source", "systemapiusers", "systemauthz", "systemdefaults", "telemetry", "tls",
    "tracing", "useragentcookie", "webauthnname",
})  # fmt: skip
# What Kubernetes sets for a service whose name begins in the same way.
_SERVICE = re.compile(r"(SERVICE_(HOST|PORT\w*)|PORT_[0-9]+_(TCP|UDP|SCTP)\w*)")


@dataclass(frozen=True, slots=True)
class ZitadelConfig:
    dsn: str
    """what libpq needs to connect as ZITADEL's `User`"""
    origin: str
    """where it stood, fit to be shown"""
    external_domain: str
    asset_storage: str
    """db, or where assets are that no backup of the database holds"""
    running: Running = field(default_factory=Running)
    not_understood: tuple[str, ...] = ()
    """sentences about what was left out of account"""


def read_config(paths: Sequence[str | Path], environ: Mapping[str, str]) -> ZitadelConfig:
    """
    Read ZITADEL's configuration as ZITADEL would.

    Raises UsageError, which repeats no value, and NotSupported for CockroachDB.
    """
    values = _merged([Path(path) for path in paths])

    def value(place: Path_) -> str | None:
        return environ.get(f"ZITADEL_{'_'.join(place).upper()}") or values.get(place)

    files = ", ".join(str(path) for path in paths)
    name, block, used, notes = _database(values, environ, files)
    notes += [f"{section} is not known and was left out of account" for section in _unknown(values)]
    origin = " and ".join(filter(None, (files, "ZITADEL_… variables" if used else "")))
    return ZitadelConfig(
        _connection(block, notes, origin),
        origin,
        value(("externaldomain",)) or "localhost",
        value(("assetstorage", "type")) or "db",
        read_running(value, values, name, notes),
        tuple(notes),
    )


def _unknown(values: Mapping[Path_, str]) -> Iterator[str]:
    """Name sections, and blocks below Database, that ZITADEL does not know."""
    yield from sorted({place[0] for place in values} - _SECTIONS)
    databases = {place[1] for place in values if place[0] == "database" and len(place) > 1}
    yield from sorted(f"Database.{name}" for name in databases - {*_POSTGRES, *_COCKROACH})


def names_database(environ: Mapping[str, str]) -> bool:
    """Whether ZITADEL_… variables say where the database is."""
    return any(
        environ.get(f"ZITADEL_DATABASE_{name.upper()}_{key.upper()}")
        for name in (*_POSTGRES, *_COCKROACH)
        for key in ("dsn", "host", "database", "user_username", "user_password")
    )


def _database(
    values: Mapping[Path_, str], environ: Mapping[str, str], files: str
) -> tuple[str, dict[str, str], bool, list[str]]:
    """Return the name and the values of the postgres block, whether variables gave any, and notes."""
    blocks: dict[str, dict[str, str]] = {}
    for path, value in values.items():
        if path[0] == "database" and len(path) > 2:
            blocks.setdefault(path[1], {})[".".join(path[2:])] = value
    named = [name for name in _POSTGRES if name in blocks]
    if len(named) > 1:
        raise UsageError(f"{files} has both Database.postgres and Database.pg", hint="Keep one of them.")
    block = blocks[named[0]] if named else {}
    used = False
    for name in _POSTGRES:
        for key in _CONNECTION:
            if value := environ.get(f"ZITADEL_DATABASE_{name.upper()}_{key.replace('.', '_').upper()}"):
                block[key] = value
                used = True
    if not block:
        if any(name in blocks for name in _COCKROACH) or names_database(environ):
            raise NotSupported(
                f"{files or 'ZITADEL_… variables'}: ZITADEL's database is CockroachDB",
                hint="zbackup reads PostgreSQL only, so far.",
            )
        raise UsageError(
            f"{files or 'the environment'} does not say where ZITADEL's database is",
            hint="Name the files that hold Database.postgres, or set ZITADEL_DATABASE_POSTGRES_HOST.",
        )
    name = named[0] if named else _POSTGRES[0]
    notes = [
        f"Database.{name}.{key} is not known and was left out of account"
        for key in sorted(block)
        if key not in _CONNECTION and key not in _IGNORED
    ]
    known = {key.replace(".", "_").upper() for key in (*_CONNECTION, *_IGNORED)}
    for prefix in (f"ZITADEL_DATABASE_{one.upper()}_" for one in _POSTGRES):
        notes += [
            f"variable {variable} is not known and was left out of account"
            for variable in sorted(environ)
            if variable.startswith(prefix)
            and (key := variable.removeprefix(prefix)) not in known
            and not _SERVICE.fullmatch(key)
        ]
    return name, block, used, notes


def _connection(block: Mapping[str, str], notes: list[str], origin: str) -> str:
    if block.get("dsn"):
        return _of_dsn(block["dsn"], notes, origin)
    port = block.get("port") or "5432"
    if not re.fullmatch(r"[0-9]{1,5}", port):
        raise UsageError(f"{origin}: Database.postgres.Port is not a number")
    mode = block.get("user.ssl.mode") or "disable"
    keywords = {
        "host": block.get("host") or "localhost",
        "port": port,
        "user": block.get("user.username") or "zitadel",
        "password": block.get("user.password", ""),
        "dbname": block.get("database") or "zitadel",
        "sslmode": mode,
        "options": block.get("options", ""),
        "sslrootcert": block.get("user.ssl.rootcert", ""),
    }
    if mode != "disable":
        keywords |= {"sslcert": block.get("user.ssl.cert", ""), "sslkey": block.get("user.ssl.key", "")}
    if mode.startswith("verify-") and "user.ssl.rootcert" not in block:
        notes.append(f"SSL.Mode {mode} without SSL.RootCert ends ZITADEL; libpq looks for ~/.postgresql/root.crt")
    # ZITADEL hands values on without quotes, so that these mean something else to it.
    notes += [
        f"{keyword} holds a space, quote or backslash; it is taken as it stands, which ZITADEL itself does not"
        for keyword, value in keywords.items()
        if keyword != "options" and re.search(r"[\s'\\]", value)
    ]
    return dsn.conninfo({keyword: value for keyword, value in keywords.items() if value})


def _of_dsn(text: str, notes: list[str], origin: str) -> str:
    """Turn a connection string for pgx into one for libpq."""
    try:
        keywords = dsn.parse(text)
    except UsageError as error:
        raise UsageError(f"{origin}: Database.postgres.DSN: {error.message}", hint=error.hint) from None
    # Those of ZITADEL's driver (pool_max_conns …), and settings of the session, of which a backup pins its own.
    for key in [key for key in keywords if not dsn.known(key)]:
        del keywords[key]
        notes.append(f"{key} in Database.postgres.DSN is nothing that libpq takes, and was left out")
    return dsn.conninfo(keywords)


def _merged(paths: Sequence[Path]) -> dict[Path_, str]:
    values: dict[Path_, tuple[bool, str]] = {}
    for path in paths:
        for place, dotted, value in _leaves(_load(path), (), dotted=False):
            if dotted or not values.get(place, (False, ""))[0]:
                values[place] = dotted, value
    return {place: value for place, (_, value) in values.items() if place}


def _leaves(node: object, place: Path_, *, dotted: bool) -> Iterator[tuple[Path_, bool, str]]:
    """Yield every scalar with its place, and whether a dotted key led there."""
    if isinstance(node, dict):
        for key, value in cast("dict[object, object]", node).items():
            parts = tuple(str(key).lower().split("."))
            yield from _leaves(value, place + parts, dotted=dotted or len(parts) > 1)
    elif isinstance(node, str):
        yield place, dotted, node
    elif isinstance(node, list) and place[:1] in SECTIONS:
        yield place, dotted, ""
    # Other lists hold nothing that matters here; null leaves a value as it was.


class _Texts(yaml.SafeLoader):
    """YAML whose scalars stay text: a password 0123 or yes is what it looks like."""


_Texts.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _load(path: Path) -> object:
    hint = "--zitadel-config takes ZITADEL's own YAML files, in ZITADEL's order."
    try:
        loader = _Texts(path.read_bytes())
        try:
            document: object = loader.get_single_data()
        finally:
            loader.dispose()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", hint=hint) from None
    except yaml.MarkedYAMLError as error:  # its own text repeats the line, and maybe a password
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        # What stands in quotes is of the file: of a password that is not in quotes, it.
        problem = re.split("[\"']", error.problem or "broken", maxsplit=1)[0].strip()
        raise UsageError(f"{path} is not YAML: {problem} in line {line}", hint=hint) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not YAML: {type(error).__name__}", hint=hint) from None
    if document is not None and not isinstance(document, dict):
        raise UsageError(f"{path} holds no keys", hint=hint)
    return cast("object", document)
