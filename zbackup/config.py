"""
Where the value of each setting comes from.

The first of: the flag, the variable ZBACKUP_…, the job, the profile and the top level of the TOML file, the default.
The TOML file is the one named by --config or ZBACKUP_CONFIG, else the first that exists of ./zbackup.toml,
~/.config/zbackup/zbackup.toml and /etc/zbackup.toml. An empty variable counts as not set.

This is the only module that looks at the environment.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, cast

from zbackup import dsn, toml_file
from zbackup.errors import UsageError
from zbackup.settings import KNOWN, OTHER_VARIABLES, Origin, Setting
from zbackup.values import header_secrets, http_secrets, of_flag, way_out
from zbackup.zitadel.masterkey import MASTERKEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from zbackup.toml_file import Table
    from zbackup.values import Known, Value

# No more is read of a file that should hold 32 bytes.
_MASTERKEY_FILE_BYTES = 4096

_FILES = (Path("zbackup.toml"), Path("~/.config/zbackup/zbackup.toml"), Path("/etc/zbackup.toml"))


@dataclass(frozen=True, slots=True)
class Settings:
    all: Mapping[str, Setting]
    file: str | None
    """the TOML file that was read"""
    strays: tuple[str, ...] = ()
    """variables that look like a misspelt one of ours"""

    def __getitem__(self, name: str) -> Setting:
        return self.all[name]

    def text(self, name: str) -> str | None:
        return cast("str | None", self.all[name].value)

    def whole(self, name: str) -> int:
        return cast("int", self.all[name].value)

    def size(self, name: str) -> int | None:
        return cast("int | None", self.all[name].value)

    def switch(self, name: str) -> bool:
        return cast("bool", self.all[name].value)

    def duration(self, name: str) -> timedelta:
        return cast("timedelta", self.all[name].value)

    def command(self, name: str) -> tuple[str, ...]:
        return cast("tuple[str, ...]", self.all[name].value or ())

    def files(self, name: str) -> tuple[str, ...]:
        return cast("tuple[str, ...]", self.all[name].value or ())


def environment() -> dict[str, str]:
    """Return the process's environment."""
    return dict(os.environ)


def resolve(
    flags: Mapping[str, object], environ: Mapping[str, str], file: str | None = None, job: str | None = None
) -> Settings:
    """
    Find the value of every setting.

    `flags` holds what was given on the command line, None or an empty list for what was not; `file` is
    --config, `job` the name of a job. Raises UsageError, which says where a bad value came from and repeats none
    that is secret.
    """
    path = _find_file(file, environ)
    found: dict[str, Setting] = {}
    for known in KNOWN.values():
        if given := _given(known, flags, environ):
            found[known.name] = given
    tables = _tables(path, job, found.get("profile"))
    for known in KNOWN.values():
        if known.name not in found:
            table = next((table for table in tables if known.name in table.values), None)
            origin, value = (table.origin, table.values[known.name]) if table else (Origin("default"), known.default)
            found[known.name] = Setting(known.name, value, origin, known.secret)
    ordered = {name: found[name] for name in KNOWN}
    return Settings(ordered, str(path) if path else None, _strays(environ))


def _given(known: Known, flags: Mapping[str, object], environ: Mapping[str, str]) -> Setting | None:
    """Read what a flag or a variable says, None where neither is given."""
    flag = flags.get(known.name)
    if flag is not None and flag != []:
        name = f"--no-{known.name.replace('_', '-')}" if flag is False else known.flag
        origin, text = Origin("flag", name), flag
    elif environ.get(known.variable):
        origin, text = Origin("environment", known.variable), environ[known.variable]
    else:
        return None
    try:
        value: Value = of_flag(known, text)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{known.name} from {origin}: {error}", hint=way_out(known)) from None
    return Setting(known.name, value, origin, known.secret)


def _tables(path: Path | None, job: str | None, profile: Setting | None) -> list[Table]:
    """Return the tables of the TOML file that hold, the strongest first."""
    if path is None:
        for what, name in (("job", job), ("profile", profile and profile.value)):
            if name is not None:
                raise UsageError(
                    f"there is no TOML file that could hold {what} {name!r}",
                    hint=f"--config names one; {', '.join(map(str, _FILES))} are looked for.",
                )
        return []
    file = toml_file.read(path)
    tables: list[Table] = []
    if job is not None:
        tables.append(file.table("job", job, "the command line"))
    if profile is not None:
        tables.append(file.table("profile", str(profile.value), str(profile.origin)))
    elif tables and (named := tables[0].values.get("profile")):
        tables.append(file.table("profile", str(named), str(tables[0].origin)))
    return [*tables, file.top]


def secrets(settings: Settings | None, environ: Mapping[str, str]) -> frozenset[str]:
    """Name everything that must not be repeated in a message, as far as it is known by now."""
    found = {value for name, value in environ.items() if value and _SECRET_VARIABLE.search(name)}
    found |= {value.strip() for value in found} - {""}
    texts = [value for name, value in environ.items() if "://" in value or _DSN_VARIABLE.search(name)]
    if settings is not None:
        values = [one for one in settings.all.values() if one.value is not None]
        texts += [str(one.value) for one in values if one.secret or "://" in str(one.value)]
        found |= http_secrets(settings.text("ping_url") or "")
    found |= http_secrets(environ.get("ZBACKUP_PING_URL", ""))
    found |= {piece for name, value in environ.items() if _HEADERS.search(name) for piece in header_secrets(value)}
    files = [environ.get("ZBACKUP_MASTERKEY_FILE"), settings.text("masterkey_file") if settings else None]
    found |= {file for file in files if file and may_be_masterkey(file)}
    # A password that is also a user's name gives nothing away where that name is printed.
    found -= {value for name, value in environ.items() if _PLAIN_VARIABLE.search(name)}
    return frozenset(found.union(*map(dsn.secrets, texts)))


_SECRET_VARIABLE = re.compile(
    r"^PG(SSL)?PASSWORD$|^AWS_(SECRET_ACCESS_KEY|SESSION_TOKEN)$"
    r"|^ZITADEL_(.*(PASSWORD|SECRET)|MASTERKEY)$|^ZBACKUP_MASTERKEY$"
)
# OpenTelemetry's headers, KEY=VALUE with commas between, which hold the collector's keys.
_HEADERS = re.compile(r"^OTEL_EXPORTER_OTLP_(\w+_)?HEADERS$")
_PLAIN_VARIABLE = re.compile(r"^PG(USER|HOST|DATABASE)$|^ZITADEL_DATABASE_.*(USERNAME|HOST|DATABASE)$")
_DSN_VARIABLE = re.compile(r"^ZBACKUP_(SOURCE|TARGET|FENCE)$|^ZITADEL_.*DSN$")


@dataclass(frozen=True, slots=True)
class Masterkey:
    value: bytes = field(repr=False)
    place: str
    """the file or variable that holds it"""
    newline: bool
    """one follows it there"""


def masterkey(settings: Settings, environ: Mapping[str, str]) -> Masterkey | None:
    """
    Read the masterkey: from masterkey_file, else from ZITADEL_MASTERKEY; None when neither is given.

    One newline after the 32 bytes is left out. Raises UsageError, which repeats nothing of what was read.
    """
    setting = settings["masterkey_file"]
    if setting.value is not None:
        place = str(setting.value)
        raw = _masterkey_file(place, setting.origin)
    elif environ.get("ZITADEL_MASTERKEY"):
        place, raw = "ZITADEL_MASTERKEY", os.fsencode(environ["ZITADEL_MASTERKEY"])
    else:
        return None
    value = raw
    if len(raw) != MASTERKEY_BYTES and raw.endswith(b"\n"):
        value = raw.removesuffix(b"\n").removesuffix(b"\r")
    if len(value) != MASTERKEY_BYTES:
        length = f"more than {_MASTERKEY_FILE_BYTES}" if len(raw) > _MASTERKEY_FILE_BYTES else f"{len(raw)}"
        raise UsageError(
            f"the masterkey in {place} has {length} bytes, not {MASTERKEY_BYTES}",
            hint="ZITADEL takes exactly 32 bytes. Look for quotes, spaces or newlines around it, or another encoding.",
        )
    return Masterkey(value, place, newline=value != raw)


def may_be_masterkey(text: str) -> bool:
    """Whether a text that should name a file may be the key itself, which is not to be repeated then."""
    return len(os.fsencode(text)) == MASTERKEY_BYTES and not os.path.exists(text)  # noqa: PTH110  raises nothing


def _masterkey_file(path: str, origin: Origin) -> bytes:
    try:
        if not path:
            raise ValueError("it is empty")
        with Path(path).open("rb") as file:
            return file.read(_MASTERKEY_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        shown = "a name of 32 bytes, not repeated as it may be the key" if may_be_masterkey(path) else path
        raise UsageError(
            f"masterkey_file from {origin}: {shown}{': ' if path else ''}{reason}",
            hint="Name a file that holds the masterkey, or set ZITADEL_MASTERKEY; the key itself is no argument.",
        ) from None


def _find_file(file: str | None, environ: Mapping[str, str]) -> Path | None:
    named = file or environ.get("ZBACKUP_CONFIG")
    if named:
        return Path(named)
    for path in _FILES:
        try:
            path = path.expanduser()  # noqa: PLW2901
        except RuntimeError:  # no home
            continue
        if path.is_file():
            return path
    return None


def _strays(environ: Mapping[str, str]) -> tuple[str, ...]:
    ours = [*(known.variable for known in KNOWN.values()), *OTHER_VARIABLES]
    strange = (name for name in sorted(environ) if name.startswith("ZBACKUP_") and name not in ours)
    return tuple(
        f"variable {name} is not known; did you mean {near[0]}?"
        for name in strange
        if (near := get_close_matches(name, ours, n=1, cutoff=0.85))
    )
