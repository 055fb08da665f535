"""A password never comes out again, wherever it came in."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from .test_program import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Ran, Zbackup

CANARY = "cAnAry-5ecret"

# As long as a masterkey.
KEY = f"{CANARY}-and-more-of-it--32"

# Nothing listens there: the connection is refused, and libpq says so in its own words.
REACHES_NOTHING = (
    f"postgres://someone:{CANARY}@127.0.0.1:1/events",
    f"postgres://someone@127.0.0.1:1/events?password={CANARY}",
    f"host=127.0.0.1 port=1 user=someone dbname=events password='{CANARY}'",
    f"host=127.0.0.1 port=1 dbname=events sslpassword={CANARY} sslmode=disable",
)
UNREADABLE = (
    f"postgres://someone:{CANARY}@x@127.0.0.1:1/events",
    f"postgres://someone:a/{CANARY}@127.0.0.1:1/events",
    f"postgres://someone:{CANARY}%zz@127.0.0.1:1/events",
    f"postgres://someone:a b{CANARY}@127.0.0.1:1/events",
    f"host=127.0.0.1 port=1 password=a {CANARY}",
    f"host=127.0.0.1 port=1 password='{CANARY}",
    f"host=127.0.0.1 port=1 passwrd={CANARY}",
    f"postgres://someone@127.0.0.1:{CANARY}/events",
    f"mysql://someone:{CANARY}@127.0.0.1:1/events",
)


@pytest.fixture
def silent_about(zbackup: Zbackup, bare: Path) -> Callable[..., Ran]:
    """Run a command as text, as JSON and with --debug, and look for the canary in all of it."""

    def run(*arguments: str) -> Ran:
        if arguments[0] == "follow":
            # It would wait for a server that may come.
            arguments = *arguments, "--count", "1"
        plain, *others = (
            zbackup(*arguments, *extra) for extra in ((), ("--json",), ("--debug",), ("--json", "--debug"))
        )
        for ran in (plain, *others):
            assert CANARY not in ran.out + ran.err, arguments
            assert ran.out + ran.err
        assert json.loads(others[0].out.splitlines()[-1])["type"] in {"result", "error"}
        return plain

    return run


def taking(setting: str) -> list[str]:
    from .test_program import GROUP

    return [name for name in COMMANDS if any(setting in one.opts for one in GROUP.commands[name].params)]


@pytest.mark.parametrize("dsn", [*REACHES_NOTHING, *UNREADABLE])
@pytest.mark.parametrize("flag", ["--source", "--target", "--fence"])
def test_not_of_an_argument(silent_about: Callable[..., Ran], bare: Path, flag: str, dsn: str) -> None:
    for command in taking(flag):
        extra = {"--fence": ("--source", "host=127.0.0.1 port=1"), "--source": (), "--target": ()}[flag]
        extra = () if command == "config" else extra
        silent_about(command, "--archive", str(bare / "none"), flag, dsn, *extra)


def test_not_where_the_archive_is_there(silent_about: Callable[..., Ran], archive: str, postgres: object) -> None:
    for dsn in REACHES_NOTHING:
        assert silent_about("backup", "--archive", archive, "--source", dsn).code == 10
        assert silent_about("restore", "--archive", archive, "--target", dsn).code == 12
        assert silent_about("verify", "--archive", archive, "--source", dsn).code == 10
        assert silent_about("doctor", "--archive", archive, "--source", dsn, "--grants").code == 34


@pytest.mark.parametrize("dsn", [*REACHES_NOTHING, *UNREADABLE])
def test_not_of_an_argument_in_the_wrong_place(silent_about: Callable[..., Ran], dsn: str) -> None:
    for arguments in (
        (dsn,),
        ("backup", dsn),
        ("show", "--archive", "none", dsn),
        ("show", "--archive", "none", "x", dsn),
        ("backup", f"--sourc={dsn}"),
        ("backup", "--jobs", dsn),
        ("backup", f"--jobs={dsn}"),
        ("backup", "--archive", dsn, "--source", "host=127.0.0.1 port=1"),
        ("list", "--archive", dsn),
        ("list", "--archive", "s3://x/y", "--s3-addressing", dsn),
        ("list", "--archive", "s3://x/y", "--s3-endpoint", dsn),
        ("plan", "--archive", "none", "--at", dsn),
        ("config", "--config", dsn),
        ("config", "--spool", dsn),
        ("config", "--archive", dsn),
    ):
        silent_about(*arguments)


def test_not_of_s3(silent_about: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA0")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    silent_about("config", "--archive", "s3://bucket/x")
    for address, endpoint in (
        (f"s3://AKIA0:{CANARY}@bucket/x", "http://127.0.0.1:1"),
        ("s3://bucket/x", f"http://AKIA0:{CANARY}@127.0.0.1:1"),
        (f"http://AKIA0:{CANARY}@127.0.0.1:1/bucket", "http://127.0.0.1:1"),
    ):
        assert silent_about("list", "--archive", address, "--s3-endpoint", endpoint).code == 2
        silent_about("config", "--archive", address, "--s3-endpoint", endpoint)


@pytest.mark.parametrize("dsn", [*REACHES_NOTHING, *UNREADABLE])
def test_not_of_variables_and_files(
    silent_about: Callable[..., Ran], bare: Path, monkeypatch: pytest.MonkeyPatch, dsn: str
) -> None:
    folder = str(bare / "none")
    for name in ("SOURCE", "TARGET", "FENCE"):
        monkeypatch.setenv(f"ZBACKUP_{name}", dsn)
    monkeypatch.setenv("PGPASSWORD", CANARY)
    for command in COMMANDS:
        silent_about(command, "--archive", folder)
    for name in ("SOURCE", "TARGET", "FENCE"):
        monkeypatch.delenv(f"ZBACKUP_{name}")
    lines = [f"{name} = {json.dumps(dsn)}\n" for name in ("source", "target", "fence")]
    for text in ("".join(lines), lines[0], f"[{lines[0].strip()}\n", f"sorce = {json.dumps(dsn)}", f"{dsn}\n"):
        (bare / "settings.toml").write_text(text)
        for command in COMMANDS:
            silent_about(command, "--archive", folder, "--config", str(bare / "settings.toml"))


@pytest.mark.parametrize("dsn", [*REACHES_NOTHING, *UNREADABLE])
def test_not_of_zitadels_configuration(
    silent_about: Callable[..., Ran], bare: Path, monkeypatch: pytest.MonkeyPatch, dsn: str
) -> None:
    path = bare / "zitadel.yaml"
    arguments = ("--archive", str(bare / "none"), "--zitadel-config", str(path))
    for text in (
        f"Database: {{postgres: {{DSN: {json.dumps(dsn)}}}}}",
        f"Database: {{postgres: {{Host: 127.0.0.1, Port: 1, User: {{Password: {CANARY}}}}}}}",
        f"Database: {{postgres: {{Host: 127.0.0.1, Port: {CANARY}}}}}",
        f"Database: {{postgres: {{Host: 127.0.0.1, Password: {CANARY}",
        f"Password: {CANARY}: x",
    ):
        path.write_text(text)
        for command in ("backup", "verify", "doctor", "config"):
            silent_about(command, *arguments)
    for name, value in (("DSN", dsn), ("USER_PASSWORD", CANARY)):
        monkeypatch.setenv("ZITADEL_DATABASE_POSTGRES_HOST", "127.0.0.1")
        monkeypatch.setenv("ZITADEL_DATABASE_POSTGRES_PORT", "1")
        monkeypatch.setenv(f"ZITADEL_DATABASE_POSTGRES_{name}", value)
        silent_about("backup", "--archive", str(bare / "none"))
        silent_about("doctor", "--archive", str(bare / "none"))
        silent_about("verify", "--archive", str(bare / "none"), "--compare")


@pytest.mark.parametrize("key", [KEY, f"{KEY}\n", KEY[:-1], f"{KEY}{KEY}", f"{KEY[:-1]}é", f'"{KEY}"', f"{KEY}\n\n"])
def test_not_of_a_masterkey(
    silent_about: Callable[..., Ran], archive: str, source: str, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """
    Of the right length or not: in a file, in a variable, and where only the name of a file belongs.
    """
    Path("masterkey").write_text(key)
    Path("zbackup.toml").write_text('masterkey_file = "masterkey"')
    places = ("--archive", archive, "--source", source)
    for command in (("doctor", *places), ("plan", *places[:2]), ("plan", "--archive", "none"), ("config",)):
        silent_about(*command)
    Path("zbackup.toml").unlink()
    for name in ("ZITADEL_MASTERKEY", "ZBACKUP_MASTERKEY"):
        monkeypatch.setenv(name, key)
        silent_about("doctor", *places)
        silent_about("plan", *places[:2])
        silent_about("show", "--archive", archive, key)
        monkeypatch.delenv(name)


def test_not_of_a_masterkey_in_the_place_of_its_file(
    silent_about: Callable[..., Ran], archive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (
        ("plan", "--archive", archive, "--masterkey-file", KEY),
        ("plan", "--archive", archive, f"--masterkey-file={KEY}"),
        ("doctor", "--archive", archive, "--masterkey-file", KEY),
        ("doctor", "--archive", archive, "--masterkeyFile", KEY),
        ("plan", "--archive", archive, "--masterkey", KEY),
        ("plan", "--archive", archive, f"--masterkey={KEY}"),
        ("backup", "--archive", archive, "--masterkey-file", KEY),
        ("plan", "--archive", archive, "--masterkey-file", "none", KEY),
        ("plan", "--archive", archive, "--masterkeyFromEnv", KEY),
    ):
        assert silent_about(*arguments).code == 2
    monkeypatch.setenv("ZBACKUP_MASTERKEY_FILE", KEY)
    assert silent_about("plan", "--archive", archive).code == 2
    silent_about("config")
    monkeypatch.delenv("ZBACKUP_MASTERKEY_FILE")
    for name in ("masterkey_file", "masterkey"):
        Path("zbackup.toml").write_text(f'{name} = "{KEY}"')
        silent_about("plan", "--archive", archive)
        silent_about("config")


def test_not_in_an_archive_or_a_listing(silent_about: Callable[..., Ran], source: str, bare: Path) -> None:
    """
    A password that works: nothing that is stored or shown holds it.
    """
    folder = bare / "archive"
    arguments = ("--archive", str(folder))
    with_password = f"{source} password={CANARY}"
    assert silent_about("init", *arguments).code == 0
    for command in (("backup", "--source", with_password), ("list",), ("show",), ("verify", "--source", with_password)):
        assert silent_about(*command, *arguments).code == 0
    assert silent_about("doctor", "--source", with_password, "--grants", *arguments).code == 0

    for path in folder.rglob("*"):
        assert path.is_dir() or CANARY.encode() not in path.read_bytes()


def test_a_wrong_password_is_refused_without_it(
    silent_about: Callable[..., Ran], archive: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What the server says about a failed login names the role only.
    """
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} CONNECTION LIMIT 0".encode())
        connection.execute("DROP ROLE IF EXISTS nologin_canary")
        connection.execute("CREATE ROLE nologin_canary NOLOGIN")
    try:
        dsn = source.replace("user=postgres", "user=nologin_canary")
        assert silent_about("backup", "--archive", archive, "--source", f"{dsn} password={CANARY}").code in {10, 11}
    finally:
        with psycopg.connect(source, autocommit=True) as connection:
            connection.execute("DROP ROLE nologin_canary")


def test_it_is_not_in_the_process_list_either(archive: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    pg_dump gets the password by its environment: no child of ours has it in its arguments.
    """
    from .conftest import start

    # Between fork and exec a child shows our own arguments, so they must not hold it either.
    monkeypatch.setenv("ZBACKUP_SOURCE", f"{source} password={CANARY}")
    seen: list[str] = []
    with start("backup", "--archive", archive) as child:
        while child.poll() is None:
            for entry in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                    if parent == str(child.pid):
                        seen.append((entry / "cmdline").read_text())
        child.communicate(timeout=60)

    assert child.returncode == 0
    assert any("pg_dump" in line for line in seen)
    assert not any(CANARY in line for line in seen)
