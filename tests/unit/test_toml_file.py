"""The TOML file: profiles and jobs, which of them holds, and that every mistake in it is found."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from zbackup import config
from zbackup.config import resolve
from zbackup.errors import UsageError

CANARY = "c4n4ry-0f-a-ping"

FILE = """
archive = "/top"
source = "service=top"
jobs = 2
chunk_bytes = "2MiB"
[profile.main]
source = "service=profile"
jobs = 3
chunk_bytes = "3MiB"
[profile.other]
source = "service=other"
[job.nightly]
profile = "main"
jobs = 4
chunk_bytes = "4MiB"
on_success = "echo 'a b' c"
on_failure = ["echo", "a b", ""]
[job."of sundays"]
verify = "full"
verify_full_every = "1d"
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a home without any settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def toml(text: str) -> str:
    path = Path("settings.toml")
    path.write_text(text)
    return str(path)


def test_each_level_beats_those_after_it() -> None:
    """
    Flag, variable, job, profile, top level, default: one setting from each, with its origin.
    """
    file = toml(FILE)
    flags = {"jobs": "6"}
    environ = {"ZBACKUP_JOBS": "5", "ZBACKUP_CHUNK_BYTES": "5MiB"}
    levels = [
        resolve(flags, environ, file, "nightly"),
        resolve({}, environ, file, "nightly"),
        resolve({}, {}, file, "nightly"),
        resolve({}, {"ZBACKUP_PROFILE": "main"}, file),
        resolve({}, {}, file),
        resolve({}, {}, toml("")),
    ]

    found = [(one.whole("jobs"), one["jobs"].origin.kind, str(one["jobs"].origin)) for one in levels]
    assert found == [
        (6, "flag", "--jobs"),
        (5, "environment", "ZBACKUP_JOBS"),
        (4, "job", f"{file} [job.nightly]"),
        (3, "profile", f"{file} [profile.main]"),
        (2, "file", file),
        (2, "default", "default"),
    ]
    assert [one.whole("chunk_bytes") >> 20 for one in levels] == [5, 5, 4, 3, 2, 64]
    assert [one.text("source") for one in levels[:5]] == [*["service=profile"] * 4, "service=top"]
    assert [one.text("archive") for one in levels[:5]] == ["/top"] * 5


def test_the_profile_itself_is_chosen_by_the_same_order() -> None:
    file = toml(FILE)

    def chosen(flags: dict[str, str], environ: dict[str, str], job: str | None) -> tuple[object, str, str | None]:
        settings = resolve(flags, environ, file, job)
        return settings["profile"].value, settings["profile"].origin.kind, settings.text("source")

    assert chosen({}, {}, "nightly") == ("main", "job", "service=profile")
    assert chosen({}, {"ZBACKUP_PROFILE": "other"}, "nightly") == ("other", "environment", "service=other")
    assert chosen({"profile": "main"}, {"ZBACKUP_PROFILE": "other"}, None) == ("main", "flag", "service=profile")
    assert chosen({}, {}, "of sundays") == (None, "default", "service=top")


def test_commands_are_lists_or_text_as_for_a_shell() -> None:
    settings = resolve({}, {}, toml(FILE), "nightly")

    assert settings.command("on_success") == ("echo", "a b", "c")
    assert settings.command("on_failure") == ("echo", "a b", "")
    assert settings["on_success"].shown == "echo 'a b' c"
    assert resolve({"on_success": "x 'y z'"}, {}).command("on_success") == ("x", "y z")
    assert resolve({}, {}, toml("on_failure = 'x'\n[job.n]\non_failure = []"), "n").command("on_failure") == ()


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("[job.n]\nverfy = 'full'", "[job.n]: unknown setting 'verfy'", "Did you mean verify?"),
        ("[profile.p]\narcive = 'x'", "[profile.p]: unknown setting 'arcive'", "Did you mean archive?"),
        ("[jobs.n]\njobs = 1", "unknown table [jobs.n]", "Did you mean [job.n]?"),
        ("[profiles.p]\njobs = 1", "unknown table [profiles.p]", "Did you mean [profile.p]?"),
        ("[nightly]\njobs = 1", "unknown table 'nightly'", "[job.NAME]"),
        ("[job.n.deeper]\njobs = 1", "[job.n]: unknown table 'deeper'", "zbackup config"),
        ("[job.n]\njobs = 0", "jobs from settings.toml [job.n]: 0 is less than 1", ""),
        ("[job.n]\nverify = 'ful'", "verify from settings.toml [job.n]: 'ful' is none of", "sample, full, none"),
        ("[job.n]\nverify_full_every = 7", "verify_full_every from settings.toml [job.n]", "1h30m"),
        ('[job.n]\non_failure = "it\'s"', "on_failure from settings.toml [job.n]", "as in a shell"),
        ("[job.n]\non_failure = [1]", "on_failure from settings.toml [job.n]", "list of texts"),
        (
            "[job.n]\nprofile = 'mian'\n[profile.main]",
            "profile 'mian' from settings.toml [job.n]",
            "Did you mean main?",
        ),
        ("[profile.p]\nprofile = 'q'", "a profile names no other", "A job does"),
        ("profile = 'p'", "profile is not a value here", "[profile.NAME]"),
        ("job = 1", "job is not a value here", "[job.NAME]"),
        ("[job]\njobs = 1", "job is not a value here", "[job.NAME]"),
    ],
)
def test_a_mistake_in_a_table_nobody_chose_is_found(text: str, said: str, hint: str) -> None:
    """
    Unknown keys with the nearest known one, and bad values with their table.
    """
    with pytest.raises(UsageError) as refused:
        resolve({}, {}, toml(text))

    assert said in refused.value.message
    assert hint in f"{refused.value.message} {refused.value.hint}"


@pytest.mark.parametrize(
    ("flags", "job", "said", "hint"),
    [
        ({}, "nigtly", "job 'nigtly' from the command line", "Did you mean nightly?"),
        ({}, "x", "job 'x' from the command line", "There are nightly, of sundays."),
        ({"profile": "mian"}, None, "profile 'mian' from --profile", "Did you mean main?"),
    ],
)
def test_what_is_not_there_is_said_with_the_nearest_name(
    flags: dict[str, str], job: str | None, said: str, hint: str
) -> None:
    file = toml(FILE)
    with pytest.raises(UsageError) as refused:
        resolve(flags, {}, file, job)

    assert said in refused.value.message
    assert refused.value.hint == hint
    with pytest.raises(UsageError, match="no TOML file that could hold"):
        resolve(flags, {}, None, job)


@pytest.mark.parametrize(
    ("url", "good"),
    [
        (f"https://hc.example.com/{CANARY}", True),
        (f"http://u:{CANARY}@127.0.0.1:8000/x?rid={CANARY}", True),
        ("", True),
        (f"ftp://hc.example.com/{CANARY}", False),
        (f"https:///{CANARY}", False),
        (f"hc.example.com/{CANARY}", False),
        (f"https://h/a {CANARY}", False),
        (f"https://h:{CANARY}/x", False),
        (f"https://[{CANARY}/x", False),
    ],
)
def test_of_a_ping_url_only_the_host_is_shown(url: str, good: bool) -> None:
    """
    Whoever knows it can say that all is well: neither `config` nor an error repeats it.
    """
    file = toml(f'[job.n]\nping_url = "{url}"')
    if good:
        settings = resolve({}, {}, file, "n")
        assert CANARY not in str(settings["ping_url"].shown)
        assert settings["ping_url"].secret
        assert not url or any(CANARY in secret for secret in config.secrets(settings, {}))
        return
    given: list[tuple[dict[str, str], dict[str, str], str | None]] = [
        ({}, {}, file),
        ({"ping_url": url}, {}, None),
        ({}, {"ZBACKUP_PING_URL": url}, None),
    ]
    for flags, environ, path in given:
        with pytest.raises(UsageError) as refused:
            resolve(flags, environ, path)
        assert CANARY not in f"{refused.value.message} {refused.value.hint}"
        assert refused.value.message.startswith("ping_url from ")


def test_a_full_verification_is_due_by_the_setting() -> None:
    settings = resolve({}, {}, toml(FILE), "of sundays")

    assert (settings.text("verify"), settings.duration("verify_full_every")) == ("full", timedelta(days=1))
    assert resolve({}, {}).text("verify") == "sample"


def test_the_example_of_the_page_is_good() -> None:
    """
    What docs/configuration.md shows is read, and its job gets its values from where the page says.
    """
    page = Path(__file__).parents[2] / "docs/configuration.md"
    example = page.read_text().partition("```toml\n")[2].partition("```")[0]

    settings = resolve({}, {}, toml(example), "nightly")

    assert (settings.text("archive"), settings["audit_budget"].origin.kind) == ("s3://backups-eu/zitadel", "file")
    assert settings.command("on_failure") == ("/usr/local/bin/page", "--team", "identity")
