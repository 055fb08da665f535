"""A masterkey on the command line: where it comes from, what is said of it, and that it is never said itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests import fixture_data
from tests.encrypted import MASTERKEY, OTHER, decrypted_key, key_row

if TYPE_CHECKING:
    from .conftest import Ran, Zbackup


@pytest.fixture
def source(new_database: Callable[[], str]) -> str:
    """The DSN of a database that a real ZITADEL wrote."""
    dsn = new_database()
    with psycopg.connect(dsn) as connection:
        fixture_data.load(connection, "v4.13.1", tables="state")
    return dsn


def file_with(content: bytes) -> str:
    Path("masterkey").write_bytes(content)
    return "masterkey"


def checked(ran: Ran) -> dict[str, str]:
    """Return doctor's check of the masterkey."""
    (check,) = [check for check in ran.result["checks"] if check["name"] == "masterkey"]
    return check


@pytest.mark.parametrize("way", ["flag", "variable", "toml", "zitadel"])
def test_it_may_stand_in_many_places(archive: str, zbackup: Zbackup, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """
    A file named by flag, variable or TOML, or ZITADEL's own variable.
    """
    path = file_with(MASTERKEY)
    flags: tuple[str, ...] = ()
    if way == "flag":
        flags = ("--masterkey-file", path)
    elif way == "variable":
        monkeypatch.setenv("ZBACKUP_MASTERKEY_FILE", path)
    elif way == "toml":
        Path("zbackup.toml").write_text(f'masterkey_file = "{path}"')
    else:
        monkeypatch.setenv("ZITADEL_MASTERKEY", MASTERKEY.decode())

    assert zbackup("plan", "--archive", archive, "--json", *flags).result["masterkey"] == "fits"
    assert checked(zbackup("doctor", "--archive", archive, "--json", *flags))["verdict"] == "ok"


def test_a_file_beats_zitadels_variable(archive: str, zbackup: Zbackup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZITADEL_MASTERKEY", MASTERKEY.decode())

    def plan(*flags: str) -> str:
        return zbackup("plan", "--archive", archive, "--json", *flags).result["masterkey"]

    assert plan() == "fits"
    assert plan("--masterkey-file", file_with(OTHER)) == "does not fit"


def test_doctor_tells_before_the_disaster(archive: str, source: str, zbackup: Zbackup) -> None:
    """
    The right masterkey is ok for source and archive; a wrong one fails, with what would be lost; none is skipped.
    """
    for places in (("--archive", archive), ("--source", source), ("--archive", archive, "--source", source)):
        right = zbackup("doctor", *places, "--masterkey-file", file_with(MASTERKEY))
        assert right.code == 0, right.out
        assert "web_key.added" in right.out
        wrong = zbackup("doctor", *places, "--masterkey-file", file_with(OTHER))
        assert wrong.code == 34
        assert "does not fit: domainVerificationKey (" in wrong.out
        assert "TOTP secrets" in wrong.out
        assert "skipped masterkey" in zbackup("doctor", *places).out


def test_plan_warns_and_does_not_fail(archive: str, zbackup: Zbackup) -> None:
    """
    Plan has a line for it; a misfit is a warning with what would be lost.
    """
    plan = ("plan", "--archive", archive)
    none, right = zbackup(*plan), zbackup(*plan, "--masterkey-file", file_with(MASTERKEY))
    wrong = zbackup(*plan, "--masterkey-file", file_with(OTHER))

    assert "masterkey    not given\n" in none.out
    assert "  masterkey    fits: 7 of 11 keys proved\n" in right.out
    assert "warning" not in right.out + right.err
    assert (wrong.code, right.code) == (0, 0)
    assert "  masterkey    does not fit: 0 of 11 keys proved\n" in wrong.out
    assert "warning: masterkey: does not fit: " in wrong.out
    assert "signing keys of OIDC" in wrong.out
    (warning,) = zbackup(*plan, "--masterkey-file", "masterkey", "--json").result["warnings"]
    assert "userKey" in warning


def test_a_rotation_that_stopped_half_way_is_seen(archive: str, source: str, zbackup: Zbackup) -> None:
    """
    The keys that do not fit are named beside those that do.
    """
    with psycopg.connect(source) as connection:
        connection.execute(
            "UPDATE system.encryption_keys SET key = %s WHERE id = 'userKey'",
            (key_row(OTHER, decrypted_key("v4.13.1", "userKey")),),
        )
    assert zbackup("backup", "--archive", archive, "--source", source).code == 0
    flags = ("--archive", archive, "--masterkey-file", file_with(MASTERKEY), "--json")

    check = checked(zbackup("doctor", *flags))
    assert check["verdict"] == "fail"
    assert check["message"].startswith("does not fit: userKey (")
    assert "fits: domainVerificationKey (" in check["message"]
    assert zbackup("plan", *flags).result["masterkey"] == "does not fit"
    first, _ = zbackup("list", "--archive", archive, "--json").result["backups"]
    assert zbackup("plan", *flags, "--at", f"backup:{first['backup']}").result["masterkey"] == "fits"


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_one_newline_is_left_out_with_a_note(archive: str, zbackup: Zbackup, newline: bytes) -> None:
    """
    It is what editors add; ZITADEL itself would refuse the file, which is said.
    """
    ran = zbackup("plan", "--archive", archive, "--masterkey-file", file_with(MASTERKEY + newline))

    assert ran.code == 0
    assert "masterkey    fits" in ran.out
    assert "newline follows the masterkey in masterkey" in ran.err


@pytest.mark.parametrize(
    ("content", "length"),
    [
        (b"", "0 bytes"),
        (MASTERKEY[:-1], "31 bytes"),
        (MASTERKEY + b"!", "33 bytes"),
        (MASTERKEY + b"\n\n", "34 bytes"),
        (b" " + MASTERKEY + b"\n", "34 bytes"),
        (b"\xef\xbb\xbf" + MASTERKEY, "35 bytes"),
        (MASTERKEY.hex().encode(), "64 bytes"),
        (MASTERKEY * 1000, "more than 4096 bytes"),
    ],
)
def test_another_length_is_refused(
    zbackup: Zbackup, monkeypatch: pytest.MonkeyPatch, content: bytes, length: str
) -> None:
    """
    The refusal names file or variable and length, and nothing of what is in it.
    """
    for command in ("plan", "doctor"):
        ran = zbackup(command, "--archive", "none", "--masterkey-file", file_with(content))
        assert ran.code == 2
        assert f"the masterkey in masterkey has {length}, not 32" in ran.err
        assert MASTERKEY.decode()[:8] not in ran.err
    if content and len(content) < 4096:
        monkeypatch.setenv("ZITADEL_MASTERKEY", content.decode())
        assert f"the masterkey in ZITADEL_MASTERKEY has {length}" in zbackup("plan", "--archive", "none").err


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere/masterkey", "nowhere/masterkey: No such file"),
        (".", ".: Is a directory"),
        ("", "--masterkey-file: it is empty"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(zbackup: Zbackup, path: str, words: str) -> None:
    ran = zbackup("plan", "--archive", "none", "--masterkey-file", path)

    assert ran.code == 2
    assert "masterkey_file from --masterkey-file: " in ran.err
    assert words in ran.err


def test_the_key_itself_is_no_argument(archive: str, zbackup: Zbackup, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Given in the place of its file it is refused and not repeated, nor by `zbackup config`; a flag for it there is not.
    """
    key = MASTERKEY.decode()

    ran = zbackup("plan", "--archive", archive, "--masterkey-file", key)
    assert ran.code == 2
    assert "not repeated" in ran.err
    assert zbackup("plan", "--archive", archive, "--masterkey", key).code == 2
    monkeypatch.setenv("ZBACKUP_MASTERKEY_FILE", key)
    ran = zbackup("config")
    assert ran.code == 0
    assert key not in ran.out
    assert "***" in next(line for line in ran.out.splitlines() if line.startswith("masterkey_file"))


def test_a_file_with_a_name_of_32_letters_is_a_file(archive: str, zbackup: Zbackup) -> None:
    Path("m" * 32).write_bytes(MASTERKEY)

    assert zbackup("plan", "--archive", archive, "--masterkey-file", "m" * 32, "--json").result["masterkey"] == "fits"
