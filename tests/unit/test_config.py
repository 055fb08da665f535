"""Settings: where each value comes from, what is refused, what is shown."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbackup import config
from zbackup.config import resolve
from zbackup.errors import UsageError
from zbackup.settings import KNOWN
from zbackup.values import default_text, duration_text, of_flag

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "cAnAry-5ecret"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a home without any settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def toml(folder: Path, text: str) -> str:
    path = folder / "settings.toml"
    path.write_text(text)
    return str(path)


def test_a_flag_beats_a_variable_beats_a_file_beats_the_default(elsewhere: Path) -> None:
    file = toml(elsewhere, 'jobs = 3\naudit_budget = "7s"\narchive = "of-file"\n')
    settings = resolve({"archive": "of-flag", "jobs": None}, {"ZBACKUP_ARCHIVE": "v", "ZBACKUP_JOBS": "5"}, file)

    found = {name: (settings[name].shown, str(settings[name].origin)) for name in KNOWN}
    assert found["archive"] == ("of-flag", "--archive")
    assert found["jobs"] == ("5", "ZBACKUP_JOBS")
    assert found["audit_budget"] == ("7s", file)
    assert found["horizon_margin"] == ("10s", "default")
    assert settings.whole("jobs") == 5
    assert settings.duration("audit_budget") == timedelta(seconds=7)


def test_an_empty_variable_counts_as_not_set() -> None:
    assert str(resolve({}, {"ZBACKUP_JOBS": ""})["jobs"].origin) == "default"


def test_a_switch_can_be_turned_off_by_its_flag() -> None:
    settings = resolve({"capture": False}, {"ZBACKUP_CAPTURE": "yes", "ZBACKUP_AUDIT": "on"})

    assert not settings.switch("capture")
    assert str(settings["capture"].origin) == "--no-capture"
    assert settings.switch("audit")


def test_the_file_is_found_where_it_may_be(elsewhere: Path) -> None:
    def origin(environ: dict[str, str], file: str | None = None) -> str:
        return str(resolve({}, environ, file)["jobs"].origin)

    assert origin({}) == "default"
    home = elsewhere / "home/.config/zbackup/zbackup.toml"
    home.parent.mkdir(parents=True)
    home.write_text("jobs = 1")
    assert origin({}) == str(home)
    (elsewhere / "zbackup.toml").write_text("jobs = 2")
    assert origin({}) == "zbackup.toml"
    file = toml(elsewhere, "jobs = 3")
    assert origin({"ZBACKUP_CONFIG": file}) == file
    (elsewhere / "other.toml").write_text("jobs = 4")
    assert origin({"ZBACKUP_CONFIG": file}, "other.toml") == "other.toml"
    with pytest.raises(UsageError, match=r"missing\.toml"):
        origin({}, "missing.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("audit-budget = '2s'", ["audit-budget", "audit_budget"]),
        ("arcive = 'x'", ["arcive", "archive"]),
        ("[source]\nhost = 'h'", ["source", "text"]),
        ("jobs = '3'", ["jobs", "without quotes"]),
        ("jobs = 0", ["jobs", "less than 1"]),
        ("jobs = true", ["jobs"]),
        ("jobs = 1.5", ["jobs"]),
        ("capture = 'yes'", ["capture", "true or false"]),
        ("audit_budget = 2", ["audit_budget", "in quotes"]),
        ("audit_budget = '2 fortnights'", ["audit_budget", "10s"]),
        ("audit_budget = '999999999d999999999d'", ["audit_budget"]),
        ("chunk_bytes = '64M'", ["chunk_bytes", "64MiB"]),
        ("proof = 'all'", ["proof", "sample, full"]),
        ("zitadel_config = [1]", ["zitadel_config"]),
        ("jobs 3", ["not TOML", "line 1"]),
        ("jobs = 3\n\xff", ["not TOML"]),
        ("jobs = " + "[" * 5000, ["not TOML", "nested too deeply"]),
    ],
)
def test_a_bad_line_names_setting_and_file(elsewhere: Path, text: str, words: list[str]) -> None:
    file = toml(elsewhere, "")
    (elsewhere / "settings.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as refused:
        resolve({}, {}, file)

    told = f"{refused.value.message} {refused.value.hint}"
    assert all(word in told for word in [*words, file])


def test_a_bad_value_names_its_flag_or_variable() -> None:
    with pytest.raises(UsageError, match=r"jobs from --jobs: 'x'"):
        resolve({"jobs": "x"}, {})
    with pytest.raises(UsageError, match=r"lock_timeout from ZBACKUP_LOCK_TIMEOUT: '5' is not"):
        resolve({}, {"ZBACKUP_LOCK_TIMEOUT": "5"})


@pytest.mark.parametrize("source", [f"postgres://u:{CANARY}@x@h/db", f"host=h password='{CANARY}"])
def test_a_bad_connection_string_is_not_repeated(elsewhere: Path, source: str) -> None:
    quoted = source.replace("'", "\\u0027")
    file = toml(elsewhere, f'source = "{quoted}"')
    for flags, environ, path in (
        ({"source": source}, {}, None),
        ({}, {"ZBACKUP_SOURCE": source}, None),
        ({}, {}, file),
    ):
        with pytest.raises(UsageError) as refused:
            resolve(flags, environ, path)
        assert CANARY not in refused.value.message + refused.value.hint
        assert "source from" in refused.value.message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("10s", 10), ("250ms", 0.25), ("2m", 120), ("1h30m", 5400), ("1.5s", 1.5), ("3min", 180)],
)
def test_durations(text: str, seconds: float) -> None:
    assert resolve({"audit_budget": text}, {}).duration("audit_budget") == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("name", "text", "most"),
    [
        ("keep_window", "999999d", "36500d"),
        ("keep_window", "999999999d" * 2, "36500d"),
        ("horizon_margin", "999999d", "20d"),
        ("lock_timeout", "20d1us", "20d"),
    ],
)
def test_durations_have_a_greatest(name: str, text: str, most: str) -> None:
    """
    Which reaches no date before the year 1, and is what PostgreSQL takes; it is named.
    """
    assert resolve({name: most}, {})[name].shown == most
    with pytest.raises(UsageError, match=f"{text} is too long, the most is {most}"):
        resolve({name: text}, {})


@given(st.timedeltas(timedelta(0), timedelta(days=36500)))
def test_a_duration_reads_back_as_it_is_shown(duration: timedelta) -> None:
    """
    To the microsecond.
    """
    assert of_flag(KNOWN["keep_window"], duration_text(duration)) == duration


def test_a_duration_is_shown_in_mixed_units() -> None:
    """
    As one would write it.
    """
    texts = ("30d12h30m", "2d", "1h", "1m30s", "250ms", "0")

    found = [resolve({"keep_window": text}, {})["keep_window"].shown for text in texts]

    assert found == ["30d12h30m", "2d", "1h", "1m30s", "0.25s", "0s"]


@pytest.mark.parametrize(
    ("text", "size"), [("65536", 65536), ("512KiB", 512 << 10), ("64 MiB", 64 << 20), ("1gib", 1 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    assert resolve({"chunk_bytes": text}, {}).whole("chunk_bytes") == size


def test_several_files_keep_their_order(elsewhere: Path) -> None:
    assert resolve({"zitadel_config": ["a", "b"]}, {}).files("zitadel_config") == ("a", "b")
    assert resolve({}, {"ZBACKUP_ZITADEL_CONFIG": "a:b"}).files("zitadel_config") == ("a", "b")
    file = toml(elsewhere, 'zitadel_config = ["a", "b"]')
    assert resolve({"zitadel_config": []}, {}, file).files("zitadel_config") == ("a", "b")


def test_a_misspelt_variable_is_pointed_out() -> None:
    settings = resolve({}, {"ZBACKUP_ARCHIV": "x", "ZBACKUP_SERVICE_HOST": "10.0.0.1", "ZBACKUP_PG_BIN": "/x"})

    assert settings.strays == ("variable ZBACKUP_ARCHIV is not known; did you mean ZBACKUP_ARCHIVE?",)


def test_no_setting_shows_a_password() -> None:
    flags = {
        "source": f"postgres://u:{CANARY}@h/db",
        "target": f"host=h password={CANARY}",
        "fence": f"postgres://u@h/db?password={CANARY}",
        "archive": f"https://key:{CANARY}@host/x",
        "s3_endpoint": f"https://key:{CANARY}@host",
    }
    settings = resolve(flags, {})

    for name in flags:
        assert CANARY not in str(settings[name].shown)
    assert settings["source"].secret
    assert settings["source"].shown == "postgres://u:***@h/db"


def test_secrets_of_every_kind_are_named() -> None:
    environ = {
        "PGPASSWORD": "s1-of-libpq",
        "AWS_SECRET_ACCESS_KEY": "s2-of-aws",
        "AWS_SESSION_TOKEN": "s3-of-aws",
        "ZITADEL_DATABASE_POSTGRES_USER_PASSWORD": "s4-of-user",
        "ZITADEL_DATABASE_POSTGRES_ADMIN_PASSWORD": "s5-of-admin",
        "ZITADEL_DATABASE_POSTGRES_DSN": "host=h password=s6-of-dsn",
        "ZITADEL_MASTERKEY": "s7-masterkey",
        "ZBACKUP_MASTERKEY": "s7-misspelt\n",
        "ZBACKUP_MASTERKEY_FILE": "s7-of-32-letters-that-is-no-file",
        "HTTPS_PROXY": "http://u:s8-of-proxy@127.0.0.1",
        "ZBACKUP_TARGET": "postgres://u:s9-of-target@h/db",
        "PATH": "/usr/bin",
        "PGUSER": "zitadel",
    }
    found = config.secrets(resolve({"source": "password=s0-of-flag"}, environ), environ)

    assert sorted(found) == sorted([
        "s0-of-flag", "s1-of-libpq", "s2-of-aws", "s3-of-aws", "s4-of-user", "s5-of-admin", "s6-of-dsn",
        "s7-masterkey", "s7-misspelt", "s7-misspelt\n", "s7-of-32-letters-that-is-no-file", "s8-of-proxy",
        "s9-of-target",
    ])  # fmt: skip


def test_a_masterkey_is_32_bytes_and_no_more_is_shown(elsewhere: Path) -> None:
    """
    Bytes of any kind, as they are; a missing one is None, and none of it stands in a representation.
    """
    (elsewhere / "key").write_bytes(bytes(range(0, 64, 2)))
    settings = resolve({"masterkey_file": "key"}, {})

    found = config.masterkey(settings, {"ZITADEL_MASTERKEY": "x" * 32})
    assert found is not None
    assert (found.value, found.place, found.newline) == (bytes(range(0, 64, 2)), "key", False)
    assert repr(found) == "Masterkey(place='key', newline=False)"
    assert config.masterkey(resolve({}, {}), {"ZITADEL_MASTERKEY": ""}) is None
    found = config.masterkey(resolve({}, {}), {"ZITADEL_MASTERKEY": "x" * 31 + "\n"})
    assert found is not None
    assert (len(found.value), found.newline) == (32, False)  # as ZITADEL takes it


def test_headers_for_a_collector_are_secret() -> None:
    """
    As they are written and as they are meant, with the word before the key and without.
    """
    headers = "authorization=Bearer%20cAnAry-5ecret,x-tenant=one"

    assert config.secrets(None, {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": headers}) == {
        "Bearer%20cAnAry-5ecret", "Bearer cAnAry-5ecret", "cAnAry-5ecret",
    }  # fmt: skip


def test_every_default_is_written_as_it_is_read() -> None:
    for known in KNOWN.values():
        if known.default is not None:
            assert of_flag(known, default_text(known)) == known.default


@given(st.sampled_from(sorted(KNOWN)), st.text(max_size=30))
def test_any_text_is_a_value_or_a_usage_error(name: str, text: str) -> None:
    try:
        setting = resolve({name: text}, {})[name]
    except UsageError as error:
        assert name in error.message  # noqa: PT017
    else:
        assert setting.shown is not None
