"""ZITADEL's own configuration, read as ZITADEL reads it."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from zbackup.errors import NotSupported, UsageError
from zbackup.zitadel.config_file import names_database, read_config
from zbackup.zitadel.running import Redis, Running

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "cAnAry-5ecret"

FULL = f"""
ExternalDomain: login.example.com
AssetStorage: {{Type: s3}}
Database:
  postgres:
    Host: db.example.com
    Port: 5433
    Database: events
    MaxOpenConns: 20
    Options: -c statement_timeout=5s
    User:
      Username: reader
      Password: {CANARY}
      SSL: {{Mode: verify-full, RootCert: /ca.crt, Cert: /tls.crt, Key: /tls.key}}
    Admin:
      Username: postgres
      Password: of-the-admin
"""


def parts(dsn: str) -> dict[str, str]:
    return {key: str(value) for key, value in conninfo_to_dict(dsn).items()}


def write(folder: Path, *texts: str) -> list[Path]:
    paths = [folder / f"{number}.yaml" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


def test_a_whole_file_becomes_a_connection_of_its_user(tmp_path: Path) -> None:
    read = read_config(write(tmp_path, FULL), {})

    assert parts(read.dsn) == {
        "host": "db.example.com", "port": "5433", "dbname": "events", "user": "reader", "password": CANARY,
        "sslmode": "verify-full", "sslrootcert": "/ca.crt", "sslcert": "/tls.crt", "sslkey": "/tls.key",
        "options": "-c statement_timeout=5s",
    }  # fmt: skip
    assert (read.external_domain, read.asset_storage) == ("login.example.com", "s3")
    assert read.not_understood == ()
    assert CANARY not in read.origin


def test_zitadels_defaults_fill_what_is_missing(tmp_path: Path) -> None:
    read = read_config(write(tmp_path, "Database: {postgres: {Host: h}}"), {})

    assert parts(read.dsn) == {
        "host": "h", "port": "5432", "dbname": "zitadel", "user": "zitadel", "sslmode": "disable",
    }  # fmt: skip
    assert (read.external_domain, read.asset_storage) == ("localhost", "db")


def test_certificates_of_the_client_need_ssl(tmp_path: Path) -> None:
    text = "Database: {pg: {User: {SSL: {Mode: disable, RootCert: /ca, Cert: /crt, Key: /key}}}}"
    read = parts(read_config(write(tmp_path, text), {}).dsn)

    assert read["sslrootcert"] == "/ca"
    assert "sslcert" not in read
    assert "sslkey" not in read


def test_later_files_win_and_variables_win_over_files(tmp_path: Path) -> None:
    files = write(
        tmp_path,
        "Database: {postgres: {Host: one, Port: 1, User: {Username: a, Password: a}}}",
        "database: {POSTGRES: {host: two, user: {PASSWORD: b}}}",
        "Database: {postgres: {Port: ~}}",
        "",
    )
    read = read_config(files, {"ZITADEL_DATABASE_POSTGRES_USER_PASSWORD": "c d", "ZITADEL_EXTERNALDOMAIN": "x.org"})

    found = parts(read.dsn)
    assert (found["host"], found["port"], found["user"], found["password"]) == ("two", "1", "a", "c d")
    assert read.external_domain == "x.org"
    assert read.origin.endswith("ZITADEL_… variables")
    assert any("password" in note for note in read.not_understood)


def test_dotted_keys_are_the_same_and_stronger(tmp_path: Path) -> None:
    files = write(
        tmp_path,
        "Database.Postgres.Host: dotted\nDatabase.Postgres.User.SSL:\n  Mode: require\n",
        "Database: {Postgres: {Host: nested, Database.: x, Database: d}}",
    )
    found = parts(read_config(files, {}).dsn)

    assert (found["host"], found["sslmode"], found["dbname"]) == ("dotted", "require", "d")


def test_variables_alone_are_enough() -> None:
    environ = {"ZITADEL_DATABASE_POSTGRES_HOST": "h", "ZITADEL_DATABASE_POSTGRES_PORT": "1"}

    assert names_database(environ)
    assert parts(read_config([], environ).dsn)["host"] == "h"
    assert not names_database({"ZITADEL_EXTERNALDOMAIN": "x", "ZITADEL_DATABASE_POSTGRES_MAXOPENCONNS": "3"})


def test_scalars_are_what_they_look_like(tmp_path: Path) -> None:
    text = "Database: {postgres: {Port: '0123', User: {Username: yes, Password: 012e3}}}"
    found = parts(read_config(write(tmp_path, text), {}).dsn)

    assert (found["port"], found["user"], found["password"]) == ("0123", "yes", "012e3")


def test_a_dsn_beats_the_rest_and_loses_what_only_the_driver_knows(tmp_path: Path) -> None:
    text = (
        "Database: {postgres: {Host: other, DSN: "
        f"'postgres://u:{CANARY}@h:1/db?sslmode=require&pool_max_conns=5&search_path=a%20b&options=-c%20x%3D1'"
        "}}"
    )
    read = read_config(write(tmp_path, text), {})

    assert parts(read.dsn) == {
        "host": "h", "port": "1", "user": "u", "password": CANARY, "dbname": "db", "sslmode": "require",
        "options": "-c x=1",
    }  # fmt: skip
    assert ["pool_max_conns", "search_path"] == [note.split()[0] for note in read.not_understood]


@pytest.mark.parametrize("name", ["cockroach", "crdb", "Cockroach"])
def test_cockroachdb_is_recognised_and_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotSupported, match="CockroachDB"):
        read_config(write(tmp_path, f"Database: {{{name}: {{Host: h}}}}"), {})
    with pytest.raises(NotSupported, match="CockroachDB"):
        read_config([], {"ZITADEL_DATABASE_COCKROACH_HOST": "h"})
    both = write(tmp_path, f"Database: {{{name}: {{Host: h}}, postgres: {{Host: p}}}}")
    assert parts(read_config(both, {}).dsn)["host"] == "p"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Database: {}",
        "Log: {Level: info}",
        "- a list",
        "text",
        f"Database: {{postgres: {{Host: [{CANARY}",
        f"a: b: {CANARY}",
        f"a: !!python/object:os.system {CANARY}",
        f"\tPassword: {CANARY}",
        f"a: 1\n---\nPassword: {CANARY}",
        "\x00",
        "a: *nowhere",
        f"Database: {{postgres: {{Host: h, Port: {CANARY}}}}}",
        f"Database: {{postgres: {{DSN: 'postgres://u:{CANARY}@x@h'}}}}",
        "Database: {postgres: {Host: a}, pg: {Host: b}}",
        "[" * 2000,
    ],
)
def test_what_cannot_be_read_is_named_and_not_repeated(tmp_path: Path, text: str) -> None:
    files = write(tmp_path, text)
    with pytest.raises(UsageError) as refused:
        read_config(files, {})

    assert str(files[0]) in refused.value.message
    assert CANARY not in refused.value.message + refused.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_config([tmp_path / "none.yaml"], {})


def test_what_was_not_understood_is_said(tmp_path: Path) -> None:
    read = read_config(write(tmp_path, "Database: {postgres: {Hots: h, Host: h}}"), {})

    assert read.not_understood == ("Database.postgres.hots is not known and was left out of account",)


RUNNING = f"""
Database:
  postgres: {{Host: h, MaxOpenConns: 25, MaxConnLifetime: 1h30m, MaxConnIdleTime: 5m}}
Projections:
  TransactionDuration: 90s
  Customizations: {{users: {{TransactionDuration: 1.5h}}, Notifications: {{MaxFailureCount: 10}}}}
Caches:
  Connectors: {{Redis: {{Enabled: true, Addr: "redis:6380", Password: {CANARY}, DBOffset: 20}}}}
  Instance: {{Connector: redis, MaxAge: 1h}}
  Organization: {{Connector: Redis}}
  Milestones: {{Connector: memory}}
"""


def test_what_matters_of_running_servers_is_understood(tmp_path: Path) -> None:
    """
    Connections, transactions of projections, caches in Redis; and nothing of it is reported as unknown.
    """
    read = read_config(write(tmp_path, RUNNING), {})

    assert read.running == Running(
        25, timedelta(minutes=90), timedelta(minutes=5), timedelta(minutes=90),
        "Projections.Customizations.users.TransactionDuration", Redis(("instance", "organization"), "redis:6380", 21),
    )  # fmt: skip
    assert read.not_understood == ()


@pytest.mark.parametrize("value", [f"*{CANARY}", f"!{CANARY}", f"!a!{CANARY}", f"&{CANARY} *{CANARY}x", f"'{CANARY}"])
def test_yaml_that_is_broken_does_not_give_a_password_away(tmp_path: Path, value: str) -> None:
    """
    A password without quotes may be an alias, an anchor or a tag: the error names its line alone.
    """
    with pytest.raises(UsageError, match="is not YAML") as raised:
        read_config(write(tmp_path, f"Database:\n  postgres:\n    User:\n      Password: {value}\n"), {})

    assert CANARY not in str(raised.value) + raised.value.hint


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{CANARY}\u2100@host:6379/0", f"redis://:x{CANARY}@[::1:6379", f"redis://:{CANARY}/4711@host",
        f"redis://:{CANARY}#x@y:z@host", f"{CANARY}://", f"redis://:{CANARY}",
    ],
)  # fmt: skip
def test_of_a_redis_url_only_a_plain_address_is_shown(tmp_path: Path, url: str) -> None:
    """
    One that cannot be understood ends nothing, and shows nothing.
    """
    environ = {"ZITADEL_CACHES_CONNECTORS_REDIS_URL": url}
    running = read_config(write(tmp_path, RUNNING), environ).running

    assert running.redis is not None
    assert CANARY not in running.redis.address


def test_variables_win_there_too(tmp_path: Path) -> None:
    """
    Names as viper makes them of paths, over files; those of a value that stands in no file count as well.
    """
    environ = {
        "ZITADEL_DATABASE_POSTGRES_MAXOPENCONNS": "7",
        "ZITADEL_DATABASE_POSTGRES_MAXCONNLIFETIME": "30m",
        "ZITADEL_PROJECTIONS_CUSTOMIZATIONS_USERS_TRANSACTIONDURATION": "1s",
        "ZITADEL_PROJECTIONS_CUSTOMIZATIONS_LOCKOUT_POLICY_TRANSACTIONDURATION": "2h",
        "ZITADEL_CACHES_INSTANCE_CONNECTOR": "postgres",
        "ZITADEL_CACHES_CONNECTORS_REDIS_URL": f"rediss://me:{CANARY}@redis.example.com:6390/0",
    }
    running = read_config(write(tmp_path, RUNNING), environ).running

    assert (running.max_open_conns, running.max_conn_lifetime) == (7, timedelta(minutes=30))
    assert running.longest_transaction == timedelta(hours=2)
    assert running.longest_by == "Projections.Customizations.lockout_policy.TransactionDuration"
    assert running.redis == Redis(("organization",), "redis.example.com:6390", 21)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0", timedelta(0)), ("0s", timedelta(0)), ("250ms", timedelta(milliseconds=250)),
        ("1h0m.5s", timedelta(seconds=3600.5)), ("1500000", timedelta(microseconds=1500)),
        ("30µs", timedelta(microseconds=30)), ("soon", None), ("5", timedelta(0)), ("1m x", None), ("9" * 30, None),
        ("9" * 30 + "h", None), ("-1s", None),
    ],
)  # fmt: skip
def test_durations_are_read_as_go_does(tmp_path: Path, text: str, duration: timedelta | None) -> None:
    """
    What is none is named, and refuses nothing.
    """
    files = write(tmp_path, f"Database: {{postgres: {{Host: h, MaxConnLifetime: '{text}', MaxOpenConns: many}}}}")
    read = read_config(files, {})

    assert read.running.max_conn_lifetime == duration
    notes = ["Database.postgres.MaxOpenConns is not a whole number and was left out of account"]
    notes += ["Database.postgres.MaxConnLifetime is not a duration and was left out of account"] * (duration is None)
    assert sorted(read.not_understood) == sorted(notes)


def test_whatever_zitadel_does_not_know_is_named(tmp_path: Path) -> None:
    """
    Sections, blocks and keys of files, and variables of the connection; not what Kubernetes sets for a service.
    """
    text = (
        "ExternalPort: 8080\nDatabse: {postgres: {Host: x}}\nPort: {a: 1}\n"
        "Database: {postgress: {Host: x}, postgres: {Host: h, Admin: {Pasword: y}, User: {SSL: {Mode: verify-full}}}}"
    )
    environ = {
        "ZITADEL_DATABASE_POSTGRES_HOTS": "h",
        "ZITADEL_DATABASE_POSTGRES_MAXIDLECONNS": "3",
        "ZITADEL_DATABASE_POSTGRES_SERVICE_HOST": "10.0.0.1",
        "ZITADEL_DATABASE_POSTGRES_PORT_5432_TCP_ADDR": "10.0.0.1",
        "ZITADEL_SERVICE_PORT": "8080",
    }

    left_out = "is not known and was left out of account"
    assert read_config(write(tmp_path, text), environ).not_understood == (
        f"Database.postgres.admin.pasword {left_out}",
        f"variable ZITADEL_DATABASE_POSTGRES_HOTS {left_out}",
        f"databse {left_out}",
        f"Database.postgress {left_out}",
        "SSL.Mode verify-full without SSL.RootCert ends ZITADEL; libpq looks for ~/.postgresql/root.crt",
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("Projections: 5", "Projections"),
        ("Projections: {Customizations: {lockout_policy: 5}}", "Projections.Customizations.lockout_policy"),
        ("Caches: []", "Caches"),
        ("Caches: {Connectors: {Redis: on}}", "Caches.Connectors.Redis"),
        ("Caches: {Instance: [redis]}", "Caches.Instance"),
    ],
)
def test_what_should_hold_keys_and_holds_none_is_named(tmp_path: Path, text: str, place: str) -> None:
    """
    Of what is read beside the database; null changes nothing, as in ZITADEL.
    """
    database = "Database: {postgres: {Host: h}}\n"
    found, null = (
        read_config(write(tmp_path, database + more), {}) for more in (text, "Projections:\nCaches: {Instance: null}")
    )

    assert found.not_understood == (f"{place} holds no keys and was left out of account",)
    assert null.not_understood == ()


VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=15)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    host=VALUES,
    user=VALUES,
    password=VALUES,
    database=VALUES,
    port=st.integers(1, 65535),
    seed=st.integers(0, 2**16),
)
def test_any_values_written_in_any_shape_reach_libpq(
    tmp_path: Path, host: str, user: str, password: str, database: str, port: int, seed: int
) -> None:
    """
    Nested or dotted, in any case, in one file, several or in variables: libpq gets the same values.
    """
    rng = random.Random(seed)
    wanted = {
        ("Database", "Postgres", "Host"): host,
        ("Database", "Postgres", "Port"): str(port),
        ("Database", "Postgres", "Database"): database,
        ("Database", "Postgres", "User", "Username"): user,
        ("Database", "Postgres", "User", "Password"): password,
    }
    files: list[dict[str, Any]] = [{}, {}]
    environ: dict[str, str] = {}
    for path, value in wanted.items():
        place = rng.randrange(3)
        if place == 2:
            environ["_".join(("ZITADEL", *path)).upper()] = value
            continue
        names = [rng.choice((str.lower, str.upper, str))(part) for part in path]
        cut = rng.randrange(len(names))
        merged: Any = value
        for name in reversed([*names[:cut], ".".join(names[cut:])]):
            merged = {name: merged}
        _merge(files[place], merged)
    paths = write(tmp_path, *(yaml.safe_dump(file) for file in files))

    found = parts(read_config(paths, environ).dsn)

    assert {key: found[key] for key in ("host", "port", "dbname", "user", "password")} == {
        "host": host, "port": str(port), "dbname": database, "user": user, "password": password,
    }  # fmt: skip


def _merge(into: dict[str, Any], what: dict[str, Any]) -> None:
    for key, value in what.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)  # pyright: ignore[reportUnknownArgumentType]
        else:
            into[key] = value
